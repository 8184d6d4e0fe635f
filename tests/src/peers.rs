//! Programs of other projects that `shipfs` has to work with; `tests/peers/setup` builds them.
//!
//! They talk to loopback, or to the namespaces of a test, and to nothing else. A test that needs one that is not here is
//! skipped, loudly; in CI it fails.

use crate::program::{Running, require, run};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Where `tests/peers/setup` puts what it builds: `$SHIPFS_PEERS`, else `~/.cache/shipfs-peers`.
pub fn folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/shipfs-peers");
    std::env::var_os("SHIPFS_PEERS").map_or_else(home, PathBuf::from)
}

/// A program that `tests/peers/setup` built, `ipfs` for instance.
///
/// # Panics
/// In CI (`CI` is set) when it was not built.
pub fn program(test: &str, name: &str) -> Option<PathBuf> {
    let path = folder().join("bin").join(name);
    require(test, path.is_file(), &format!("`{name}` of tests/peers/setup")).then_some(path)
}

/// A script that `tests/peers/setup` put beside the packages it needs, `helia/node.mjs` for instance.
///
/// # Panics
/// As [`program`].
pub fn script(test: &str, name: &str) -> Option<PathBuf> {
    let path = folder().join("node").join(name);
    require(test, path.is_file(), &format!("`{name}` of tests/peers/setup")).then_some(path)
}

/// How a Kubo node is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct KuboOptions<'a> {
    /// The key of its private network.
    pub swarm_key: Option<&'a Path>,
    /// Listen for QUIC beside TCP.
    pub quic: bool,
    /// Be a server of the DHT of loopback nodes.
    pub dht: bool,
}

/// A Kubo node that calls nobody, until this is dropped.
pub struct Kubo {
    // First, so that the daemon ends before its repository goes.
    daemon: Option<Running>,
    program: PathBuf,
    folder: TempDir,
}

impl Kubo {
    /// Starts a node with an empty repository; `None` when Kubo is not here.
    ///
    /// # Panics
    /// When it does not start; in CI when it is not here.
    pub fn start(test: &str, options: KuboOptions<'_>) -> Option<Self> {
        let mut kubo = Self::new(test, options)?;
        kubo.start_daemon();
        Some(kubo)
    }

    /// As [`Kubo::start`], without its daemon.
    ///
    /// # Panics
    /// As [`Kubo::start`].
    pub fn new(test: &str, options: KuboOptions<'_>) -> Option<Self> {
        let program = program(test, "ipfs")?;
        let folder = TempDir::new().expect("a temporary directory");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kubo-isolated");
        let mut command = Command::new(script);
        command.arg(folder.path().join("repo")).args(["0", "0"]);
        if let Some(key) = options.swarm_key {
            command.arg("--swarm-key").arg(key);
        }
        if options.quic {
            command.arg("--quic");
        }
        if options.dht {
            command.args(["--routing", "dhtserver"]);
        }
        run(command.stdin(Stdio::null()));
        Some(Self { daemon: None, program, folder })
    }

    /// Starts its daemon, on ports that the system chooses.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_daemon(&mut self) {
        let mut command = self.command();
        let (daemon, _) = Running::start(command.arg("daemon"), "Daemon is ready").expect("Kubo starts");
        self.daemon = Some(daemon);
    }

    /// Ends its daemon; politely, or as `kill -9` does.
    pub fn stop_daemon(&mut self, kill: bool) {
        match self.daemon.take() {
            Some(daemon) if kill => daemon.kill(),
            daemon => drop(daemon),
        }
    }

    /// The process of its daemon.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Its repository: what `IPFS_PATH` is set to.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// An `ipfs` command on it, without arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("IPFS_PATH", self.repository()).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
        command
    }

    /// What `ipfs ARGUMENTS` prints, without the last line's end.
    ///
    /// # Panics
    /// When it fails.
    pub fn ipfs(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments)).trim_end().to_owned()
    }

    /// The address of its RPC, `/ip4/127.0.0.1/tcp/5001` for instance.
    ///
    /// # Panics
    /// When its daemon does not run.
    pub fn api(&self) -> String {
        let text = std::fs::read_to_string(self.repository().join("api"));
        text.expect("a daemon that runs says where").trim().to_owned()
    }

    /// The addresses where peers reach it, with its peer ID: over TCP, then QUIC.
    ///
    /// # Panics
    /// When its daemon does not run.
    pub fn addresses(&self) -> Vec<String> {
        let id: serde_json::Value = serde_json::from_str(&self.ipfs(&["id"])).expect("JSON");
        let all = id["Addresses"].as_array().expect("addresses").iter().filter_map(|one| one.as_str());
        let mut all: Vec<_> = all.map(str::to_owned).collect();
        all.sort_by_key(|address| !address.contains("/tcp/"));
        all
    }
}
