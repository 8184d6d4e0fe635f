//! Where blocks lie on disk, each byte once.
//!
//! ```text
//! version               layout version: an unknown one is refused
//! lock                  held by the one process that owns the repository
//! blobs/sha256/<hex>    complete files, immutable, named by their digest; blocks are served out of them
//! partial/<file CID>    files being received: sparse, written at their offsets      partial/stage-<n>: being added
//! packs/<n>             dag-pb nodes, and raw blocks that belong to no file         drawn in `packs`
//! journal/<n>           the facts that cannot be recomputed                         drawn in `journal` and `record`
//! index/                sled: where each block lies; rebuilt when lost              drawn in `index`
//! quarantine/           files that no longer are what their name says
//! ```
//! Files hold bytes, the journal holds facts, the index holds look-ups. The order of writing is always: bytes, sync, name,
//! sync of the name, journal, sync, index. So a reader never sees half of anything, a crash loses at most what was not yet
//! committed, and every fact in the journal has its bytes.
//!
//! The API blocks; it is for threads that may wait. It imports `block`, the pure half of `dag`, and `pin`'s plain types.
//! It never goes to the network, never hashes what it can trust by construction, and never trusts a file whose size or
//! time changed.

mod commit;
pub(crate) mod disk;
mod error;
mod facts;
pub(crate) mod files;
pub(crate) mod guard;
pub(crate) mod handles;
mod heal;
mod incoming;
pub(crate) mod index;
pub(crate) mod journal;
mod memory;
pub(crate) mod open;
pub(crate) mod packs;
mod peers;
mod pending;
mod read;
mod rebuild;
pub(crate) mod record;
mod space;
mod stopgap;
mod usage;
mod verify;
mod whereabouts;

pub use error::{OpenError, StoreError};
pub use files::{FileInfo, Staged};
pub use incoming::Incoming;
pub use index::IndexError;
pub use journal::JournalError;
pub use memory::MemoryStore;
pub use open::StoreOptions;
pub use usage::Usage;
pub use verify::{BadFile, Broken, VerifyReport};
pub use whereabouts::{Lies, Whereabouts};

use crate::block::{Block, Cid};
use crate::pin::lease::Leases;
use bytes::Bytes;
use disk::Disk;
use facts::Facts;
use handles::Handles;
use index::Index;
use journal::Journal;
use open::{IndexHome, OpenOptions};
use packs::Packs;
use pending::Pending;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

/// A place that holds blocks. What comes out was verified when it went in.
pub trait Blockstore: Send + Sync {
    /// The bytes of a block; `None` when it is not here.
    ///
    /// # Errors
    /// [`StoreError`] when the block may be here and could not be read, or the CID is refused.
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError>;

    /// The size of a block in bytes; `None` when it is not here.
    ///
    /// # Errors
    /// [`StoreError`] when that could not be told, or the CID is refused.
    fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError>;

    /// Takes a block in; it can be read at once, and is durable after the next commit.
    ///
    /// # Errors
    /// [`StoreError`] when it was not taken in; nothing has changed then.
    fn put(&self, block: &Block) -> Result<(), StoreError>;
}

/// The store of one repository. Cloning shares it; the repository is let go when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share. Locks are taken in the order of the fields.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: OpenOptions,
    /// Shared by those who bring something in, so that a collection that sweeps is alone.
    pub(crate) gate: RwLock<()>,
    /// Naming a file and linking it is one step.
    pub(crate) naming: Mutex<()>,
    /// One check of a changed file at a time.
    pub(crate) checking: Mutex<()>,
    /// One commit at a time.
    pub(crate) journal: Mutex<Journal>,
    pub(crate) packs: Mutex<Packs>,
    pub(crate) pending: RwLock<Pending>,
    pub(crate) facts: RwLock<Facts>,
    pub(crate) leases: Mutex<Leases>,
    index: RwLock<Arc<dyn Index>>,
    /// Not zero once the index failed: it is healed before it is asked again.
    broken: AtomicU8,
    /// Bytes written since the free space was last looked at.
    unchecked: AtomicU64,
    home: Box<dyn IndexHome>,
    pub(crate) handles: Handles,
    /// Set once a sync failed: what was thought to be written may be gone.
    pub(crate) poisoned: AtomicBool,
    /// Numbers staged files.
    pub(crate) next_stage: AtomicU64,
    /// Held for as long as the store is open; the operating system lets go of it.
    pub(crate) _lock: Option<std::fs::File>,
}

#[cfg(test)]
pub(crate) mod tests;
