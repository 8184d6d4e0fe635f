//! Threat D6 on a real file system: a full one, and one that cannot be written to.

use super::{add, assert_whole, build, noise, open};
use crate::block::Block;
use crate::pin::Keep;
use crate::store::{Blockstore as _, OpenError, Store, StoreError, StoreOptions};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a mount may stay busy: a program that another test is just starting has every open file of this process until
/// it is started.
const REMOUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// A small file system of its own, unmounted when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None` where nothing can be mounted; in CI that is a failure.
    #[expect(clippy::print_stderr, reason = "a test that cannot run says so")]
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("tempdir");
        let options = format!("size={size}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        if status.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "a tmpfs could not be mounted, and this is CI");
        eprintln!("SKIPPED: a tmpfs could not be mounted; run as root to test a full disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        let end = Instant::now() + REMOUNT_TIMEOUT;
        loop {
            let output = Command::new("mount").args(["-o", &options]).arg(self.path()).output().expect("mount runs");
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < end, "{output:?}");
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn privileged_d6_a_full_disk_gives_typed_errors_and_loses_nothing() {
    let Some(mount) = Mount::new("8m") else { return };
    let store = open(mount.path());
    let kept = noise(1, 500_000);
    let file = add(&store, &kept, 10_000);
    let keep = Keep { name: "k".into(), root: file.cid, members: vec![], note: vec![], incomplete: false };
    store.keep(keep).expect("keep");

    // Adding.
    let large = noise(2, 9_000_000);
    let staged = store.stage().expect("stage");
    assert!(matches!(staged.write_at(0, &large), Err(StoreError::Full { .. })));
    drop(staged);
    let usage = store.usage().expect("usage");
    assert_eq!((usage.files, usage.partial_files), (1, 0), "what was written is removed");

    // Receiving: what was written stays, and is resumed once there is room.
    let (blocks, hashed, tree) = build(&large, 100_000);
    let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest)).expect("receive");
    let failed = blocks.iter().enumerate().find_map(|(n, block)| incoming.write(n as u64 * 100_000, block).err());
    assert!(matches!(failed, Some(StoreError::Full { .. })));
    drop(incoming);

    // Putting, until it is refused. Facts still have room.
    let mut puts = 0;
    while store.put(&Block::raw(noise(1000 + puts, 20_000))).is_ok() {
        puts += 1;
    }
    store.pin(&file.cid, "again").expect("pin");
    assert_whole(&store, &kept, 10_000);

    // Somebody else takes the rest.
    let filler = mount.path().join("filler");
    let mut other = std::fs::File::create(&filler).expect("create");
    for piece in [100_000, 1000, 1] {
        while std::io::Write::write_all(&mut other, &noise(1, piece)).is_ok() {}
    }
    for _ in 0..3 {
        store.put(&Block::raw(noise(1, 100))).expect_err("full");
        if let Err(error) = store.pin(&file.cid, "third") {
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        }
    }
    drop(store);
    match Store::open(mount.path(), StoreOptions::default()) {
        Ok(store) => assert_whole(&store, &kept, 10_000),
        Err(error) => assert!(matches!(error, OpenError::Full { .. }), "{error:?}"),
    }

    // What was being received goes with it when it is collected.
    drop(other);
    std::fs::remove_file(filler).expect("remove");
    let store = open(mount.path());
    assert_whole(&store, &kept, 10_000);
    assert_eq!((store.kept().len(), store.pins().len()), (1, 1));
    mount.remount("size=60m");
    let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest)).expect("receive");
    let mut resumed = 0;
    for (n, block) in blocks.iter().enumerate() {
        let offset = n as u64 * 100_000;
        if incoming.present(offset, block.data().len(), block.cid()).expect("present").is_some() {
            resumed += 1;
        } else {
            incoming.write(offset, block).expect("write");
        }
    }
    assert!(resumed > 20, "only {resumed} blocks were resumed");
    tree.nodes.iter().for_each(|node| store.put(node).expect("put"));
    incoming.finish(hashed.digest, hashed.size).expect("finish");
    store.pin(&tree.root, "large").expect("pin");
    assert_whole(&store, &large, 100_000);
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    store.close().expect("close");
}

