//! Files being received: sparse, written at their offsets, served from the moment a block lies in them.
//!
//! Imports its siblings. It never takes note of what a partial file holds: a resumed one is hashed.

use super::disk::{DiskFile, Mode};
use super::files::{FileInfo, PARTIAL};
use super::guard::{read, write};
use super::index::{Location, hash_bytes};
use super::pending::{Partial, Rows};
use super::record::Link;
use super::{Blockstore as _, Inner, Store, StoreError, error::Doing as _};
use crate::block::{Block, CODEC_RAW, Cid};
use crate::dag;
use crate::pin::Lease;
use bytes::Bytes;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

impl Store {
    /// Where a file lies while it is being received. Whoever has opened it there goes on reading it when it is finished.
    pub fn partial_path(&self, cid: &Cid) -> PathBuf {
        self.inner.root.join(PARTIAL).join(cid.to_string())
    }

    /// Begins or resumes receiving the file of a CID, of `size` bytes; `digest` is what it is expected to hash to. Nothing
    /// is allocated by the declared size.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the file is being received already.
    pub fn receive(&self, cid: &Cid, size: u64, digest: Option<[u8; 32]>) -> Result<Incoming, StoreError> {
        self.inner.check_poisoned()?;
        let path = format!("{PARTIAL}/{cid}");
        let mut pending = write(&self.inner.pending);
        if pending.partials.contains_key(cid) {
            return Err(StoreError::Busy { cid: *cid });
        }
        let file = self.inner.disk.open(&path, Mode::Write).doing(|| format!("open `{path}`"))?;
        if file.stat().doing(|| format!("look at `{path}`"))?.size > size {
            file.set_len(size).doing(|| format!("cut `{path}`"))?;
        }
        let id = write(&self.inner.facts).take_id();
        let partial = Arc::new(Partial { id, file: file.clone(), rows: RwLock::new(Rows::default()) });
        pending.partials.insert(*cid, partial.clone());
        Ok(Incoming {
            inner: self.inner.clone(),
            cid: *cid,
            size,
            expected: digest,
            path,
            file,
            partial,
            _lease: self.inner.lease(),
        })
    }
}

/// A file that is being received. All methods may be called from many threads; dropping it keeps what was written for the
/// next [`Store::receive`].
#[derive(Debug)]
pub struct Incoming {
    inner: Arc<Inner>,
    cid: Cid,
    size: u64,
    expected: Option<[u8; 32]>,
    path: String,
    file: Arc<dyn DiskFile>,
    partial: Arc<Partial>,
    _lease: Lease,
}

impl Incoming {
    /// Writes a leaf at its offset. The store serves it from here at once.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] past the declared size, otherwise what the disk says; the block is not served then.
    pub fn write(&self, offset: u64, block: &Block) -> Result<(), StoreError> {
        self.write_inline(offset, block.data())?;
        self.serve(offset, block.data().len(), block.cid());
        Ok(())
    }

