//! Threat D1 from outside: real verbs, killed at any moment, on a repository that has something to lose.

use shipfs_tests::image::{self, Noise};
use shipfs_tests::program::{self, Running, shipfs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Moments at which a verb is killed.
const KILLS: usize = 200;
/// Latest moment: by then the verbs of this test are done, in a debug build on a loaded machine.
const LATEST: Duration = Duration::from_millis(120);
/// How often everything is hashed on the way.
const CHECK_EVERY: usize = 40;

struct Scene {
    folder: tempfile::TempDir,
    /// Two images that share a layer and a chunk.
    cids: [String; 2],
    address: String,
    _giver: Running,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let giver = folder.path().join("giver");
        // The same noise: the first layers are one blob, and the second ones begin with the same chunks.
        let cids = [(1, 700_000), (2, 1_900_000)].map(|(number, second)| {
            let layout = folder.path().join(format!("layout{number}"));
            image::layout(&layout, &[1_500_000, second], 77).expect("written");
            let source = format!("oci:{}", layout.display());
            program::run(shipfs(&giver).args(["--offline", "--quiet", "push", &source])).trim().to_owned()
        });
        let listen = ["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
        let (running, ready) = Running::start(shipfs(&giver).args(listen), "ready").expect("it serves");
        let address = ready.rsplit(' ').next().expect("an address").to_owned();
        Self { folder, cids, address, _giver: running }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("taker")
    }

    fn pull(&self, number: usize) -> Command {
        let mut command = shipfs(&self.repository());
        command.args(["--no-mdns", "--quiet", "--peer", &self.address, "pull", &self.cids[number]]);
        command
    }

    fn verb(&self, arguments: &[&str]) -> Command {
        let mut command = shipfs(&self.repository());
        command.args(["--offline", "--quiet"]).args(arguments);
        command
    }

    /// A layout of its own for each round, so that every push has something to write.
    fn another_layout(&self, round: usize) -> String {
        let layout = self.folder.path().join("another");
        let _ = std::fs::remove_dir_all(&layout);
        image::layout(&layout, &[1_200_000], 1000 + round as u64).expect("written");
        format!("oci:{}", layout.display())
    }

    /// The first image, which was whole before anything was killed, is whole.
    fn assert_nothing_is_lost(&self) {
        program::run(&mut self.verb(&["verify"]));
        let saved = self.folder.path().join("saved");
        let _ = std::fs::remove_dir_all(&saved);
        program::run(&mut self.verb(&["pull", &self.cids[0], "--to", &format!("oci:{}", saved.display())]));
        let layers = image::check_blobs(&saved).expect("every blob is what its name says");
        let theirs = image::check_blobs(&self.folder.path().join("layout1")).expect("as made");
        // Layers and config; the manifest has `urls` now.
        assert_eq!(theirs.iter().filter(|name| layers.contains(name)).count(), theirs.len() - 1);
    }
}

fn kill_after(mut command: Command, delay: Duration) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    // Not to wait for anything: any moment is a good one.
    std::thread::sleep(delay);
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn d1_nothing_is_lost_when_verbs_are_killed() {
    let scene = Scene::new();
    program::run(&mut scene.pull(0));
    let mut noise = Noise::new(4711);
    for round in 0..KILLS {
        let mut random = [0; 8];
        noise.fill(&mut random);
        let delay = LATEST.mul_f64(u64::from_le_bytes(random) as f64 / u64::MAX as f64);
        let command = match round % 5 {
            0 => scene.verb(&["push", &scene.another_layout(round)]),
            1 => scene.pull(1),
            2 => {
                // Whatever the last pull left is given up, whole or not.
                let _ = scene.verb(&["rmi", &scene.cids[1]]).output();
                scene.verb(&["gc"])
            }
            3 => scene.verb(&["rmi", &scene.cids[1]]),
            _ => {
                let mut command = shipfs(&scene.repository());
                command.args(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"]);
                command
            }
        };
        kill_after(command, delay);
        let images = program::run(&mut scene.verb(&["images"]));
        assert!(images.contains(&scene.cids[0]), "round {round}: {images}");
        if round % CHECK_EVERY == CHECK_EVERY - 1 {
            scene.assert_nothing_is_lost();
        }
    }
    // What was killed can be done after all.
    program::run(&mut scene.pull(1));
    program::run(&mut scene.verb(&["push", &scene.another_layout(0)]));
    program::run(&mut scene.verb(&["gc"]));
    scene.assert_nothing_is_lost();
    program::run(&mut scene.verb(&["rmi", &scene.cids[1]]));
    program::run(&mut scene.verb(&["gc"]));
    scene.assert_nothing_is_lost();
}

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
