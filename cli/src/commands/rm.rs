//! `shipfs rm`.

use shipfs_image::run::lifecycle;

use super::container;
use crate::{context::Context, report::Outcome};

/// Remove containers that have ended
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End those that run
    #[arg(short, long)]
    force: bool,

    /// The containers: names, identifiers or their beginnings
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let found = container::named(context, &args.containers)?;
    for (container, name) in found.into_iter().zip(args.containers) {
        let removed = container::blocking(move || lifecycle::remove(&container, args.force)).await;
        removed.map_err(|error| error.failure())?;
        context.show_bytes(format!("{name}\n").as_bytes())?;
    }
    Ok(())
}
