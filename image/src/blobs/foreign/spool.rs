//! Where a blob lies between the daemon and whoever reads it: in memory when it is small, else in a file without a name.
//!
//! Imports its grandparent's [`Body`]. The file's room is given back when the last reader is dropped, or the process ends.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::super::Body;
use crate::{bring::blocking, source::nameless};

/// Longest blob that stays in memory, in bytes: documents are shorter. As many as are fetched at a time may be held.
const MAX_IN_MEMORY: u64 = 1 << 20;

/// A blob that arrives.
pub(super) struct Spool {
    hasher: Sha256,
    size: u64,
    place: Place,
}

enum Place {
    Memory(BytesMut),
    Disk(File),
}

impl Spool {
    /// For a blob of `size` bytes. Blocks off the async threads.
    pub(super) async fn new(folder: &Path, size: u64) -> io::Result<Self> {
        let place = if size <= MAX_IN_MEMORY {
            Place::Memory(BytesMut::new())
        } else {
            let folder = folder.to_owned();
            Place::Disk(blocking(move || nameless(&folder)).await?)
        };
        Ok(Self { hasher: Sha256::new(), size: 0, place })
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    pub(super) async fn write(mut self, bytes: Bytes) -> io::Result<Self> {
        self.size += bytes.len() as u64;
        if let Place::Memory(held) = &mut self.place {
            self.hasher.update(&bytes);
            held.extend_from_slice(&bytes);
            return Ok(self);
        }
        blocking(move || {
            self.hasher.update(&bytes);
            if let Place::Disk(file) = &mut self.place {
                file.write_all(&bytes)?;
            }
            Ok(self)
        })
        .await
    }

    /// The digest, the size and the bytes.
    pub(super) fn finish(self) -> ([u8; 32], u64, Body) {
        let body = match self.place {
            Place::Memory(held) => Body::Bytes(held.freeze()),
            Place::Disk(file) => Body::Spooled(Arc::new(file)),
        };
        (self.hasher.finalize().into(), self.size, body)
    }
}