    /// Writes bytes that came inside a dag-pb node; they are no block of their own.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub fn write_inline(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_range(offset, bytes.len())?;
        self.inner.check_space(bytes.len(), &self.path)?;
        self.file.write(offset, bytes).doing(|| format!("write `{}`", self.path))
    }

    /// The bytes of a block that an earlier attempt left at an offset, if it did: a range with a hole is not read, anything
    /// else is hashed. The store serves it from then on.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] past the declared size, otherwise what the disk says.
    pub fn present(&self, offset: u64, length: usize, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        let range = self.check_range(offset, length)?;
        if !self.file.is_filled(range).doing(|| format!("look for holes in `{}`", self.path))? {
            return Ok(None);
        }
        let bytes = self.file.read(offset, length).doing(|| format!("read `{}`", self.path))?;
        let Ok(block) = Block::verify(*cid, bytes.into()) else { return Ok(None) };
        self.serve(offset, length, cid);
        Ok(Some(block.into_data()))
    }

    /// Reads bytes that were written.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] past the declared size, otherwise what the disk says.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.check_range(offset, length)?;
        Ok(self.file.read(offset, length).doing(|| format!("read `{}`", self.path))?.into())
    }

    /// Asks for the range to be written out soon, so that [`Incoming::finish`] waits for less. Each range once.
    pub fn start_writeback(&self, range: Range<u64>) {
        self.file.start_writeback(range);
    }

    /// Makes what was written so far survive a power cut, so that a resumed attempt finds it.
    ///
    /// # Errors
    /// What the disk says; the partial file is gone then, and what is received must be received anew.
    pub fn sync(&self) -> Result<(), StoreError> {
        if let Err(error) = self.file.sync() {
            // What the kernel still shows may not be on the disk, and would pass for it in the next attempt.
            let _ = self.inner.disk.unlink(&self.path);
            return Err(StoreError::io(format!("sync `{}`", self.path), error));
        }
        self.inner.disk.sync_dir(PARTIAL).doing(|| format!("sync `{PARTIAL}`"))
    }

    /// Ends the file: syncs it, names it by its digest, and links it. The caller has hashed the whole. When a blob of this
    /// digest is in the store already, what was received is dropped and that one is linked. In the journal at the next
    /// commit.
    ///
    /// # Errors
    /// [`StoreError::WrongDigest`] and [`StoreError::WrongSize`] when it is not what was announced: the partial file is
    /// removed, since fetching the same CID would give the same. On other errors it stays.
    pub fn finish(self, digest: [u8; 32], size: u64) -> Result<FileInfo, StoreError> {
        if self.expected.is_some_and(|expected| expected != digest) {
            self.discard()?;
            return Err(StoreError::WrongDigest { cid: self.cid });
        }
        let found = self.file.stat().doing(|| format!("look at `{}`", self.path))?.size;
        if (size, found) != (self.size, self.size) {
            self.discard()?;
            return Err(StoreError::WrongSize { subject: self.cid.to_string(), expected: self.size, found });
        }
        let synced = self.inner.sync_blob(&*self.file, &self.path, &digest)?;
        let _gate = read(&self.inner.gate);
        let cumulative = self.cumulative();
        let named = self.inner.name_blob(&*self.file, &self.path, &digest, synced)?;
        if !named.moved {
            self.discard()?;
        }
        let (id, mtime) = (self.partial.id, named.stat.mtime);
        let link = Link { id, cid: self.cid, digest, size, cumulative, mtime };
        Ok(self.inner.add_link(link, || std::mem::take(&mut *write(&self.partial.rows))))
    }

    /// Removes what was received.
    ///
    /// # Errors
    /// What the disk says.
    pub fn discard(&self) -> Result<(), StoreError> {
        self.inner.disk.unlink(&self.path).doing(|| format!("remove `{}`", self.path))
    }

    /// Bytes of the whole DAG, as the links of its root say.
    fn cumulative(&self) -> Option<u64> {
        if self.cid.codec() == CODEC_RAW {
            return Some(self.size);
        }
        let store = Store { inner: self.inner.clone() };
        let root = store.get(&self.cid).ok()??;
        let links = dag::decode_node(&root).ok()?.links;
        links.iter().try_fold(root.len() as u64, |sum, link| sum.checked_add(link.size))
    }

    fn serve(&self, offset: u64, length: usize, cid: &Cid) {
        // `Block` bounds a block to far less than u32.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let location = Location::File { link: self.partial.id, offset, length };
        write(&self.partial.rows).insert(&hash_bytes(cid.hash()), location);
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<Range<u64>, StoreError> {
        let length = length as u64;
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(offset..end),
            _ => Err(StoreError::OutOfRange { subject: self.path.clone(), offset, length, size: self.size }),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        write(&self.inner.pending).partials.remove(&self.cid);
    }
}
