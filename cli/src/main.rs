//! The `shipfs` command: reads arguments, has [`shipfs_image::control`] carry them out, shows what comes back.
//!
//! Nothing is decided here that another program could want; that lies in the libraries.

mod args;
mod commands;
mod config;
mod config_file;
mod context;
mod findings;
mod output;
mod progress;
mod report;
mod secret;
mod settings;
mod signals;
mod systemd;
mod tables;
mod text;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::read();
    context::run(args)
}
