//! `shipfs exec`.

use shipfs_image::{
    control::{Failure, FailureKind},
    run::exec::{self, ExecSettings},
};

use super::container;
use crate::{context::Context, report::Outcome, signals::WINDOW_CHANGED};

/// Run one more command in a container that runs
///
/// Exits as `shipfs run` does.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Give it what comes in on stdin
    #[arg(short, long)]
    interactive: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// Let it go on by itself
    #[arg(short, long)]
    detach: bool,

    /// Set a variable: `NAME=VALUE`, or `NAME` to take it from here; may be repeated
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,

    /// Run it in this directory of the container
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,

    /// Run it as this user: `USER[:GROUP]`, names of the image or numbers
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// The container: its name, its identifier or the beginning of that
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// What to run
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// What is exited with when the command was not run.
const NOT_RUN: u8 = 125;

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    context.exit_with(NOT_RUN);
    container::check_terminal(args.tty, args.interactive, args.detach)?;
    let settings = ExecSettings {
        command: args.command,
        environment: container::environment(&args.env)?,
        working_directory: args.workdir,
        user: args.user,
        terminal: args.tty,
        interactive: args.interactive,
        detached: args.detach,
    };
    let container = container::containers(context)?.find(&args.container).map_err(|error| error.failure())?;
    let mut signals = context.stop().pass_on().map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
    let streams = container::streams()?;
    let ended = async {
        let executing = container::blocking(move || exec::start(&container, &settings, streams)).await?;
        let to = executing.signals();
        let passing_on = tokio::spawn(async move {
            while let Some(number) = signals.recv().await {
                // A terminal tells everybody in front of it by itself, the runtime included.
                if number != WINDOW_CHANGED {
                    to.send(number);
                }
            }
        });
        let ended = container::blocking(move || executing.wait()).await;
        passing_on.abort();
        ended
    };
    match ended.await {
        Ok(code) => {
            context.exit_with(code);
            Ok(())
        }
        Err(error) => {
            context.exit_with(error.exit_code());
            Err(error.failure())
        }
    }
}
