//! `shipfs peers`.

use shipfs_image::control::Request;

use crate::{context::Context, report::Outcome};

/// List the peers that the running node is connected to
///
/// Enters no network by itself: without a running daemon, name peers with `--peer` to see whether they answer. RECEIVED
/// and SENT count the bytes of blocks; `--json` also counts all bytes of Bitswap.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Peers).await?;
    context.show(&reply)
}
