//! Hosts that pull from each other over links with a speed of their own: how soon, how often, and what a crash costs.

use shipfs_tests::image;
use shipfs_tests::netns::Lan;
use shipfs_tests::program::{self, Running, privileged, said};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) const MIB: u64 = 1 << 20;
/// Longest time that anything in here may take: these tests are about what happens, not about when.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// What a link carries besides blocks (headers, TLS, wants, mDNS, acknowledgements), in parts of a hundred of the blocks.
const OVERHEAD_PERCENT: u64 = 8;

/// Hosts on a link, with a repository each.
pub(crate) struct Hosts {
    pub(crate) lan: Lan,
    pub(crate) folder: tempfile::TempDir,
}

impl Hosts {
    pub(crate) fn new(count: usize) -> Self {
        Self { lan: Lan::new(count), folder: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn repository(&self, host: usize) -> PathBuf {
        self.folder.path().join(format!("host{host}"))
    }

    pub(crate) fn on(&self, host: usize, arguments: &[&str]) -> Command {
        let mut command = self.lan.shipfs(host, &self.repository(host));
        command.args(arguments);
        command
    }

    /// Pushes an image of layers of these sizes on a host, without a network; its CID.
    pub(crate) fn push(&self, host: usize, layers: &[u64]) -> String {
        let layout = self.folder.path().join("layout");
        image::layout(&layout, layers, 3).expect("written");
        let source = format!("oci:{}", layout.display());
        program::run(&mut self.on(host, &["--offline", "--quiet", "push", &source])).trim().to_owned()
    }

    pub(crate) fn daemon(&self, host: usize) -> Running {
        Running::start(&mut self.on(host, &["daemon"]), "ready").expect("it serves").0
    }

    /// Starts a pull that says what happens.
    pub(crate) fn pull(&self, host: usize, cid: &str) -> Pull {
        self.pull_with(host, cid, &[])
    }

    /// The same, with options.
    pub(crate) fn pull_with(&self, host: usize, cid: &str, options: &[&str]) -> Pull {
        let start = Instant::now();
        let arguments = [&["--json"][..], options, &["pull", cid]].concat();
        let running = Running::spawn(&mut self.on(host, &arguments)).expect("it starts");
        Pull { running, start, blobs: HashMap::new() }
    }

    /// Bytes of blocks that the daemon of a host has received, and sent.
    pub(crate) fn exchanged(&self, host: usize) -> (u64, u64) {
        let peers = program::run(&mut self.on(host, &["--json", "peers"]));
        let peers: serde_json::Value = serde_json::from_str(&peers).expect("JSON");
        let sum = |field: &str| {
            peers.as_array().expect("a list").iter().map(|peer| peer[field].as_u64().expect("a number")).sum()
        };
        (sum("received"), sum("sent"))
    }

    /// Asserts that a host has every blob of another, byte for byte.
    pub(crate) fn assert_same(&self, host: usize, other: usize) {
        let blobs = |host| image::check_blobs(&self.repository(host)).expect("every blob is what its name says");
        assert_eq!(blobs(host), blobs(other));
    }

    pub(crate) fn received(&self, host: usize) -> u64 {
        self.lan.traffic(host).received
    }
}

/// A pull that is watched.
pub(crate) struct Pull {
    pub(crate) running: Running,
    pub(crate) start: Instant,
    blobs: HashMap<String, u64>,
}

impl Pull {
    /// Waits until this many bytes are there, as it says; `None` when it ended before.
    pub(crate) fn until(&mut self, bytes: u64) -> Option<Duration> {
        while let Some(line) = self.running.line(self.start + PATIENCE).expect("it goes on") {
            let event = serde_json::from_str(&line).unwrap_or(serde_json::Value::Null);
            if let (Some(digest), Some(bytes)) = (event["digest"].as_str(), event["bytes"].as_u64()) {
                self.blobs.insert(digest.to_owned(), bytes);
            }
            if self.blobs.values().sum::<u64>() >= bytes {
                return Some(self.start.elapsed());
            }
        }
        None
    }

    /// Waits until it ends by itself: whether it succeeded, what it said, how long it took.
    pub(crate) fn end(self) -> (bool, String, Duration) {
        let (status, said) = self.running.end(self.start + PATIENCE).expect("it ends");
        (status.success(), said, self.start.elapsed())
    }

    pub(crate) fn succeed(self) -> Duration {
        let (succeeded, said, took) = self.end();
        assert!(succeeded, "{said}");
        took
    }
}

/// Bytes on disk in files that are being received.
fn partial(repository: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(repository.join("partial")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|data| data.blocks() * 512).sum()
}

/// Bytes that a link carries in a second.
fn per_second(megabits: u32) -> u64 {
    u64::from(megabits) * 1_000_000 / 8
}

/// Asserts that what came over the link is the image once, and at most `extra` more.
fn assert_once(received: u64, size: u64, extra: u64) {
    let most = size + size * OVERHEAD_PERCENT / 100 + extra;
    assert!((size..=most).contains(&received), "{received} bytes came for {size}, at most {most} should");
}

#[expect(clippy::print_stderr, reason = "figures are for whoever runs the test, and no reason to fail it")]
pub(crate) fn report(what: &str) {
    eprintln!("{what}");
}

#[test]
fn privileged_the_daemon_says_ready() {
    if !privileged("privileged_the_daemon_says_ready") {
        return;
    }
    let hosts = Hosts::new(1);
    hosts.push(1, &[MIB]);
    let start = Instant::now();
    let (_daemon, line) = Running::start(&mut hosts.on(1, &["daemon"]), "ready").expect("it serves");
    report(&format!("daemon ready after {:.0} ms", start.elapsed().as_secs_f64() * 1000.0));
    assert!(line.starts_with("ready: serving on the lan network as "), "{line}");
    assert!(line.contains(" /ip4/10.77.0.1/tcp/4001/p2p/"), "{line}");
}

/// From a process that starts to the first bytes of a layer, and to the end of a small image: nobody knows anybody yet.
#[test]
fn privileged_a_pull_finds_its_first_block_quickly() {
    if !privileged("privileged_a_pull_finds_its_first_block_quickly") {
        return;
    }
    let hosts = Hosts::new(2);
    let cid = hosts.push(1, &[4 * MIB]);
    let _daemon = hosts.daemon(1);
    for round in 1..=3 {
        std::fs::remove_dir_all(hosts.repository(2))
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .expect("the repository of the round before goes");
        let mut pull = hosts.pull(2, &cid);
        let first = pull.until(1).expect("a block arrives");
        let all = pull.succeed();
        hosts.assert_same(2, 1);
        let [first, all] = [first, all].map(|time| time.as_secs_f64() * 1000.0);
        report(&format!("round {round}: first block after {first:.0} ms, 4 MiB after {all:.0} ms"));
    }
}

/// Whoever is killed, what came once does not come again, but for what a second of the link carries. That holds for the
/// layers that were whole as well: they used to be forgotten, and were fetched anew.
#[test]
fn privileged_a_pull_resumes_after_the_puller_was_killed() {
    const MEGABITS: u32 = 80;
    const LAYERS: [u64; 10] = [4 * MIB; 10];
    if !privileged("privileged_a_pull_resumes_after_the_puller_was_killed") {
        return;
    }
    let hosts = Hosts::new(2);
    let cid = hosts.push(1, &LAYERS);
    hosts.lan.limit(1, MEGABITS);
    let _server = hosts.daemon(1);
    let size = LAYERS.iter().sum::<u64>();
    let mut pull = hosts.pull(2, &cid);
    pull.until(size / 4 * 3).expect("it is killed before it ends");
    pull.running.kill();
    let first = hosts.received(2);
    let kept = partial(&hosts.repository(2)) + image_bytes(&hosts.repository(2));
    assert!(kept + MIB > size / 4 * 3, "it says that most of it is there, and {kept} of {size} are");
    // A daemon takes it up, so that somebody can be asked what it received.
    let _puller = hosts.daemon(2);
    let took = hosts.pull(2, &cid).succeed();
    let (again, _) = hosts.exchanged(2);
    report(&format!(
        "{} KiB came, {} KiB were kept, {} KiB of {} KiB came after, in {:.2} s",
        first >> 10,
        kept >> 10,
        again >> 10,
        size >> 10,
        took.as_secs_f64()
    ));
    assert!(again <= size.saturating_sub(kept) + per_second(MEGABITS), "{again} came again, {kept} were there");
    assert_once(hosts.received(2), size, per_second(MEGABITS));
    hosts.assert_same(2, 1);
}

/// Bytes of whole blobs.
fn image_bytes(repository: &Path) -> u64 {
    let files = std::fs::read_dir(repository.join("blobs/sha256")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
}

#[test]
fn privileged_a_pull_resumes_after_the_server_was_killed() {
    const MEGABITS: u32 = 160;
    const LAYERS: [u64; 3] = [36 * MIB, 20 * MIB, 4 * MIB];
    if !privileged("privileged_a_pull_resumes_after_the_server_was_killed") {
        return;
    }
    let hosts = Hosts::new(2);
    let cid = hosts.push(1, &LAYERS);
    hosts.lan.limit(1, MEGABITS);
    let server = hosts.daemon(1);
    let size = LAYERS.iter().sum::<u64>();
    let mut pull = hosts.pull(2, &cid);
    pull.until(size / 2).expect("its server is killed before it ends");
    server.kill();
    let start = Instant::now();
    let _server = hosts.daemon(1);
    let back = start.elapsed();
    let went_on = pull.until(size / 2 + size / 8).is_some();
    let (found, (succeeded, said, took)) = (start.elapsed(), pull.end());
    report(&format!(
        "the server was back after {:.2} s, the pull {} {:.2} s after the kill, and it ended after {:.2} s",
        back.as_secs_f64(),
        if went_on { "went on" } else { "ended" },
        found.as_secs_f64(),
        took.as_secs_f64()
    ));
    assert!(succeeded, "{said}");
    assert_once(hosts.received(2), size, per_second(MEGABITS));
    hosts.assert_same(2, 1);
}

/// Two commands on one repository want one image: each byte comes once, whoever holds the repository.
#[test]
fn privileged_two_pulls_of_one_image_are_one_fetch() {
    const LAYERS: [u64; 2] = [24 * MIB, 6 * MIB];
    if !privileged("privileged_two_pulls_of_one_image_are_one_fetch") {
        return;
    }
    let hosts = Hosts::new(3);
    let cid = hosts.push(1, &LAYERS);
    hosts.lan.limit(1, 200);
    let _server = hosts.daemon(1);
    let size = LAYERS.iter().sum::<u64>();
    // Host 2: the first of the two holds the repository, and stays until the second is done.
    let mut first = hosts.pull(2, &cid);
    first.until(MIB).expect("the second starts before it ends");
    let second = hosts.pull(2, &cid);
    first.succeed();
    second.succeed();
    assert_once(hosts.received(2), size, 0);
    hosts.assert_same(2, 1);
    // Host 3: a daemon holds it.
    let _daemon = hosts.daemon(3);
    let mut first = hosts.pull(3, &cid);
    first.until(MIB).expect("the second starts before it ends");
    let second = hosts.pull(3, &cid);
    first.succeed();
    second.succeed();
    let (received, _) = hosts.exchanged(3);
    assert!((size..size + MIB).contains(&received), "{received} bytes of blocks came for {size}");
    hosts.assert_same(3, 1);
}

/// The first of two commands is killed while it carries out the second's verb: the second becomes the holder and goes on.
#[test]
fn privileged_a_pull_goes_on_when_its_holder_is_killed() {
    const LAYERS: [u64; 2] = [24 * MIB, 6 * MIB];
    const MEGABITS: u32 = 160;
    if !privileged("privileged_a_pull_goes_on_when_its_holder_is_killed") {
        return;
    }
    let hosts = Hosts::new(2);
    let cid = hosts.push(1, &LAYERS);
    hosts.lan.limit(1, MEGABITS);
    let _server = hosts.daemon(1);
    let size = LAYERS.iter().sum::<u64>();
    let mut holder = hosts.pull(2, &cid);
    holder.until(MIB).expect("the second starts before it ends");
    let mut guest = hosts.pull(2, &cid);
    guest.until(size / 3).expect("its holder is killed before it ends");
    holder.running.kill();
    guest.succeed();
    assert_once(hosts.received(2), size, per_second(MEGABITS));
    hosts.assert_same(2, 1);
}

/// Three hosts pull from one that is slow, and serve each other meanwhile: it used to send everything three times.
#[test]
fn privileged_pullers_of_a_slow_seeder_help_each_other() {
    const LAYERS: [u64; 3] = [16 * MIB, 10 * MIB, 4 * MIB];
    const PULLERS: [usize; 3] = [2, 3, 4];
    if !privileged("privileged_pullers_of_a_slow_seeder_help_each_other") {
        return;
    }
    let hosts = Hosts::new(5);
    let cid = hosts.push(1, &LAYERS);
    hosts.lan.limit(1, 100);
    let _seeder = hosts.daemon(1);
    let size = LAYERS.iter().sum::<u64>();
    let alone = hosts.pull(5, &cid).succeed();
    let before = hosts.lan.traffic(1).sent;
    let daemons = PULLERS.map(|host| hosts.daemon(host));
    let pulls = PULLERS.map(|host| hosts.pull(host, &cid));
    let times = pulls.map(Pull::succeed);
    let sent = hosts.lan.traffic(1).sent - before;
    let slowest = times.iter().max().expect("some").as_secs_f64();
    report(&format!(
        "one puller {:.2} s; three {:?} s, {:.2} of one's time; the seeder sent {:.2} of the image",
        alone.as_secs_f64(),
        times.map(|time| (time.as_secs_f64() * 100.0).round() / 100.0),
        slowest / alone.as_secs_f64(),
        sent as f64 / size as f64
    ));
    assert!(sent < 2 * size, "the seeder sent {sent} bytes for {size}");
    for host in PULLERS {
        hosts.assert_same(host, 1);
        let verify = hosts.on(host, &["verify"]).output().expect("it starts");
        assert!(verify.status.success(), "{}", said(&verify));
    }
    drop(daemons);
}
