//! Programs that keep container images, each on folders and sockets of its own: containerd, Docker, podman, a registry.
//!
//! They reach no network but loopback, and end when they are dropped. Those that need root are started by privileged tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Running, run};

/// A containerd, as Debian has it.
pub struct Containerd {
    _daemon: Running,
    /// Its socket.
    pub socket: PathBuf,
    /// Where its content lies.
    pub root: PathBuf,
}

impl Containerd {
    /// Starts one whose files lie in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path) -> Self {
        let (socket, root, config) = (folder.join("c.sock"), folder.join("root"), folder.join("config.toml"));
        fs::create_dir_all(folder).expect("a folder");
        let text = format!(
            "version = 2\nroot = {root:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n",
            folder.join("state")
        );
        fs::write(&config, text).expect("writes");
        let mut command = Command::new("/usr/bin/containerd");
        // Its shim is found by the path: the one of another version must not be.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("-c").arg(&config);
        let (daemon, _) = Running::start(&mut command, "successfully booted").expect("containerd starts");
        Self { _daemon: daemon, socket, root }
    }

    /// Runs `ctr` and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        run(Command::new("/usr/bin/ctr").arg("-a").arg(&self.socket).args(arguments)).trim().to_owned()
    }
}

/// A Docker daemon, as Debian has it.
pub struct Docker {
    _daemon: Running,
    /// Its socket.
    pub socket: PathBuf,
}

impl Docker {
    /// Starts one whose files lie in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let (socket, config) = (folder.join("d.sock"), folder.join("daemon.json"));
        // Limits that a root without CAP_SYS_RESOURCE may set, too.
        let limits = r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":1024,"Soft":1024}}}"#;
        fs::write(&config, limits).expect("writes");
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "/usr/sbin/dockerd", "--config-file"]).arg(&config);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("pid")).arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        command.arg("--storage-driver=overlay2");
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
        run(Command::new("docker").arg("-H").arg(self.address()).args(arguments)).trim().to_owned()
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
        fs::create_dir_all(folder).expect("a folder");
        let (data, config, passwords) = (folder.join("data"), folder.join("config.yml"), folder.join("htpasswd"));
        let mut text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {data:?}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n"
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
