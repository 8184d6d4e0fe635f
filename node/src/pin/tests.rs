//! What is kept stays, what is not goes.

use super::{GcError, Keep};
use crate::block::{Block, Cid, Multihash, cid_of};
use crate::dag;
use crate::store::tests::{add, assert_whole, build, noise, open};
use crate::store::{Blockstore as _, Store, StoreError};
use bytes::Bytes;

fn keep(store: &Store, name: &str, root: &Cid, members: &[Cid]) {
    let keep =
        Keep { name: name.into(), root: *root, members: members.to_vec(), note: b"n".to_vec(), incomplete: false };
    store.keep(keep).expect("keep");
}

fn has(store: &Store, cid: &Cid) -> bool {
    store.get(cid).expect("get").is_some()
}

/// Two images share a layer; another layer shares a chunk with it, and lies there under two CIDs.
#[test]
fn releasing_one_image_leaves_the_other_whole() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let shared = noise(1, 30_000);
    let only_first: Bytes = [&shared[..1000], &noise(2, 9000)].concat().into();
    let only_second = noise(3, 7000);
    let layer = add(&store, &shared, 1000).cid;
    let first = add(&store, &only_first, 1000).cid;
    let second = add(&store, &only_second, 1000).cid;
    let rechunked = add(&store, &shared, 2048).cid;
    let (root_a, root_b) = (add(&store, &noise(4, 200), 1000).cid, add(&store, &noise(5, 200), 1000).cid);
    keep(&store, "a", &root_a, &[layer, first]);
    keep(&store, "b", &root_b, &[rechunked, second]);
    assert_eq!(store.gc().expect("gc").files, 0);
    assert!(store.release("a").expect("release"));
    let report = store.gc().expect("gc");
    assert_eq!(report.files, 2, "{report:?}");
    assert_whole(&store, &shared, 2048);
    assert_whole(&store, &only_second, 1000);
    assert!(store.file(&layer).is_none() && store.file(&first).is_none() && !has(&store, &root_a));
    assert!(!has(&store, build(&shared, 1000).0[7].cid()), "a chunk of the dropped chunking");
    assert_eq!(store.file(&rechunked).map(|file| std::fs::read(file.path).expect("read")), Some(shared.to_vec()));
    store.close().expect("close");
    let store = open(directory.path());
    assert_whole(&store, &shared, 2048);
    assert_eq!(store.kept().len(), 1);
    assert!(store.release("b").expect("release") && !store.release("b").expect("release"));
    store.gc().expect("gc");
    assert_eq!(std::fs::read_dir(directory.path().join("blobs/sha256")).expect("list").count(), 0);
    assert_eq!(store.usage().expect("usage").pack_bytes, 12);
}

/// A DAG of blocks whose chunk was only ever stored as a part of another file.
#[test]
fn a_block_that_lies_only_in_a_dead_file_is_copied_out() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 10_000);
    let file = add(&store, &data, 1000).cid;
    let part: Bytes = data.slice(2000..5000);
    let (blocks, _, tree) = build(&part, 1000);
    for block in blocks.iter().chain(&tree.nodes) {
        store.put(block).expect("put");
    }
    store.pin(&tree.root, "part").expect("pin");
    assert_eq!(store.gc().expect("gc").files, 1);
    assert!(store.file(&file).is_none());
    assert_whole(&store, &part, 1000);
    store.close().expect("close");
    std::fs::remove_dir_all(directory.path().join("index")).expect("remove");
    assert_whole(&open(directory.path()), &part, 1000);
}

#[test]
fn what_is_pinned_or_kept_must_be_there() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let (blocks, _, tree) = build(&noise(1, 10_000), 1000);
    tree.nodes.iter().for_each(|node| store.put(node).expect("put"));
    blocks[1..].iter().for_each(|block| store.put(block).expect("put"));
    let missing = store.pin(&tree.root, "x").expect_err("incomplete");
    assert!(matches!(missing, StoreError::Incomplete { missing, .. } if *missing == *blocks[0].cid()));
    let mut keep = Keep { name: "k".into(), root: tree.root, members: vec![], note: vec![], incomplete: false };
    assert!(store.keep(keep.clone()).is_err());
    keep.incomplete = true;
    store.keep(keep).expect("keep");
    assert_eq!(store.gc().expect("gc").blocks, 0);
    assert!(store.pins().is_empty() && has(&store, &tree.root) && has(&store, blocks[1].cid()));
    store.put(&blocks[0]).expect("put");
    store.pin(&tree.root, "x").expect("pin");
    assert_eq!(store.pins()[0].name, "x");
}

#[test]
fn gc_refuses_when_a_kept_node_is_lost() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let garbage = Block::raw(noise(9, 100));
    let (blocks, _, tree) = build(&noise(1, 10_000), 1000);
    blocks.iter().chain(&tree.nodes).chain([&garbage]).for_each(|block| store.put(block).expect("put"));
    store.pin(&tree.root, "x").expect("pin");
    store.close().expect("close");
    let pack = directory.path().join("packs/1");
    let mut bytes = std::fs::read(&pack).expect("read");
    let node = tree.nodes[0].data();
    let at = bytes.windows(node.len()).position(|window| window == node).expect("in the pack");
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).expect("write");
    let store = open(directory.path());
    let refused = store.gc().expect_err("refused");
    assert!(matches!(refused, GcError::Unresolved { .. }), "{refused}");
    assert!(has(&store, garbage.cid()));
    store.unpin(&tree.root).expect("unpin");
    assert_eq!(store.gc().expect("gc").packs, 1);
    assert!(!has(&store, garbage.cid()) && !has(&store, blocks[0].cid()));
}

