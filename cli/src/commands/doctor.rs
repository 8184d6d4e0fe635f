//! `shipfs doctor`.

use shipfs_image::control::{FailureKind, Reply, Request};

use crate::{
    context::Context,
    report::{self, Outcome},
};

/// Check whether this node can do its work, and say what to do where it cannot
///
/// Looks at the repository and its keys, the ports, interfaces and mDNS of this host, and the peers that are named; then
/// a second, temporary node fetches a block from this one. With `--offline` no socket is opened. Exits with 1 when
/// something does not work.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Outcome {
    let reply = match context.call(Request::Doctor).await {
        // Not to be opened: that is what is found.
        Err(failure) if matches!(failure.kind, FailureKind::Repository | FailureKind::Full | FailureKind::Holder) => {
            context.show_without_repository(&failure)?;
            return Err(report::unwell(1));
        }
        reply => reply?,
    };
    context.show(&reply)?;
    match &reply {
        Reply::Doctor(doctor) => report::examined(doctor),
        _ => Ok(()),
    }
}
