//! Threats D2, D3, D5 and D6 from outside: repositories that others use, that rotted, that are not ours to write, that
//! are of another time, and that lie on a full disk.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shipfs_tests::crafted::Layout;
use shipfs_tests::image::{Noise, check_blobs, hex};
use shipfs_tests::program::{privileged, run, said, shipfs};
use shipfs_tests::repository::Repository;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Bytes of the layers of the image that is published: in one block, and in several.
const LAYERS: [usize; 2] = [100_000, 1_500_000];
/// Bytes of a small disk; an image of [`LARGE`] does not fit beside the published one.
const DISK_OPTION: &str = "size=24m";
/// Bytes of an image that fits on the disk, but not twice.
const LARGE: usize = 10 << 20;

/// A repository with one published image, `good:1`, and its layout.
struct Scene {
    folder: tempfile::TempDir,
    repository: Repository,
    cid: String,
    archive: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let repository = Repository::new(folder.path().join("repository"));
        Self::publish(folder, repository)
    }

    fn publish(folder: tempfile::TempDir, repository: Repository) -> Self {
        let source = layout(folder.path(), "good", &LAYERS, 7);
        let cid = repository.run(&["push", "--name", "good:1", &source]);
        let archive = repository.saved("good:1");
        Self { folder, repository, cid, archive }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The published image is there, whole, and what it was.
    fn assert_whole(&self, when: &str) {
        let verified = verify(&self.repository, &[]);
        assert!(verified.status.success(), "{when}: {}", said(&verified));
        assert!(self.repository.saved("good:1") == self.archive, "{when}: it is not what it was");
    }

    /// Every verb that works on a repository, but for the daemon, with something to do; and whether it must write.
    fn verbs(&self) -> [(bool, Vec<String>); 10] {
        let source = layout(self.folder.path(), "another", &[300_000], 8);
        let archive = self.path("archive.tar");
        fs::write(&archive, &self.archive).expect("written");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        [
            (true, words(&["push", "--name", "another:1", &source])),
            (true, words(&["load", "--input", &archive.display().to_string()])),
            (true, words(&["tag", "good:1", "good:2"])),
            (true, words(&["pull", &self.cid, "--name", "good:3"])),
            (true, words(&["rmi", "good:1"])),
            (true, words(&["gc"])),
            (false, words(&["images"])),
            (false, words(&["inspect", "good:1"])),
            (false, words(&["save", "good:1"])),
            (false, words(&["verify"])),
        ]
    }
}

/// Hashes everything; tells all of it.
fn verify(repository: &Repository, arguments: &[&str]) -> Output {
    let mut command = shipfs(repository.path());
    command.args(["--offline", "verify"]).args(arguments).output().expect("it starts")
}

/// Makes a layout of an image with layers of noise; gives what to push.
fn layout(folder: &Path, name: &str, layers: &[usize], seed: u64) -> String {
    let (layout, mut noise) = (Layout::new(&folder.join(name)), Noise::new(seed));
    let layers: Vec<_> = layers.iter().map(|size| noise.bytes(*size)).collect();
    layout.finish(&[layout.image(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>())])
}

fn run_all(repository: &Repository, arguments: &[String]) -> Output {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    repository.offline(&arguments).output().expect("it starts")
}

/// Every file below a folder, with the digest of what is in it.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let digest = hex(&Sha256::digest(fs::read(&path).expect("readable")));
                found.insert(path, digest);
            }
        }
    }
    found
}

