//! `shipfs tag`.

use shipfs_image::{control::Request, reference::Reference};

use super::parse;
use crate::{context::Context, report::Outcome};

/// Give an image one more name
///
/// A name that another image had means this one from then on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a NAME, a CID or a digest
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Its new name
    #[arg(value_name = "NAME[:TAG]", value_parser = parse::name)]
    name: String,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Tag { image: args.image, name: args.name }).await?;
    context.show(&reply)
}
