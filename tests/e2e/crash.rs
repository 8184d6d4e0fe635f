//! Threat D1 from outside: what two published images share survives the end of either, and kills at any moment.

use serde_json::Value;
use shipfs_tests::crafted::{Crafted, LAYER, Layout};
use shipfs_tests::image::Noise;
use shipfs_tests::program::{self, said};
use shipfs_tests::repository::Repository;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Moments at which a verb is killed, forty for each of five.
const KILLS: usize = 200;
/// How often, in kills, everything is hashed and saved on the way.
const CHECK_EVERY: usize = 25;
/// Kills that must meet a running verb; the others come when it has just ended.
const MIN_MET: usize = KILLS / 3;
/// How far beyond its usual time a verb may be killed: then it has just ended.
const BEYOND: f64 = 1.1;
/// Bytes of the chunks that a push cuts, and of those that another tool might.
const CHUNKS: [usize; 2] = [256 << 10, 1 << 20];

/// A published image: what it is called by, and the bytes it has as an archive.
struct Published {
    cid: String,
    archive: Vec<u8>,
}

/// Layers of noise that images are made of.
struct Layers {
    /// Of both images, under one CID.
    shared: Vec<u8>,
    /// Of both images, under two CIDs: cut into chunks of two sizes.
    whole: Vec<u8>,
    /// Of one image each; they begin with the same chunk.
    own: [Vec<u8>; 2],
}

impl Layers {
    fn new() -> Self {
        let mut noise = Noise::new(1);
        let chunk = noise.bytes(CHUNKS[0]);
        let own = [40_000, 500_000].map(|rest| [chunk.clone(), noise.bytes(rest)].concat());
        Self { shared: noise.bytes(600_000), whole: noise.bytes(2_500_000), own }
    }

    /// Publishes two images that share a layer, a chunk, and a whole blob under two CIDs.
    fn publish(&self, repository: &Repository, folder: &Path) -> [Published; 2] {
        let layout = Layout::new(&folder.join("first"));
        let source = layout.finish(&[layout.image(&[&self.shared, &self.own[0], &self.whole])]);
        let first = repository.run(&["push", &source]);
        let crafted = Crafted::open(repository.path());
        let layers: [Value; 3] = [
            crafted.blob(LAYER, &self.shared),
            crafted.blob(LAYER, &self.own[1]),
            crafted.blob_cut_into(CHUNKS[1], LAYER, &self.whole),
        ];
        let second = crafted.root(&crafted.image(&layers));
        crafted.close();
        repository.run(&["pull", &second]);
        let seen = [&first, &second].map(|cid| repository.run(&["inspect", cid]));
        let cid = |seen: &str, layer: &Value| {
            let digest = layer["digest"].as_str().expect("a digest");
            let from = seen.find(digest).expect("the layer is in the manifest");
            let url = &seen[from + seen[from..].find("ipfs://").expect("a URL")..];
            url.split('"').next().expect("its end").to_owned()
        };
        assert_eq!(cid(&seen[0], &layers[0]), cid(&seen[1], &layers[0]), "one blob, one CID");
        assert_ne!(cid(&seen[0], &layers[2]), cid(&seen[1], &layers[2]), "one blob, two CIDs");
        [first, second].map(|cid| Published { archive: repository.saved(&cid), cid })
    }
}

fn assert_whole(repository: &Repository, image: &Published, when: &str) {
    assert!(repository.saved(&image.cid) == image.archive, "{when}: `{}` is not what it was", image.cid);
}

/// Whichever of two images goes, and is collected, the other stays whole, and others can have it block by block.
#[test]
fn d1_what_two_images_share_stays_when_one_goes() {
    let folder = tempfile::tempdir().expect("a directory");
    let layers = Layers::new();
    for (gone, stays) in [(0, 1), (1, 0)] {
        let place = folder.path().join(gone.to_string());
        let repository = Repository::new(place.join("repository"));
        let images = layers.publish(&repository, &place);
        let own = repository.contents().blobs.len();
        repository.run(&["rmi", &images[gone].cid]);
        repository.run(&["gc"]);
        let contents = repository.contents();
        assert!(!contents.images.contains(&images[gone].cid), "{}", contents.images);
        // Root, manifest, configuration and a layer of its own.
        assert_eq!(contents.blobs.len(), own - 4, "what only the other one needed is gone");
        repository.run(&["verify"]);
        assert_whole(&repository, &images[stays], "after the collection");
        let (_serving, address) = repository.serve();
        let taker = Repository::new(place.join("taker"));
        program::run(&mut taker.online(&address, &["pull", &images[stays].cid]));
        assert_whole(&taker, &images[stays], "at another host");
    }
}

/// A verb under way, and whether it was.
fn kill_after(command: &mut Command, delay: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    // Not to wait for anything: any moment is a good one.
    std::thread::sleep(delay);
    let met = matches!(child.try_wait(), Ok(None));
    let _ = child.kill();
    let _ = child.wait();
    met
}

