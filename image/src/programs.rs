//! Runs programs of other projects: with an environment that was handed in, for a bounded time, reading bounded output.
//!
//! Imports nothing of this crate. No shell is involved; what a program is told never stands on its command line unless it
//! was checked by the caller. Everything blocks.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// How often it is looked whether a program that closed its output has ended.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// How programs are found and what they see of the user's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Programs {
    /// Directories to look in, in order.
    pub path: Vec<PathBuf>,
    /// The variables that programs get; `PATH` is made of the directories.
    pub environment: BTreeMap<String, String>,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) success: bool,
    pub(crate) output: Vec<u8>,
}

impl Programs {
    /// Where the program called `name` lies.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        let is_plain = !name.is_empty() && !name.contains(['/', '\0']);
        let mut candidates = self.path.iter().filter(|_| is_plain).map(|folder| folder.join(name));
        candidates.find(|path| is_program(path))
    }

    /// A command of the program at `path`, with nothing on its streams.
    pub(crate) fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.env_clear().envs(&self.environment);
        if let Ok(path) = std::env::join_paths(&self.path) {
            command.env("PATH", path);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a program to its end: gives it `input`, takes at most `limit` bytes of its output, waits at most `patience`.
    ///
    /// # Errors
    /// What the system says, `TimedOut` when it was not done in time (it is killed then), `InvalidData` past the limit.
    pub(crate) fn run(
        &self,
        path: &Path,
        arguments: &[&str],
        input: &[u8],
        limit: u64,
        patience: Duration,
    ) -> io::Result<Done> {
        let until = Instant::now() + patience;
        let mut command = self.command(path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Ended(command.spawn()?);
        if let Some(mut stdin) = child.0.stdin.take() {
            // Small enough for a pipe's buffer; a program that does not read is its own matter.
            match stdin.write_all(input) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        if let Some(stdout) = child.0.stdout.take() {
            // On a thread of its own: a program, or its child, may hold the pipe open for as long as it likes.
            thread::spawn(move || {
                let mut output = Vec::new();
                let read = stdout.take(limit + 1).read_to_end(&mut output).map(|_| output);
                // Nobody waits any more when the time was up.
                drop(sender.send(read));
            });
        }
        let left = until.saturating_duration_since(Instant::now());
        let output = receiver.recv_timeout(left).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if output.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it wrote more than {limit} bytes")));
        }
        loop {
            if let Some(status) = child.0.try_wait()? {
                return Ok(Done { success: status.success(), output });
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(EXIT_POLL);
        }
    }
}

/// Whether a path is that of a file that may be run.
pub(crate) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
}

/// A process that ends, at the latest, when this is dropped.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It may have ended this moment.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Programs {
        Programs { path: vec!["/usr/bin".into(), "/bin".into()], environment: BTreeMap::new() }
    }

    #[test]
    fn a_program_is_run_within_bounds() {
        let programs = programs();
        let shell = programs.find("sh").expect("every system has one");
        let run = |script: &str, limit, patience| {
            programs.run(&shell, &["-c", script], b"input\n", limit, Duration::from_millis(patience))
        };
        let done = run("read line; echo \"$line $HOME\"; exit 3", 100, 10_000).expect("runs");
        assert_eq!((done.success, &done.output[..]), (false, &b"input \n"[..]));
        let endless = run("while :; do echo xxxxxxxxxxxxxxxxxxxx; done", 1000, 10_000).expect_err("too much");
        assert_eq!(endless.kind(), io::ErrorKind::InvalidData);
        let started = Instant::now();
        let slow = run("exec sleep 60", 10, 100).expect_err("too slow");
        assert_eq!(slow.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn names_are_not_paths() {
        assert!(programs().find("../bin/sh").is_none() && programs().find("").is_none());
    }
}
