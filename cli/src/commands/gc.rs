//! `shipfs gc`.

use shipfs_image::control::Request;

use crate::{context::Context, report::Outcome};

/// Free the space of everything that no image, pin or running command needs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Gc).await?;
    context.show(&reply)
}
