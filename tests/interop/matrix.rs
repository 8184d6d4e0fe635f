//! How fast a file goes between shipfs and each other implementation, in both directions, over each transport.
//!
//! Prints a table; with `SHIPFS_RECORD` set, writes it beside this file. With `SHIPFS_INTEROP_GIB` set, a file of 1 GiB
//! goes, too. What counts is the time of the whole command that fetches: `shipfs pull` syncs what it got and checks every
//! digest, `ipfs pin add` does neither.

use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{run, shipfs};
use shipfs_tests::repository::Repository;
use shipfs_tests::{image, table};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use table::{Row, Table};
use tempfile::TempDir;

/// The sizes of layers, in bytes.
fn sizes() -> Vec<u64> {
    let mut sizes = vec![1 << 10, 1 << 20, 64 << 20];
    if std::env::var_os("SHIPFS_INTEROP_GIB").is_some() {
        sizes.push(1 << 30);
    }
    sizes
}

/// An image of one layer, as an OCI layout on disk and as a layout root in a repository.
struct Sample {
    size: u64,
    layout: PathBuf,
    repository: Repository,
    root: String,
}

impl Sample {
    fn new(folder: &Path, size: u64) -> Self {
        let layout = folder.join(format!("layout-{size}"));
        image::layout(&layout, &[size], size).expect("a layout");
        let repository = Repository::new(folder.join(format!("sample-{size}")));
        let root = repository.run(&["push", "--layout", "--all-platforms", &format!("oci:{}", layout.display())]);
        Self { size, layout, repository, root }
    }
}

/// One way to connect.
#[derive(Clone, Copy)]
struct Way<'a> {
    transport: &'static str,
    listen: &'static str,
    key: Option<&'a Path>,
}

impl Way<'_> {
    fn options(&self) -> Vec<String> {
        let key = self.key.iter().flat_map(|key| ["--swarm-key".to_owned(), key.display().to_string()]);
        key.chain(["--listen".to_owned(), self.listen.to_owned()]).collect()
    }

    fn row(&self, peer: &str, from: &str, to: &str, size: u64, took: Duration) -> Row {
        let key = if self.key.is_some() { "yes" } else { "no" };
        let result = Ok(took);
        Row { peer: peer.to_owned(), way: format!("{from} -> {to}"), transport: self.transport, key, size, result }
    }
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    run(command);
    began.elapsed()
}

#[test]
fn interop_matrix_of_kubo() {
    const NAME: &str = "interop_matrix_of_kubo";
    let folder = TempDir::new().expect("a temporary directory");
    let key = folder.path().join("swarm.key");
    run(shipfs(folder.path()).args(["key", "gen", "--output"]).arg(&key));
    let ways = [
        Way { transport: "TCP", listen: "/ip4/127.0.0.1/tcp/0", key: None },
        Way { transport: "QUIC", listen: "/ip4/127.0.0.1/udp/0/quic-v1", key: None },
        Way { transport: "TCP", listen: "/ip4/127.0.0.1/tcp/0", key: Some(&key) },
    ];
    let Some(_) = Kubo::new(NAME, KuboOptions::default()) else { return };
    let mut table = Table::default();
    for size in sizes() {
        let sample = Sample::new(folder.path(), size);
        for way in ways {
            let quic = way.transport == "QUIC";
            let options = KuboOptions { swarm_key: way.key, quic, ..KuboOptions::default() };
            let kubo = Kubo::start(NAME, options).expect("is here");
            let said = way.options();
            let options: Vec<_> = said.iter().map(String::as_str).collect();
            let (daemon, address) = sample.repository.serve_with(&options);
            kubo.ipfs(&["swarm", "connect", &address]);
            let took = timed(kubo.command().args(["pin", "add", "--timeout", "10m", &sample.root]));
            table.add(way.row("Kubo 0.43", "ours", "Kubo", size, took));
            let pull = |peer: &str| {
                let fresh = folder.path().join("fresh");
                let mut pull = shipfs(&fresh);
                pull.args(["--no-mdns", "--quiet", "--peer", peer]).args(&options[..options.len() - 2]);
                let took = timed(pull.args(["pull", "--all-platforms", &sample.root]));
                check(&fresh, &sample);
                std::fs::remove_dir_all(&fresh).expect("removable");
                took
            };
            table.add(way.row("shipfs", "ours", "ours", size, pull(&address)));
            drop(daemon);
            // What it has now it must give back, to a node that has nothing.
            let peer = kubo.addresses().into_iter().find(|address| address.contains("/udp/") == quic).expect("listens");
            table.add(way.row("Kubo 0.43", "Kubo", "ours", size, pull(&peer)));
        }
        std::fs::remove_dir_all(&sample.layout).expect("removable");
        std::fs::remove_dir_all(sample.repository.path()).expect("removable");
    }
    table.finish("kubo");
}

/// Every blob of the sample is in the repository, and each is what its name says.
fn check(repository: &Path, sample: &Sample) {
    let blobs = image::check_blobs(repository).expect("sound blobs");
    let expected = image::check_blobs(&sample.layout).expect("sound blobs");
    assert!(expected.iter().all(|blob| blobs.contains(blob)), "{} bytes: {blobs:?} of {expected:?}", sample.size);
}
