//! `shipfs images`.

use shipfs_image::control::Request;

use crate::{context::Context, report::Outcome};

/// List the images that are in the repository
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Images).await?;
    context.show(&reply)
}
