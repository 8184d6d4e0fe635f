//! The Docker that Debian has: it runs what we hand over, and we push what it has.

use std::path::Path;

use shipfs_tests::engines::Docker;
use shipfs_tests::program::{privileged, run, said, shipfs, tool};
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
    let absent = here(1).args(["push", "absent:1"]).output().expect("runs");
    assert!(!absent.status.success() && said(&absent).contains("is not here"), "{}", said(&absent));
}
