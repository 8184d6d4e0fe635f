//! The same bytes between nodes of this project, of Kubo, and one of each: who is how fast, at what cost.
//!
//! Kubo does not sync what it writes, and checks no digest of the whole; ours does both before the clock stops.

use super::{Bench, child, median, say, timed};
use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{self, Running, cpu_seconds};

/// Seconds that one transfer took, and CPU seconds of both ends.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    cpu: f64,
}

/// Runs a transfer and counts what the daemons in `processes`, and the commands that this process runs, use for it.
fn cost(processes: &[u32], transfer: impl FnOnce()) -> Cost {
    let used = || -> f64 {
        let pids = processes.iter().copied().chain([std::process::id()]);
        pids.map(|pid| cpu_seconds(pid).unwrap_or(f64::NAN)).sum()
    };
    let before = used();
    let time = timed(transfer);
    Cost { time, cpu: used() - before }
}

/// A node with an empty repository, connected to a peer.
fn puller(peer: &str) -> Option<Kubo> {
    let kubo = Kubo::start("bench", KuboOptions::default())?;
    kubo.ipfs(&["swarm", "connect", peer]);
    Some(kubo)
}

/// One round: ours to ours, Kubo to Kubo, Kubo to ours, ours to Kubo.
fn round(bench: &Bench, ours: &Ours, kubo: &Kubo, kubo_address: &str) -> Option<[Cost; 4]> {
    let target = bench.fresh("pulled");
    let same = cost(&[ours.daemon.id()], || {
        program::run(&mut bench.pull_command(&target, &ours.address, &ours.root));
    });
    let fetching = puller(kubo_address)?;
    let theirs = cost(&[kubo.id(), fetching.id()], || drop(fetching.ipfs(&["pin", "add", &ours.layer])));
    drop(fetching);
    let target = bench.fresh("pulled");
    let taken = cost(&[kubo.id()], || {
        program::run(&mut bench.pull_command(&target, kubo_address, &ours.root));
    });
    let fetching = puller(&ours.address)?;
    let given = cost(&[ours.daemon.id(), fetching.id()], || drop(fetching.ipfs(&["pin", "add", &ours.layer])));
    Some([same, theirs, taken, given])
}

/// An image that is served.
struct Ours {
    daemon: Running,
    address: String,
    root: String,
    /// Its one layer, as a file.
    layer: String,
}

impl Bench {
    /// Pulls one image in four ways, in turn.
    pub(crate) fn kubo(&self) {
        let repository = self.fresh("pushed");
        let root = self.push_to(&repository);
        let layer = program::run(&mut child(&["index", &self.blob().display().to_string()])).trim().to_owned();
        let (daemon, address, _) = self.daemon(&repository);
        let ours = Ours { daemon, address, root, layer };
        let Some(kubo) = Kubo::start("bench", KuboOptions::default()) else {
            return say("kubo: it is not here, `tests/peers/setup kubo` builds it");
        };
        // Every file of the image, from its root to its layer.
        let blobs = std::fs::read_dir(repository.join("blobs/sha256")).expect("blobs").flatten();
        let add = |blob: std::fs::DirEntry| {
            kubo.ipfs(&["add", "--quieter", "--cid-version=1", &blob.path().display().to_string()])
        };
        let added: Vec<_> = blobs.map(add).collect();
        assert!([&ours.root, &ours.layer].iter().all(|cid| added.contains(cid)), "{added:?}");
        let kubo_address = kubo.addresses().remove(0);
        let rounds: Option<Vec<_>> = (0..self.rounds).map(|_| round(self, &ours, &kubo, &kubo_address)).collect();
        let rounds = rounds.expect("Kubo was here before");
        for (way, name) in ["ours -> ours", "Kubo -> Kubo", "Kubo -> ours", "ours -> Kubo"].iter().enumerate() {
            let of = |value: fn(&Cost, &Cost) -> f64| {
                let mut values: Vec<_> = rounds.iter().map(|round| value(&round[way], &round[1])).collect();
                (median(&mut values), values[0], values[values.len() - 1])
            };
            let time = of(|cost, _| cost.time).0;
            let (ratio, low, high) = of(|cost, kubo| kubo.time / cost.time);
            say(&format!(
                "{name:<28} {:7.0} MiB/s  {:.2} CPU s   speed {ratio:.2} ({low:.2} to {high:.2}) and CPU {:.2} of Kubo -> Kubo",
                self.mib as f64 / time,
                of(|cost, _| cost.cpu).0,
                of(|cost, kubo| cost.cpu / kubo.cpu).0,
            ));
        }
        say("goals: ours -> ours >= 1.6 at <= 0.4 CPU, Kubo -> ours >= 1.3, ours -> Kubo >= 1");
    }
}
