//! `shipfs completion`.

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::aot::Shell;

use crate::{context::Context, report::Outcome};

/// Print a script that completes this command's words in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Choice,
}

/// The shells that are supported.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    Bash,
    Zsh,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
}

const EXAMPLES: &str = "\
Examples:
  shipfs completion bash > /etc/bash_completion.d/shipfs
  shipfs completion zsh > \"${fpath[1]}/_shipfs\"
  shipfs completion fish > ~/.config/fish/completions/shipfs.fish";

pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    let shell = match args.shell {
        Choice::Bash => Shell::Bash,
        Choice::Zsh => Shell::Zsh,
        Choice::Fish => Shell::Fish,
        Choice::PowerShell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::args::Args::command(), "shipfs", &mut script);
    context.show_bytes(&script)
}
