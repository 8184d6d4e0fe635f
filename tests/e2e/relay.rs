//! An image that passes from host to host to host: hosts found by mDNS alone, and the first gone before the last asks.

use shipfs_tests::netns::Lan;
use shipfs_tests::program::{self, Running, privileged, shipfs_path, tool};
use shipfs_tests::{debian, image};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A command of `shipfs` on a host of the LAN.
fn on(lan: &Lan, host: usize, folder: &Path) -> Command {
    let mut command = lan.on(host, &shipfs_path());
    command.arg("--repo").arg(folder.join(format!("host{host}")));
    command
}

/// The blobs a host holds, each checked against its name.
fn blobs(folder: &Path, host: usize) -> Vec<String> {
    image::check_blobs(&folder.join(format!("host{host}"))).expect("every blob is what its name says")
}

#[expect(clippy::print_stderr, reason = "figures are for whoever runs the test, and no reason to fail it")]
fn report(what: &str, start: Instant) {
    eprintln!("{what}: {:.2} s", start.elapsed().as_secs_f64());
}

/// Pushes on host 1, pulls on host 2, ends host 1, pulls on host 3; returns the CID.
fn pass_on(lan: &Lan, folder: &Path, source: &str, shape: &[&str], sink: Option<&str>) -> String {
    let push = program::run(on(lan, 1, folder).args(["--offline", "--quiet", "push"]).args(shape).arg(source));
    let cid = push.trim().to_owned();
    let (first, _) = Running::start(on(lan, 1, folder).arg("daemon"), "ready").expect("host 1 serves");
    let start = Instant::now();
    let mut pull = on(lan, 2, folder);
    pull.args(["--quiet", "pull", &cid]);
    if let Some(sink) = sink {
        pull.args(["--to", sink]);
    }
    assert_eq!(program::run(&mut pull).trim(), cid);
    report("host 2 has it", start);
    let (second, _) = Running::start(on(lan, 2, folder).arg("daemon"), "ready").expect("host 2 serves");
    first.kill();
    let start = Instant::now();
    assert_eq!(program::run(on(lan, 3, folder).args(["--quiet", "pull", &cid])).trim(), cid);
    report("host 3 has it from host 2", start);
    drop(second);
    assert_eq!(blobs(folder, 2), blobs(folder, 1));
    assert_eq!(blobs(folder, 3), blobs(folder, 1));
    cid
}

#[test]
fn privileged_an_image_passes_from_host_to_host_to_host() {
    if !privileged("privileged_an_image_passes_from_host_to_host_to_host") {
        return;
    }
    let made = tempfile::tempdir().expect("a directory");
    let layout = made.path().join("layout");
    image::layout(&layout, &[20 << 20, 262_145, 1, 7 << 20], 1).expect("written");
    let source = format!("oci:{}", layout.display());
    for shape in [&[][..], &["--layout"]] {
        let (lan, folder) = (Lan::new(3), tempfile::tempdir().expect("a directory"));
        pass_on(&lan, folder.path(), &source, shape, None);
    }
}

/// Three hundred megabytes of Debian, in six layers; what comes out is an image to others, and runs.
#[test]
fn interop_a_real_image_runs_on_another_host() {
    const NAME: &str = "interop_a_real_image_runs_on_another_host";
    if !privileged(NAME) || !["podman", "skopeo", "runc", "apt-get", "dpkg-deb"].iter().all(|name| tool(NAME, name)) {
        return;
    }
    let (lan, folder) = (Lan::new(3), tempfile::tempdir().expect("a directory"));
    let path = folder.path();
    debian::layout(&path.join("layout"), &std::env::temp_dir().join("shipfs-debian-packages")).expect("written");
    let source = format!("oci:{}", path.join("layout").display());
    let archive = format!("oci-archive:{}", path.join("image.tar").display());
    let cid = pass_on(&lan, path, &source, &[], Some(&archive));
    let inspected = program::run(Command::new("skopeo").args(["inspect", &archive]));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(debian::PACKAGES.len()), "{inspected}");
    let docker = format!("docker-archive:{}", path.join("docker.tar").display());
    program::run(on(&lan, 3, path).args(["--offline", "--quiet", "pull", &cid, "--to", &docker]));
    for archive in ["image.tar", "docker.tar"] {
        let root = path.join(format!("podman-{archive}"));
        program::run(podman(&root, path).args(["load", "--input"]).arg(path.join(archive)));
        let images = program::run(podman(&root, path).args(["images", "--quiet"]));
        let image = images.split_whitespace().next().expect("an image");
        let said = program::run(podman(&root, path).args(["run", "--rm", image]));
        assert_eq!(said, "a container of it runs\n");
        program::run(podman(&root, path).args(["rmi", "--all", "--force"]));
    }
}

/// Podman with storage of its own and no demands on the machine that a container of a test may not make.
fn podman(root: &Path, folder: &Path) -> Command {
    const CONFIGURATION: &str = "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
        [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nnetns = \"none\"\n";
    let configuration = folder.join("containers.conf");
    std::fs::write(&configuration, CONFIGURATION).expect("written");
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", configuration).arg("--root").arg(root);
    command.arg("--runroot").arg(root.with_extension("run")).args(["--storage-driver", "vfs"]);
    command
}
