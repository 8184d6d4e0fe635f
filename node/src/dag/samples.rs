//! What the tests of this module share: blocks in memory, real DAGs of other writers, and generators of odd ones.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};

use super::codec::{Kind, Link, UnixFs, encode_node, encode_unixfs};
use super::source::{BlockSource, BlockSourceError};
use crate::block::{Block, Cid};

/// Bytes whose every 100, and every 256 KiB, differ from the ones before.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    (0..size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Blocks in memory; counts what is asked of it, and answers late and out of order when told to.
#[derive(Default)]
pub(crate) struct Blocks {
    pub(crate) blocks: HashMap<Cid, Block>,
    /// What was asked for, in order.
    pub(crate) asked: Mutex<Vec<Cid>>,
    /// The largest number of requests that were open at a time.
    pub(crate) most_open: AtomicUsize,
    open: AtomicUsize,
    /// Every answer comes some turns late, at most so many.
    pub(crate) late: usize,
}

impl Blocks {
    pub(crate) fn add(&mut self, block: Block) -> Cid {
        let cid = *block.cid();
        self.blocks.insert(cid, block);
        cid
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

#[async_trait]
impl BlockSource for Blocks {
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError> {
        let turn = {
            let mut asked = self.asked.lock().expect("no panic");
            asked.push(*cid);
            asked.len()
        };
        self.most_open.fetch_max(self.open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        for _ in 0..(turn * 7919 % (self.late + 1)) {
            tokio::task::yield_now().await;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.blocks.get(cid).cloned().ok_or_else(|| "not there".into())
    }
}

/// A DAG of `tests/data/foreign`, checked block by block, and its root.
pub(crate) fn foreign(name: &str) -> (Cid, Blocks) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/foreign").join(format!("{name}.car"));
    let mut car = Bytes::from(fs::read(path).expect("the sample is there"));
    let mut section = || {
        if !car.has_remaining() {
            return None;
        }
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = car.get_u8();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return Some(car.split_to(length));
            }
        }
    };
    section().expect("a header");
    let mut root = None;
    let mut blocks = Blocks::default();
    while let Some(section) = section() {
        let mut rest = &section[..];
        let cid = Cid::read_bytes(&mut rest).expect("a CID");
        let block = Block::verify(cid, section.slice(section.len() - rest.len()..)).expect("a sound block");
        root.get_or_insert(blocks.add(block));
    }
    (root.expect("a block"), blocks)
}

/// A UnixFS message with nothing but a kind.
pub(crate) fn unixfs(kind: Kind) -> UnixFs {
    UnixFs { kind, data: Bytes::new(), file_size: None, block_sizes: Vec::new(), hash_type: None, fanout: None }
}

/// A file node with bytes of its own over `children`, each a CID and the bytes it stands for.
pub(crate) fn file_node(data: &[u8], children: &[(Cid, u64)]) -> Block {
    let links: Vec<Link> =
        children.iter().map(|(cid, size)| Link { cid: *cid, name: Bytes::new(), size: *size }).collect();
    let total = children.iter().fold(data.len() as u64, |sum, (_, size)| sum.wrapping_add(*size));
    let message = UnixFs {
        data: Bytes::copy_from_slice(data),
        file_size: Some(total),
        block_sizes: children.iter().map(|(_, size)| *size).collect(),
        ..unixfs(Kind::File)
    };
    Block::dag_pb(encode_node(&links, &encode_unixfs(&message)))
}
