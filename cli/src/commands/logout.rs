//! `shipfs logout`.

use shipfs_image::{
    control::{Failure, FailureKind},
    registry_client,
};

use super::parse;
use crate::{context::Context, report::Outcome};

/// Forget the password for a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The registry, with its port if it has one
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = parse::registry)]
    registry: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let services = context.services();
    let was_kept = registry_client::log_out(&args.registry, &services.registries, &services.programs)
        .map_err(|error| Failure::from_error(FailureKind::Place, &error))?;
    let told = if was_kept { "logged out of" } else { "nothing was kept for" };
    context.say(&format!("{told} {}", args.registry));
    Ok(())
}
