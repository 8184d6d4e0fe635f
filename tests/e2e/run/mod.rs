//! `run` and what deals with containers, with an image that really runs.

mod background;
mod commit;
mod encrypted;
mod images;
mod killed;
mod process;
mod rootless;
mod terminal;

use serde_json::Value;
use shipfs_tests::ordinary::{May, Ordinary};
use shipfs_tests::program::{self, PATIENCE, Running, shipfs, wait_until};
use shipfs_tests::runnable;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Who runs containers, and by what.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    runtime: &'static str,
    user: Option<May>,
}

impl Way {
    pub(crate) const ROOT: Self = Self { runtime: "runc", user: None };
    pub(crate) const CRUN: Self = Self { runtime: "crun", user: None };
    pub(crate) const USER: Self = Self { runtime: "runc", user: Some(May::ALL) };
    pub(crate) const USER_CRUN: Self = Self { runtime: "crun", user: Some(May::ALL) };
}

/// Makes four tests of one: by root and by an ordinary user, with runc and with crun.
macro_rules! in_every_way {
    ($($body:ident: $root:ident $crun:ident $user:ident $user_crun:ident;)*) => { $(
        $crate::run::in_every_way!(@ $body $root ROOT);
        $crate::run::in_every_way!(@ $body $crun CRUN);
        $crate::run::in_every_way!(@ $body $user USER);
        $crate::run::in_every_way!(@ $body $user_crun USER_CRUN);
    )* };
    (@ $body:ident $name:ident $way:ident) => {
        #[test]
        fn $name() {
            if let Some(lab) = $crate::run::Lab::new(stringify!($name), $crate::run::Way::$way) {
                $body(&lab);
            }
        }
    };
}
use in_every_way;

/// A repository with an image in it.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) cid: String,
    runtime: &'static str,
    user: Option<Ordinary>,
}

impl Lab {
    /// With the busybox image; `None` where containers cannot be run.
    pub(crate) fn new(test: &str, way: Way) -> Option<Self> {
        Self::with(test, way, runnable::layers(), &runnable::config())
    }

    fn with(test: &str, way: Way, layers: Vec<runnable::Layer>, config: &Value) -> Option<Self> {
        Self::prepared(test, way, layers, config, |_| {})
    }

    /// With something done before there is a repository.
    fn prepared(
        test: &str,
        way: Way,
        layers: Vec<runnable::Layer>,
        config: &Value,
        before: impl FnOnce(&Self),
    ) -> Option<Self> {
        if !program::privileged(test) || !program::tool(test, way.runtime) || !program::tool(test, "busybox") {
            return None;
        }
        if way.user.is_some() && !program::tool(test, "newuidmap") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a directory");
        let user = way.user.map(|may| Ordinary::new(folder.path(), may));
        let mut lab = Self { folder, cid: String::new(), runtime: way.runtime, user };
        before(&lab);
        lab.cid = lab.push("layout", layers, config);
        Some(lab)
    }

    /// The user, in tests of one.
    fn user(&self) -> &Ordinary {
        self.user.as_ref().expect("a test of a user")
    }

    /// Makes a directory that belongs to whoever runs containers.
    fn make_folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path).expect("made");
        if let Some(user) = &self.user {
            user.give(&path);
        }
        path
    }

    fn push(&self, name: &str, layers: Vec<runnable::Layer>, config: &Value) -> String {
        let source = runnable::layout(&self.folder.path().join(name), layers, config);
        program::run(self.shipfs(&["--quiet", "push", &source])).trim().to_owned()
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// A command on a repository of whoever runs containers.
    fn command_on(&self, repository: &Path) -> Command {
        match &self.user {
            Some(user) => user.shipfs(repository),
            None => shipfs(repository),
        }
    }

    fn shipfs<'c>(&self, words: &[&str]) -> &'c mut Command {
        self.shipfs_on(&self.repository(), words)
    }

    fn shipfs_on<'c>(&self, repository: &Path, words: &[&str]) -> &'c mut Command {
        // Leaked: a test is short.
        let command = Box::leak(Box::new(self.command_on(repository)));
        match words.iter().position(|word| *word == "run") {
            Some(at) if !words.contains(&"--runtime") => {
                command.args(&words[..=at]).args(["--runtime", self.runtime]).args(&words[at + 1..])
            }
            _ => command.args(words),
        }
    }

    /// Runs `run --rm OPTIONS CID WORDS`.
    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.shipfs(&[&["run", "--rm"], options].concat()).arg(&self.cid).args(words).output().expect("it starts")
    }

    /// As [`Lab::run`]; what it printed, if it succeeded.
    fn text(&self, options: &[&str], words: &[&str]) -> String {
        let output = self.run(options, words);
        assert!(output.status.success(), "{words:?}: {}", program::said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts `run OPTIONS CID sh -c SCRIPT` and waits until it says `ready`.
    fn start(&self, options: &[&str], script: &str) -> Running {
        let command = self.shipfs(&[&["run"], options].concat());
        Running::start(command.arg(&self.cid).args(["sh", "-c", script]), "ready").expect("it runs").0
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

    /// The folder of the unpacked layers.
    fn layers(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.repository()).into_iter().flatten().flatten();
        let mut names = entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("layers")));
        names.next().unwrap_or_else(|| self.repository().join("layers"))
    }

    fn layer_folders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.layers()).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with('.'));
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
        if let Some(user) = &self.user {
            wait_until("no process of the user's is left", || user.processes().is_empty());
        }
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
