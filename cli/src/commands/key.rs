//! `shipfs key`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{context::Context, report::Outcome};

/// Manage the key of a private network
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new swarm key, in the form Kubo uses
    ///
    /// Nodes with the same `swarm.key` form a private network, and nobody else gets in. Copy the file to the repository of
    /// each host; keep it secret.
    #[command(
        after_help = "Examples:\n  shipfs key gen\n  shipfs key gen --output - | ssh host 'umask 077; cat > .local/share/shipfs/swarm.key'"
    )]
    Gen {
        /// Write it here; `-` is stdout [default: swarm.key in the repository]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.verb {
        Verb::Gen { output } => context.generate_key(output),
    }
}
