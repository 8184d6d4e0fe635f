//! `shipfs login`.

use shipfs_image::{
    control::{Failure, FailureKind},
    registry_client::{self, Login},
};

use super::parse;
use crate::{context::Context, report::Outcome, secret};

/// Log in to a registry
///
/// The registry is asked whether it takes the password; then it is kept where Docker keeps it, or with the credential helper
/// that Docker is set up with, so that every tool which reads its file has it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  shipfs login registry.example\n  pass registry | shipfs login -u me --password-stdin registry.example"
)]
pub(crate) struct Args {
    /// The registry, with its port if it has one
    #[arg(value_name = "REGISTRY", default_value = "docker.io", value_parser = parse::registry)]
    registry: String,

    /// Your name there [default: asked for]
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Read the password from stdin [default: asked for]
    #[arg(long, requires = "username")]
    password_stdin: bool,

    /// Speak plain HTTP with it, as with registries on localhost
    #[arg(long)]
    plain_http: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::from_error(FailureKind::Usage, &error)
            .while_doing("cannot ask for a password")
            .hint("give it with --username NAME --password-stdin")
    };
    let (name, password) = if args.password_stdin {
        (args.username.unwrap_or_default(), secret::from_stdin().map_err(failed)?)
    } else {
        let name = match args.username {
            Some(name) => name,
            None => secret::ask_name().await.map_err(failed)?,
        };
        (name, secret::ask_password().await.map_err(failed)?)
    };
    if name.is_empty() || name.contains(':') || password.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "a name without a colon and a password are needed"));
    }
    let mut services = context.services().clone();
    services.registries.plain_http = args.plain_http;
    let login = Login { domain: args.registry, name, password };
    let entered = registry_client::log_in(&login, &services.registries, &services.programs).await;
    entered.map_err(|error| Failure::explained(&error))?;
    context.say(&format!("logged in to {}", login.domain));
    Ok(())
}