/// A mount, until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], path: &Path) -> Self {
        fs::create_dir_all(path).expect("a directory");
        run(Command::new("mount").args(arguments).arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_repository_of_another_version_is_refused_by_every_verb() {
    let scene = Scene::new();
    let version = scene.repository.path().join("version");
    let known = fs::read_to_string(&version).expect("text");
    for (found, told) in [("2\n", "2"), ("0", "0"), ("", ""), ("1.0\n", "1.0"), ("\u{1b}[2J", r"\u{1b}[2J")] {
        fs::write(&version, found).expect("written");
        let before = tree(scene.repository.path());
        for (_, verb) in scene.verbs() {
            let output = run_all(&scene.repository, &verb);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{verb:?}: {}", said(&output));
            assert!(text.contains(&format!("layout version `{told}`, this program knows 1\n")), "{verb:?}: {text}");
            assert!(text.contains("hint: ") && output.stdout.is_empty(), "{verb:?}: {}", said(&output));
        }
        let daemon = scene.repository.daemon().output().expect("it starts");
        assert_eq!(daemon.status.code(), Some(1), "{}", said(&daemon));
        assert_eq!(tree(scene.repository.path()), before, "`{found}` was not left alone");
    }
    fs::write(&version, known).expect("written");
    scene.assert_whole("with its own version");
}

#[test]
fn privileged_d6_a_read_only_repository_stays_as_it_is() {
    if !privileged("privileged_d6_a_read_only_repository_stays_as_it_is") {
        return;
    }
    let scene = Scene::new();
    let place = scene.path("read-only");
    let before = tree(scene.repository.path());
    let source = scene.repository.path().display().to_string();
    let _mounted = Mounted::new(&["--bind", "-o", "ro", &source], &place);
    let repository = Repository::new(&place);
    for (writes, verb) in scene.verbs() {
        let output = run_all(&repository, &verb);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert!(!writes, "{verb:?} wrote nothing, and says that it did: {}", said(&output));
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {}", said(&output));
        let why = format!("error: the repository `{}` is read-only\n", place.display());
        assert!(text.starts_with(&why) && text.contains("hint: "), "{verb:?}: {text}");
        assert!(output.stdout.is_empty(), "{verb:?}: {}", said(&output));
    }
    let daemon = repository.daemon().output().expect("it starts");
    assert_eq!(daemon.status.code(), Some(1), "{}", said(&daemon));
    // Nor is one made where nothing can be.
    let absent = Repository::new(place.join("below"));
    let output = absent.offline(&["images"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(tree(scene.repository.path()), before);
    scene.assert_whole("where it can be written");
}

/// A file that takes all room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("made");
    for piece in [1 << 20, 4096, 1] {
        // As far as it goes.
        while file.write_all(&vec![7; piece]).is_ok() {}
    }
}

fn small_disk(folder: tempfile::TempDir) -> (Mounted, Scene) {
    let disk = Mounted::new(&["-t", "tmpfs", "-o", DISK_OPTION, "tmpfs"], &folder.path().join("disk"));
    let repository = Repository::new(disk.0.join("repository"));
    (disk, Scene::publish(folder, repository))
}

/// Says that the disk is full, and nothing else.
fn assert_told_full(what: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{what}: {}", said(output));
    let told = ["is full", "no space is left", "no storage space", "No space left"];
    assert!(told.iter().any(|words| text.contains(words)), "{what}: {text}");
    assert!(text.contains("error: ") && text.contains("hint: "), "{what}: {text}");
    assert!(output.stdout.is_empty(), "{what}: {}", said(output));
}

/// On a disk without one free byte a verb says so or does what it should, and with room again all is as it was.
#[test]
fn privileged_d6_a_disk_without_a_free_byte_loses_nothing() {
    if !privileged("privileged_d6_a_disk_without_a_free_byte_loses_nothing") {
        return;
    }
    let (disk, scene) = small_disk(tempfile::tempdir().expect("a directory"));
    let filler = disk.0.join("filler");
    let mut failed = 0;
    // A removal that worked cannot be repeated.
    for (_, verb) in scene.verbs().iter().filter(|(_, verb)| verb[0] != "rmi") {
        fill(&filler);
        let output = run_all(&scene.repository, verb);
        if !output.status.success() {
            assert_told_full(&format!("{verb:?}"), &output);
            failed += 1;
        }
        fs::remove_file(&filler).expect("removed");
        scene.assert_whole(&format!("after {verb:?}"));
        let again = run_all(&scene.repository, verb);
        assert!(again.status.success(), "{verb:?}, with room: {}", said(&again));
    }
    assert!(failed > 0, "nothing was full");
}

/// What no image needs makes room for one that had none, and an archive without end leaves some.
#[test]
fn privileged_d6_a_collection_makes_room_for_what_had_none() {
    if !privileged("privileged_d6_a_collection_makes_room_for_what_had_none") {
        return;
    }
    let (disk, scene) = small_disk(tempfile::tempdir().expect("a directory"));
    let [first, second] = [21, 22].map(|seed| layout(scene.folder.path(), &format!("large{seed}"), &[LARGE], seed));
    scene.repository.run(&["push", "--name", "large:1", &first]);
    let push = ["push", "--name", "large:2", &second];
    assert_told_full("a second large image", &scene.repository.offline(&push).output().expect("it starts"));
    scene.assert_whole("after the push");
    // Nothing is free yet but what the push left, and that is not enough.
    scene.repository.run(&["gc"]);
    assert_told_full("once more", &scene.repository.offline(&push).output().expect("it starts"));
    scene.repository.run(&["rmi", "large:1"]);
    scene.repository.run(&["gc"]);
    scene.repository.run(&push);
    scene.assert_whole("with another image");
    check_blobs(scene.repository.path()).expect("every blob is what its name says");

    let mut endless = scene.repository.offline(&["load"]);
    let mut child =
        endless.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let place = disk.0.clone();
    let free = move || rustix::fs::statvfs(&place).map(|disk| disk.f_bavail * disk.f_frsize).expect("known");
    // A layer that never ends. Others may need the disk meanwhile.
    let mut layer = tar::Header::new_gnu();
    layer.set_path("layer.tar").expect("a path");
    layer.set_size(1 << 40);
    layer.set_cksum();
    let writing = std::thread::spawn(move || {
        let mut least = free();
        pipe.write_all(layer.as_bytes()).expect("is read");
        while pipe.write_all(&[7; 64 << 10]).is_ok() {
            least = least.min(free());
        }
        (least, free())
    });
    let output = child.wait_with_output().expect("it ends");
    let (least, after) = writing.join().expect("it ends");
    assert_told_full("an archive without end", &output);
    assert!(least > 3 << 20 && after > least, "{least} bytes were left, {after} are free again");
    scene.repository.run(&["tag", "good:1", "good:2"]);
    scene.assert_whole("after an archive without end");
}

/// An index that is gone, cut, or garbage is made anew by the next verb, whichever that is.
#[test]
fn d5_an_index_that_is_lost_or_damaged_is_made_anew() {
    let scene = Scene::new();
    let index = scene.repository.path().join("index");
    let each = |change: &dyn Fn(&Path)| {
        let files = tree(&index);
        assert!(!files.is_empty(), "there is no index to damage");
        files.keys().for_each(|path| change(path));
    };
    let damages: [(&str, &dyn Fn()); 8] = [
        ("gone", &|| fs::remove_dir_all(&index).expect("removed")),
        ("empty", &|| {
            fs::remove_dir_all(&index).expect("removed");
            fs::create_dir(&index).expect("made");
        }),
        ("a file", &|| {
            fs::remove_dir_all(&index).expect("removed");
            fs::write(&index, "no index").expect("written");
        }),
        ("without its files' second half", &|| {
            each(&|path| {
                let file = File::options().write(true).open(path).expect("opens");
                file.set_len(file.metadata().expect("there").len() / 2).expect("cut");
            });
        }),
        ("cut to nothing", &|| each(&|path| drop(File::create(path).expect("cut")))),
        ("garbage", &|| {
            each(&|path| {
                let length = usize::try_from(fs::metadata(path).expect("there").len()).expect("it fits");
                fs::write(path, Noise::new(3).bytes(length)).expect("written");
            });
        }),
        ("zeroes", &|| {
            each(&|path| {
                let length = usize::try_from(fs::metadata(path).expect("there").len()).expect("it fits");
                fs::write(path, vec![0; length]).expect("written");
            });
        }),
        ("another image's", &|| {
            let other = Repository::new(scene.path("other"));
            other.run(&["push", &layout(scene.folder.path(), "other-image", &[600_000], 9)]);
            fs::remove_dir_all(&index).expect("removed");
            run(Command::new("cp").arg("-r").arg(other.path().join("index")).arg(&index));
        }),
    ];
    for (what, damage) in damages {
        for verb in [&["images"][..], &["gc"], &["push", &layout(scene.folder.path(), "more", &[300_000], 10)]] {
            damage();
            let output = scene.repository.offline(verb).output().expect("it starts");
            assert!(output.status.success(), "{what}, {verb:?}: {}", said(&output));
            let _ = fs::remove_dir_all(scene.path("other"));
        }
        scene.assert_whole(what);
        // By its blocks, too.
        let (_serving, address) = scene.repository.serve();
        let taker = Repository::new(scene.path("taker"));
        run(&mut taker.online(&address, &["pull", &scene.cid, "--name", "good:1"]));
        assert!(taker.saved("good:1") == scene.archive, "{what}: it is another image at another host");
        fs::remove_dir_all(taker.path()).expect("removed");
    }
}

/// Changes a byte in the middle of a file, and not its time: rot shows in nothing else.
fn rot(path: &Path) {
    let (mut bytes, modified) = (fs::read(path).expect("there"), fs::metadata(path).and_then(|data| data.modified()));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
    let file = File::options().write(true).open(path).expect("opens");
    file.set_modified(modified.expect("known")).expect("set");
}

/// A byte that rotted is found, named, put aside, and fetched anew: it, and nothing besides.
#[test]
fn d3_a_rotten_byte_is_found_put_aside_and_fetched_anew() {
    let scene = Scene::new();
    let (_serving, address) = scene.repository.serve();
    let taker = Repository::new(scene.path("taker"));
    let pull = |taker: &Repository| run(&mut taker.online(&address, &["pull", &scene.cid, "--name", "good:1"]));
    pull(&taker);
    let layer = hex(&Sha256::digest(Noise::new(7).bytes(LAYERS[0])));
    for name in [layer.as_str(), &largest(&taker)] {
        let blob = taker.path().join("blobs/sha256").join(name);
        let size = fs::metadata(&blob).expect("there").len();
        rot(&blob);
        let found = verify(&taker, &[]);
        let text = said(&found);
        assert_eq!(found.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("damaged: file sha256:{name}")) && text.contains("hint: "), "{text}");
        assert!(blob.exists(), "it was not to be put aside yet");
        let repaired = said(&verify(&taker, &["--repair"]));
        assert!(repaired.contains(&format!("moved away: file sha256:{name}")), "{repaired}");
        assert!(!blob.exists() && taker.path().join("quarantine").join(name).exists(), "{repaired}");
        let broken = said(&verify(&taker, &[]));
        assert!(broken.contains("not whole: "), "{broken}");
        // A daemon takes the pull in, so that somebody can be asked what it received.
        let (_taking, _) = taker.serve();
        pull(&taker);
        let mut peers = shipfs(taker.path());
        let peers: Value = serde_json::from_str(&run(peers.args(["--json", "peers"]))).expect("JSON");
        let received = peers[0]["received"].as_u64().expect("a number");
        assert_eq!(received, size, "bytes were fetched that were here: {peers}");
        run(&mut taker.offline(&["verify"]));
        assert!(taker.saved("good:1") == scene.archive);
    }
}

/// The name of the largest blob.
fn largest(repository: &Repository) -> String {
    let blobs = fs::read_dir(repository.path().join("blobs/sha256")).expect("a directory");
    let largest = blobs.map(|blob| blob.expect("an entry")).max_by_key(|blob| blob.metadata().expect("there").len());
    largest.expect("a blob").file_name().into_string().expect("text")
}

/// Nodes of DAGs lie in packs: rot there is found as well, and a pull brings what is missing.
#[test]
fn d3_a_rotten_pack_is_found_and_made_whole_by_a_pull() {
    let scene = Scene::new();
    let (_serving, address) = scene.repository.serve();
    let taker = Repository::new(scene.path("taker"));
    let pull = ["pull", &scene.cid, "--name", "good:1"];
    run(&mut taker.online(&address, &pull));
    let packs = tree(&taker.path().join("packs"));
    let pack = packs.keys().next().expect("the nodes of a layer are in a pack");
    rot(pack);
    let found = verify(&taker, &[]);
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(said(&found).contains("damaged: "), "{}", said(&found));
    let repaired = said(&verify(&taker, &["--repair"]));
    assert!(repaired.contains("moved away: "), "{repaired}");
    run(&mut taker.online(&address, &pull));
    run(&mut taker.offline(&["verify"]));
    assert!(taker.saved("good:1") == scene.archive);
    // Others can have it by its blocks again.
    let (_serving, address) = taker.serve();
    let third = Repository::new(scene.path("third"));
    run(&mut third.online(&address, &["pull", &scene.cid, "--name", "good:1"]));
    assert!(third.saved("good:1") == scene.archive);
}

/// Verbs that meet on one repository are all done, whichever of them holds it; none undoes what another did.
#[test]
fn d2_verbs_that_meet_on_one_repository_all_succeed() {
    /// How often they meet; the first time there is no repository yet.
    const ROUNDS: usize = 4;
    let scene = Scene::new();
    let (_serving, address) = scene.repository.serve();
    let meeting = Repository::new(scene.path("meeting"));
    let sources: Vec<_> =
        (0..4).map(|seed| layout(scene.folder.path(), &format!("source{seed}"), &[400_000], seed)).collect();
    for round in 0..ROUNDS {
        let mut verbs: Vec<Command> = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            verbs.push(meeting.offline(&["push", "--name", &format!("image{number}:{round}"), source]));
        }
        // Two that want the same.
        verbs.extend((0..2).map(|_| meeting.online(&address, &["pull", &scene.cid, "--name", "good:1"])));
        for verb in [&["images"][..], &["gc"], &["verify"], &["gc"]] {
            verbs.push(meeting.offline(verb));
        }
        assert_eq!(verbs.len(), 10);
        std::thread::scope(|scope| {
            for mut verb in verbs {
                scope.spawn(move || {
                    let output = verb.output().expect("it starts");
                    assert!(output.status.success(), "round {round}, {verb:?}: {}", said(&output));
                });
            }
        });
        let listed = run(shipfs(meeting.path()).args(["--offline", "images"]));
        assert!((0..sources.len()).all(|number| listed.contains(&format!("image{number}:{round} "))), "{listed}");
        run(&mut meeting.offline(&["verify"]));
        assert!(meeting.saved("good:1") == scene.archive, "round {round}");
    }
}
