//! `shipfs build` with the builders of others: buildah, podman, BuildKit, nerdctl, Docker with buildx.

use shipfs_tests::engines::{Containerd, DOCKERD, Docker};
use shipfs_tests::peers;
use shipfs_tests::program::{self, Running, shipfs, tool};
use shipfs_tests::runnable;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What the image prints that is built.
const BUILT: &str = "built\nkept\nof the context\n";

/// A repository with the busybox image, and a directory to build from.
struct Yard {
    folder: TempDir,
    cid: String,
}

impl Yard {
    fn new(test: &str) -> Option<Self> {
        if !program::privileged(test) || !tool(test, "runc") || !tool(test, "busybox") {
            return None;
        }
        let folder = tempfile::tempdir().expect("a directory");
        let source = runnable::layout(&folder.path().join("layout"), runnable::layers(), &runnable::config());
        let cid = program::run(shipfs(&folder.path().join("repository")).args(["--quiet", "push", &source]));
        let yard = Self { folder, cid: cid.trim().to_owned() };
        let context = yard.path("context");
        std::fs::create_dir(&context).expect("made");
        std::fs::write(context.join("file"), "of the context\n").expect("written");
        let text = format!(
            "ARG BASE=ipfs://{cid}\nFROM $BASE AS one\nRUN echo built > /built\nFROM ipfs://{cid}\n\
             COPY --from=one /built /built\nCOPY --from=ipfs://{cid} /data/kept /again\nCOPY file /file\n\
             CMD [\"cat\", \"/built\", \"/again\", \"/file\"]\n",
            cid = yard.cid
        );
        std::fs::write(context.join("Dockerfile"), text).expect("written");
        Some(yard)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Builds and pushes with a builder; runs what came of it.
    fn build(&self, with: &Path, rest: &[&str], set: impl FnOnce(&mut Command)) {
        let repository = self.path("repository");
        let before = std::fs::read(self.path("context/Dockerfile")).expect("a Dockerfile");
        let mut command = shipfs(&repository);
        // Neither is there: a registry is started.
        command.args([
            "--offline",
            "--quiet",
            "build",
            "--registry",
            "127.0.0.1:1",
            "--push",
            "ipfs://built:1",
            "--with",
        ]);
        command.arg(with).arg(self.path("context")).args(rest);
        command.env("HOME", self.folder.path());
        set(&mut command);
        let cid = program::run(&mut command).trim().to_owned();
        assert!(cid.starts_with("baf") && cid.lines().count() == 1, "{cid}");
        for image in [&cid, "built:1"] {
            let text = program::run(shipfs(&repository).args(["run", "--rm", image]));
            assert_eq!(text, BUILT);
        }
        assert_eq!(std::fs::read(self.path("context/Dockerfile")).expect("a Dockerfile"), before, "it is the user's");
        let left: Vec<_> =
            std::fs::read_dir(&repository).expect("listed").flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".build")), "{left:?}");
    }

    /// Builds without pushing: the image stays where the builder keeps it, under this name.
    fn build_for(&self, with: &Path, name: &str, set: impl FnOnce(&mut Command)) {
        let mut command = shipfs(&self.path("repository"));
        command.args(["--offline", "build", "--registry", "127.0.0.1:1", "--tag", name, "--with"]).arg(with);
        command.arg(self.path("context")).env("HOME", self.folder.path());
        set(&mut command);
        program::run(&mut command);
    }

    /// A BuildKit without any containerd; where it is.
    fn buildkit(&self, daemon: &Path) -> (Running, String) {
        let address = format!("unix://{}", self.path("buildkit.sock").display());
        let settings = format!(
            "root = \"{}\"\n[grpc]\naddress = [\"{address}\"]\n[worker.oci]\nenabled = true\nbinary = \"runc\"\n\
             networkMode = \"host\"\nsnapshotter = \"native\"\n[worker.containerd]\nenabled = false\n",
            self.path("buildkit").display()
        );
        std::fs::write(self.path("buildkit.toml"), settings).expect("written");
        let mut command = Command::new(daemon);
        command.arg("--config").arg(self.path("buildkit.toml"));
        (Running::start(&mut command, "running server").expect("BuildKit starts").0, address)
    }

    /// Storage and settings of podman and buildah of this test's own.
    fn containers(&self, command: &mut Command) {
        let settings = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n[containers]\n\
            default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nnetns = \"none\"\n";
        // Copied, not mounted: nothing is left behind.
        let (root, run) = (self.path("root"), self.path("run"));
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            root.display(),
            run.display()
        );
        std::fs::write(self.path("containers.conf"), settings).expect("written");
        std::fs::write(self.path("storage.conf"), storage).expect("written");
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
    }
}

