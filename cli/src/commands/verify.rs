//! `shipfs verify`.

use shipfs_image::control::{Reply, Request};

use crate::{
    context::Context,
    report::{self, Outcome},
};

/// Hash everything in the repository and say what is damaged
///
/// Exits with 1 when something is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Move damaged files out of the way, so that the next pull fetches them anew
    #[arg(long)]
    repair: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Verify { repair: args.repair }).await?;
    context.show(&reply)?;
    match &reply {
        Reply::Verified(verified) => report::verified(verified),
        _ => Ok(()),
    }
}
