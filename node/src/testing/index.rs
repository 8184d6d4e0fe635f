//! An index in memory that writes its operations to the log of the disk.
//!
//! Imports the `Index` seam. It is what sled promises to be, and fast enough to be opened thousands of times.

use super::disk::{Log, Op};
use crate::store::index::{Index, IndexError, Location, State, Value};
use crate::store::open::IndexHome;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

/// Rows and state.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexImage {
    rows: BTreeMap<Vec<u8>, Value>,
    state: Option<State>,
}

impl IndexImage {
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::IndexInsert { key, value } => {
                self.rows.insert(key.clone(), *value);
            }
            Op::IndexRemove { key } => {
                self.rows.remove(key);
            }
            Op::IndexState { state } => self.state = Some(*state),
            Op::IndexLost => *self = Self::default(),
            _ => {}
        }
    }
}

/// Where the index is found again when the store is opened again.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryHome(Arc<MemoryIndex>);

#[derive(Debug, Default)]
struct MemoryIndex {
    image: Mutex<IndexImage>,
    log: Option<Log>,
}

impl MemoryHome {
    pub(crate) fn new(image: IndexImage, log: Option<Log>) -> Self {
        Self(Arc::new(MemoryIndex { image: Mutex::new(image), log }))
    }

    pub(crate) fn image(&self) -> IndexImage {
        self.0.lock().clone()
    }
}

impl IndexHome for MemoryHome {
    fn open(&self) -> Result<Arc<dyn Index>, IndexError> {
        Ok(self.0.clone())
    }

    fn move_aside(&self) -> io::Result<()> {
        self.0.change(Op::IndexLost);
        Ok(())
    }
}

impl MemoryIndex {
    fn lock(&self) -> MutexGuard<'_, IndexImage> {
        self.image.lock().expect("lock")
    }

    fn change(&self, op: Op) {
        self.lock().apply(&op);
        if let Some(log) = &self.log {
            log.push(op);
        }
    }
}

impl Index for MemoryIndex {
    fn locations(&self, hash: &[u8]) -> Result<Vec<Location>, IndexError> {
        let image = self.lock();
        let rows = image.rows.range::<[u8], _>((Bound::Included(hash), Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(hash));
        Ok(rows.filter_map(|(key, value)| Location::decode(key, value)).map(|(_, location)| location).collect())
    }

    fn insert(&self, key: &[u8], value: &Value) -> Result<(), IndexError> {
        self.change(Op::IndexInsert { key: key.to_vec(), value: *value });
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), IndexError> {
        self.change(Op::IndexRemove { key: key.to_vec() });
        Ok(())
    }

    fn for_each(&self, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), IndexError> {
        let image = self.lock();
        for (key, value) in image.rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !row(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.change(Op::IndexFlush);
        Ok(())
    }

    fn state(&self) -> Result<Option<State>, IndexError> {
        Ok(self.lock().state)
    }

    fn set_state(&self, state: State) -> Result<(), IndexError> {
        self.change(Op::IndexState { state });
        Ok(())
    }
}