#[test]
fn interop_buildah_builds_from_a_cid() {
    let test = "interop_buildah_builds_from_a_cid";
    let Some(yard) = Yard::new(test).filter(|_| tool(test, "buildah")) else { return };
    yard.build(Path::new("buildah"), &["--", "--isolation", "chroot"], |command| yard.containers(command));
}

#[test]
fn interop_podman_builds_from_a_cid() {
    let test = "interop_podman_builds_from_a_cid";
    let Some(yard) = Yard::new(test).filter(|_| tool(test, "podman")) else { return };
    yard.build(Path::new("podman"), &["--", "--isolation", "chroot"], |command| yard.containers(command));
}

#[test]
fn interop_buildkit_builds_from_a_cid() {
    let test = "interop_buildkit_builds_from_a_cid";
    let Some(yard) = Yard::new(test) else { return };
    let (Some(daemon), Some(client)) = (peers::program(test, "buildkitd"), peers::program(test, "buildctl")) else {
        return;
    };
    let (_daemon, address) = yard.buildkit(&daemon);
    yard.build(&client, &[], |command| {
        command.env("BUILDKIT_HOST", &address);
    });
}

#[test]
fn interop_nerdctl_builds_from_a_cid() {
    let test = "interop_nerdctl_builds_from_a_cid";
    let Some(yard) = Yard::new(test).filter(|_| tool(test, "containerd")) else { return };
    let (Some(daemon), Some(nerdctl)) = (peers::program(test, "buildkitd"), peers::program(test, "nerdctl")) else {
        return;
    };
    let (_daemon, address) = yard.buildkit(&daemon);
    let containerd = Containerd::start(&yard.path("containerd"));
    // It calls buildctl.
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", peers::folder().join("bin").display());
    let set = |command: &mut Command| {
        command.env("BUILDKIT_HOST", &address).env("CONTAINERD_ADDRESS", &containerd.socket);
        command.env("PATH", &path);
    };
    yard.build(&nerdctl, &[], set);
    // Without a push, the image is containerd's.
    yard.build_for(&nerdctl, "app:1", set);
    assert!(containerd.ctr(&["images", "ls", "-q"]).contains("docker.io/library/app:1"));
    let shown = containerd.ctr(&["run", "--rm", "docker.io/library/app:1", &format!("built-{}", std::process::id())]);
    assert_eq!(shown, BUILT.trim());
}

#[test]
fn interop_buildx_builds_from_a_cid() {
    let test = "interop_buildx_builds_from_a_cid";
    let Some(yard) = Yard::new(test).filter(|_| tool(test, "docker") && tool(test, "dockerd")) else { return };
    let (Some(daemon), Some(buildx)) = (peers::program(test, "buildkitd"), peers::program(test, "buildx")) else {
        return;
    };
    let Some(newer) = peers::program(test, "dockerd26") else { return };
    let plugins = yard.path(".docker/cli-plugins");
    std::fs::create_dir_all(&plugins).expect("made");
    std::os::unix::fs::symlink(buildx, plugins.join("docker-buildx")).expect("linked");
    let docker = Path::new("/usr/bin/docker");
    // By the builder that lies in the daemon: it keeps what it builds, and nobody else writes it out.
    for (engine, folder) in [(Path::new(DOCKERD), "docker"), (&newer, "newer")] {
        let engine = Docker::on_loopback(engine, &yard.path(folder));
        let set = |command: &mut Command| {
            command.env("DOCKER_HOST", engine.address());
        };
        yard.build(docker, &["--", "--network=none"], set);
        yard.build_for(docker, "app:1", |command| {
            set(command.arg("--").arg("--network=none"));
        });
        let shown = engine.docker(&["run", "--rm", "--network=none", "app:1"]);
        assert_eq!(shown, BUILT.trim());
    }
    // By a BuildKit of its own, which writes archives.
    let (_daemon, address) = yard.buildkit(&daemon);
    let mut create = Command::new(docker);
    create.env("HOME", yard.folder.path()).args(["buildx", "create", "--name", "own", "--driver", "remote"]);
    program::run(create.arg(&address));
    yard.build(docker, &["--", "--builder", "own"], |_| {});
}
