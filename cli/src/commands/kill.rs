//! `shipfs kill`.

use shipfs_image::run::{lifecycle, settings::parse_signal};

use super::container;
use crate::{context::Context, report::Outcome};

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: i32,

    /// The containers: names, identifiers or their beginnings
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

fn signal(text: &str) -> Result<i32, String> {
    parse_signal(text).map_err(|error| error.to_string())
}

pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let found = container::named(context, &args.containers)?;
    for (container, name) in found.into_iter().zip(args.containers) {
        let sent = container::blocking(move || lifecycle::kill(&container, args.signal)).await;
        sent.map_err(|error| error.failure())?;
        context.show_bytes(format!("{name}\n").as_bytes())?;
    }
    Ok(())
}
