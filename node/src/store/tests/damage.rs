//! Threats D3 and D5: bytes and index damaged behind the store's back.

use super::{add, assert_whole, build, noise, open};
use crate::pin::Keep;
use crate::store::{Blockstore as _, Store, StoreOptions};
use bytes::Bytes;
use std::fs;
use std::path::{Path, PathBuf};

fn kept(store: &Store, data: &Bytes) -> super::super::FileInfo {
    let file = add(store, data, 1000);
    let keep = Keep { name: "k".into(), root: file.cid, members: vec![], note: vec![], incomplete: false };
    store.keep(keep).expect("keep");
    file
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 0x40;
    fs::write(path, bytes).expect("write");
}

fn index_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root.join("index")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

#[test]
fn d3_a_changed_file_is_not_served_and_can_be_stored_anew() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 20_000);
    let file = kept(&store, &data);
    let (blocks, hashed, tree) = build(&data, 1000);
    assert_whole(&store, &data, 1000);
    // The handle is open and in use; the time of the file changes with the write.
    flip(&file.path, 5500);
    assert_eq!(store.get(blocks[5].cid()).expect("get"), None);
    assert_eq!(store.get(blocks[6].cid()).expect("get"), None, "the whole file is out");
    assert!(store.file(&file.cid).is_none() && !file.path.exists());
    assert!(directory.path().join("quarantine").join(file.path.file_name().expect("name")).exists());
    let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest)).expect("receive");
    for (i, block) in blocks.iter().enumerate() {
        incoming.write(i as u64 * 1000, block).expect("write");
    }
    incoming.finish(hashed.digest, hashed.size).expect("finish");
    store.commit().expect("commit");
    assert_whole(&store, &data, 1000);
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
}

#[test]
fn d3_a_file_cut_short_or_removed_is_not_served() {
    for cut in [Some(7000), Some(0), None] {
        let directory = tempfile::tempdir().expect("tempdir");
        let store = open(directory.path());
        let data = noise(1, 20_000);
        let file = kept(&store, &data);
        store.close().expect("close");
        match cut {
            Some(length) => {
                fs::File::options().write(true).open(&file.path).expect("open").set_len(length).expect("cut")
            }
            None => fs::remove_file(&file.path).expect("remove"),
        }
        let store = open(directory.path());
        let (blocks, ..) = build(&data, 1000);
        assert_eq!(store.get(blocks[1].cid()).expect("get"), None);
        assert_eq!(store.size(blocks[1].cid()).expect("size"), None);
        assert!(store.file(&file.cid).is_none());
        drop(store);
        let store = open(directory.path());
        assert!(store.file(&file.cid).is_none());
        assert_eq!(add(&store, &data, 1000), file);
        assert_whole(&store, &data, 1000);
    }
}

#[test]
fn d3_a_file_that_only_changed_its_time_is_hashed_once_and_served() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 20_000);
    let file = kept(&store, &data);
    store.close().expect("close");
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&file.path).expect("open").set_modified(time).expect("touch");
    let store = open(directory.path());
    assert_whole(&store, &data, 1000);
    store.close().expect("close");
    let store = open(directory.path());
    let facts = super::super::guard::read(&store.inner.facts);
    let link = facts.by_cid(&file.cid).expect("linked");
    assert_eq!(link.mtime, 1_000_000_000_000_000_000, "the new time is written down");
}

/// The last block of the last pack: what cannot be read there was taken for the torn end of a crash, although it had been
/// promised, and the pack stayed.
#[test]
fn d3_rot_at_the_end_of_the_packs_is_no_torn_end() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 20_000);
    let file = kept(&store, &data);
    let pack = directory.path().join("packs/1");
    let length = fs::metadata(&pack).expect("stat").len();
    flip(&pack, usize::try_from(length).expect("small") - 20);
    let report = store.verify(false, &|_| ()).expect("verify");
    assert_eq!((&report.damaged_packs[..], report.broken.len()), (&[1][..], 1), "{report:?}");
    let report = store.verify(true, &|_| ()).expect("verify");
    assert_eq!((&report.damaged_packs[..], report.broken.len()), (&[1][..], 1), "{report:?}");
    assert!(!pack.exists() && directory.path().join("quarantine/pack-1").exists());
    let (_, _, tree) = build(&data, 1000);
    store.write_again(&tree.nodes).expect("written");
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    assert_whole(&store, &data, 1000);
    assert_eq!(store.file(&file.cid), Some(file));
}

