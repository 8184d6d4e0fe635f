//! Room for facts and index on a disk that fills up.
//!
//! Bytes are refused while there is still room for the journal and the index, so that a full disk can be cleaned up:
//! releasing, unpinning and collecting write a little too. Imports its siblings.

use super::{Inner, StoreError};
use std::sync::atomic::Ordering;

/// Bytes that files and packs leave free: eight segments of the index and a long journal frame.
const RESERVED_BYTES: u64 = 4 << 20;
/// Bytes that are written between two looks at the free space.
const CHECK_BYTES: u64 = 1 << 20;

impl Inner {
    /// Refuses to write bytes of files and blocks when little space is left. `subject` is what they are for.
    pub(crate) fn check_space(&self, length: usize, subject: &str) -> Result<(), StoreError> {
        let length = length as u64;
        if self.unchecked.fetch_add(length, Ordering::Relaxed).saturating_add(length) < CHECK_BYTES {
            return Ok(());
        }
        // Where the free space cannot be told, the disk itself says when it is full.
        let Ok(space) = rustix::fs::statvfs(&self.root) else { return Ok(()) };
        let full = space.f_bavail.saturating_mul(space.f_frsize) < RESERVED_BYTES.saturating_add(length);
        // A full disk is looked at again with the next write.
        self.unchecked.store(if full { CHECK_BYTES } else { 0 }, Ordering::Relaxed);
        if full { Err(StoreError::Full { action: format!("write {subject}") }) } else { Ok(()) }
    }
}
