//! `shipfs id`.

use shipfs_image::control::Request;

use crate::{context::Context, report::Outcome};

/// Say who this node is: peer ID, network, addresses
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Id).await?;
    context.show(&reply)
}
