//! What every block store must do.
//!
//! Imports the trait. It never looks behind it.

use crate::block::{Block, CODEC_DAG_PB, CODEC_RAW, Cid, MAX_BLOCK_BYTES, Multihash};
use crate::store::{Blockstore, StoreError};
use bytes::Bytes;
use std::thread;

/// Runs the behaviour suite against an empty store.
///
/// # Panics
/// When the store does not behave.
pub fn blockstore_suite(store: &dyn Blockstore) {
    gives_back_what_it_took(store);
    does_not_have_what_it_did_not_take(store);
    knows_a_block_by_its_hash(store);
    holds_identity_blocks_without_storing_them(store);
    refuses_unverifiable_cids(store);
    takes_blocks_of_every_size(store);
    serves_many_threads(store);
}

fn filled(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| seed ^ (at as u8) ^ ((at >> 8) as u8)).collect()
}

fn gives_back_what_it_took(store: &dyn Blockstore) {
    let block = Block::raw(filled(1, 1000));
    for _ in 0..2 {
        store.put(&block).expect("put");
        assert_eq!(store.get(block.cid()).expect("get").as_ref(), Some(block.data()));
        assert_eq!(store.size(block.cid()).expect("size"), Some(1000));
    }
}

fn does_not_have_what_it_did_not_take(store: &dyn Blockstore) {
    let absent = Block::raw(filled(2, 1000));
    assert_eq!(store.get(absent.cid()).expect("get"), None);
    assert_eq!(store.size(absent.cid()).expect("size"), None);
}

/// Version and codec are how bytes are read, not which bytes they are.
fn knows_a_block_by_its_hash(store: &dyn Blockstore) {
    let block = Block::dag_pb(filled(3, 100));
    store.put(&block).expect("put");
    let others = [
        Cid::new_v1(CODEC_RAW, *block.cid().hash()),
        Cid::new_v1(CODEC_DAG_PB, *block.cid().hash()),
        Cid::new_v0(*block.cid().hash()).expect("sha2-256"),
    ];
    for cid in others {
        assert_eq!(store.get(&cid).expect("get").as_ref(), Some(block.data()), "{cid}");
    }
}

fn holds_identity_blocks_without_storing_them(store: &dyn Blockstore) {
    let cid = Cid::new_v1(CODEC_RAW, Multihash::wrap(0, b"inline").expect("fits"));
    assert_eq!(store.get(&cid).expect("get").as_deref(), Some(b"inline".as_slice()));
    assert_eq!(store.size(&cid).expect("size"), Some(6));
    let block = Block::verify(cid, Bytes::from_static(b"inline")).expect("verifies");
    store.put(&block).expect("put");
}

fn refuses_unverifiable_cids(store: &dyn Blockstore) {
    for hash in [Multihash::wrap(0x1e, &[1; 32]), Multihash::wrap(0x12, &[1; 8])] {
        let cid = Cid::new_v1(CODEC_RAW, hash.expect("fits"));
        assert!(matches!(store.get(&cid), Err(StoreError::Cid(_))));
        assert!(matches!(store.size(&cid), Err(StoreError::Cid(_))));
    }
}

/// Nothing, one byte, around a page, around a chunk, and the largest there is.
fn takes_blocks_of_every_size(store: &dyn Blockstore) {
    for length in [0, 1, 4095, 4096, 4097, 262_143, 262_144, 262_145, MAX_BLOCK_BYTES] {
        let block = Block::raw(filled(4, length));
        store.put(&block).expect("put");
        assert_eq!(store.get(block.cid()).expect("get").as_ref(), Some(block.data()));
        assert_eq!(store.size(block.cid()).expect("size"), Some(length as u64));
    }
}

fn serves_many_threads(store: &dyn Blockstore) {
    thread::scope(|scope| {
        for worker in 0..4_u8 {
            scope.spawn(move || {
                for n in 0..50_u8 {
                    // Every block is put by two workers.
                    let block = Block::raw(filled(n, 300 + usize::from(worker / 2)));
                    store.put(&block).expect("put");
                    assert_eq!(store.get(block.cid()).expect("get").as_ref(), Some(block.data()));
                }
            });
        }
    });
}
