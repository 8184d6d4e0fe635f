//! A block store in memory, for tests and for nodes that keep nothing.
//!
//! Imports the trait. It never forgets a block and has no bound: its user has.

use super::guard::{read, write};
use super::{Blockstore, StoreError};
use crate::block::{Block, Cid, Multihash};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::RwLock;

/// Blocks in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    blocks: RwLock<HashMap<Multihash, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Blockstore for MemoryStore {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(block) = Block::inline(cid)? {
            return Ok(Some(block.into_data()));
        }
        Ok(read(&self.blocks).get(cid.hash()).cloned())
    }

    fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        Ok(self.get(cid)?.map(|bytes| bytes.len() as u64))
    }

    fn put(&self, block: &Block) -> Result<(), StoreError> {
        if Block::inline(block.cid())?.is_none() {
            write(&self.blocks).insert(*block.cid().hash(), block.data().clone());
        }
        Ok(())
    }
}
