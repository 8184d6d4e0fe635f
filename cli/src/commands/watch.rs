//! The hidden verb by which `run` starts the process that watches a container.

use std::process::ExitCode;

/// How it is called; nobody types it.
pub(super) const NAME: &str = "__watch";

/// Watch a container; only for `shipfs run` itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The whole life of that process. It has nobody to print to.
pub(crate) fn watch() -> ExitCode {
    match shipfs_image::run::watch::watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
