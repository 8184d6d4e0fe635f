//! Threat D1 from outside: a pull that was killed goes on where it was.

use shipfs_tests::image;
use shipfs_tests::program::{self, Running, shipfs};
use std::path::Path;
use std::process::Stdio;

/// A pull that is killed half-way asks the second time for what it lacks, and for little more.
#[test]
fn d1_a_pull_that_was_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    image::layout(&path("layout"), &[48 << 20], 5).expect("written");
    let source = format!("oci:{}", path("layout").display());
    let cid = program::run(shipfs(&path("giver")).args(["--offline", "--quiet", "push", &source])).trim().to_owned();
    let listen = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
    let (_giver, ready) = Running::start(shipfs(&path("giver")).args(listen), "ready").expect("it serves");
    let address = ready.rsplit(' ').next().expect("an address").to_owned();
    let pull = ["--no-mdns", "--quiet", "--peer", &address, "pull", &cid];
    let mut child = shipfs(&path("taker")).args(pull).stdout(Stdio::null()).spawn().expect("it starts");
    while received(&path("taker")) < 8 << 20 {
        assert!(matches!(child.try_wait(), Ok(None)), "it ended before it could be killed");
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    let kept = received(&path("taker"));
    // A daemon takes it up, so that somebody can be asked what it received.
    let (_taker, _) = Running::start(shipfs(&path("taker")).args(listen), "ready").expect("it serves");
    program::run(shipfs(&path("taker")).args(pull));
    let peers = program::run(shipfs(&path("taker")).args(["--json", "peers"]));
    let peers: serde_json::Value = serde_json::from_str(&peers).expect("JSON");
    let again = peers[0]["received"].as_u64().expect("a number");
    let (size, slack) = (48 << 20, 2 << 20);
    assert!(again <= size - kept + slack, "{again} bytes came again, {kept} of {size} were there");
    assert!(image::check_blobs(&path("taker")).is_ok());
}

/// Bytes of partial files that are on disk.
fn received(repository: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(repository.join("partial")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|data| data.blocks() * 512).sum()
}
