//! An index in memory, for a repository whose disk has no room for the one that lies on it.
//!
//! sled writes when it is opened, so without this a full disk could not even be read, nor be cleaned up. The index on disk
//! is set aside: what is removed here it would not know of. The next process to find room builds it anew, from what every
//! index is built of. Imports the `Index` seam. It never writes to a disk.

use super::facts::Facts;
use super::guard::{read, write};
use super::index::{Index, IndexError, Location, State, Value};
use super::open::IndexHome;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, RwLock};

/// Bytes of files that are indexed in memory: a quarter of a million rows of the usual chunk size, some 40 MB. Larger
/// repositories stay closed until there is room.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Whether the index of a repository fits into memory.
pub(crate) fn fits(facts: &Facts) -> bool {
    facts.links.values().map(|link| link.size).fold(0, u64::saturating_add) <= MAX_FILE_BYTES
}

/// Where it is found again; only within this process.
#[derive(Debug, Default)]
pub(crate) struct StopgapHome(Arc<Stopgap>);

#[derive(Debug, Default)]
struct Stopgap(RwLock<Rows>);

#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<Vec<u8>, Value>,
    state: Option<State>,
}

impl IndexHome for StopgapHome {
    fn open(&self) -> Result<Arc<dyn Index>, IndexError> {
        Ok(self.0.clone())
    }

    fn move_aside(&self) -> io::Result<()> {
        *write(&self.0.0) = Rows::default();
        Ok(())
    }
}

impl Index for Stopgap {
    fn locations(&self, hash: &[u8]) -> Result<Vec<Location>, IndexError> {
        let inner = read(&self.0);
        let rows = inner.rows.range::<[u8], _>((Bound::Included(hash), Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(hash));
        Ok(rows.filter_map(|(key, value)| Location::decode(key, value)).map(|(_, location)| location).collect())
    }

    fn insert(&self, key: &[u8], value: &Value) -> Result<(), IndexError> {
        write(&self.0).rows.insert(key.to_vec(), *value);
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), IndexError> {
        write(&self.0).rows.remove(key);
        Ok(())
    }

    fn for_each(&self, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), IndexError> {
        let inner = read(&self.0);
        for (key, value) in inner.rows.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !row(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn state(&self) -> Result<Option<State>, IndexError> {
        Ok(read(&self.0).state)
    }

    fn set_state(&self, state: State) -> Result<(), IndexError> {
        write(&self.0).state = Some(state);
        Ok(())
    }
}
