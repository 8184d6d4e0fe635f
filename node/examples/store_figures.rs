//! Prints what the store costs on this machine: rows in and out of the index, a commit, memory, and one file's way in.
//!
//! `cargo run --release -p shipfs-node --example store_figures [DIRECTORY]`. Uses the public API only; it asserts nothing.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shipfs_node::block::Block;
use shipfs_node::dag::{Hashed, Leaf, balanced};
use shipfs_node::store::{Blockstore as _, Store, StoreOptions};
use std::path::PathBuf;
use std::time::Instant;

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM")).collect::<Vec<_>>().join(", ")
}

/// One file of `count` leaves of `size` bytes, each different.
fn add(store: &Store, count: u64, size: usize) -> Vec<Leaf> {
    let staged = store.stage().expect("stage");
    let (mut leaves, mut digest, mut piece) = (Vec::new(), Sha256::new(), vec![7_u8; size]);
    let mut writing = std::time::Duration::ZERO;
    for n in 0..count {
        piece[..8].copy_from_slice(&n.to_le_bytes());
        digest.update(&piece);
        leaves.push(Leaf { cid: *Block::raw(Bytes::copy_from_slice(&piece)).cid(), size: size as u64 });
        let start = Instant::now();
        staged.write_at(n * size as u64, &piece).expect("write");
        if n.is_multiple_of(32) {
            staged.start_writeback(n * size as u64..(n + 32) * size as u64);
        }
        writing += start.elapsed();
    }
    let hashed = Hashed { leaves, digest: digest.finalize().into(), size: count * size as u64 };
    let tree = balanced(&hashed.leaves);
    let start = Instant::now();
    staged.finish(&hashed, &tree).expect("finish");
    let finish = start.elapsed();
    let start = Instant::now();
    store.commit().expect("commit");
    println!(
        "{count} leaves of {size}: write {writing:?}, finish (sync, rename) {finish:?}, commit {:?}",
        start.elapsed()
    );
    println!("  {}", resident_kib());
    hashed.leaves
}

fn main() {
    let root = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("store-figures"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&root);
    let store = Store::open(&root, StoreOptions::default()).expect("open");
    let leaves = add(&store, 4096, 262_144);
    let start = Instant::now();
    assert!(leaves.iter().all(|leaf| store.get(&leaf.cid).expect("get").is_some()));
    println!("1 GiB served in blocks in {:?} (cached pages)", start.elapsed());
    println!("  {}", resident_kib());
    let rows = add(&store, 100_000, 64);
    let start = Instant::now();
    assert!(rows.iter().all(|leaf| store.size(&leaf.cid).expect("size").is_some()));
    println!("100000 look-ups in {:?}", start.elapsed());
    let start = Instant::now();
    assert!(rows.iter().all(|leaf| store.get(&leaf.cid).expect("get").is_some()));
    println!("100000 gets of 64 bytes in {:?}", start.elapsed());
    let start = Instant::now();
    for n in 0..20_u8 {
        store.pin(&rows[usize::from(n)].cid, "x").expect("pin");
    }
    println!("a pin (commit of one fact): {:?}", start.elapsed() / 20);
    println!("index on disk: {} KiB", directory_bytes(&root.join("index")) >> 10);
    store.close().expect("close");
    let start = Instant::now();
    let store = Store::open(&root, StoreOptions::default()).expect("open");
    println!("open: {:?}", start.elapsed());
    store.close().expect("close");
    std::fs::remove_dir_all(root.join("index")).expect("remove");
    let start = Instant::now();
    Store::open(&root, StoreOptions::default()).expect("open").close().expect("close");
    println!("open with the index rebuilt: {:?}\n  {}", start.elapsed(), resident_kib());
    let _ = std::fs::remove_dir_all(&root);
}

fn directory_bytes(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("list").filter_map(Result::ok);
    entries
        .map(|entry| {
            if entry.path().is_dir() { directory_bytes(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }
        })
        .sum()
}
