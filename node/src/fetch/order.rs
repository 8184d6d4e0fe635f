//! The digest of a file whose pieces come in any order.

use crate::store::{Incoming, StoreError};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Bytes that may wait in memory for earlier ones before the digest; past it they are read back from the file.
const MAX_EARLY_BYTES: usize = 2 << 20;

/// The file's digest, taken in order from pieces that come in any.
pub(super) struct InOrder {
    hasher: Sha256,
    /// Bytes hashed so far.
    pub(super) position: u64,
    early: BTreeMap<u64, (u64, Option<Bytes>)>,
    early_bytes: usize,
}

impl InOrder {
    pub(super) fn new() -> Self {
        Self { hasher: Sha256::new(), position: 0, early: BTreeMap::new(), early_bytes: 0 }
    }

    /// Takes a piece of the file, which lies in `incoming` by now.
    pub(super) fn take(&mut self, offset: u64, bytes: &Bytes, incoming: &Incoming) -> Result<(), StoreError> {
        if offset != self.position {
            let held = self.early_bytes + bytes.len() <= MAX_EARLY_BYTES;
            if held {
                self.early_bytes += bytes.len();
            }
            self.early.insert(offset, (bytes.len() as u64, held.then(|| bytes.clone())));
            return Ok(());
        }
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() == self.position) {
            let (length, held) = entry.remove();
            match held {
                Some(bytes) => {
                    self.early_bytes -= bytes.len();
                    self.hasher.update(&bytes);
                }
                None => {
                    let length = usize::try_from(length).expect("no piece is longer than a block");
                    self.hasher.update(&incoming.read_at(self.position, length)?);
                }
            }
            self.position += length;
        }
        Ok(())
    }

    /// Pieces that wait for earlier ones.
    pub(super) fn early(&self) -> usize {
        self.early.len()
    }

    /// The digest of what was hashed.
    pub(super) fn finish(&mut self) -> [u8; 32] {
        self.hasher.finalize_reset().into()
    }
}
