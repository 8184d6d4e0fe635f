//! Clients of registries, as their distributors built them: each pulls one image for two platforms by its CID, runs it
//! where it can run anything, and pushes where it can push.
//!
//! What came of it is kept beside this file, written by the test with `SHIPFS_RECORD` set: `registry-clients.md`. All of them have roots, sockets
//! and stores of their own, and talk to the registry on loopback and to nobody else.

use super::registry::keep;
use shipfs_tests::engines::{Containerd, DOCKERD, Docker};
use shipfs_tests::http;
use shipfs_tests::multi_arch::{self, GREETING, PROGRAM};
use shipfs_tests::peers;
use shipfs_tests::program::{Running, privileged, said, tool};
use shipfs_tests::repository::Repository;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A registry with the image, and a folder for whatever a client needs.
struct Bench {
    folder: TempDir,
    repository: Repository,
    address: SocketAddr,
    cid: String,
    /// Digest of the image's top.
    digest: String,
    _registry: Running,
}

/// What a client did.
struct Row {
    client: &'static str,
    version: String,
    ran: bool,
    /// Whether what it pushed has the digest that it pulled; absent when it pushes nothing.
    pushed: Option<bool>,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let source = multi_arch::layout(&folder.path().join("source"));
        let repository = Repository::new(folder.path().join("repository"));
        let cid = repository.run(&["push", "--all-platforms", &source]);
        let (registry, address) = repository.registry(&["--offline"], &[]);
        let head = http::request(address, "HEAD", &format!("/v2/ipfs/{cid}/manifests/latest"), &[], &[]);
        let digest = head.expect("an answer").header("docker-content-digest").to_owned();
        Self { folder, repository, address, cid, digest, _registry: registry }
    }

    /// A folder for one client.
    fn room(&self, name: &str) -> PathBuf {
        let room = self.folder.path().join(name);
        fs::create_dir_all(&room).expect("a folder");
        room
    }

    /// How the image is called.
    fn image(&self) -> String {
        format!("{}/ipfs/{}", self.address, self.cid)
    }

    /// Where a client pushes to.
    fn target(&self, client: &str) -> String {
        format!("{}/pushed/{client}:1", self.address)
    }

    /// Whether what a client pushed is an image here, with the digest it was pulled with.
    fn pushed(&self, client: &str) -> Option<bool> {
        let answer = http::request(self.address, "GET", &format!("/v2/pushed/{client}/manifests/1"), &[], &[]);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{client} pushed nothing");
        let cid = answer.header("x-ipfs-path").trim_start_matches("/ipfs/").to_owned();
        let images = self.repository.run(&["images"]);
        assert!(images.lines().any(|line| line == cid), "{client}: {cid} is not in {images}");
        Some(answer.header("docker-content-digest") == self.digest)
    }
}

