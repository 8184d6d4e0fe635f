//! `shipfs inspect`.

use shipfs_image::{control::Request, reference::Reference};

use crate::{context::Context, report::Outcome};

/// Show everything known about an image, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a NAME, a CID or a digest
    #[arg(value_name = "IMAGE")]
    image: Reference,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Inspect { image: args.image }).await?;
    context.show(&reply)
}
