//! Pinning and keeping.
//!
//! Imports the store. It never returns before what it did is durable.

use super::walk::{Live, Need};
use super::{Keep, Pin};
use crate::block::Cid;
use crate::store::guard::read;
use crate::store::record::Record;
use crate::store::{Store, StoreError};

impl Store {
    /// Keeps a DAG until it is unpinned. Pinning it again renames the pin. Durable on return, with everything that was put
    /// before.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] and [`StoreError::Undecodable`] when a block of it is missing or cannot be followed: what
    /// is pinned is whole. Otherwise as [`Store::commit`].
    pub fn pin(&self, cid: &Cid, name: &str) -> Result<(), StoreError> {
        let _gate = read(&self.inner.gate);
        Live::default().walk(&self.inner, cid, Need::Whole)?;
        self.inner.commit_with(&[Record::Pin(Pin { cid: *cid, name: name.to_owned() })])
    }

    /// Lets go of a DAG; says whether it was pinned. Durable on return.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn unpin(&self, cid: &Cid) -> Result<bool, StoreError> {
        if !read(&self.inner.facts).pins.contains_key(cid) {
            return Ok(false);
        }
        self.inner.commit_with(&[Record::Unpin(*cid)])?;
        Ok(true)
    }

    /// All pins, in CID order.
    pub fn pins(&self) -> Vec<Pin> {
        let facts = read(&self.inner.facts);
        facts.pins.iter().map(|(cid, name)| Pin { cid: *cid, name: name.clone() }).collect()
    }

    /// Keeps a named thing until it is released, in place of what was kept under that name. Durable on return, with
    /// everything that was put before.
    ///
    /// # Errors
    /// As [`Store::pin`], for the root and every member; none of them need be there when the keep is flagged incomplete.
    pub fn keep(&self, keep: Keep) -> Result<(), StoreError> {
        let _gate = read(&self.inner.gate);
        if !keep.incomplete {
            let mut live = Live::default();
            for cid in std::iter::once(&keep.root).chain(&keep.members) {
                live.walk(&self.inner, cid, Need::Whole)?;
            }
        }
        self.inner.commit_with(&[Record::Keep(keep)])
    }

    /// Lets go of what is kept under a name; says whether anything was. Durable on return.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn release(&self, name: &str) -> Result<bool, StoreError> {
        if !read(&self.inner.facts).keeps.contains_key(name) {
            return Ok(false);
        }
        self.inner.commit_with(&[Record::Release(name.to_owned())])?;
        Ok(true)
    }

    /// Everything that is kept, in the order of the names.
    pub fn kept(&self) -> Vec<Keep> {
        read(&self.inner.facts).keeps.values().map(|keep| Keep::clone(keep)).collect()
    }
}
