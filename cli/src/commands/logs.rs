//! `shipfs logs`.

use shipfs_image::{
    control::{Failure, FailureKind},
    run::{
        lifecycle,
        log::{FOLLOW_PACE, LogReader, Stream},
    },
};

use super::container;
use crate::{context::Context, report::Outcome};

/// Print what a container printed that was started with `run --detach`
///
/// The last 10 to 20 MB are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,

    /// The container: its name, its identifier or the beginning of that
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let container = container::containers(context)?.find(&args.container).map_err(|error| error.failure())?;
    let mut reader = LogReader::open(&container);
    loop {
        // Looked at first: what was printed before it ended is there by then.
        let is_running = lifecycle::is_running(&container);
        loop {
            let piece = reader.next_piece().map_err(|error| {
                Failure::from_error(FailureKind::Repository, &error)
                    .while_doing("cannot read what the container printed")
            })?;
            match piece {
                Some((Stream::Output, bytes)) => context.output().data(&bytes)?,
                Some((Stream::Error, bytes)) => context.output().error_data(&bytes),
                None => break,
            }
        }
        if !args.follow || !is_running {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PACE).await;
    }
}
