//! `shipfs commit`.

use clap::{ArgAction, ValueEnum};
use shipfs_image::{
    commit::change,
    control::{Commit, Request},
};

use super::{container, parse};
use crate::{context::Context, report::Outcome};

/// Make an image of a container, and print its CID
///
/// What the container changed becomes a layer on top of those of its image; volumes and other mounts are left out. What it
/// was told (command, environment, user, directory) becomes what the image says. Needs root: what a user's containers
/// changed cannot all be read from outside of them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The container: a name, an identifier or its beginning
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// What to call the image in the repository
    #[arg(value_name = "NAME[:TAG]", value_parser = parse::name)]
    name: Option<String>,

    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,

    /// Why it was made
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Change what the image says: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR; may be repeated
    #[arg(short, long = "change", value_name = "INSTRUCTION", value_parser = instruction, action = ArgAction::Append)]
    changes: Vec<String>,

    /// How to compress its layer
    #[arg(long, value_enum, value_name = "WAY", default_value = "gzip")]
    compression: Compression,

    /// Whether the container stands still meanwhile
    #[arg(
        short, long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true"
    )]
    pause: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    None,
}

const EXAMPLES: &str = "\
Examples:
  shipfs commit web web:fixed
  shipfs commit -m 'with curl' -c 'CMD [\"curl\"]' -c 'ENV LANG=C' web
  shipfs push ipfs://web:fixed";

/// An instruction that can be understood.
fn instruction(text: &str) -> Result<String, String> {
    change(&mut serde_json::Map::new(), text).map_err(|error| error.problem.to_owned())?;
    Ok(text.to_owned())
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let found = container::containers(context)?.find(&args.container).map_err(|error| error.failure())?;
    let commit = Commit {
        container: found.id,
        name: args.name,
        author: args.author,
        message: args.message,
        changes: args.changes,
        uncompressed: args.compression == Compression::None,
        unpaused: !args.pause,
    };
    let reply = context.call(Request::Commit(commit)).await?;
    context.show(&reply)
}
