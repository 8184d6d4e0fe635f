//! Runs `shipfs` as a user would, and ends what it started.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest time a started program may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time that anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a signal to a process.
///
/// # Panics
/// When there is no such process.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it gets the signal");
}

/// Waits until something is so.
///
/// # Panics
/// When it is not, in time.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// The `shipfs` program that was built beside this one.
///
/// # Panics
/// When it was not built: run the tests by the command in the README.
pub fn shipfs_path() -> PathBuf {
    let mut folder = std::env::current_exe().expect("this program has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join("shipfs");
    assert!(path.exists(), "`{}` is missing: build it with `cargo build -p shipfs`", path.display());
    path
}

/// A command of `shipfs` on a repository, with an environment of its own.
pub fn shipfs(repository: &Path) -> Command {
    let mut command = Command::new(shipfs_path());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).arg("--repo").arg(repository);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; its output as text, both streams, if it succeeded.
///
/// # Panics
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?} failed: {}", said(&output));
    String::from_utf8(output.stdout).expect("text")
}

/// Everything a command printed, for a message.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A program that runs until this is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts a program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (sender, lines) = mpsc::channel();
        let running = Self { child, lines, said: Vec::new() };
        let stdout: Box<dyn io::Read + Send> = Box::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?);
        let stderr: Box<dyn io::Read + Send> = Box::new(stderr.ok_or(io::ErrorKind::BrokenPipe)?);
        // They go on reading, so that the program never waits for somebody to read what it says.
        for stream in [stdout, stderr] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Ok(running)
    }

    /// Starts a program and waits until a line of its output contains `ready`; returns that line, too.
    ///
    /// # Errors
    /// When it ends or stays silent, with what it said.
    pub fn start(command: &mut Command, ready: &str) -> io::Result<(Self, String)> {
        let (running, mut lines) = Self::start_after(command, ready)?;
        Ok((running, lines.pop().unwrap_or_default()))
    }

    /// As [`Running::start`]; returns all lines up to the one that says that it is ready.
    ///
    /// # Errors
    /// As [`Running::start`].
    pub fn start_after(command: &mut Command, ready: &str) -> io::Result<(Self, Vec<String>)> {
        let mut running = Self::spawn(command)?;
        let end = Instant::now() + READY_TIMEOUT;
        while let Ok(Some(line)) = running.line(end) {
            if line.contains(ready) {
                let said = std::mem::take(&mut running.said);
                return Ok((running, said));
            }
        }
        Err(io::Error::other(format!("{command:?} did not say `{ready}`: {}", running.said.join("\n"))))
    }

    /// The next line that it says, on either stream; `None` once it says no more.
    ///
    /// # Errors
    /// When it says nothing until `end`, with what it said before.
    pub fn line(&mut self, end: Instant) -> io::Result<Option<String>> {
        match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.said.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no more than: {}", self.said.join("\n"))))
            }
        }
    }

    /// Waits until it ends by itself; how it did, and what it said since it was ready.
    ///
    /// # Errors
    /// When it goes on until `end`.
    pub fn end(mut self, end: Instant) -> io::Result<(ExitStatus, String)> {
        while self.line(end)?.is_some() {}
        Ok((self.child.wait()?, self.said.join("\n")))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        // Politely first: it has mounts and sockets to put away.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds that a process and the children it waited for have used.
///
/// # Errors
/// When the process is gone.
pub fn cpu_seconds(pid: u32) -> io::Result<f64> {
    /// Ticks of `/proc/PID/stat` in a second, on every Linux.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..15).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS)
}

/// A line of `/proc/PID/status` in KiB: `VmHWM`, `VmRSS`.
///
/// # Errors
/// When the process is gone.
pub fn memory_kib(pid: u32, line: &str) -> io::Result<u64> {
    let mut text = String::new();
    std::fs::File::open(format!("/proc/{pid}/status"))?.read_to_string(&mut text)?;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether this run may use root's powers. Without them, a test is skipped, loudly; in CI it fails.
///
/// # Panics
/// In CI (`CI` is set) without root.
pub fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    require(test, root, "root")
}

/// Whether a tool is here. Without it, a test is skipped, loudly; in CI it fails.
///
/// # Panics
/// In CI (`CI` is set) without the tool.
pub fn tool(test: &str, name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::split_paths(&paths).any(|folder| folder.join(name).is_file());
    require(test, here, name)
}

/// Whether a device is here. Without it, a test is skipped, loudly; in CI it fails.
///
/// # Panics
/// In CI (`CI` is set) without the device.
pub fn device(test: &str, path: &str) -> bool {
    require(test, Path::new(path).exists(), path)
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so where the person who runs it looks")]
pub(crate) fn require(test: &str, here: bool, what: &str) -> bool {
    if !here {
        assert!(std::env::var_os("CI").is_none(), "{test} needs {what}, and CI skips nothing");
        eprintln!("SKIPPED {test}: it needs {what}");
    }
    here
}