#[test]
fn d4_a_lease_protects_what_comes_in_and_what_it_holds() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let old = add(&store, &noise(1, 5000), 1000).cid;
    let forgotten = add(&store, &noise(2, 5000), 1000).cid;
    store.commit().expect("commit");
    let lease = store.lease();
    lease.hold(&old);
    let new = add(&store, &noise(3, 5000), 1000).cid;
    let loose = Block::raw(noise(4, 500));
    store.put(&loose).expect("put");
    assert_eq!(store.gc().expect("gc").files, 1);
    assert!(store.file(&forgotten).is_none());
    assert!(store.file(&old).is_some() && store.file(&new).is_some() && has(&store, loose.cid()));
    assert_whole(&store, &noise(3, 5000), 1000);
    drop(lease);
    assert_eq!(store.gc().expect("gc").files, 2);
    assert!(!has(&store, loose.cid()));
}

#[test]
fn gc_keeps_the_partial_files_of_incomplete_keeps_and_running_transfers() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let cids: Vec<Cid> = (0..3).map(|n| cid_of(0x70, &[n])).collect();
    let write = |cid: &Cid| {
        let incoming = store.receive(cid, 100, None).expect("receive");
        incoming.write(0, &Block::raw(noise(1, 100))).expect("write");
        incoming
    };
    let running = write(&cids[0]);
    cids[1..].iter().for_each(|cid| drop(write(cid)));
    let keep = Keep { name: "k".into(), root: cids[1], members: vec![], note: vec![], incomplete: true };
    store.keep(keep).expect("keep");
    assert_eq!(store.gc().expect("gc").files, 1);
    let left = |cid: &Cid| directory.path().join("partial").join(cid.to_string()).exists();
    assert_eq!(cids.iter().map(left).collect::<Vec<_>>(), [true, true, false]);
    drop(running);
}

/// Pins, releases and collections race with imports that hold a lease; nothing leased or kept is ever lost.
#[test]
fn d4_collections_race_with_imports() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let running = std::sync::atomic::AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for worker in 0..3_u64 {
            let (store, running) = (&store, &running);
            scope.spawn(move || {
                for round in 0..40 {
                    // The same content again and again, so that it is dying while it is added.
                    let data = noise(worker / 2 * 100 + round % 3, 20_000);
                    let lease = store.lease();
                    let cid = add(store, &data, 1000).cid;
                    assert_whole(store, &data, 1000);
                    let name = format!("{worker}-{}", round % 2);
                    keep(store, &name, &cid, &[]);
                    drop(lease);
                    assert_whole(store, &data, 1000);
                    assert!(store.release(&name).expect("release"));
                }
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        let (store, running) = (&store, &running);
        scope.spawn(move || {
            // A DAG whose chunks come and go with the files of the others.
            for round in 0..80 {
                let part: Bytes = [noise(round % 3, 3000), noise(100 + round % 3, 2000)].concat().into();
                let (blocks, _, tree) = build(&part, 1000);
                let lease = store.lease();
                blocks.iter().chain(&tree.nodes).for_each(|block| store.put(block).expect("put"));
                store.pin(&tree.root, "part").expect("pin");
                drop(lease);
                assert_whole(store, &part, 1000);
                store.unpin(&tree.root).expect("unpin");
            }
            running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        });
        while running.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            store.gc().expect("gc");
        }
    });
    store.gc().expect("gc");
    assert_eq!(store.usage().expect("usage").files, 0);
}

/// Blocks that no node can check, or cannot follow, do not stop a collection unless something strict is made of them.
#[test]
fn what_cannot_be_followed_is_refused_where_it_must_be_whole_and_passed_over_where_not() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let unknown = Cid::new_v1(0x70, Multihash::wrap(0x1e, &[1; 32]).expect("fits"));
    let link = |cid| dag::Link { cid, name: Bytes::new(), size: 1 };
    let odd = Block::dag_pb(dag::encode_node(&[link(unknown)], &[8, 1]));
    let broken = Block::dag_pb(Bytes::from_static(b"\xff\xff\xff"));
    let cbor = Cid::new_v1(0x71, *broken.cid().hash());
    for root in [*odd.cid(), *broken.cid(), cbor] {
        [&odd, &broken].iter().for_each(|block| store.put(block).expect("put"));
        assert!(store.pin(&root, "x").is_err(), "{root}");
        let keep = Keep { name: "k".into(), root, members: vec![], note: vec![], incomplete: true };
        store.keep(keep).expect("keep");
        let lease = store.lease();
        lease.hold(&root);
        lease.hold(&unknown);
        assert_eq!(store.gc().expect("gc").blocks, 1);
        assert!(has(&store, &root));
    }
}
