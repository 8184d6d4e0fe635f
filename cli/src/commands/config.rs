//! `shipfs config`.

use crate::{context::Context, report::Outcome};

/// Show which settings count, and where each comes from
///
/// An option counts before the environment, that before `config.toml` in the repository, that before the default. The
/// file is TOML; each setting is optional.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "\
Example of a config.toml:
  network = \"private\"                          # $SHIPFS_NETWORK: lan, private, offline
  listen = [\"/ip4/0.0.0.0/tcp/4001\"]           # $SHIPFS_LISTEN, separated by commas
  peers = [\"/ip4/192.0.2.7/tcp/4001\"]          # $SHIPFS_PEER, the same
  mdns = false                                 # $SHIPFS_MDNS
  timeout = \"1m\"                               # $SHIPFS_TIMEOUT";

pub(crate) fn run(_: Args, context: &Context) -> Outcome {
    context.settings()
}
