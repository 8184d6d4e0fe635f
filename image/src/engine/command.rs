//! podman, and buildah, by their commands: they share one storage and need no service.
//!
//! Imports its parent and [`programs`](crate::programs). Names were checked by whoever made them: none begins with a dash.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{EngineError, Held, Loading};
use crate::{
    oci::Digest,
    programs::{Ended, Programs},
    reference::Name,
};

/// Longest that a question may take which moves no image: podman locks its storage while another one writes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most that an answer to such a question may have, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Most of what a program complains about that is kept, in bytes.
const MAX_COMPLAINT_BYTES: u64 = 4 << 10;
/// Longest complaint that is told, in letters.
const MAX_TOLD: usize = 300;

/// podman or buildah.
#[derive(Debug)]
pub(crate) struct Command {
    program: PathBuf,
    is_podman: bool,
    programs: Programs,
}

impl Command {
    /// The program that is there; podman rather than buildah.
    pub(super) fn find(programs: &Programs) -> Option<Self> {
        let found = ["podman", "buildah"].into_iter().find_map(|name| Some((name, programs.find(name)?)));
        found.map(|(name, program)| Self { program, is_podman: name == "podman", programs: programs.clone() })
    }

    pub(super) fn title(&self) -> &'static str {
        if self.is_podman { "podman" } else { "buildah" }
    }

    fn failed(&self, source: io::Error) -> EngineError {
        EngineError::Run { program: self.program.clone(), source }
    }

    fn refused(&self, what: &'static str, said: &str) -> EngineError {
        EngineError::Refused { engine: self.title(), what, said: said.trim().chars().take(MAX_TOLD).collect() }
    }

    pub(super) fn has(&self, image: &str) -> Result<bool, EngineError> {
        let arguments: &[&str] = if self.is_podman {
            &["image", "exists", image]
        } else {
            &["inspect", "--type", "image", "-f", "x", image]
        };
        let done = self.programs.run(&self.program, arguments, b"", MAX_ANSWER_BYTES, PATIENCE);
        Ok(done.map_err(|source| self.failed(source))?.success)
    }

    pub(super) fn held(&self, image: &str) -> Result<Option<Held>, EngineError> {
        if !self.has(image)? {
            return Ok(None);
        }
        if !self.is_podman {
            return Ok(Some(Held::default()));
        }
        let form = r#"{"Id":{{json .Id}},"RootFS":{{json .RootFS}}}"#;
        let arguments = ["image", "inspect", "--format", form, image];
        let done = self.programs.run(&self.program, &arguments, b"", MAX_ANSWER_BYTES, PATIENCE);
        Ok(Some(Held::parse(&done.map_err(|source| self.failed(source))?.output)))
    }

    pub(super) fn tag(&self, id: &Digest, name: &Name) -> Result<(), EngineError> {
        let (id, name) = (id.hex(), name.without_digest().to_string());
        let done = self.programs.run(&self.program, &["tag", &id, &name], b"", MAX_ANSWER_BYTES, PATIENCE);
        match done.map_err(|source| self.failed(source))?.success {
            true => Ok(()),
            false => Err(self.refused("name an image", "")),
        }
    }

    pub(super) fn export(&self, image: &str) -> Result<Box<dyn Read + Send>, EngineError> {
        let mut command = self.programs.command(&self.program);
        if self.is_podman {
            command.args(["save", "--quiet", "--format", "docker-archive", image]);
        } else {
            command.args(["push", "--quiet", image, &format!("docker-archive:/dev/stdout:{image}")]);
        }
        let mut child =
            Ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| self.failed(error))?);
        let complaint = listen(child.0.stderr.take());
        let stdout = child.0.stdout.take().ok_or_else(|| self.failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Box::new(Output { child, stdout, complaint: Some(complaint), program: self.program.clone() }))
    }

    pub(super) fn load(&self) -> Result<Loading, EngineError> {
        let mut command = self.programs.command(&self.program);
        if self.is_podman {
            command.args(["load", "--quiet"]);
        } else {
            command.args(["pull", "--quiet", "docker-archive:/dev/stdin"]);
        }
        let mut child =
            Ended(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| self.failed(error))?);
        let complaint = listen(child.0.stderr.take());
        let stdin = child.0.stdin.take().ok_or_else(|| self.failed(io::ErrorKind::BrokenPipe.into()))?;
        let (engine, program) = (self.title(), self.program.clone());
        let verdict = move || {
            let mut child = child;
            let status = child.0.wait().map_err(|source| EngineError::Run { program, source })?;
            let said: String = complaint.join().unwrap_or_default().trim().chars().take(MAX_TOLD).collect();
            if status.success() { Ok(()) } else { Err(EngineError::Refused { engine, what: "take an image", said }) }
        };
        Ok(Loading { archive: Box::new(Input(stdin)), verdict: Box::new(verdict) })
    }
}

/// Reads what a program complains about, so that it never waits for a reader, and keeps the beginning.
fn listen(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stream) = stream {
            // What cannot be read is not told.
            let _ = (&mut stream).take(MAX_COMPLAINT_BYTES).read_to_end(&mut text);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// What a program writes; its failure is an error at the end.
struct Output {
    child: Ended,
    stdout: ChildStdout,
    complaint: Option<JoinHandle<String>>,
    program: PathBuf,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stdout.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            return Ok(length);
        }
        if self.child.0.wait()?.success() {
            return Ok(0);
        }
        let said = self.complaint.take().and_then(|complaint| complaint.join().ok()).unwrap_or_default();
        let said: String = said.trim().chars().take(MAX_TOLD).collect();
        Err(io::Error::other(format!("`{}` failed: {}", shown(&self.program), said.escape_debug())))
    }
}

fn shown(program: &Path) -> String {
    program.display().to_string()
}

/// What a program reads.
struct Input(ChildStdin);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
