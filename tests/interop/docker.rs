//! The Docker that Debian has: it runs what we hand over, and we push what it has.

use std::path::Path;

use shipfs_tests::engines::Docker;
use shipfs_tests::peers;
use shipfs_tests::program::{privileged, run, said, shipfs, tool};
use shipfs_tests::runnable;
use tempfile::TempDir;

#[test]
fn privileged_interop_docker_20_runs_what_we_send_and_we_push_what_it_has() {
    const NAME: &str = "privileged_interop_docker_20_runs_what_we_send_and_we_push_what_it_has";
    if !privileged(NAME) || !tool(NAME, "docker") || !tool(NAME, "dockerd") || !tool(NAME, "runc") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let docker = Docker::start(&folder.path().join("docker"));
    let here = |number: u32| {
        let mut command = shipfs(&folder.path().join(format!("repository{number}")));
        command.env("DOCKER_HOST", docker.address());
        command
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hello");
    let cid = run(here(1).args(["-q", "push", &format!("oci:{}", data.display())]));
    run(here(1).args(["-q", "pull", cid.trim(), "--to", "docker-daemon:hello:1"]));
    assert!(docker.docker(&["run", "--rm", "--network", "none", "hello:1"]).contains("hello from an image"));
    // Docker's ID of an image is the digest of its configuration, which stays as it was.
    let id = |image: &str| docker.docker(&["image", "inspect", "--format", "{{.Id}}", image]);
    let described = run(here(1).args(["inspect", cid.trim()]));
    assert!(described.contains(&id("hello:1")), "{described}");
    // What it has is named, not sent.
    let again = here(1).args(["cp", cid.trim(), "docker-daemon:localhost/other:2"]).output().expect("runs");
    assert_eq!(said(&again).matches("  here already").count(), 4, "{}", said(&again));
    assert_eq!(id("localhost/other:2"), id("hello:1"));
    // The way back: by place, by ID, by name alone, and as `docker save` would give it.
    let back = run(here(2).args(["-q", "push", "docker-daemon:hello:1"]));
    let named = here(3).args(["push", "hello:1"]).output().expect("runs");
    assert!(
        said(&named).contains("found `hello:1` in Docker") && said(&named).contains(back.trim()),
        "{}",
        said(&named)
    );
    assert!(run(here(3).arg("images")).contains("hello:1"));
    run(here(2).args(["-q", "push", &format!("docker-daemon:{}", id("hello:1"))]));
    let archive = folder.path().join("saved.tar");
    docker.docker(&["save", "-o", archive.to_str().expect("text"), "hello:1"]);
    let saved = run(here(4).args(["-q", "push", &format!("docker-archive:{}", archive.display())]));
    assert_eq!(saved, back);
    assert!(run(here(2).args(["inspect", back.trim()])).contains(&id("hello:1")));
    // What is here of it is not asked for, and the CID is the same.
    let again = here(2).args(["push", "docker-daemon:hello:1"]).output().expect("runs");
    assert!(again.status.success() && said(&again).contains(back.trim()), "{}", said(&again));
    assert!(said(&again).contains("  here already") && !said(&again).contains("  stored"), "{}", said(&again));
    let absent = here(1).args(["push", "absent:1"]).output().expect("runs");
    assert!(!absent.status.success() && said(&absent).contains("is not here"), "{}", said(&absent));
}

/// Docker takes an archive without the layers that it has, and is not sent them; what it makes of that runs.
fn sends_only_missing_layers(docker: &Docker, folder: &Path) {
    let here = || {
        let mut command = shipfs(&folder.join("repository"));
        command.env("DOCKER_HOST", docker.address());
        command
    };
    let send = |name: &str, layers: Vec<runnable::Layer>| {
        let source = runnable::layout(&folder.join(name), layers, &runnable::config());
        let sent = here().args(["cp", &source, &format!("docker-daemon:{name}:1")]).output().expect("runs");
        let text = said(&sent);
        assert!(sent.status.success(), "{text}");
        (text.matches("  here already").count(), text.matches("  written").count())
    };
    let layers = runnable::layers;
    let extra = |text: &str| runnable::Layer::default().file("data/extra", 0o644, text.as_bytes());
    assert_eq!(send("base", layers()), (0, 5));
    let mut more = layers();
    more.push(extra("extra\n"));
    assert_eq!(
        send("more", more),
        (3, 3),
        "three layers are there; a layer, the configuration and the manifest are not"
    );
    let run_in = |name: &str, script: &str| docker.docker(&["run", "--rm", "--network=none", name, "sh", "-c", script]);
    assert_eq!(run_in("more:1", "cat /data/kept /data/extra /data/hidden/new"), "kept\nextra\nnew");
    // In another order a layer is another one, and so is one that comes again further up.
    let mut other = layers();
    other.truncate(2);
    other.push(extra("other\n"));
    other.extend(layers().into_iter().skip(1).take(1));
    let (present, written) = send("other", other);
    assert_eq!((present, written), (1, 4), "the lowest one; the second is needed again at the top");
    assert_eq!(run_in("other:1", "cat /data/removed /data/extra"), "removed\nother");
    // An image without layers in common.
    assert_eq!(send("lone", vec![extra("lone\n")]), (0, 3));
}

#[test]
fn privileged_interop_docker_20_is_sent_only_layers_that_it_lacks() {
    const NAME: &str = "privileged_interop_docker_20_is_sent_only_layers_that_it_lacks";
    if !privileged(NAME) || !tool(NAME, "dockerd") || !tool(NAME, "runc") || !tool(NAME, "busybox") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    sends_only_missing_layers(&Docker::start(&folder.path().join("docker")), folder.path());
}

#[test]
fn privileged_interop_docker_26_is_sent_only_layers_that_it_lacks() {
    const NAME: &str = "privileged_interop_docker_26_is_sent_only_layers_that_it_lacks";
    if !privileged(NAME) || !tool(NAME, "runc") || !tool(NAME, "busybox") {
        return;
    }
    let Some(program) = peers::program(NAME, "dockerd26") else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let docker = Docker::without_network(&program, "overlay2", &folder.path().join("docker"));
    sends_only_missing_layers(&docker, folder.path());
    // Its archives are layouts; what is here of one is not asked for all the same, unless the layout itself is wanted.
    let here = || {
        let mut command = shipfs(&folder.path().join("other"));
        command.env("DOCKER_HOST", docker.address());
        command
    };
    let first = run(here().args(["-q", "push", "docker-daemon:more:1"]));
    let again = here().args(["push", "docker-daemon:more:1"]).output().expect("runs");
    assert!(said(&again).contains(first.trim()) && !said(&again).contains("  stored"), "{}", said(&again));
    let whole = run(here().args(["-q", "push", "--layout", "docker-daemon:more:1"]));
    let mut fresh = shipfs(&folder.path().join("fresh"));
    fresh.env("DOCKER_HOST", docker.address()).args(["-q", "push", "--layout", "docker-daemon:more:1"]);
    assert_eq!(run(&mut fresh), whole);
}
