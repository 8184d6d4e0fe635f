//! Where a block lies, and what keeps it, for people who ask.
//!
//! Imports its siblings and `pin`'s walk. It reads nodes of what is kept, and never a leaf.

use super::guard::read;
use super::index::hash_bytes;
use super::read::Place;
use super::{Store, StoreError};
use crate::block::Cid;
use crate::pin::walk::{Live, Need};

/// Things that keep a block which are told; one is enough to know that it stays.
const MAX_KEEPERS: usize = 64;

/// A place that a block lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lies {
    /// In a pack.
    Pack {
        /// Its number.
        pack: u32,
        /// Bytes before it.
        offset: u64,
    },
    /// In a complete file.
    File {
        /// The file.
        cid: Cid,
        /// SHA-256 of that file, which is its name in `blobs/sha256/`.
        digest: [u8; 32],
        /// Bytes before it.
        offset: u64,
    },
    /// In a file that is still being received.
    Partial {
        /// Bytes before it.
        offset: u64,
    },
}

/// What is known of a block that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its size in bytes.
    pub size: u64,
    /// Where it lies.
    pub lies: Vec<Lies>,
    /// A block below it that is not here; all of it is, when absent.
    pub missing: Option<Cid>,
    /// Names of what is kept, images, that contain it.
    pub kept_by: Vec<String>,
    /// Names of pins whose DAG contains it.
    pub pinned_by: Vec<String>,
}

impl Store {
    /// Where a block lies and what keeps it; `None` when it is not here.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn whereabouts(&self, cid: &Cid) -> Result<Option<Whereabouts>, StoreError> {
        let inner = &self.inner;
        let hash = hash_bytes(cid.hash());
        let places = inner.places(&hash, true)?;
        let Some(first) = places.first() else { return Ok(None) };
        let size = u64::from(first.length());
        let lies = places.iter().map(|place| match place {
            Place::Pack { pack, offset, .. } => Lies::Pack { pack: *pack, offset: u64::from(*offset) },
            Place::File { link, offset, .. } => Lies::File { cid: link.cid, digest: link.digest, offset: *offset },
            Place::Partial { offset, .. } => Lies::Partial { offset: *offset },
        });
        let mut lies: Vec<_> = lies.collect();
        lies.dedup();
        let (keeps, pins) = {
            let facts = read(&inner.facts);
            let keeps: Vec<_> = facts.keeps.values().cloned().collect();
            let pins: Vec<_> = facts.pins.iter().map(|(cid, name)| (*cid, name.clone())).collect();
            (keeps, pins)
        };
        let contains = |roots: &mut dyn Iterator<Item = &Cid>| {
            let mut live = Live::default();
            for root in roots {
                live.walk(inner, root, Need::Any)?;
            }
            Ok::<_, StoreError>(live.has_block(&hash))
        };
        let missing = match Live::default().walk(inner, cid, Need::Whole) {
            Err(StoreError::Incomplete { missing, .. }) => Some(*missing),
            // What cannot be followed has nothing below it.
            Ok(()) | Err(StoreError::Undecodable { .. }) => None,
            Err(error) => return Err(error),
        };
        let missing = missing.filter(|missing| missing != cid);
        let mut found = Whereabouts { size, lies, missing, ..Whereabouts::default() };
        for keep in keeps {
            if found.kept_by.len() < MAX_KEEPERS && contains(&mut std::iter::once(&keep.root).chain(&keep.members))? {
                found.kept_by.push(keep.name.clone());
            }
        }
        for (cid, name) in pins {
            if found.pinned_by.len() < MAX_KEEPERS && contains(&mut std::iter::once(&cid))? {
                found.pinned_by.push(if name.is_empty() { cid.to_string() } else { name });
            }
        }
        Ok(Some(found))
    }
}