#[test]
fn d3_verify_finds_bit_rot_and_repairs_what_it_can() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let (data, other) = (noise(1, 20_000), noise(2, 20_000));
    let file = kept(&store, &data);
    add(&store, &other, 1000);
    store.commit().expect("commit");
    // Rot changes neither size nor time.
    let time = fs::metadata(&file.path).expect("stat").modified().expect("time");
    flip(&file.path, 100);
    fs::File::options().write(true).open(&file.path).expect("open").set_modified(time).expect("touch");
    let report = store.verify(false, &|_| ()).expect("verify");
    assert_eq!((report.bad_files.len(), report.broken.len()), (1, 0), "{report:?}");
    assert!(file.path.exists(), "nothing is changed without repair");
    let report = store.verify(true, &|_| ()).expect("verify");
    assert_eq!(report.bad_files[0].cids, [file.cid]);
    assert_eq!(report.broken.len(), 1);
    assert_eq!(add(&store, &data, 1000).cid, file.cid);
    assert!(store.verify(true, &|_| ()).expect("verify").is_clean());
    assert_whole(&store, &data, 1000);

    // A node in a pack, and a checksum.
    let pack = directory.path().join("packs/1");
    let (_, _, tree) = build(&data, 1000);
    let bytes = fs::read(&pack).expect("read");
    let node = tree.nodes[0].data();
    let at = bytes.windows(node.len()).position(|window| window == node).expect("in the pack");
    flip(&pack, at + 10);
    let report = store.verify(true, &|_| ()).expect("verify");
    assert_eq!(report.damaged_packs, [1], "{report:?}");
    assert_eq!(report.broken.len(), 1);
    assert!(!pack.exists() && directory.path().join("quarantine/pack-1").exists());
    assert_whole(&store, &other, 1000);
    store.put(&tree.nodes[0]).expect("put");
    store.commit().expect("commit");
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    assert_whole(&store, &data, 1000);
}

#[test]
fn d5_a_lost_or_broken_index_is_rebuilt() {
    let directory = tempfile::tempdir().expect("tempdir");
    let root = directory.path();
    let store = open(root);
    let (data, loose) = (noise(1, 300_000), crate::block::Block::raw(noise(2, 700)));
    let cid = kept(&store, &data).cid;
    store.put(&loose).expect("put");
    store.pin(loose.cid(), "loose").expect("pin");
    store.close().expect("close");
    let check = |what: &str| {
        let store = open(root);
        assert_whole(&store, &data, 1000);
        assert_eq!(store.get(loose.cid()).expect("get").as_ref(), Some(loose.data()), "{what}");
        assert!(store.file(&cid).is_some() && store.pins().len() == 1 && store.kept().len() == 1, "{what}");
        let report = store.verify(false, &|_| ()).expect("verify");
        assert!(report.is_clean(), "{what}: {report:?}");
        store.close().expect("close");
    };
    check("as it was");
    fs::remove_dir_all(root.join("index")).expect("remove");
    check("deleted");
    for file in index_files(root) {
        fs::remove_file(&file).expect("remove");
        check(&format!("{} deleted", file.display()));
    }
    fs::remove_dir_all(root.join("index")).expect("remove");
    fs::write(root.join("index"), b"not a directory").expect("write");
    check("a file in its place");
    fs::remove_dir_all(root.join("index")).expect("remove");
    fs::write(root.join("index"), b"not a directory again").expect("write");
    check("a file in its place, twice");
    fs::remove_dir_all(root.join("index")).expect("remove");
    fs::create_dir(root.join("index")).expect("make");
    fs::write(root.join("index/conf"), b"segment_size: 512\nversion: 0.29").expect("write");
    check("another version");
}

/// sled finds some damage when it opens, some when it reads, and panics on some; all of it ends in a new index.
#[test]
fn d5_an_index_with_missing_flipped_or_zeroed_bytes_heals_while_it_is_used() {
    let directory = tempfile::tempdir().expect("tempdir");
    let root = directory.path();
    let store = open(root);
    let data = noise(1, 1_000_000);
    kept(&store, &data);
    add(&store, &data, 100);
    store.close().expect("close");
    let mut seed = 7_u64;
    for round in 0..12 {
        for file in index_files(root) {
            let mut bytes = fs::read(&file).expect("read");
            if bytes.is_empty() {
                continue;
            }
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(round);
            let at = (seed >> 20) as usize % bytes.len();
            match round % 3 {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << (seed % 8),
                _ => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
            }
            fs::write(&file, bytes).expect("write");
        }
        let store = open(root);
        assert_whole(&store, &data, 1000);
        assert_whole(&store, &data, 100);
        assert!(store.verify(false, &|_| ()).expect("verify").is_clean(), "round {round}");
        store.gc().expect("gc");
        add(&store, &data, 100);
        store.close().expect("close");
    }
}

#[test]
fn a_new_repository_has_nothing_broken_in_it() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(Store::open(directory.path(), StoreOptions::default()).expect("made"));
    drop(Store::open(directory.path(), StoreOptions::default()).expect("opened again"));
    assert!(!directory.path().join("index.broken").exists());
}
