//! Places of other programs: what is said of those that are not there, and copies from place to place.

use std::fs;

use crate::support::{HELLO_CID, Shipfs, hello};

#[test]
fn an_image_is_copied_as_it_is_and_no_name_is_left() {
    let shipfs = Shipfs::new();
    let out = shipfs.path().join("out");
    let copied = shipfs.run(&["cp", &hello(), &format!("oci:{}", out.display())]);
    let digest = copied.ok().trim().to_owned();
    assert_eq!(digest, "sha256:426584b60a3425ac6b77fade232620c92c5caf323ea7b3d7f5f866d7ffd3f035");
    assert!(out.join("blobs/sha256").join(&digest["sha256:".len()..]).is_file());
    assert_eq!(shipfs.run(&["-q", "images"]).ok(), "");
    assert_eq!(shipfs.run(&["-q", "push", &hello()]).ok().trim(), HELLO_CID);
    // Out of the repository, too; `push` with a place to go to means the same.
    let archive = shipfs.path().join("hello.tar");
    let pushed = shipfs.run(&["--json", "push", HELLO_CID, &format!("oci-archive:{}", archive.display())]).json();
    assert!(pushed["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{pushed}");
    assert!(archive.is_file());
}

#[test]
fn a_place_that_is_not_there_is_told_with_its_own_words() {
    let shipfs = Shipfs::new();
    let socket = shipfs.path().join("none.sock");
    let socket = socket.to_str().expect("text");
    let containerd = shipfs.run(&["push", "containerd:a", "--address", socket]);
    assert_eq!(containerd.code, Some(1), "{containerd:?}");
    assert!(containerd.stderr.contains("cannot reach containerd at"), "{containerd:?}");
    let offline = shipfs.run(&["--offline", "push", "docker://127.0.0.1:1/a"]);
    assert!(offline.code == Some(1) && offline.stderr.contains("none may be used"), "{offline:?}");
    let nobody = shipfs.run(&["push", "docker://127.0.0.1:1/a"]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("http://127.0.0.1:1/v2/"), "{nobody:?}");
}

#[test]
fn a_password_is_asked_for_at_a_terminal_or_read_from_stdin() {
    let shipfs = Shipfs::new();
    let usage = shipfs.run(&["login", "--password-stdin", "registry.example"]);
    assert_eq!(usage.code, Some(2), "{usage:?}");
    for registry in ["a/b", "UPPER CASE", "", "registry.example/team"] {
        assert_eq!(shipfs.run(&["login", registry]).code, Some(2), "{registry}");
    }
    let empty = shipfs.run(&["login", "-u", "me", "--password-stdin", "registry.example"]);
    assert!(empty.code == Some(2) && empty.stderr.contains("a password are needed"), "{empty:?}");
    assert!(!shipfs.repo().exists() && fs::read_dir(shipfs.path()).expect("reads").next().is_none());
}
