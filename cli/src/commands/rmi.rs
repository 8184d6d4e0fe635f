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

    /// Taken for other programs' sake: a container that uses an image keeps what it needs in any case
    #[arg(short, long, hide_short_help = true)]
    force: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Remove { images: args.images }).await?;
    context.show(&reply)
}
