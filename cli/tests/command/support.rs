//! Running the command, and images to run it on.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Longest any step may take; most take milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// The image that the repository ships, and its CID.
pub(crate) const HELLO_CID: &str = "bafkreiekkmfsskuz3xicyc4hfhvh7i7dg6tmyvphss37p2pjtwbn2gjv5u";

/// A CID of the right form that nobody has.
pub(crate) const ABSENT_CID: &str = "bafkreigwjirfr4zeu2p4esf7iivrmldgsyliqtnrln4yv2xdapmrkm2vyq";

pub(crate) fn hello() -> String {
    format!("oci:{}/../tests/data/hello", env!("CARGO_MANIFEST_DIR"))
}

/// A repository, and the command on it.
pub(crate) struct Shipfs {
    directory: TempDir,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// The text of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.text()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.ok()).expect("JSON")
    }
}

impl Shipfs {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    /// A repository with the swarm key of another one.
    pub(crate) fn beside(other: &Shipfs) -> Self {
        let new = Self::new();
        fs::create_dir_all(new.repo()).expect("makes it");
        fs::copy(other.repo().join("swarm.key"), new.repo().join("swarm.key")).expect("copies");
        new
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shipfs"));
        command.env_clear().env("SHIPFS_PATH", self.repo()).current_dir(self.path()).args(args);
        command
    }

    /// Runs to the end, with nothing on stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs to the end.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.spawn(args);
        let mut pipe = child.0.stdin.take().expect("a pipe");
        let stdin = stdin.to_vec();
        // It may end without having read all of it.
        std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        child.wait()
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        spawn(&mut self.command(args))
    }

    /// A daemon that is ready, and its address.
    pub(crate) fn daemon(&self) -> (Running, String) {
        let args = ["daemon", "--network", "private", "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut daemon = self.spawn(&args);
        let ready = daemon.line();
        assert!(ready.starts_with("ready: serving on the private network as 12D3KooW"), "{ready}");
        let address = ready.rsplit(" at ").next().expect("an address").to_owned();
        (daemon, address)
    }
}

pub(crate) fn spawn(command: &mut Command) -> Running {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Running(child.expect("starts"))
}

/// A command that runs; killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut stdout = self.0.stdout.take().expect("a pipe");
        // Byte by byte, so that nothing after the line is taken.
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            while stdout.read(&mut byte).is_ok_and(|read| read == 1) && byte != *b"\n" {
                line.push(byte[0]);
            }
            let _ = sender.send((line, stdout));
        });
        let (line, stdout) = receiver.recv_timeout(SOON).expect("a line soon");
        self.0.stdout = Some(stdout);
        String::from_utf8(line).expect("text")
    }

    /// Waits until stderr says something.
    pub(crate) fn said(&mut self, what: &str) {
        let mut reader = BufReader::new(self.0.stderr.take().expect("a pipe"));
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                let _ = sender.send(std::mem::take(&mut line));
            }
        });
        let until = Instant::now() + SOON;
        while !receiver.recv_timeout(until - Instant::now()).expect(what).contains(what) {}
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).expect("it runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Ran {
        let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    let _ = pipe.read_to_end(&mut bytes);
                }
                bytes
            })
        };
        let stdout = reader(self.0.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = reader(self.0.stderr.take().map(|pipe| Box::new(pipe) as _));
        let until = Instant::now() + SOON;
        let status = loop {
            match self.0.try_wait().expect("a child") {
                Some(status) => break status,
                None if Instant::now() > until => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let stderr = String::from_utf8(stderr.join().expect("reads")).expect("text");
        Ran { code: status.code(), stdout: stdout.join().expect("reads"), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a layout of one image with a layer of so many bytes, the same at every run, and annotations of choice.
pub(crate) fn layout(directory: &Path, layer_bytes: usize, annotations: &serde_json::Value) -> String {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("makes it");
    let add = |bytes: &[u8], media_type: &str| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), bytes).expect("writes");
        serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    };
    let mut state = 88_172_645_463_325_252_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let layer: Vec<u8> = noise.take(layer_bytes / 8).flatten().collect();
    let layer = add(&layer, "application/vnd.oci.image.layer.v1.tar");
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer], "annotations": annotations,
    });
    let manifest = add(manifest.to_string().as_bytes(), manifest_type);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).expect("writes");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writes");
    format!("oci:{}", directory.display())
}
