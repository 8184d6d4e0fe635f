//! Programs that keep container images, each on folders and sockets of its own: containerd, Docker, podman, a registry.
//!
//! They reach no network but loopback, and end when they are dropped. Those that need root are started by privileged tests.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Running, run};

/// Debian's Docker daemon.
pub const DOCKERD: &str = "/usr/sbin/dockerd";
/// Where Debian's programs lie.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with nothing of this process's environment but where programs are, in `folder` first; it is at home in `room`.
fn bare(program: &Path, folder: &Path, room: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", format!("{}:{SYSTEM_PATH}", folder.display())).env("HOME", room);
    command.current_dir(room).stdin(Stdio::null());
    command
}

/// A containerd.
pub struct Containerd {
    daemon: Option<Running>,
    programs: PathBuf,
    room: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// Where its content lies.
    pub root: PathBuf,
}

impl Containerd {
    /// Starts Debian's; its files lie in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path) -> Self {
        Self::of(Path::new("/usr/bin"), folder)
    }

    /// Starts the one whose programs, its shim among them, lie in `programs`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(programs: &Path, folder: &Path) -> Self {
        Self::with_snapshotter(programs, folder, None)
    }

    /// As [`Containerd::of`], with a snapshotter of this name that another program serves at this socket.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with_snapshotter(programs: &Path, folder: &Path, snapshotter: Option<(&str, &Path)>) -> Self {
        let (socket, root, config) = (folder.join("c.sock"), folder.join("root"), folder.join("config.toml"));
        fs::create_dir_all(folder).expect("a folder");
        // Kubernetes' part, whose name changed, and a folder of the system's that no test should make.
        let (version, without) = if programs == Path::new("/usr/bin") {
            (2, r#""io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt""#)
        } else {
            (3, r#""io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri""#)
        };
        let (state, streams) = (folder.join("state"), folder.join("c.sock.ttrpc"));
        let mut text = format!(
            "version = {version}\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [{without}]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {streams:?}\n"
        );
        if let Some((name, address)) = snapshotter {
            text.push_str(&format!("[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = {address:?}\n"));
        }
        fs::write(&config, text).expect("writes");
        let (programs, room) = (programs.to_owned(), folder.to_owned());
        let mut containerd = Self { daemon: None, programs, room, socket, root };
        containerd.begin();
        containerd
    }

    fn begin(&mut self) {
        let mut command = bare(&self.programs.join("containerd"), &self.programs, &self.room);
        command.arg("-c").arg(self.room.join("config.toml"));
        let (daemon, _) = Running::start(&mut command, "containerd successfully booted").expect("it starts");
        self.daemon = Some(daemon);
    }

    /// Ends it as `kill -9` does, and starts it anew on the same files.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        self.begin();
    }

    /// A `ctr` command.
    pub fn ctr_command(&self) -> Command {
        let mut command = bare(&self.programs.join("ctr"), &self.programs, &self.room);
        command.arg("-a").arg(&self.socket);
        command
    }

    /// Runs `ctr` and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        run(self.ctr_command().args(arguments)).trim().to_owned()
    }

    /// A command of this `nerdctl`, on its default namespace.
    pub fn nerdctl(&self, program: &Path) -> Command {
        let mut command = bare(program, &self.programs, &self.room);
        command.arg("--address").arg(&self.socket).args(["--namespace", "default", "--cgroup-manager", "cgroupfs"]);
        command.arg("--data-root").arg(self.room.join("nerdctl"));
        command
    }
}

/// The snapshotter of stargz, which mounts layers before they are there, for the containerd that uses it.
pub struct Stargz {
    // First, so that it ends, and unmounts what it mounted, before its folder goes.
    _daemon: Running,
    /// Its socket.
    pub socket: PathBuf,
    /// Where it keeps and mounts layers.
    pub root: PathBuf,
}

impl Stargz {
    /// Starts it so that it fetches nothing but what is read; its files lie in `folder`, and layers that say where they are
    /// on IPFS come from the node whose repository is `ipfs`, where there is one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(program: &Path, folder: &Path, ipfs: &Path) -> Self {
        let (socket, root) = (folder.join("s.sock"), folder.join("snapshots"));
        fs::create_dir_all(folder).expect("a folder");
        let mut command = bare(program, Path::new("/usr/bin"), folder);
        command.env("IPFS_PATH", ipfs).arg("-lazy").arg("-address").arg(&socket).arg("-root").arg(&root);
        let daemon = Running::spawn(&mut command).expect("it starts");
        let end = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "{} does not serve", program.display());
            std::thread::yield_now();
        }
        Self { _daemon: daemon, socket, root }
    }

    /// The layers that it has mounted: their number in `/proc/mounts`.
    ///
    /// # Panics
    /// When there are no mounts to be seen.
    pub fn mounted(&self) -> usize {
        let (mounts, root) = (fs::read_to_string("/proc/mounts").expect("mounts"), self.root.display().to_string());
        mounts.lines().filter(|line| line.contains(" fuse") && line.contains(&root)).count()
    }
}

