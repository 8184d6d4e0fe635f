//! What upstream's own suites check of its IPFS parts, done with the same tools against ours.
//!
//! Each test names the one of nerdctl that it stands for; `tests/e2e/upstream.rs` has those that need no tool of others.

use shipfs_tests::engines::{Containerd, Docker};
use shipfs_tests::peers::{self, Kubo, KuboOptions};
use shipfs_tests::program::{privileged, run, shipfs, tool};
use shipfs_tests::repository::Repository;
use shipfs_tests::runnable;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A repository with an image that runs; `None` where it cannot.
fn image(test: &str, folder: &Path) -> Option<(Repository, String)> {
    if !privileged(test) || !tool(test, "runc") || !tool(test, "busybox") {
        return None;
    }
    let source = runnable::layout(&folder.join("layout"), runnable::layers(), &runnable::config());
    let repository = Repository::new(folder.join("repository"));
    let cid = repository.run(&["push", &source]);
    Some((repository, cid))
}

/// Of `TestIPFSNerdctlRegistry`: pull `localhost:PORT/ipfs/CID`, run it. With nerdctl, as there.
#[test]
fn privileged_interop_test_ipfs_nerdctl_registry_pull() {
    let test = "privileged_interop_test_ipfs_nerdctl_registry_pull";
    let folder = TempDir::new().expect("a folder");
    let Some((repository, cid)) = image(test, folder.path()) else { return };
    let Some(program) = peers::program(test, "nerdctl").filter(|_| tool(test, "containerd")) else { return };
    let (_registry, address) = repository.registry(&["--offline"], &[]);
    let containerd = Containerd::start(&folder.path().join("containerd"));
    let nerdctl = |arguments: &[&str]| run(containerd.nerdctl(&program).args(arguments));
    let image = format!("localhost:{}/ipfs/{cid}", address.port());
    nerdctl(&["pull", "--quiet", &image]);
    let ran = ["run", "--rm", "--net", "none", "--ulimit", "nofile=1024:1024", &image, "echo", "hello"];
    assert_eq!(nerdctl(&ran), "hello\n");
}

/// Of `TestIPFSNerdctlRegistry`: build `FROM localhost:PORT/ipfs/CID` with a `CMD`, run it. With Docker's own builder.
#[test]
fn privileged_interop_test_ipfs_nerdctl_registry_build() {
    let test = "privileged_interop_test_ipfs_nerdctl_registry_build";
    let folder = TempDir::new().expect("a folder");
    let Some((repository, cid)) = image(test, folder.path()) else { return };
    if !tool(test, "dockerd") || !tool(test, "docker") {
        return;
    }
    let (_registry, address) = repository.registry(&["--offline"], &[]);
    let docker = Docker::on_loopback(Path::new("/usr/sbin/dockerd"), &folder.path().join("docker"));
    let context = folder.path().join("context");
    fs::create_dir(&context).expect("made");
    let text = format!("FROM localhost:{}/ipfs/{cid}\nCMD [\"echo\", \"nerdctl-build-test-string\"]\n", address.port());
    fs::write(context.join("Dockerfile"), text).expect("written");
    docker.docker(&["build", "--quiet", "--network", "none", "--tag", "built", &context.display().to_string()]);
    assert_eq!(docker.docker(&["run", "--rm", "--network", "none", "built"]), "nerdctl-build-test-string");
}

/// `TestIPFSAddrWithKubo`, without eStargz: a daemon somewhere else, which push and pull are told of.
#[test]
fn privileged_interop_test_ipfs_addr_with_kubo() {
    let test = "privileged_interop_test_ipfs_addr_with_kubo";
    let folder = TempDir::new().expect("a folder");
    let Some((repository, cid)) = image(test, folder.path()) else { return };
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let api = kubo.api();
    let pushed = run(shipfs(repository.path()).args(["--quiet", "--ipfs-address", &api, "push", &cid]));
    assert_eq!(pushed.trim(), cid);
    let other = folder.path().join("other");
    run(shipfs(&other).args(["--quiet", "--ipfs-address", &api, "pull", &format!("ipfs://{cid}")]));
    assert_eq!(run(shipfs(&other).args(["--offline", "run", "--rm", &cid, "echo", "hello"])), "hello\n");
}
