//! `shipfs rmi`.

use shipfs_image::{control::Request, reference::Reference};

use crate::{context::Context, report::Outcome};

/// Remove images from the list
///
/// A NAME removes that name, a CID every name of that image. The bytes go with the next `shipfs gc`, unless another image
/// needs them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The images: NAMEs, CIDs or digests
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<Reference>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Remove { images: args.images }).await?;
    context.show(&reply)
}