/// A Docker daemon.
pub struct Docker {
    _daemon: Running,
    /// Its socket.
    pub socket: PathBuf,
}

impl Docker {
    /// Starts Debian's without any network; its files lie in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path) -> Self {
        Self::without_network(Path::new(DOCKERD), "overlay2", folder)
    }

    /// Starts a daemon without any network, which stores layers in this way.
    ///
    /// # Panics
    /// When it does not start.
    pub fn without_network(program: &Path, storage: &str, folder: &Path) -> Self {
        let mut command = bare(Path::new("unshare"), Path::new("/usr/sbin"), folder);
        command.args(["--net", "--"]).arg(program);
        Self::begin(command, storage, folder)
    }

    /// Starts a daemon on loopback, where a registry may be; its files lie in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn on_loopback(program: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        Self::begin(bare(program, Path::new("/usr/sbin"), folder), "vfs", folder)
    }

    fn begin(mut command: Command, storage: &str, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let (socket, config) = (folder.join("d.sock"), folder.join("daemon.json"));
        // Limits that a root without CAP_SYS_RESOURCE may set, too.
        let limits = r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":1024,"Soft":1024}}}"#;
        fs::write(&config, limits).expect("writes");
        command.arg("--config-file").arg(&config);
        command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("pid")).arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        command.arg(format!("--storage-driver={storage}"));
        let (daemon, _) = Running::start(&mut command, "API listen on").expect("Docker starts");
        Self { _daemon: daemon, socket }
    }

    /// Its address, as `DOCKER_HOST` takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs `docker` and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        // The builder that lies in the daemon; the other one is a program of its own.
        command.env("DOCKER_BUILDKIT", "0").arg("-H").arg(self.address());
        run(command.args(arguments)).trim().to_owned()
    }
}

/// A storage of podman's.
pub struct Podman {
    /// The file that says where it lies: `CONTAINERS_STORAGE_CONF`.
    pub storage: PathBuf,
    folder: PathBuf,
}

impl Podman {
    /// An empty one in `folder`.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let storage = folder.join("storage.conf");
        let (graph, run) = (folder.join("graph"), folder.join("run"));
        let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
        fs::write(&storage, text).expect("writes");
        Self { storage, folder: folder.to_owned() }
    }

    /// Serves it at a socket, which is ready when this returns.
    ///
    /// # Panics
    /// When it does not start.
    pub fn serve(&self) -> (Running, PathBuf) {
        let socket = self.folder.join("p.sock");
        let mut command = self.command();
        command.args(["system", "service", "--time", "0", &format!("unix://{}", socket.display())]);
        command.arg("--log-level=info");
        let (running, _) = Running::start(&mut command, "API service listening").expect("podman starts");
        (running, socket)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_STORAGE_CONF", &self.storage);
        command
    }

    /// Runs `podman` and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn podman(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments)).trim().to_owned()
    }
}

/// A registry: Docker's own, as Debian has it.
pub struct Registry {
    _daemon: Running,
    /// Its address: `127.0.0.1:PORT`.
    pub address: String,
}

impl Registry {
    /// Starts one whose files lie in `folder`; `users` are lines of an `htpasswd` file, with none everybody is let in.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path, users: Option<&str>) -> Self {
        Self::begin(folder, users, "")
    }

    /// Starts one that speaks TLS with this certificate and key, and only with those who have a certificate by `clients`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn with_tls(folder: &Path, certificate: &Path, key: &Path, clients: Option<&Path>) -> Self {
        let clients = clients.map(|path| format!(", clientcas: [{path:?}]")).unwrap_or_default();
        Self::begin(folder, None, &format!(", tls: {{certificate: {certificate:?}, key: {key:?}{clients}}}"))
    }

    fn begin(folder: &Path, users: Option<&str>, tls: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let (data, config, passwords) = (folder.join("data"), folder.join("config.yml"), folder.join("htpasswd"));
        let mut text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\nhttp: {{addr: \"127.0.0.1:0\"{tls}}}\n"
        );
        if let Some(users) = users {
            fs::write(&passwords, users).expect("writes");
            text.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {passwords:?}}}}}\n"));
        }
        fs::write(&config, text).expect("writes");
        let mut command = Command::new("docker-registry");
        let (daemon, line) = Running::start(command.arg("serve").arg(&config), "listening on").expect("a registry");
        let rest = line.split("listening on ").nth(1).expect("an address");
        let address = rest.split(['"', ',', ' ']).next().expect("an address").to_owned();
        Self { _daemon: daemon, address }
    }
}
