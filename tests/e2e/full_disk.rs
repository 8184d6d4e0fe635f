//! Threat D6 from outside: each verb on a disk that is full.

use shipfs_tests::image;
use shipfs_tests::program::{self, Running, privileged, said, shipfs};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the disk: the first image and the store's own room fit, the second image does not.
const DISK: &str = "size=24m";
/// Bytes of the layer of the image that fits, and of the one that does not.
const LAYERS: [u64; 2] = [6 << 20, 40 << 20];

/// A small disk, mounted until this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).expect("a directory");
        program::run(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&path));
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Runs a verb that must fail for want of room, and says so.
fn must_fail(command: &mut Command) {
    let output = command.output().expect("it starts");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {text}");
    let told = ["no space is left", "No space left", "room"].iter().any(|word| text.contains(word));
    assert!(told && text.contains("error: "), "{command:?}: {text}");
    assert!(output.stdout.is_empty(), "{command:?} printed a result: {text}");
}

#[test]
fn privileged_d6_a_full_disk_fails_each_verb_and_loses_nothing() {
    if !privileged("privileged_d6_a_full_disk_fails_each_verb_and_loses_nothing") {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let layouts = LAYERS.map(|size| {
        let layout = folder.path().join(format!("layout{size}"));
        image::layout(&layout, &[size], size).expect("written");
        format!("oci:{}", layout.display())
    });
    let giver = folder.path().join("giver");
    let offline = |repository: &Path, arguments: &[&str]| {
        let mut command = shipfs(repository);
        command.args(["--offline", "--quiet"]).args(arguments);
        command
    };
    let large = program::run(&mut offline(&giver, &["push", &layouts[1]])).trim().to_owned();
    let archive = folder.path().join("large.tar");
    let to_archive = format!("docker-archive:{}", archive.display());
    program::run(&mut offline(&giver, &["tag", &large, "large:1"]));
    program::run(&mut offline(&giver, &["pull", &large, "--to", &to_archive]));
    let listen = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
    let (_giver, ready) = Running::start(shipfs(&giver).args(listen), "ready").expect("it serves");
    let address = ready.rsplit(' ').next().expect("an address");

    let disk = Disk::mount(folder.path().join("disk"));
    let repository = disk.0.join("repository");
    let small = program::run(&mut offline(&repository, &["push", &layouts[0], "--name", "small:1"]));
    let small = small.trim();
    let whole = || {
        let images = program::run(&mut offline(&repository, &["images"]));
        assert!(images.contains(small) && !images.contains(&large), "{images}");
        program::run(&mut offline(&repository, &["verify"]));
    };
    must_fail(&mut offline(&repository, &["push", &layouts[1]]));
    whole();
    must_fail(shipfs(&repository).args(["--no-mdns", "--quiet", "--peer", address, "pull", &large]));
    whole();
    must_fail(&mut offline(&repository, &["load", "--input", &archive.display().to_string()]));
    whole();
    // What the failed ones left is given back, and small things have room all the while.
    program::run(&mut offline(&repository, &["gc"]));
    program::run(&mut offline(&repository, &["tag", "small:1", "small:2"]));
    whole();
    // A sink on the full disk: what was there stays, and half an archive does not.
    let filler = disk.0.join("filler");
    // As far as it goes.
    let _ = std::fs::write(&filler, vec![7; 14 << 20]);
    let target = disk.0.join("saved.tar");
    let to = format!("oci-archive:{}", target.display());
    must_fail(&mut offline(&repository, &["pull", small, "--to", &to]));
    assert!(!target.exists());
    whole();
    // Without one free byte, what is here can still be read.
    let mut filling = std::fs::OpenOptions::new().append(true).open(&filler).expect("opens");
    while std::io::Write::write_all(&mut filling, &[7; 4096]).is_ok() {}
    for verb in [&["images"][..], &["inspect", small], &["verify"], &["why", small], &["doctor"]] {
        let output = offline(&repository, verb).output().expect("it starts");
        let is_told = verb[0] == "doctor" && said(&output).contains("FAIL space");
        assert!(output.status.success() || is_told, "{verb:?}: {}", said(&output));
    }
    let elsewhere = folder.path().join("elsewhere.tar").display().to_string();
    program::run(&mut offline(&repository, &["save", small, "--output", &elsewhere]));
    drop(filling);
    // With room again, all of it can be done.
    std::fs::remove_file(&filler).expect("removed");
    program::run(&mut offline(&repository, &["pull", small, "--to", &to]));
    // The pull has kept it under its CID as well.
    program::run(&mut offline(&repository, &["rmi", "small:1", "small:2", small]));
    program::run(&mut offline(&repository, &["gc"]));
    assert_eq!(image::check_blobs(&repository).expect("a directory").len(), 0);
}
