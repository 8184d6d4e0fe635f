//! Where a container's root comes from: pulled, unpacked once, shared, kept for as long as somebody needs it.

use super::Lab;
use shipfs_tests::program::{self, Running, shipfs};
use std::os::unix::fs::MetadataExt as _;

/// What was removed is not run, and pulled again where that may be.
#[test]
fn privileged_what_was_removed_is_pulled_again() {
    let Some(lab) = Lab::new("privileged_what_was_removed_is_pulled_again") else { return };
    let listen = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
    let (daemon, ready) = Running::start(lab.shipfs(&listen), "ready").expect("it serves");
    let address = ready.rsplit(' ').next().expect("an address").to_owned();
    let other = lab.folder.path().join("other");
    let image = format!("ipfs://{}", lab.cid);
    let peer = ["--no-mdns", "--quiet", "--peer", &address];
    program::run(shipfs(&other).args(peer).args(["pull", &image]));
    assert_eq!(program::run(shipfs(&other).args(["run", "--rm", &lab.cid, "echo", "hello"])), "hello\n");
    program::run(shipfs(&other).args(["rmi", &lab.cid]));
    program::run(shipfs(&other).arg("gc"));
    let never = shipfs(&other).args(["run", "--rm", "--pull", "never", &image, "true"]).output().expect("it starts");
    assert_eq!(never.status.code(), Some(125), "{}", program::said(&never));
    // What is missing is pulled.
    assert_eq!(program::run(shipfs(&other).args(peer).args(["run", "--rm", &image, "echo", "again"])), "again\n");
    drop(daemon);
    assert_eq!(program::run(shipfs(&other).args(["--offline", "run", "--rm", &image, "echo", "offline"])), "offline\n");
    lab.assert_clean();
}

#[test]
fn privileged_layers_are_stacked_as_the_image_says() {
    let Some(lab) = Lab::new("privileged_layers_are_stacked_as_the_image_says") else { return };
    let seen =
        lab.text(&[], &["sh", "-c", "ls /data /data/hidden; cat /usr/kept; stat -c %a /tmp; stat -c %u:%g /srv"]);
    assert_eq!(seen, "/data:\nhidden\nkept\n\n/data/hidden:\nnew\nkept\n1777\n33:34\n");
    lab.assert_clean();
}

#[test]
fn privileged_a_layer_is_unpacked_once() {
    let Some(lab) = Lab::new("privileged_a_layer_is_unpacked_once") else { return };
    assert_eq!(lab.text(&[], &["echo", "one"]), "one\n");
    let layers = lab.layer_folders();
    assert_eq!(layers.len(), 3, "{layers:?}");
    let inodes = || -> Vec<u64> {
        let inode = |name: &String| std::fs::metadata(lab.repository().join("layers").join(name)).expect("there").ino();
        layers.iter().map(inode).collect()
    };
    let before = inodes();
    // Another image on the same layers, many at once.
    let config = serde_json::json!({"Entrypoint": ["echo"], "Cmd": ["two"], "Env": ["PATH=/bin"]});
    let other = lab.push("other", shipfs_tests::runnable::layers(), &config);
    let running: Vec<_> = (0..8)
        .map(|_| lab.shipfs(&["run", "--rm", &other]).stdout(std::process::Stdio::piped()).spawn().expect("it starts"))
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.stdout, b"two\n", "{}", program::said(&output));
    }
    assert_eq!((lab.layer_folders(), inodes()), (layers.clone(), before));
    let mode = std::fs::metadata(lab.repository().join("layers")).expect("there").mode() & 0o777;
    assert_eq!(mode, 0o700, "setuid files lie there");
    lab.assert_clean();
}

#[test]
fn privileged_what_a_container_writes_is_its_own() {
    let Some(lab) = Lab::new("privileged_what_a_container_writes_is_its_own") else { return };
    assert_eq!(lab.text(&[], &["sh", "-c", "echo changed > /data/kept; cat /data/kept"]), "changed\n");
    assert_eq!(lab.text(&[], &["cat", "/data/kept"]), "kept\n");
    lab.assert_clean();
}

#[test]
fn privileged_gc_removes_layers_that_nobody_uses() {
    let Some(lab) = Lab::new("privileged_gc_removes_layers_that_nobody_uses") else { return };
    let running = lab.start(&["--rm", "--name", "one"], "echo ready; sleep 600");
    let gc = || program::run(lab.shipfs(&["gc"]));
    gc();
    assert_eq!(lab.layer_folders().len(), 3, "the image is here");
    program::run(lab.shipfs(&["rmi", &lab.cid]));
    gc();
    assert_eq!(lab.layer_folders().len(), 3, "a container uses them");
    assert_eq!(program::run(lab.shipfs(&["exec", "one", "cat", "/data/kept"])), "kept\n");
    drop(running);
    lab.shipfs(&["rm", "--force", "one"]).output().expect("it starts");
    super::wait_until("the container is gone", || lab.container_folders().is_empty());
    let said = gc();
    assert_eq!(lab.layer_folders(), [""; 0], "{said}");
    assert!(said.contains("3 unpacked layers"), "{said}");
    lab.assert_clean();
}

/// A repository is nobody's while a container runs: other commands work, and a daemon may start.
#[test]
fn privileged_a_container_keeps_nobody_from_the_repository() {
    let Some(lab) = Lab::new("privileged_a_container_keeps_nobody_from_the_repository") else { return };
    let _running = lab.start(&["--rm", "--name", "one"], "echo ready; sleep 600");
    let (daemon, _) = Running::start(lab.shipfs(&["--offline", "daemon"]), "ready").expect("it starts");
    assert!(program::run(lab.shipfs(&["images"])).contains(&lab.cid));
    assert_eq!(lab.text(&[], &["echo", "through the daemon"]), "through the daemon\n");
    drop(daemon);
    program::run(lab.shipfs(&["rm", "--force", "one"]));
}
