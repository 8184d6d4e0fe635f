//! The verbs: one file each, with its arguments (doc comment = help) and `run`, which calls the library and shows the
//! result. Nothing is decided here.

mod build;
mod commit;
mod completion;
mod config;
mod container;
mod cp;
mod daemon;
mod doctor;
mod exec;
mod folder;
mod gc;
mod id;
mod image;
mod images;
mod inside;
mod inspect;
mod key;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod parse;
mod peers;
mod ps;
mod pull;
mod push;
mod registry;
mod registry_process;
mod rm;
mod rmi;
mod run;
mod run_containerd;
mod save;
mod stop;
mod tag;
mod verify;
mod version;
mod watch;
mod why;

use clap::Subcommand;

use crate::{context::Context, report::Outcome};

pub(crate) use self::{inside::inside, watch::watch};

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
    Cp(cp::Args),
    Image(image::Args),
    Login(login::Args),
    Logout(logout::Args),
    Run(Box<run::Args>),
    Ps(ps::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    Stop(stop::Args),
    Kill(kill::Args),
    Rm(rm::Args),
    Commit(commit::Args),
    Build(build::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Daemon(daemon::Args),
    Registry(registry::Args),
    #[command(hide = true)]
    Ipfs(registry::IpfsArgs),
    Id(id::Args),
    Peers(peers::Args),
    Why(why::Args),
    Doctor(doctor::Args),
    Config(config::Args),
    Key(key::Args),
    Version(version::Args),
    Completion(completion::Args),
    #[command(name = watch::NAME, hide = true)]
    Watch(watch::Args),
    #[command(name = inside::NAME, hide = true)]
    Inside(inside::Args),
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
        Command::Run(args) => run::run(*args, context).await,
        Command::Ps(args) => ps::run(args, context),
        Command::Logs(args) => logs::run(args, context).await,
        Command::Exec(args) => exec::run(args, context).await,
        Command::Stop(args) => stop::run(args, context).await,
        Command::Kill(args) => kill::run(args, context).await,
        Command::Rm(args) => rm::run(args, context).await,
        Command::Commit(args) => commit::run(args, context).await,
        Command::Cp(args) => cp::run(args, context).await,
        Command::Image(args) => image::run(args, context).await,
        Command::Login(args) => login::run(args, context).await,
        Command::Logout(args) => logout::run(&args, context),
        Command::Build(args) => build::run(args, context).await,
        Command::Gc(args) => gc::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Daemon(args) => daemon::run(args, context).await,
        Command::Registry(args) => registry::run(args, context).await,
        Command::Ipfs(args) => registry::run_ipfs(args, context).await,
        Command::Id(args) => id::run(args, context).await,
        Command::Peers(args) => peers::run(args, context).await,
        Command::Why(args) => why::run(args, context).await,
        Command::Doctor(args) => doctor::run(args, context).await,
        Command::Config(args) => config::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Version(args) => version::run(args, context),
        Command::Completion(args) => completion::run(args, context),
        // They have no session, and were dealt with before there was one.
        Command::Watch(_) | Command::Inside(_) => Ok(()),
    }
}
