//! What the store promises its users, on a real disk.

mod damage;
mod foreign;
mod formats;
mod full;
mod killed;

use super::{Blockstore as _, OpenError, Store, StoreError, StoreOptions};
use crate::block::Block;
use crate::dag::{self, Hashed, Leaf, Tree};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// Bytes that differ from seed to seed and from place to place.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

/// Cuts, hashes and builds as an import does.
pub(crate) fn build(data: &Bytes, chunk: usize) -> (Vec<Block>, Hashed, Tree) {
    let blocks: Vec<Block> =
        (0..data.len()).step_by(chunk).map(|at| Block::raw(data.slice(at..data.len().min(at + chunk)))).collect();
    let leaves: Vec<Leaf> =
        blocks.iter().map(|block| Leaf { cid: *block.cid(), size: block.data().len() as u64 }).collect();
    let tree = dag::balanced(&leaves);
    let hashed = Hashed { leaves, digest: Sha256::digest(data).into(), size: data.len() as u64 };
    (blocks, hashed, tree)
}

pub(crate) fn add(store: &Store, data: &Bytes, chunk: usize) -> super::FileInfo {
    let (_, hashed, tree) = build(data, chunk);
    let staged = store.stage().expect("stage");
    staged.write_at(0, data).expect("write");
    staged.finish(&hashed, &tree).expect("finish")
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(root, StoreOptions::default()).expect("open")
}

/// Every block of the file is there and is what its CID says.
pub(crate) fn assert_whole(store: &Store, data: &Bytes, chunk: usize) {
    let (blocks, _, tree) = build(data, chunk);
    for block in blocks.iter().chain(&tree.nodes) {
        assert_eq!(store.get(block.cid()).expect("get").as_ref(), Some(block.data()), "{}", block.cid());
        assert_eq!(store.size(block.cid()).expect("size"), Some(block.data().len() as u64));
    }
}

#[test]
fn an_added_file_is_served_before_and_after_the_commit_and_by_the_next_process() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 100_000);
    let info = add(&store, &data, 1000);
    assert_whole(&store, &data, 1000);
    store.commit().expect("commit");
    assert_whole(&store, &data, 1000);
    assert_eq!(std::fs::read(&info.path).expect("read"), data);
    store.close().expect("close");
    let store = open(directory.path());
    assert_whole(&store, &data, 1000);
    assert_eq!(store.file(&info.cid), Some(info.clone()));
    assert_eq!(store.file_by_digest(&info.digest), [info]);
}

#[test]
fn one_blob_under_two_cids_lies_there_once() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(2, 50_000);
    let (first, second) = (add(&store, &data, 1000), add(&store, &data, 3000));
    assert_ne!(first.cid, second.cid);
    assert_eq!(first.path, second.path);
    store.commit().expect("commit");
    assert_whole(&store, &data, 1000);
    assert_whole(&store, &data, 3000);
    assert_eq!(store.file_by_digest(&first.digest).len(), 2);
    assert_eq!(std::fs::read_dir(directory.path().join("partial")).expect("list").count(), 0);
}

#[test]
fn a_received_file_serves_at_once_and_resumes() {
    let directory = tempfile::tempdir().expect("tempdir");
    let data = noise(3, 20_000);
    let (blocks, hashed, tree) = build(&data, 4096);
    {
        let store = open(directory.path());
        let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest)).expect("receive");
        incoming.write(4096, &blocks[1]).expect("write");
        incoming.write(16384, &blocks[4]).expect("write");
        assert_eq!(store.get(blocks[1].cid()).expect("get").as_ref(), Some(blocks[1].data()));
        assert!(matches!(store.receive(&tree.root, 1, None), Err(StoreError::Busy { .. })));
        assert!(matches!(incoming.write(16385, &blocks[4]), Err(StoreError::OutOfRange { .. })));
    }
    let store = open(directory.path());
    let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest)).expect("receive");
    assert_eq!(store.get(blocks[1].cid()).expect("get"), None, "not trusted before it was hashed");
    for (i, block) in blocks.iter().enumerate() {
        let found = incoming.present(i as u64 * 4096, block.data().len(), block.cid()).expect("present");
        assert_eq!(found.is_some(), [1, 4].contains(&i), "{i}");
        if found.is_none() {
            incoming.write(i as u64 * 4096, block).expect("write");
        }
    }
    tree.nodes.iter().for_each(|node| store.put(node).expect("put"));
    let info = incoming.finish(hashed.digest, hashed.size).expect("finish");
    assert_eq!(info.cumulative, Some(tree.cumulative));
    assert_whole(&store, &data, 4096);
    store.commit().expect("commit");
    assert_whole(&store, &data, 4096);
    assert_eq!(std::fs::read(info.path).expect("read"), data);
}

#[test]
fn d2_a_second_holder_is_refused() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let second = Store::open(directory.path(), StoreOptions::default());
    assert!(matches!(second, Err(OpenError::Held { .. })));
    drop(store);
    open(directory.path());
}

#[test]
fn an_unknown_layout_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("tempdir");
    std::fs::write(directory.path().join("version"), "7\n").expect("write");
    let opened = Store::open(directory.path(), StoreOptions::default());
    assert!(matches!(opened, Err(OpenError::UnknownVersion { found, known: 1, .. }) if found == "7"));
    assert!(!directory.path().join("blobs").exists());
}

#[test]
fn every_block_store_passes_the_suite() {
    let directory = tempfile::tempdir().expect("tempdir");
    crate::testing::blockstore_suite(&open(directory.path()));
    crate::testing::blockstore_suite(&super::MemoryStore::new());
}