/// On a disk that is full of what nobody keeps, a collection makes room.
/// The index on disk could not be opened without room for it, so nothing could be read from a full disk, and nothing be
/// removed from it either.
#[test]
fn privileged_d6_a_disk_without_a_free_byte_is_read_and_cleaned_up() {
    let Some(mount) = Mount::new("12m") else { return };
    let repository = mount.path().join("repository");
    let (kept, dropped) = (noise(1_500_000, 1), noise(1_000_000, 2));
    let (first, second) = {
        let store = open(&repository);
        let infos = [add(&store, &kept, 1 << 18), add(&store, &dropped, 1 << 18)];
        for (info, name) in infos.iter().zip(["kept", "dropped"]) {
            let (root, members, note) = (info.cid, Vec::new(), Vec::new());
            store.keep(Keep { name: name.into(), root, members, note, incomplete: false }).expect("kept");
        }
        let [first, second] = infos;
        (first, second)
    };
    let filler = mount.path().join("filler");
    let mut filling = std::fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut filling, &[7; 4096]).is_ok() {}
    {
        let store = open(&repository);
        assert_whole(&store, &kept, 1 << 18);
        assert_whole(&store, &dropped, 1 << 18);
        let report = store.verify(false, &|_| {}).expect("verifies");
        assert!(report.bad_files.is_empty() && report.broken.is_empty() && report.wrong_rows == 0, "{report:?}");
        // Letting go needs a few bytes for the fact, and gives back more.
        std::fs::OpenOptions::new().write(true).open(&filler).expect("opens").set_len(1 << 20).expect("shorter");
        assert!(store.release("dropped").expect("released"));
        assert_eq!(store.gc().expect("collects").files, 1);
        assert!(store.file(&second.cid).is_none());
    }
    // With room, the index on disk is there again, and knows what was removed meanwhile.
    let store = open(&repository);
    assert_whole(&store, &kept, 1 << 18);
    assert_eq!(store.file(&first.cid).expect("is here").size, kept.len() as u64);
    assert_eq!(store.size(&second.cid).expect("reads"), None);
    let report = store.verify(false, &|_| {}).expect("verifies");
    assert!(report.bad_files.is_empty() && report.broken.is_empty() && report.wrong_rows == 0, "{report:?}");
}

#[test]
fn privileged_d6_a_collection_makes_room_on_a_full_disk() {
    let Some(mount) = Mount::new("12m") else { return };
    let store = open(mount.path());
    let kept = add(&store, &noise(1, 100_000), 10_000);
    store.pin(&kept.cid, "kept").expect("pin");
    let mut images = 0;
    loop {
        let data = noise(10 + images, 1_000_000);
        let (_, hashed, tree) = build(&data, 10_000);
        let staged = store.stage().expect("stage");
        if staged.write_at(0, &data).is_err() {
            break;
        }
        staged.finish(&hashed, &tree).expect("finish");
        store.pin(&tree.root, "image").expect("pin");
        images += 1;
    }
    assert!(images > 2, "{images}");
    for pin in store.pins().iter().filter(|pin| pin.name == "image") {
        store.unpin(&pin.cid).expect("unpin");
    }
    assert_eq!(store.gc().expect("gc").files, images);
    assert_whole(&store, &noise(1, 100_000), 10_000);
    add(&store, &noise(99, 1_000_000), 10_000);
    store.close().expect("close");
}

#[test]
fn privileged_d6_a_read_only_repository_is_refused_and_one_that_becomes_so_changes_nothing() {
    let Some(mount) = Mount::new("8m") else { return };
    let store = open(mount.path());
    let data = noise(1, 100_000);
    add(&store, &data, 10_000);
    store.close().expect("close");
    mount.remount("ro");
    let refused = Store::open(mount.path(), StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::ReadOnly { .. })), "{refused:?}");
    mount.remount("rw");
    assert_whole(&open(mount.path()), &data, 10_000);
}
