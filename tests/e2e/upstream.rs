//! What upstream's own suites check of its IPFS parts, with nothing but our own command on every host.
//!
//! Each test names the one of nerdctl that it stands for; `tests/interop/upstream.rs` has those that need other tools.

use crate::run::{Lab, Way};
use shipfs_tests::program::{run, shipfs};
use shipfs_tests::repository::Repository;

/// A lab whose image is served, and another host that knows where.
struct TwoHosts {
    lab: Lab,
    other: Repository,
    image: String,
    peer: String,
    _daemon: shipfs_tests::program::Running,
}

impl TwoHosts {
    fn new(test: &str) -> Option<Self> {
        let lab = Lab::new(test, Way::ROOT)?;
        let (daemon, peer) = Repository::new(lab.repository()).serve();
        let other = Repository::new(lab.folder.path().join("other"));
        Some(Self { image: format!("ipfs://{}", lab.cid), lab, other, peer, _daemon: daemon })
    }

    fn pull(&self) {
        run(&mut self.other.online(&self.peer, &["pull", &self.image]));
    }
}

/// The first item of `TestIPFSSimple`: push; pull; run echo; rmi.
#[test]
fn privileged_test_ipfs_simple() {
    let Some(hosts) = TwoHosts::new("privileged_test_ipfs_simple") else { return };
    hosts.pull();
    let echo = ["run", "--rm", &hosts.lab.cid, "echo", "hello"];
    assert_eq!(run(shipfs(hosts.other.path()).args(echo)), "hello\n");
    hosts.other.run(&["rmi", "-f", &hosts.lab.cid]);
    assert_eq!(hosts.other.run(&["images"]), "");
}

/// The third item of `TestIPFSSimple`: what a container changed is committed, pushed, pulled elsewhere and there.
#[test]
fn privileged_test_ipfs_simple_commit() {
    let Some(hosts) = TwoHosts::new("privileged_test_ipfs_simple_commit") else { return };
    hosts.pull();
    let other = &hosts.other;
    other.run(&["run", "--name", "one", &hosts.image, "sh", "-c", "echo hello > /hello"]);
    let committed = other.run(&["commit", "one", "commit-image"]);
    let pushed = other.run(&["push", "ipfs://commit-image"]);
    assert_eq!(pushed, committed, "an image has one CID");
    other.run(&["rm", "one"]);
    // Whoever pulls it has it from there alone.
    let (daemon, peer) = other.serve();
    let third = Repository::new(hosts.lab.folder.path().join("third"));
    run(&mut third.online(&peer, &["pull", &format!("ipfs://{pushed}")]));
    drop(daemon);
    assert_eq!(third.run(&["run", "--rm", &pushed, "cat", "/hello"]), "hello");
    // There, too, once it has forgotten everything but has a peer to ask.
    other.run(&["rmi", "commit-image"]);
    other.run(&["gc"]);
    let (_daemon, peer) = third.serve();
    run(&mut other.online(&peer, &["pull", &pushed]));
    assert_eq!(other.run(&["run", "--rm", &pushed, "cat", "/hello"]), "hello");
}

/// `TestIssue` "with ipfs": layers that a pull did not fetch again are there for a push.
#[test]
fn privileged_test_issue_push_after_removal() {
    let Some(hosts) = TwoHosts::new("privileged_test_issue_push_after_removal") else { return };
    hosts.pull();
    let run_true = |hosts: &TwoHosts| hosts.other.run(&["run", "--rm", &hosts.image, "true"]);
    run_true(&hosts);
    hosts.other.run(&["rmi", "-f", &hosts.lab.cid]);
    hosts.pull();
    assert_eq!(hosts.other.run(&["push", &hosts.image]), hosts.lab.cid);
    run_true(&hosts);
}

/// referenceutil's table: what names an image, and what a container of it is called.
#[test]
fn privileged_test_referenceutil() {
    let Some(lab) = Lab::new("privileged_test_referenceutil", Way::ROOT) else { return };
    let repository = Repository::new(lab.repository());
    repository.run(&["tag", &lab.cid, "registry.example/team/tools:2"]);
    let cid = lab.cid.as_str();
    let upper = format!("B{}", cid[1..].to_uppercase());
    for (text, name) in [
        (cid, format!("ipfs-{}", &cid[..5])),
        (&format!("ipfs://{cid}"), format!("ipfs-{}", &cid[..5])),
        (&upper, format!("ipfs-{}", &cid[..5])),
        ("busybox:test", "busybox".to_owned()),
        ("ipfs://busybox:test", "busybox".to_owned()),
        ("docker.io/library/busybox:test", "busybox".to_owned()),
        ("registry.example/team/tools:2", "tools".to_owned()),
        ("ipfs://registry.example/team/tools:2", "tools".to_owned()),
    ] {
        repository.run(&["run", text, "true"]);
        let rows = lab.containers();
        let [row] = &rows[..] else { panic!("{text}: {rows:?}") };
        let id = row["id"].as_str().expect("an identifier");
        assert_eq!(row["name"], format!("{name}-{}", &id[..5]), "{text}");
        assert_eq!(repository.run(&["push", text]), cid, "{text}");
        repository.run(&["rm", id]);
    }
    for text in ["ipns://busybox", "oci-archive://busybox.tar", "ipfs://", "Busybox"] {
        assert!(!repository.offline(&["push", text]).output().expect("it starts").status.success(), "{text}");
    }
}
