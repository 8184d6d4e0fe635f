//! `shipfs version`.

use crate::{context::Context, report::Outcome};

/// Show the version of this program
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args, context: &Context) -> Outcome {
    context.version()
}
