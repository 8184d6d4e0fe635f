//! `run` and what deals with containers, with an image that really runs.

mod background;
mod commit;
mod images;
mod killed;
mod process;
mod terminal;

use serde_json::Value;
use shipfs_tests::program::{self, PATIENCE, Running, shipfs, wait_until};
use shipfs_tests::runnable;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A repository with an image in it.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) cid: String,
}

impl Lab {
    /// With the busybox image; `None` where containers cannot be run.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, runnable::layers(), &runnable::config())
    }

    fn with(test: &str, layers: Vec<runnable::Layer>, config: &Value) -> Option<Self> {
        if !program::privileged(test) || !program::tool(test, "runc") || !program::tool(test, "busybox") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a directory");
        let mut lab = Self { folder, cid: String::new() };
        lab.cid = lab.push("layout", layers, config);
        Some(lab)
    }

    fn push(&self, name: &str, layers: Vec<runnable::Layer>, config: &Value) -> String {
        let source = runnable::layout(&self.folder.path().join(name), layers, config);
        program::run(self.shipfs(&["--quiet", "push", &source])).trim().to_owned()
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn command(&self) -> Command {
        shipfs(&self.repository())
    }

    fn shipfs<'c>(&self, words: &[&str]) -> &'c mut Command {
        // Leaked: a test is short.
        let command = Box::leak(Box::new(self.command()));
        command.args(words)
    }

    /// Runs `run --rm OPTIONS CID WORDS`.
    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.shipfs(&["run", "--rm"]).args(options).arg(&self.cid).args(words).output().expect("it starts")
    }

    /// As [`Lab::run`]; what it printed, if it succeeded.
    fn text(&self, options: &[&str], words: &[&str]) -> String {
        let output = self.run(options, words);
        assert!(output.status.success(), "{words:?}: {}", program::said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts `run OPTIONS CID sh -c SCRIPT` and waits until it says `ready`.
    fn start(&self, options: &[&str], script: &str) -> Running {
        let mut command = self.command();
        command.arg("run").args(options).arg(&self.cid).args(["sh", "-c", script]);
        Running::start(&mut command, "ready").expect("it runs").0
    }

    /// The containers there are, by `ps -a`.
    pub(crate) fn containers(&self) -> Vec<Value> {
        let text = program::run(self.shipfs(&["--json", "ps", "--all"]));
        serde_json::from_str::<Value>(&text).expect("JSON").as_array().expect("a list").clone()
    }

    fn container_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.repository().join("containers")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    fn layer_folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.repository().join("layers")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with(".boot-") && !name.starts_with(".settled-"));
        names.sort();
        names
    }

    /// Nothing is mounted, nothing of a container lies on disk or in a cgroup, no process is left.
    fn assert_clean(&self) {
        assert_eq!(self.container_folders(), Vec::<PathBuf>::new());
        self.assert_nothing_runs();
    }

    fn assert_nothing_runs(&self) {
        let folder = self.folder.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&folder), "{mounts}");
        // A watcher that told its last is gone a moment later.
        wait_until("no process of it is left", || processes(&folder).is_empty());
    }
}

/// Processes in whose command line a text occurs.
fn processes(text: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let mut found = Vec::new();
    for entry in all {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let is_in = |name: &str| {
            let target = std::fs::read_link(entry.path().join(name));
            target.is_ok_and(|target| target.starts_with(Path::new(text)))
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let in_line = String::from_utf8_lossy(&line).contains(text);
        if pid != std::process::id() && (in_line || is_in("cwd")) {
            found.push(pid);
        }
    }
    found
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
    rustix::process::kill_process(pid, signal).expect("it gets the signal");
}
