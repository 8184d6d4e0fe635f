//! Rows that no commit has written yet. They are looked up like those in the index.
//!
//! Imports the index's row format. It never does I/O.

use super::disk::DiskFile;
use super::index::{Location, Value};
use crate::block::Cid;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

/// Rows in the index's format, ordered as it orders them.
#[derive(Debug, Default)]
pub(crate) struct Rows(pub(crate) BTreeMap<Box<[u8]>, Value>);

impl Rows {
    pub(crate) fn insert(&mut self, hash: &[u8], location: Location) {
        self.0.insert(location.key(hash), location.value());
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        if self.0.is_empty() {
            *self = other;
        } else {
            self.0.append(&mut other.0);
        }
    }

    /// Adds all locations of a block to `found`.
    pub(crate) fn locations(&self, hash: &[u8], found: &mut Vec<Location>) {
        if self.0.is_empty() {
            return;
        }
        let rows = self.0.range::<[u8], _>((std::ops::Bound::Included(hash), std::ops::Bound::Unbounded));
        for (key, value) in rows.take_while(|(key, _)| key.starts_with(hash)) {
            found.extend(Location::decode(key, value).map(|(_, location)| location));
        }
    }
}

/// What the next commit publishes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) rows: Rows,
    /// Links to write to the journal, in order.
    pub(crate) links: Vec<u32>,
    /// Whether a name in `blobs/` is not synced yet.
    pub(crate) renamed: bool,
    /// Bytes of the files that those links name.
    pub(crate) bytes: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.0.is_empty() && self.links.is_empty()
    }
}

/// A batch that a commit has taken, and that is still looked up until its rows are in the index.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) batch: Batch,
    /// Whether its links are in the journal.
    pub(crate) journalled: AtomicBool,
}

/// A file that is being received.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) rows: RwLock<Rows>,
}

/// Everything not yet in the index.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) current: Batch,
    pub(crate) frozen: Vec<Arc<Frozen>>,
    pub(crate) partials: HashMap<Cid, Arc<Partial>>,
}