/// A command with nothing of this process's environment but where programs are.
fn command(program: impl AsRef<std::ffi::OsStr>, room: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", room).current_dir(room);
    command.stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The first word of what a program says that looks like a version.
fn version(command: &mut Command) -> String {
    let text = done(command);
    let words = text.split([' ', '\n', ',', '"', '\t']).map(|word| word.trim_start_matches('v'));
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
    words.filter(|word| !word.is_empty()).find(is_version).unwrap_or("?").to_owned()
}

fn skopeo(bench: &Bench) -> Row {
    let room = bench.room("skopeo");
    let copy = |arguments: &[&str]| done(command("skopeo", &room).args(["copy", "--quiet", "--all"]).args(arguments));
    copy(&["--src-tls-verify=false", &format!("docker://{}", bench.image()), "oci:copy:1"]);
    copy(&["--dest-tls-verify=false", "oci:copy:1", &format!("docker://{}", bench.target("skopeo"))]);
    let version = version(command("skopeo", &room).arg("--version"));
    Row { client: "skopeo", version, ran: false, pushed: bench.pushed("skopeo") }
}

fn crane(bench: &Bench, program: &Path) -> Row {
    let room = bench.room("crane");
    done(command(program, &room).args(["pull", "--insecure", "--format=oci", &bench.image(), "copy"]));
    done(command(program, &room).args(["copy", "--insecure", &bench.image(), &bench.target("crane")]));
    let version = version(command(program, &room).arg("version"));
    Row { client: "crane", version, ran: false, pushed: bench.pushed("crane") }
}

fn oras(bench: &Bench, program: &Path) -> Row {
    let room = bench.room("oras");
    // It wants a tag, where others take `latest`.
    let image = format!("{}:latest", bench.image());
    done(command(program, &room).args(["copy", "--from-plain-http", &image, "--to-oci-layout", "copy:1"]));
    let push = ["copy", "--from-oci-layout", "copy:1", "--to-plain-http", &bench.target("oras")];
    done(command(program, &room).args(push));
    let version = version(command(program, &room).arg("version"));
    Row { client: "oras", version, ran: false, pushed: bench.pushed("oras") }
}

/// Settings with which podman and buildah run containers without systemd and without a network.
const CONTAINERS_CONF: &str = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
    [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nnetns = \"none\"\n";

fn with_store(program: &str, room: &Path) -> Command {
    let conf = room.join("containers.conf");
    fs::write(&conf, CONTAINERS_CONF).expect("settings");
    let policy = room.join("policy.json");
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("a policy");
    let mut command = command(program, room);
    command.env("CONTAINERS_CONF", conf).env("TMPDIR", room);
    command.args(["--root", "store", "--runroot", "state", "--storage-driver", "vfs"]);
    command
}

fn podman(bench: &Bench) -> Row {
    let room = bench.room("podman");
    let podman = |arguments: &[&str]| {
        let mut command = with_store("podman", &room);
        done(command.args(["--tmpdir", "tmp"]).args(arguments))
    };
    podman(&["pull", "--quiet", "--tls-verify=false", &bench.image()]);
    let ran = podman(&["run", "--rm", "--network", "none", &bench.image()]);
    podman(&["push", "--quiet", "--tls-verify=false", &bench.image(), &bench.target("podman")]);
    let version = version(command("podman", &room).arg("--version"));
    Row { client: "podman", version, ran: ran.contains(GREETING), pushed: bench.pushed("podman") }
}

fn buildah(bench: &Bench) -> Row {
    let room = bench.room("buildah");
    let buildah = |arguments: &[&str]| done(with_store("buildah", &room).args(arguments));
    let container = buildah(&["from", "--quiet", "--tls-verify=false", &bench.image()]);
    let run = ["run", "--network", "none", container.trim(), "/bin/sh", "-c", "cat /etc/arch"];
    let ran = buildah(&run);
    buildah(&["commit", "--quiet", container.trim(), "built"]);
    buildah(&["push", "--quiet", "--tls-verify=false", "built", &bench.target("buildah")]);
    let version = version(command("buildah", &room).arg("--version"));
    Row { client: "buildah FROM", version, ran: ran.trim() == "amd64", pushed: bench.pushed("buildah") }
}

fn ctr(bench: &Bench, client: &'static str, name: &str, folder: &Path) -> Row {
    let room = bench.room(name);
    let containerd = Containerd::of(folder, &room);
    let ctr = |arguments: &[&str]| containerd.ctr(arguments);
    let image = format!("{}:latest", bench.image());
    ctr(&["images", "pull", "--plain-http", "--all-platforms", &image]);
    let ran = ctr(&["run", "--rm", &image, "one"]);
    ctr(&["images", "tag", &image, &bench.target(name)]);
    ctr(&["images", "push", "--plain-http", &bench.target(name)]);
    let version = version(command(folder.join("ctr"), &room).arg("--version"));
    Row { client, version, ran: ran.contains(GREETING), pushed: bench.pushed(name) }
}

fn nerdctl(bench: &Bench, folder: &Path) -> Row {
    let room = bench.room("nerdctl");
    let containerd = Containerd::of(folder, &room);
    let nerdctl = |arguments: &[&str]| done(containerd.nerdctl(&folder.join("nerdctl")).args(arguments));
    nerdctl(&["pull", "--quiet", "--all-platforms", &bench.image()]);
    // Pulled for every platform, nothing is unpacked yet.
    nerdctl(&["pull", "--quiet", &bench.image()]);
    let ran = nerdctl(&["run", "--rm", "--net", "none", "--ulimit", "nofile=1024:1024", &bench.image()]);
    nerdctl(&["tag", &bench.image(), &bench.target("nerdctl")]);
    nerdctl(&["push", "--quiet", "--all-platforms", &bench.target("nerdctl")]);
    let version = version(command(folder.join("nerdctl"), &room).arg("--version"));
    Row { client: "nerdctl", version, ran: ran.contains(GREETING), pushed: bench.pushed("nerdctl") }
}

fn docker(bench: &Bench) -> Row {
    let room = bench.room("docker");
    let daemon = Docker::on_loopback(Path::new(DOCKERD), &room);
    let docker = |arguments: &[&str]| daemon.docker(arguments);
    docker(&["pull", "--quiet", &bench.image()]);
    let ran = docker(&["run", "--rm", "--network", "none", &bench.image()]);
    docker(&["tag", &bench.image(), &bench.target("docker")]);
    docker(&["push", "--quiet", &bench.target("docker")]);
    let version = version(command("dockerd", &room).arg("--version"));
    Row { client: "docker", version, ran: ran.contains(GREETING), pushed: bench.pushed("docker") }
}

fn buildkit(bench: &Bench, folder: &Path) -> Row {
    let room = bench.room("buildkit");
    let socket = format!("unix://{}", room.join("b.sock").display());
    let config = format!(
        "root = \"{}\"\n[grpc]\naddress = [\"{socket}\"]\n[worker.oci]\nenabled = true\nbinary = \"runc\"\nnetworkMode = \"host\"\n\
         [worker.containerd]\nenabled = false\n[registry.\"{}\"]\nhttp = true\n",
        room.join("root").display(),
        bench.address
    );
    fs::write(room.join("config.toml"), config).expect("settings");
    let mut starting = command(folder.join("buildkitd"), &room);
    let (_daemon, _) =
        Running::start(starting.args(["--config", "config.toml"]), "running server on").expect("it starts");
    fs::create_dir_all(room.join("context")).expect("a folder");
    let steps = format!("FROM {}\nRUN [\"/bin/sh\", \"-c\", \"cat /etc/arch >/tmp/ran\"]\n", bench.image());
    fs::write(room.join("context/Dockerfile"), steps).expect("a file");
    let output = format!("type=image,name={},push=true", bench.target("buildkit"));
    let mut build = command(folder.join("buildctl"), &room);
    build.args(["--addr", &socket, "build", "--progress=plain", "--frontend", "dockerfile.v0"]);
    done(build.args(["--local", "context=context", "--local", "dockerfile=context", "--output", &output]));
    let version = version(command(folder.join("buildctl"), &room).arg("--version"));
    // It has run a step, or it had failed.
    Row { client: "BuildKit FROM", version, ran: true, pushed: bench.pushed("buildkit") }
}

#[test]
fn interop_registry_serves_every_client() {
    let test = "interop_registry_serves_every_client";
    let peers = peers::folder().join("bin");
    let built = ["crane", "oras", "ctr", "containerd", "nerdctl", "buildkitd", "buildctl"];
    let installed = ["skopeo", "podman", "buildah", "containerd", "ctr", "dockerd", "docker", "runc"];
    let is_here = privileged(test)
        && built.iter().all(|name| peers::program(test, name).is_some())
        && installed.iter().all(|name| tool(test, name))
        && tool(test, PROGRAM.trim_start_matches("/bin/"));
    if !is_here {
        return;
    }
    let bench = Bench::new();
    let rows = [
        ctr(&bench, "containerd, ctr (Debian's)", "ctr1", Path::new("/usr/bin")),
        ctr(&bench, "containerd, ctr", "ctr2", &peers),
        nerdctl(&bench, &peers),
        docker(&bench),
        podman(&bench),
        buildah(&bench),
        buildkit(&bench, &peers),
        skopeo(&bench),
        oras(&bench, &peers.join("oras")),
        crane(&bench, &peers.join("crane")),
    ];
    let mut table = String::from(
        "# Clients of the registry\n\nMade by `SHIPFS_RECORD=1 cargo test -p shipfs-tests --test interop registry_serves`: each client, as it \
         was built by others, pulls one image for two platforms from `shipfs registry serve` by its CID, runs it if it runs \
         anything, and pushes it, or what it built from it, to a name. *Same digest*: it pushed every platform, and the bytes \
         came back as they were pulled.\n\n| client | version | pulled | ran | pushed | same digest |\n|---|---|---|---|---|---|\n",
    );
    for Row { client, version, ran, pushed } in &rows {
        let runs = !matches!(*client, "skopeo" | "oras" | "crane");
        assert_eq!(*ran, runs, "{client}");
        let yes = |is: bool| if is { "yes" } else { "-" };
        let (sent, same) = (yes(pushed.is_some()), yes(*pushed == Some(true)));
        table.push_str(&format!("| {client} | {version} | yes | {} | {sent} | {same} |\n", yes(*ran)));
    }
    for client in ["skopeo", "oras", "crane", "nerdctl", "containerd, ctr", "containerd, ctr (Debian's)"] {
        let row = rows.iter().find(|row| row.client == client).expect("a row");
        assert_eq!(row.pushed, Some(true), "{client} carries images as they are");
    }
    keep("registry-clients.md", &table);
}
