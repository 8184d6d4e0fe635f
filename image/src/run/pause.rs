//! A container that stands still for a moment, while its files are read.
//!
//! Imports its siblings. Who pauses one holds a lock on the file `paused` in its directory, and resumes it when the value is
//! dropped; whoever was killed before that is found out by the next command that deals with containers.

use std::{fs::File, io};

use rustix::fs::FlockOperation;

use super::{
    RunError,
    runtime::{self, Runtime},
    state::{Container, State, Status},
};

/// The file that says that a container was paused here.
const PAUSED: &str = "paused";

/// A container that is paused until this is dropped.
#[derive(Debug)]
pub(crate) struct Paused {
    container: Container,
    runtime: Runtime,
    // Closed after the container goes on.
    _lock: File,
}

impl Paused {
    /// Pauses a container, after others who did are done. Blocks. `None` when nothing runs in it.
    ///
    /// # Errors
    /// [`RunError::Pause`], or what the disk says.
    pub(crate) fn new(container: &Container) -> Result<Option<Self>, RunError> {
        let State { status: Status::Running, runtime: Some(program), .. } = container.state()? else { return Ok(None) };
        let failed = |error| container.failed(PAUSED, error);
        let lock = loop {
            let file = File::create(container.directory.join(PAUSED)).map_err(failed)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            // Whoever held it may have removed it.
            if is_there(container, &file).map_err(failed)? {
                break file;
            }
        };
        let runtime = Runtime::at(program);
        let paused = Self { container: container.clone(), runtime, _lock: lock };
        let action = "have the runtime pause a container";
        let output = paused.runtime.pause(&container.directory, &container.id);
        let output = output.map_err(|source| RunError::Process { action, source })?;
        if output.status.success() {
            return Ok(Some(paused));
        }
        if !super::lifecycle::is_running(container) {
            return Ok(None);
        }
        let text =
            runtime::complaint(&container.directory).unwrap_or_else(|| "the runtime does not say why".to_owned());
        Err(RunError::Pause { id: container.short(), text })
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = resume(&self.container, &self.runtime) {
            tracing::error!(%error, "a container stays paused");
        }
    }
}

/// Lets a container go on that was paused by a process which is gone.
pub(super) fn resume_forgotten(container: &Container) -> Result<(), RunError> {
    let failed = |error: io::Error| container.failed(PAUSED, error);
    let file = match File::open(container.directory.join(PAUSED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Somebody is at it.
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
        other => other.map_err(|error| failed(error.into()))?,
    }
    let Some(runtime) = container.state()?.runtime else { return Ok(()) };
    resume(container, &Runtime::at(runtime))
        .map_err(|source| RunError::Process { action: "let a container go on that was paused", source })
}

/// Also where it is not paused: the runtime's word on that is not needed.
fn resume(container: &Container, runtime: &Runtime) -> io::Result<()> {
    runtime.resume(&container.directory, &container.id)?;
    match std::fs::remove_file(container.directory.join(PAUSED)) {
        // It is gone with its container.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_there(container: &Container, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    match std::fs::metadata(container.directory.join(PAUSED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found?.ino() == file.metadata()?.ino()),
    }
}
