//! Where a container's root comes from: pulled, unpacked once, shared, kept for as long as somebody needs it.

use super::Lab;
use shipfs_tests::program::{self, Running};
use std::os::unix::fs::MetadataExt as _;

super::in_every_way! {
    what_was_removed_is_pulled_again: privileged_what_was_removed_is_pulled_again privileged_crun_what_was_removed_is_pulled_again
        privileged_rootless_what_was_removed_is_pulled_again privileged_rootless_crun_what_was_removed_is_pulled_again;
    layers_are_stacked_as_the_image_says: privileged_layers_are_stacked_as_the_image_says
        privileged_crun_layers_are_stacked_as_the_image_says
        privileged_rootless_layers_are_stacked_as_the_image_says
        privileged_rootless_crun_layers_are_stacked_as_the_image_says;
    a_layer_is_unpacked_once: privileged_a_layer_is_unpacked_once privileged_crun_a_layer_is_unpacked_once
        privileged_rootless_a_layer_is_unpacked_once privileged_rootless_crun_a_layer_is_unpacked_once;
    what_a_container_writes_is_its_own: privileged_what_a_container_writes_is_its_own
        privileged_crun_what_a_container_writes_is_its_own
        privileged_rootless_what_a_container_writes_is_its_own
        privileged_rootless_crun_what_a_container_writes_is_its_own;
    gc_removes_layers_that_nobody_uses: privileged_gc_removes_layers_that_nobody_uses
        privileged_crun_gc_removes_layers_that_nobody_uses
        privileged_rootless_gc_removes_layers_that_nobody_uses
        privileged_rootless_crun_gc_removes_layers_that_nobody_uses;
    a_container_keeps_nobody_from_the_repository: privileged_a_container_keeps_nobody_from_the_repository
        privileged_crun_a_container_keeps_nobody_from_the_repository
        privileged_rootless_a_container_keeps_nobody_from_the_repository
        privileged_rootless_crun_a_container_keeps_nobody_from_the_repository;
}

/// What was removed is not run, and pulled again where that may be.
fn what_was_removed_is_pulled_again(lab: &Lab) {
    let listen = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
    let (daemon, ready) = Running::start(lab.shipfs(&listen), "ready").expect("it serves");
    let address = ready.rsplit(' ').next().expect("an address").to_owned();
    let other = lab.folder.path().join("other");
    let on_other = |words: &[&str]| lab.shipfs_on(&other, words);
    let image = format!("ipfs://{}", lab.cid);
    let peer = ["--no-mdns", "--quiet", "--peer", &address];
    program::run(on_other(&[]).args(peer).args(["pull", &image]));
    assert_eq!(program::run(on_other(&["run", "--rm", &lab.cid, "echo", "hello"])), "hello\n");
    program::run(on_other(&["rmi", &lab.cid]));
    program::run(on_other(&["gc"]));
    let never = on_other(&["run", "--rm", "--pull", "never", &image, "true"]).output().expect("it starts");
    assert_eq!(never.status.code(), Some(125), "{}", program::said(&never));
    // What is missing is pulled.
    assert_eq!(program::run(on_other(&[&peer[..], &["run", "--rm", &image, "echo", "again"]].concat())), "again\n");
    drop(daemon);
    assert_eq!(program::run(on_other(&["--offline", "run", "--rm", &image, "echo", "offline"])), "offline\n");
    lab.assert_clean();
}

fn layers_are_stacked_as_the_image_says(lab: &Lab) {
    let seen =
        lab.text(&[], &["sh", "-c", "ls /data /data/hidden; cat /usr/kept; stat -c %a /tmp; stat -c %u:%g /srv"]);
    assert_eq!(seen, "/data:\nhidden\nkept\n\n/data/hidden:\nnew\nkept\n1777\n33:34\n");
    lab.assert_clean();
}

fn a_layer_is_unpacked_once(lab: &Lab) {
    assert_eq!(lab.text(&[], &["echo", "one"]), "one\n");
    let layers = lab.layer_folders();
    assert_eq!(layers.len(), 3, "{layers:?}");
    let inodes = || -> Vec<u64> {
        let inode = |name: &String| std::fs::metadata(lab.layers().join(name)).expect("there").ino();
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
    let mode = std::fs::metadata(lab.layers()).expect("there").mode() & 0o777;
    assert_eq!(mode, 0o700, "setuid files lie there");
    lab.assert_clean();
}

fn what_a_container_writes_is_its_own(lab: &Lab) {
    assert_eq!(lab.text(&[], &["sh", "-c", "echo changed > /data/kept; cat /data/kept"]), "changed\n");
    assert_eq!(lab.text(&[], &["cat", "/data/kept"]), "kept\n");
    lab.assert_clean();
}

fn gc_removes_layers_that_nobody_uses(lab: &Lab) {
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
fn a_container_keeps_nobody_from_the_repository(lab: &Lab) {
    let _running = lab.start(&["--rm", "--name", "one"], "echo ready; sleep 600");
    let (daemon, _) = Running::start(lab.shipfs(&["--offline", "daemon"]), "ready").expect("it starts");
    assert!(program::run(lab.shipfs(&["images"])).contains(&lab.cid));
    assert_eq!(lab.text(&[], &["echo", "through the daemon"]), "through the daemon\n");
    drop(daemon);
    program::run(lab.shipfs(&["rm", "--force", "one"]));
}

/// What a snapshotter hides of such a layer is there when it is unpacked, as with every other tool.
#[test]
fn privileged_converted_images_run_like_all_others() {
    let Some(lab) = Lab::new("privileged_converted_images_run_like_all_others", super::Way::ROOT) else { return };
    let converted = program::run(lab.shipfs(&["--quiet", "push", "--estargz", &lab.cid]));
    let command = ["sh", "-c", "ls /data /data/hidden; cat /usr/kept; stat -c %a /tmp; stat -c %u:%g /srv"];
    let run = |image: &str| program::run(lab.shipfs(&[&["run", "--rm", image], &command[..]].concat()));
    assert_eq!(run(converted.trim()), run(&lab.cid));
    let all = program::run(lab.shipfs(&["run", "--rm", converted.trim(), "ls", "-A", "/"]));
    for name in [".no.prefetch.landmark", "stargz.index.json"] {
        assert!(all.lines().any(|line| line == name), "{all}");
    }
    lab.assert_clean();
}
