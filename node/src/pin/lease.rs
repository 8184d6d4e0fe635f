//! Holding DAGs while somebody works on them.
//!
//! Imports the store. It never writes anything: a lease ends with its process.

use crate::block::Cid;
use crate::store::guard::{lock, read};
use crate::store::{Inner, Store};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The leases of a store, and what came in while any of them lived.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    next: u64,
    held: HashMap<u64, Vec<Cid>>,
    fresh_blocks: HashSet<u128>,
    fresh_links: HashSet<u32>,
}

impl Leases {
    /// Notes that a block was put, whether it was new or not.
    pub(crate) fn saw_block(&mut self, hash: &[u8]) {
        if !self.held.is_empty() {
            self.fresh_blocks.insert(super::walk::short(hash));
        }
    }

    /// Notes that a file was finished, whether it was new or not.
    pub(crate) fn saw_link(&mut self, id: u32) {
        if !self.held.is_empty() {
            self.fresh_links.insert(id);
        }
    }

    /// Every DAG that some lease holds.
    pub(crate) fn roots(&self) -> Vec<Cid> {
        self.held.values().flatten().copied().collect()
    }

    pub(crate) fn fresh_blocks(&self) -> &HashSet<u128> {
        &self.fresh_blocks
    }

    pub(crate) fn fresh_links(&self) -> &HashSet<u32> {
        &self.fresh_links
    }
}

impl Store {
    /// Begins a lease. While it lives, everything that is put or finished is safe from [`Store::gc`], and so is what it
    /// [holds](Lease::hold).
    pub fn lease(&self) -> Lease {
        self.inner.lease()
    }
}

impl Inner {
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        let mut leases = lock(&self.leases);
        leases.next += 1;
        let id = leases.next;
        leases.held.insert(id, Vec::new());
        Lease { inner: self.clone(), id }
    }
}

/// Keeps DAGs from being collected for as long as it lives.
#[derive(Debug)]
pub struct Lease {
    inner: Arc<Inner>,
    id: u64,
}

impl Lease {
    /// Holds a DAG, as much of it as is there. Waits for a running collection; whoever relies on blocks that were there
    /// before looks for them *after* holding them.
    pub fn hold(&self, cid: &Cid) {
        let _gate = read(&self.inner.gate);
        if let Some(held) = lock(&self.inner.leases).held.get_mut(&self.id) {
            held.push(*cid);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = lock(&self.inner.leases);
        leases.held.remove(&self.id);
        if leases.held.is_empty() {
            leases.fresh_blocks = HashSet::new();
            leases.fresh_links = HashSet::new();
        }
    }
}
