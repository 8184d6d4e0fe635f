//! What is kept: pins, keeps and leases, and the collection of everything else.
//!
//! A *pin* holds one DAG. A *keep* holds a named thing made of several DAGs that need not link to each other, such as an
//! image whose root is a descriptor: its root, every member, and a note that only its writer reads. A *lease* holds DAGs
//! while somebody works on them, and vanishes with the process. This module imports the store and the walking half of
//! `dag`. It never fetches: what is not on this disk is missing.

mod gc;
pub(crate) mod lease;
mod pins;
pub(crate) mod walk;

pub use gc::{GcError, GcReport};
pub use lease::Lease;

use crate::block::Cid;

/// A DAG that is kept until it is unpinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Root of the DAG.
    pub cid: Cid,
    /// What the user called it; may be empty.
    pub name: String,
}

/// A named thing that is kept until it is released: a root, and every other DAG that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Unique name; keeping another thing under it replaces this one.
    pub name: String,
    /// Root of the thing.
    pub root: Cid,
    /// Every other DAG of it, since a root need not link to them.
    pub members: Vec<Cid>,
    /// Opaque to the store.
    pub note: Vec<u8>,
    /// Whether members may be missing, as in a transfer that is still running. What is there is kept, collection runs
    /// all the same, and the partial files of missing members are not removed. The root may be missing too.
    pub incomplete: bool,
}

#[cfg(test)]
mod tests;
