//! The hidden verb by which this program works in user namespaces.

use std::{ffi::OsString, process::ExitCode};

use shipfs_image::run::rootless::process::{VERB, serve};

/// How it is called; nobody types it.
pub(super) const NAME: &str = VERB;

/// Work in a user namespace; only for shipfs itself
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// The whole life of that process.
pub(crate) fn inside(args: &Args) -> ExitCode {
    serve(&args.words)
}
