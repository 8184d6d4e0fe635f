//! `shipfs stop`.

use std::time::Duration;

use shipfs_image::run::lifecycle;

use super::container;
use crate::{context::Context, report::Outcome};

/// Ask containers to end, and end those that do not
///
/// The command gets the signal that its image names, or SIGTERM, and SIGKILL when it still runs some seconds later.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to wait
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,

    /// The containers: names, identifiers or their beginnings
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let patience = Duration::from_secs(u64::from(args.time));
    let found = container::named(context, &args.containers)?;
    for (container, name) in found.into_iter().zip(args.containers) {
        let stopped = container::blocking(move || lifecycle::stop(&container, patience)).await;
        stopped.map_err(|error| error.failure())?;
        context.show_bytes(format!("{name}\n").as_bytes())?;
    }
    Ok(())
}
