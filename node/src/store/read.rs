//! Finding a block and reading it.
//!
//! One look-up, one `fstat`, one read of the right length into a buffer of that length. Imports its siblings. It never
//! hands out bytes of a file that changed behind the store's back.

use super::disk::DiskFile;
use super::guard::read;
use super::handles::Target;
use super::index::{Location, hash_bytes};
use super::record::Link;
use super::{Blockstore, Inner, Store, StoreError, error::Doing as _};
use crate::block::{Block, Cid};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// How often a read starts over when the block moves under it (a collection rewrote its pack).
const MAX_ATTEMPTS: usize = 4;

/// A location with what is needed to read it.
#[derive(Debug)]
pub(crate) enum Place {
    Pack { pack: u32, offset: u32, length: u32 },
    File { link: Arc<Link>, offset: u64, length: u32 },
    Partial { file: Arc<dyn DiskFile>, offset: u64, length: u32 },
}

impl Place {
    pub(crate) fn length(&self) -> u32 {
        match self {
            Self::Pack { length, .. } | Self::File { length, .. } | Self::Partial { length, .. } => *length,
        }
    }
}

impl Blockstore for Store {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(block) = Block::inline(cid)? {
            return Ok(Some(block.into_data()));
        }
        self.inner.read_block(&hash_bytes(cid.hash()), true)
    }

    fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        if let Some(block) = Block::inline(cid)? {
            return Ok(Some(block.data().len() as u64));
        }
        Ok(self.inner.places(&hash_bytes(cid.hash()), true)?.first().map(|place| u64::from(place.length())))
    }

    fn put(&self, block: &Block) -> Result<(), StoreError> {
        let _gate = read(&self.inner.gate);
        self.inner.put(block)
    }
}

impl Inner {
    /// Whether a block is here and durable, or will be at the next commit. A CID that cannot be checked names nothing.
    pub(crate) fn has_committed(&self, cid: &Cid) -> Result<bool, StoreError> {
        match Block::inline(cid) {
            Ok(Some(_)) => Ok(true),
            Ok(None) => Ok(!self.places(&hash_bytes(cid.hash()), false)?.is_empty()),
            Err(_) => Ok(false),
        }
    }

    /// Everywhere a block lies; `partials` says whether files still being received count.
    pub(crate) fn places(&self, hash: &[u8], partials: bool) -> Result<Vec<Place>, StoreError> {
        let mut found = Vec::new();
        let mut places = Vec::new();
        {
            let pending = read(&self.pending);
            pending.current.rows.locations(hash, &mut found);
            for frozen in &pending.frozen {
                frozen.batch.rows.locations(hash, &mut found);
            }
            if partials {
                for partial in pending.partials.values() {
                    let mut rows = Vec::new();
                    read(&partial.rows).locations(hash, &mut rows);
                    places.extend(rows.into_iter().filter_map(|row| match row {
                        Location::File { offset, length, .. } => {
                            Some(Place::Partial { file: partial.file.clone(), offset, length })
                        }
                        Location::Pack { .. } => None,
                    }));
                }
            }
        }
        match self.index()?.locations(hash) {
            Ok(rows) => found.extend(rows),
            Err(error) => {
                self.index_failed(error);
                found.extend(self.index()?.locations(hash).map_err(|error| self.index_failed(error))?);
            }
        }
        let facts = read(&self.facts);
        for location in found {
            match location {
                Location::Pack { pack, offset, length } => places.push(Place::Pack { pack, offset, length }),
                Location::File { link, offset, length } => {
                    if let Some(link) = facts.links.get(&link).filter(|link| offset + u64::from(length) <= link.size) {
                        places.push(Place::File { link: link.clone(), offset, length });
                    }
                }
            }
        }
        Ok(places)
    }

    /// Reads a block that does not lie in a file still being received only: it is durable, or will be at the next commit.
    pub(crate) fn read_committed_block(&self, hash: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read_block(hash, false)
    }

    /// Reads a block from wherever it lies.
    fn read_block(&self, hash: &[u8], partials: bool) -> Result<Option<Bytes>, StoreError> {
        for attempt in 1.. {
            let places = self.places(hash, partials)?;
            let mut moved = false;
            for place in &places {
                match self.read_place(place)? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => moved = true,
                }
            }
            if !moved || attempt == MAX_ATTEMPTS {
                break;
            }
        }
        Ok(None)
    }

    /// Reads one location; `None` when it is not there any more.
    fn read_place(&self, place: &Place) -> Result<Option<Bytes>, StoreError> {
        match place {
            Place::Partial { file, offset, length } => {
                let bytes = file.read(*offset, *length as usize).doing(|| "read a partial file".into())?;
                Ok(Some(bytes.into()))
            }
            Place::Pack { pack, offset, length } => {
                let bytes = self
                    .handles
                    .get(&*self.disk, Target::Pack(*pack))
                    .and_then(|file| file.read(u64::from(*offset), *length as usize));
                or_absent(bytes).doing(|| format!("read pack {pack}"))
            }
            Place::File { link, offset, length } => {
                let Some(file) = self.open_blob(link)? else { return Ok(None) };
                match or_absent(file.read(*offset, *length as usize)) {
                    Ok(Some(bytes)) => Ok(Some(bytes)),
                    // Shorter than it was a moment ago.
                    Ok(None) => {
                        self.handles.forget(Target::Blob(link.digest));
                        self.open_blob(link)?;
                        Ok(None)
                    }
                    Err(error) => Err(StoreError::io("read a blob", error)),
                }
            }
        }
    }
}

/// Turns "no such file" and "the file ends earlier" into `None`.
fn or_absent(bytes: io::Result<Vec<u8>>) -> io::Result<Option<Bytes>> {
    match bytes {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
        Err(error) => Err(error),
    }
}
