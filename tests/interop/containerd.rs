//! containerd: its images become ours, and ours its own, which it runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shipfs_tests::engines::{Containerd, Registry};
use shipfs_tests::image::layout;
use shipfs_tests::program::{privileged, run, said, shipfs, shipfs_path, tool};
use tempfile::TempDir;

fn is_here(test: &str) -> bool {
    privileged(test) && tool(test, "containerd") && tool(test, "ctr") && tool(test, "runc")
}

/// The small image that says hello.
fn hello() -> String {
    let data: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hello");
    format!("oci:{}", data.display())
}

#[test]
fn privileged_interop_containerd_runs_what_we_send_and_we_push_what_it_has() {
    const NAME: &str = "privileged_interop_containerd_runs_what_we_send_and_we_push_what_it_has";
    if !is_here(NAME) {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let containerd = Containerd::start(&folder.path().join("containerd"));
    let here = |number: u32| {
        let mut command = shipfs(&folder.path().join(format!("repository{number}")));
        command.env("CONTAINERD_ADDRESS", &containerd.socket);
        command
    };
    let digest = run(here(1).args(["-q", "cp", &hello(), "containerd:hello:1"]));
    assert!(containerd.ctr(&["images", "ls"]).contains(digest.trim()));
    assert!(containerd.ctr(&["run", "--rm", "docker.io/library/hello:1", "one"]).contains("hello from an image"));
    assert_eq!(containerd.ctr(&["leases", "ls", "-q"]), "");
    // Its files in place, and by its own name; the same CID as from anywhere else.
    let cid = run(here(2).args(["-q", "push", &hello()]));
    assert_eq!(run(here(3).args(["-q", "push", "containerd:hello:1"])), cid);
    let by_name = here(4).args(["push", "hello:1"]).output().expect("runs");
    let told = said(&by_name);
    assert!(told.contains("found `hello:1` in containerd, namespace `default`") && told.contains(cid.trim()), "{told}");
    // Over the socket alone, when nothing of it can be seen.
    let mut unseen = Command::new("unshare");
    unseen.args(["--mount", "sh", "-c", "mount -t tmpfs none \"$0\" && exec \"$@\""]).arg(&containerd.root);
    unseen.arg(shipfs_path()).arg("--repo").arg(folder.path().join("repository5"));
    unseen.args(["-q", "push", "containerd:hello:1", "--address"]).arg(&containerd.socket);
    assert_eq!(run(&mut unseen), cid);
    // What is there is not sent again, under another name or in another namespace.
    let again = here(1).args(["cp", &hello(), "containerd:hello:2"]).output().expect("runs");
    assert_eq!(said(&again).matches("  here already").count(), 3, "{}", said(&again));
    run(here(1).args(["-q", "cp", &hello(), "containerd:hello:1", "--namespace", "other"]));
    assert!(containerd.ctr(&["-n", "other", "run", "--rm", "docker.io/library/hello:1", "two"]).contains("hello"));
    // Out of our store as well, with what IPFS says in it.
    run(here(2).args(["-q", "pull", cid.trim(), "--to", "containerd:hello:3"]));
    assert!(containerd.ctr(&["run", "--rm", "docker.io/library/hello:3", "three"]).contains("hello"));
    let absent = here(1).args(["push", "containerd:absent:1"]).output().expect("runs");
    assert!(
        !absent.status.success() && said(&absent).contains("there is no `docker.io/library/absent:1` in containerd")
    );
}

#[test]
fn privileged_interop_containerd_lacks_a_layer_that_the_registry_has() {
    const NAME: &str = "privileged_interop_containerd_lacks_a_layer_that_the_registry_has";
    if !is_here(NAME) || !tool(NAME, "docker-registry") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let containerd = Containerd::start(&at("containerd"));
    let registry = Registry::start(&at("registry"), None);
    layout(&at("source"), &[1000, 300_000], 7).expect("a layout");
    let from = format!("oci:{}", at("source").display());
    let name = format!("{}/team/tools:1", registry.address);
    let here = |number: u32| {
        let mut command = shipfs(&at(&format!("repository{number}")));
        command.env("CONTAINERD_ADDRESS", &containerd.socket);
        command
    };
    let cid = run(here(1).args(["-q", "push", &from]));
    run(here(1).args(["-q", "cp", &from, &format!("docker://{name}")]));
    run(here(1).args(["-q", "cp", &from, &format!("containerd:{name}")]));
    let manifest = fs::read_dir(at("source/blobs/sha256")).expect("blobs").map(|entry| entry.expect("an entry").path());
    let layer = manifest.max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a layer");
    let layer = format!("sha256:{}", layer.file_name().expect("a name").to_str().expect("text"));
    containerd.ctr(&["content", "rm", &layer]);
    // The place that was named has not got it, and that is what is said.
    let named = here(2).args(["push", &format!("containerd:{name}")]).output().expect("runs");
    assert!(!named.status.success() && said(&named).contains(&layer), "{}", said(&named));
    let offline = here(2).args(["--offline", "push", &name]).output().expect("runs");
    assert!(!offline.status.success() && said(&offline).contains(&layer), "{}", said(&offline));
    // By its name alone, the rest comes from where the name says that it is from.
    assert_eq!(run(here(2).args(["-q", "push", &format!("ipfs://{name}")])), cid);
}
