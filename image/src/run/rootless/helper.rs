//! How a process that is not root has work done in a user namespace: another process for each piece of it.
//!
//! Imports its siblings, and the link to the other process. Everything blocks. Dropping a piece of work ends it, and what it
//! had not finished goes.

use std::{
    io::{self, Read},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};

use super::{
    NamespaceError,
    process::{JOIN, READ, SELF, VERB, WORK},
};
use crate::{
    control::{Failure, FailureKind},
    layer::Applied,
    oci::Digest,
    run::{rootfs::MAX_FILE_BYTES, wire::Link},
};

/// The program that works in user namespaces: it calls [`serve`](super::process::serve) when told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    program: PathBuf,
}

/// What became of a layer, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// What could not be kept of it, the first few.
    pub(crate) warnings: Vec<String>,
    /// How many more there were.
    pub(crate) more: u64,
}

/// What is to be done inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Unpack the layer that comes through the pipe beside it, into a folder of layers. [`Work::Name`] follows.
    Unpack {
        /// The folder.
        folder: PathBuf,
        /// What it is packed as.
        media_type: String,
        /// What it must turn out to be.
        diff: Digest,
    },
    /// Give what was unpacked its name.
    Name {
        /// The name.
        chain: String,
        /// The layers it lies on, lowest first.
        below: Vec<String>,
    },
    /// Remove a layer.
    RemoveLayer {
        /// The folder of layers.
        folder: PathBuf,
        /// The layer's name.
        chain: String,
    },
    /// Remove what killed processes left in a folder of layers.
    Tidy {
        /// The folder.
        folder: PathBuf,
    },
    /// Remove a directory with all that is in it.
    RemoveTree {
        /// The directory.
        path: PathBuf,
    },
}

/// What the process inside answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The layer is unpacked.
    Unpacked,
    /// The layer has its name.
    Named(Unpacked),
    /// It is removed.
    Removed {
        /// Bytes that are free now.
        bytes: u64,
    },
    /// It was not done.
    Failed(Failure),
}

/// A layer that was unpacked inside, and has no name yet.
#[derive(Debug)]
pub(crate) struct Unnamed(Inside);

impl Helper {
    /// That `program` is one.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// That the program of this process is one.
    pub fn this_program() -> Self {
        Self::new(SELF.into())
    }

    /// A command that runs inside of the user namespace of a process.
    pub(crate) fn joining(&self, process: u32, program: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args([VERB, JOIN, &process.to_string()]).arg(program);
        command
    }

    /// Reads a file of names in the root of a process, as its own namespace sees it.
    pub(crate) fn read_in_root(&self, process: u32, path: &str) -> io::Result<Vec<u8>> {
        let mut command = self.joining(process, Path::new(SELF));
        command.args([VERB, READ, &process.to_string(), path]).env_clear();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut bytes = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        }
        if child.wait()?.success() { Ok(bytes) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Unpacks a layer inside.
    pub(crate) fn unpack(
        &self,
        mut blob: impl Read + Send,
        folder: &Path,
        media_type: &str,
        diff: &Digest,
    ) -> Result<Unnamed, Failure> {
        let mut inside = self.start().map_err(|error| failure(&error))?;
        let (read, write) = io::pipe().map_err(|source| failure(&lost(source)))?;
        let work = Work::Unpack { folder: folder.to_owned(), media_type: media_type.to_owned(), diff: diff.clone() };
        inside.link.send(&work, &[read.as_fd()]).map_err(|source| failure(&lost(source)))?;
        drop(read);
        // Whoever refuses the layer reads no further, and tells why.
        let copied = io::copy(&mut blob, &mut { write });
        match (inside.answer(), copied) {
            (Ok(Answer::Unpacked), _) => Ok(Unnamed(inside)),
            (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(failure(&NamespaceError::Process { action: "hand the layer to", source: error }))
            }
            (answer, _) => Err(unexpected(answer)),
        }
    }

    /// Does a piece of work inside that is one question and one answer; gives the bytes that are free now.
    pub(crate) fn remove(&self, work: &Work) -> Result<u64, Failure> {
        let mut inside = self.start().map_err(|error| failure(&error))?;
        inside.link.send(work, &[]).map_err(|source| failure(&lost(source)))?;
        match inside.answer() {
            Ok(Answer::Removed { bytes }) => Ok(bytes),
            answer => Err(unexpected(answer)),
        }
    }

    fn start(&self) -> Result<Inside, NamespaceError> {
        let failed = |source| NamespaceError::Process { action: "start", source };
        let (link, theirs) = Link::pair().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args([VERB, WORK]).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        Ok(Inside { link, child })
    }
}

impl Unnamed {
    /// Gives it its name.
    pub(crate) fn name(mut self, chain: &str, below: &[String]) -> Result<Unpacked, Failure> {
        let work = Work::Name { chain: chain.to_owned(), below: below.to_vec() };
        self.0.link.send(&work, &[]).map_err(|source| failure(&lost(source)))?;
        match self.0.answer() {
            Ok(Answer::Named(unpacked)) => Ok(unpacked),
            answer => Err(unexpected(answer)),
        }
    }
}

impl From<Applied> for Unpacked {
    fn from(applied: Applied) -> Self {
        let first = applied.warnings.first;
        let more = applied.warnings.count.saturating_sub(first.len() as u64);
        Self { warnings: first.iter().map(ToString::to_string).collect(), more }
    }
}

/// A process that works inside. It ends when this is dropped, and takes away what it had not finished.
#[derive(Debug)]
struct Inside {
    link: Link,
    child: Child,
}

impl Inside {
    fn answer(&mut self) -> Result<Answer, Failure> {
        match self.link.receive() {
            Ok(Some((Answer::Failed(failure), _))) => Err(failure),
            Ok(Some((answer, _))) => Ok(answer),
            Ok(None) => Err(failure(&lost(io::ErrorKind::UnexpectedEof.into()))),
            Err(source) => Err(failure(&lost(source))),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.link.close();
        // It sees that its other end is gone.
        let _ = self.child.wait();
    }
}

fn lost(source: io::Error) -> NamespaceError {
    NamespaceError::Process { action: "hear from", source }
}

fn unexpected(answer: Result<Answer, Failure>) -> Failure {
    match answer {
        Err(failure) => failure,
        Ok(_) => failure(&lost(io::ErrorKind::InvalidData.into())),
    }
}

/// What a user is told about a namespace that is not to be had.
pub(crate) fn failure(error: &NamespaceError) -> Failure {
    Failure::from_error(FailureKind::Other, error).hint(error.hint())
}