/// A repository with two published images, and somebody who has a third one.
struct Scene<'f> {
    folder: &'f Path,
    repository: Repository,
    images: [Published; 2],
    layers: Layers,
    third: String,
    giver: String,
}

impl Scene<'_> {
    fn pull(&self) -> Command {
        self.repository.online(&self.giver, &["pull", &self.third])
    }

    /// The push of an image that shares layers with those that are published, and has one of its own.
    fn push(&self, round: usize) -> Command {
        let folder = self.folder.join("fresh");
        let _ = std::fs::remove_dir_all(&folder);
        let (layout, own) = (Layout::new(&folder), Noise::new(1000 + round as u64).bytes(300_000));
        let source = layout.finish(&[layout.image(&[&self.layers.shared, &own, &self.layers.whole])]);
        self.repository.offline(&["push", "--name", "fresh:1", &source])
    }

    /// The verb of a round.
    fn verb(&self, round: usize) -> Command {
        match round % 5 {
            0 => self.push(round),
            1 => self.pull(),
            2 => self.repository.offline(&["rmi", "fresh:1", &self.third]),
            3 => self.repository.offline(&["gc"]),
            _ => self.repository.daemon(),
        }
    }

    /// Kills the verb of a round; says whether it was under way.
    fn kill(&self, round: usize, delay: Duration) -> bool {
        if round % 5 != 4 {
            let met = kill_after(&mut self.verb(round), delay);
            self.assert_listed(round);
            // What was killed can be done after all; when it was done, there is nothing left to remove.
            let again = self.verb(round).output().expect("it starts");
            let done_already = round % 5 == 2 && said(&again).contains("is not here");
            assert!(again.status.success() || done_already, "round {round}: {}", said(&again));
            return met;
        }
        // Another command works through the daemon, or is about to: it goes on by itself.
        let mut push = self.push(round);
        let guest = push.stdout(Stdio::null()).stderr(Stdio::piped());
        let met = std::thread::scope(|scope| {
            let daemon = scope.spawn(|| kill_after(&mut self.verb(round), delay));
            let guest = guest.output().expect("it starts");
            assert!(guest.status.success(), "round {round}: {}", said(&guest));
            daemon.join().expect("it was killed")
        });
        self.assert_listed(round);
        met
    }

    fn assert_listed(&self, round: usize) {
        let listed = self.repository.run(&["images"]);
        assert!(self.images.iter().all(|image| listed.contains(&image.cid)), "round {round}: {listed}");
    }

    fn assert_nothing_is_lost(&self, when: &str) {
        self.repository.run(&["verify"]);
        self.images.iter().for_each(|image| assert_whole(&self.repository, image, when));
    }
}

#[test]
fn d1_nothing_published_is_lost_when_verbs_are_killed() {
    let folder = tempfile::tempdir().expect("a directory");
    let (layers, mut noise) = (Layers::new(), Noise::new(4711));
    let giver = Repository::new(folder.path().join("giver"));
    let layout = Layout::new(&folder.path().join("third"));
    let own = Noise::new(3).bytes(900_000);
    let source = layout.finish(&[layout.image(&[&layers.shared, &own, &layers.own[1]])]);
    let third = giver.run(&["push", &source]);
    let (_serving, giver) = giver.serve();
    let repository = Repository::new(folder.path().join("repository"));
    let images = layers.publish(&repository, folder.path());
    let scene = Scene { folder: folder.path(), repository, images, layers, third, giver };
    // How long each verb takes here and now.
    let usual: Vec<_> = (0..5)
        .map(|round| {
            let start = Instant::now();
            if round == 4 {
                drop(scene.repository.serve());
            } else {
                program::run(&mut scene.verb(round));
            }
            start.elapsed()
        })
        .collect();
    let mut met = 0;
    for round in 0..KILLS {
        let random = noise.bytes(8).try_into().map_or(0.0, |bytes| u64::from_le_bytes(bytes) as f64 / u64::MAX as f64);
        met += usize::from(scene.kill(round, usual[round % 5].mul_f64(random * BEYOND)));
        if round % CHECK_EVERY == CHECK_EVERY - 1 {
            scene.assert_nothing_is_lost(&format!("after {round} kills"));
        }
    }

    assert!(met >= MIN_MET, "{met} of {KILLS} kills met a verb: {usual:?}");
    // Everything that the kills left is free, and nothing else is.
    let _ = scene.repository.offline(&["rmi", "fresh:1"]).output();
    let _ = scene.repository.offline(&["rmi", &scene.third]).output();
    scene.repository.run(&["gc"]);
    scene.assert_nothing_is_lost("in the end");
    // Two roots, manifests, configurations and layers of their own, and two layers that are shared.
    assert_eq!(scene.repository.contents().blobs.len(), 10);
}
