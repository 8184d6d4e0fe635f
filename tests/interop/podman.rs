//! podman, by its command and by its socket: it keeps what we hand over, and we push what it has.

use std::path::Path;

use shipfs_tests::engines::Podman;
use shipfs_tests::program::{privileged, run, said, shipfs, tool};
use tempfile::TempDir;

#[test]
fn privileged_interop_podman_takes_and_gives_images_by_command_and_by_socket() {
    const NAME: &str = "privileged_interop_podman_takes_and_gives_images_by_command_and_by_socket";
    if !privileged(NAME) || !tool(NAME, "podman") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let podman = Podman::new(&folder.path().join("podman"));
    let here = |number: u32, socket: &Path| {
        let mut command = shipfs(&folder.path().join(format!("repository{number}")));
        command
            .env("CONTAINERS_STORAGE_CONF", &podman.storage)
            .env("CONTAINER_HOST", socket)
            .env("HOME", folder.path());
        command
    };
    let from = |data: &str| format!("oci:{}", Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(data).display());
    let id = |image: &str| podman.podman(&["image", "inspect", "--format", "{{.Id}}", image]);
    let both_ways = |number: u32, socket: &Path, data: &str, name: &str| {
        run(here(number, socket).args(["-q", "cp", &from(data), &format!("containers-storage:{name}")]));
        let place = format!("containers-storage:{name}");
        let back = run(here(number, socket).args(["-q", "push", "--name", "back:1", &place]));
        // Its ID of an image is the digest of its configuration, which stays as it was.
        assert!(run(here(number, socket).args(["inspect", back.trim()])).contains(&id(name)), "{name}");
        let named = here(number + 1, socket).args(["push", name]).output().expect("runs");
        assert!(said(&named).contains("in podman") && said(&named).contains(back.trim()), "{}", said(&named));
        let again = here(number, socket).args(["cp", &from(data), &format!("{place}-again")]).output().expect("runs");
        assert!(again.status.success() && !said(&again).contains("  written"), "{}", said(&again));
        assert_eq!(id(&format!("{name}-again")), id(name));
        back
    };
    let nowhere = folder.path().join("nowhere.sock");
    both_ways(1, &nowhere, "hello", "localhost/hello:1");
    let by_command = both_ways(3, &nowhere, "source-layout", "localhost/source:1");
    let (_service, socket) = podman.serve();
    podman.podman(&["rmi", "--force", "localhost/source:1", "localhost/source:1-again"]);
    assert_eq!(both_ways(5, &socket, "source-layout", "localhost/source:1"), by_command);
    let absent = here(1, &socket).args(["push", "containers-storage:absent:1"]).output().expect("runs");
    assert!(!absent.status.success() && said(&absent).contains("in podman"), "{}", said(&absent));
}
