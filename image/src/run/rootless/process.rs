//! The hidden verb by which this program is started again to work in a user namespace, or beside one.
//!
//! Imports its siblings. A program that uses this library as another user than root calls [`serve`] when its first word is
//! [`VERB`], before it starts any thread.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
};

use rustix::{process::Signal, thread::LinkNameSpaceType};

use super::{enter::map_for, worker};
use crate::run::rootfs::{Rootfs, root_of};

/// The verb; nobody types it.
pub const VERB: &str = "__inside";
/// This program, whatever became of its file.
pub(crate) const SELF: &str = "/proc/self/exe";
/// Maps the ids of the process that follows.
pub(super) const MAP: &str = "map";
/// Enters a new namespace and works there, as it is told on its standard input.
pub(super) const WORK: &str = "work";
/// Joins the user namespace of the process that follows and becomes the program after it.
pub(super) const JOIN: &str = "join";
/// Prints a file that lies in the root of the process that follows.
pub(super) const READ: &str = "read";
/// Becomes the program that follows, and ends when whoever started it does.
pub(crate) const BOUND: &str = "bound";

/// The whole life of such a process; `words` are those after the verb.
pub fn serve(words: &[OsString]) -> ExitCode {
    let done = match words {
        [what, parent] if what == MAP => map_for(&parent.to_string_lossy()).inspect_err(|error| {
            // Read by whoever started this.
            let _ = io::Write::write_all(&mut io::stdout(), error.to_string().as_bytes());
        }),
        [what] if what == WORK => worker::work(),
        [what, process, program, arguments @ ..] if what == JOIN => join(process, program, arguments),
        [what, process, path] if what == READ => read(&process.to_string_lossy(), &path.to_string_lossy()),
        [what, program, arguments @ ..] if what == BOUND => bound(program, arguments),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns only when it fails.
fn join(process: &OsStr, program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{}/ns/user", process.to_string_lossy()))?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    Err(Command::new(program).args(arguments).exec())
}

fn read(process: &str, path: &str) -> io::Result<()> {
    let process = process.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let bytes = Rootfs::open(Path::new(&root_of(process)))?.read(path)?;
    io::Write::write_all(&mut io::stdout(), &bytes)
}

/// Returns only when it fails.
fn bound(program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != parent {
        // It is gone already.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Err(Command::new(program).args(arguments).exec())
}
