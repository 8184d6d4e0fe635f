//! The verbs: one file each, with its arguments (doc comment = help) and `run`, which calls the library and shows the
//! result. Nothing is decided here.

mod completion;
mod config;
mod daemon;
mod doctor;
mod gc;
mod id;
mod images;
mod inspect;
mod key;
mod load;
mod parse;
mod peers;
mod pull;
mod push;
mod rmi;
mod save;
mod tag;
mod verify;
mod version;
mod why;

use clap::Subcommand;

use crate::{context::Context, report::Outcome};

/// A verb with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Push(push::Args),
    Pull(pull::Args),
    Images(images::Args),
    Inspect(inspect::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Save(save::Args),
    Load(load::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Daemon(daemon::Args),
    Id(id::Args),
    Peers(peers::Args),
    Why(why::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Key(key::Args),
    Version(version::Args),
    Completion(completion::Args),
}

impl Command {
    /// Whether the repository's settings matter.
    pub(crate) fn needs_settings(&self) -> bool {
        !matches!(self, Self::Key(_) | Self::Version(_) | Self::Completion(_))
    }
}

/// Carries a verb out.
pub(crate) async fn run(command: Command, context: &mut Context) -> Outcome {
    match command {
        Command::Push(args) => push::run(args, context).await,
        Command::Pull(args) => pull::run(args, context).await,
        Command::Images(args) => images::run(args, context).await,
        Command::Inspect(args) => inspect::run(args, context).await,
        Command::Tag(args) => tag::run(args, context).await,
        Command::Rmi(args) => rmi::run(args, context).await,
        Command::Save(args) => save::run(args, context).await,
        Command::Load(args) => load::run(args, context).await,
        Command::Gc(args) => gc::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Daemon(args) => daemon::run(args, context).await,
        Command::Id(args) => id::run(args, context).await,
        Command::Peers(args) => peers::run(args, context).await,
        Command::Why(args) => why::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Version(args) => version::run(args, context),
        Command::Completion(args) => completion::run(args, context),
    }
}
