//! An index that fails while it is used.
//!
//! sled finds some damage only when it reads, and refuses everything once it could not write. Then the index is opened
//! again, or built anew, before it is asked the next time. Imports its siblings. It never writes a fact.

use super::facts::Facts;
use super::guard::{lock, read, write};
use super::index::{Index, IndexError, Location, State, Value, hash_bytes};
use super::journal::{self, Journal};
use super::{Inner, Store, StoreError, error::Doing as _, rebuild};
use crate::block::Block;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Could not write: opened again, it is as good as it was.
const REOPEN: u8 = 1;
/// Damaged: built anew.
const REBUILD: u8 = 2;

impl Store {
    /// Takes in nodes of a file that is here, of which some were lost: whatever is left of those is read no more, and the
    /// index finds again what they place. Durable on return.
    pub(crate) fn write_again(&self, nodes: &[Block]) -> Result<(), StoreError> {
        let inner = &*self.inner;
        {
            let _gate = read(&inner.gate);
            for node in nodes {
                let hash = hash_bytes(node.cid().hash());
                let bytes = inner.read_committed_block(&hash)?;
                if bytes.is_none_or(|bytes| Block::verify(*node.cid(), bytes).is_err()) {
                    lock(&inner.leases).saw_block(&hash);
                    inner.append_block(node, &hash)?;
                }
            }
        }
        inner.index_again()
    }
}

impl Inner {
    /// The index, healed first if it failed. Not for one who holds the journal.
    pub(crate) fn index(&self) -> Result<Arc<dyn Index>, StoreError> {
        if self.broken.load(Ordering::Acquire) != 0 {
            self.heal(&lock(&self.journal))?;
        }
        Ok(read(&self.index).clone())
    }

    /// The index, for one who holds the journal.
    pub(crate) fn index_in_commit(&self, journal: &Journal) -> Result<Arc<dyn Index>, StoreError> {
        self.heal(journal)?;
        Ok(read(&self.index).clone())
    }

    /// Notes that the index failed.
    pub(crate) fn index_failed(&self, error: IndexError) -> StoreError {
        let level = if error.is_full() || matches!(error, IndexError::Unavailable) { REOPEN } else { REBUILD };
        self.broken.fetch_max(level, Ordering::AcqRel);
        tracing::warn!(%error, "the block index failed");
        error.into()
    }

    /// Has the index built anew before it is asked again.
    pub(crate) fn doubt_index(&self) {
        self.broken.fetch_max(REBUILD, Ordering::AcqRel);
    }

    /// Writes the rows of everything that is there once more, beside those that the index has. Commits first.
    pub(crate) fn index_again(&self) -> Result<(), StoreError> {
        // No pack goes away meanwhile.
        let _gate = write(&self.gate);
        self.commit_with(&[])?;
        let links = read(&self.facts).links.clone();
        let added = rebuild::add_all(&*self.disk, &*self.index()?, &links);
        added.map_err(|error| self.index_failed(error))
    }

    /// Opens the index again, with the rows of everything committed. Holding the journal, nobody commits meanwhile.
    fn heal(&self, journal: &Journal) -> Result<(), StoreError> {
        let level = self.broken.load(Ordering::Acquire);
        if level == 0 {
            return Ok(());
        }
        let (tail, unsynced) = {
            let packs = lock(&self.packs);
            (packs.tail(), packs.unsynced())
        };
        if let Some(file) = unsynced {
            file.sync().map_err(|error| self.poison(StoreError::io("sync a pack", error)))?;
        }
        let now = State { journal: journal.position(), packs: tail };
        let bytes = journal.read().doing(|| "read the journal".into())?;
        let decoded = journal::decode_records(&bytes)
            .map_err(|error| StoreError::io("read the journal", io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let mut facts = Facts::default();
        decoded.records.iter().for_each(|(_, record)| facts.apply(record));
        // sled locks its file: the old one must be gone. It may panic once more when it goes.
        let old = std::mem::replace(&mut *write(&self.index), Arc::new(Unavailable));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        if level == REBUILD {
            self.home.move_aside().map_err(IndexError::Io)?;
        }
        *write(&self.index) = rebuild::ready(&*self.disk, &*self.home, &facts, &decoded, now)?;
        self.broken.store(0, Ordering::Release);
        Ok(())
    }
}

/// Stands where the index was until it is opened again.
#[derive(Debug)]
struct Unavailable;

impl Index for Unavailable {
    fn locations(&self, _hash: &[u8]) -> Result<Vec<Location>, IndexError> {
        Err(IndexError::Unavailable)
    }

    fn insert(&self, _key: &[u8], _value: &Value) -> Result<(), IndexError> {
        Err(IndexError::Unavailable)
    }

    fn remove(&self, _key: &[u8]) -> Result<(), IndexError> {
        Err(IndexError::Unavailable)
    }

    fn for_each(&self, _from: &[u8], _row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), IndexError> {
        Err(IndexError::Unavailable)
    }

    fn flush(&self) -> Result<(), IndexError> {
        Err(IndexError::Unavailable)
    }

    fn state(&self) -> Result<Option<State>, IndexError> {
        Err(IndexError::Unavailable)
    }

    fn set_state(&self, _state: State) -> Result<(), IndexError> {
        Err(IndexError::Unavailable)
    }
}
