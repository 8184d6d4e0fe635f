//! `shipfs daemon`.

use super::registry::Reading;
use crate::{context::Context, report::Outcome};

/// Serve what is in the repository until told to stop
///
/// Says so in one line when it is ready (and tells systemd, if that started it). Other `shipfs` commands on the same
/// repository work through it. Ends cleanly on SIGTERM and Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Answer the clients of registries here, too, as `shipfs registry serve` does: `localhost:5050` for instance
    #[arg(long, value_name = "HOST:PORT")]
    listen_registry: Option<String>,

    #[command(flatten)]
    reading: Reading,
}

const EXAMPLES: &str = "\
Examples:
  shipfs daemon
  shipfs daemon --listen-registry localhost:5050
  shipfs daemon --network private --listen /ip4/0.0.0.0/tcp/4001 --peer /ip4/203.0.113.5/tcp/4001";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let Args { listen_registry, reading } = args;
    context.daemon(listen_registry.map(|listen| reading.into_request(listen))).await
}
