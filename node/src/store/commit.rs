//! Taking blocks in, and making everything taken in durable.
//!
//! Imports its siblings. It never writes a row whose fact is not synced, nor a fact whose bytes are not.

use super::guard::{lock, read, write};
use super::handles::Target;
use super::index::{Index, IndexError, Location, State, hash_bytes};
use super::journal::{AppendError, Journal};
use super::packs::{self, PackError, Tail};
use super::pending::Frozen;
use super::record::{MAX_RECORD_BYTES, Record};
use super::{Inner, Store, StoreError, error::Doing as _, files};
use crate::block::Block;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};

impl Store {
    /// Makes all puts and finished files so far durable: syncs packs and names, then the journal, then writes the rows.
    ///
    /// # Errors
    /// [`StoreError`]. After [`StoreError::Full`] or [`StoreError::Index`] it can be tried again, after
    /// [`StoreError::Poisoned`] and the failed sync that led to it the store must be opened again; what was not committed
    /// is lost then, what was is not.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.inner.commit_with(&[])
    }

    /// Bytes of finished files that no commit has made durable.
    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        read(&self.inner.pending).current.bytes
    }

    /// Commits, and lets go of this clone. The repository is free for others when the last clone is gone.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn close(self) -> Result<(), StoreError> {
        self.inner.commit_with(&[])?;
        self.inner.index()?.flush().map_err(|error| self.inner.index_failed(error))
    }
}

impl Inner {
    /// Takes a block in. One that is in a pack already is not written again.
    pub(crate) fn put(&self, block: &Block) -> Result<(), StoreError> {
        if Block::inline(block.cid())?.is_some() {
            return Ok(());
        }
        let hash = hash_bytes(block.cid().hash());
        lock(&self.leases).saw_block(&hash);
        if !self.places(&hash, false)?.is_empty() {
            return Ok(());
        }
        self.check_space(block.data().len(), "a block")?;
        self.append_block(block, &hash)
    }

    /// Appends a block to the packs, wherever else it may lie.
    pub(crate) fn append_block(&self, block: &Block, hash: &[u8]) -> Result<(), StoreError> {
        self.check_poisoned()?;
        // A CID's bytes never exceed it, and `Block` bounds the data.
        let length = u32::try_from(block.data().len()).unwrap_or(u32::MAX);
        let mut packs = lock(&self.packs);
        let (pack, offset) = packs.append(block).map_err(|error| match error {
            PackError::Write(error) => StoreError::io(format!("append block `{}` to the packs", block.cid()), error),
            PackError::Sync(error) => self.poison(StoreError::io("sync a full pack", error)),
        })?;
        // Under the lock of the packs, so that a commit sees the row of every block before its tail.
        write(&self.pending).current.rows.insert(hash, Location::Pack { pack, offset, length });
        Ok(())
    }

    /// Makes everything so far durable, and `extra` with it: all of it is in one frame, or none.
    pub(crate) fn commit_with(&self, extra: &[Record]) -> Result<(), StoreError> {
        check_sizes(extra)?;
        let mut journal = lock(&self.journal);
        self.check_poisoned()?;
        let (tail, batches) = self.freeze()?;
        self.publish(&mut journal, &batches, extra, tail)?;
        let position = journal.position();
        let state = State { journal: position, packs: tail };
        let index = self.index_in_commit(&journal)?;
        if let Err(error) = write_rows(&*index, &batches, state) {
            self.index_failed(error);
            write_rows(&*self.index_in_commit(&journal)?, &batches, state).map_err(|error| self.index_failed(error))?;
        }
        write(&self.pending).frozen.retain(|frozen| !batches.iter().any(|done| Arc::ptr_eq(done, frozen)));
        Ok(())
    }

    /// Takes the current batch, and syncs the packs up to its end.
    fn freeze(&self) -> Result<(Tail, Vec<Arc<Frozen>>), StoreError> {
        let (tail, unsynced, batches) = {
            let packs = lock(&self.packs);
            let mut pending = write(&self.pending);
            let batch = std::mem::take(&mut pending.current);
            if !batch.is_empty() {
                let frozen = Frozen { batch, journalled: AtomicBool::new(false) };
                pending.frozen.push(Arc::new(frozen));
            }
            (packs.tail(), packs.unsynced(), pending.frozen.clone())
        };
        if let Some(file) = unsynced {
            if let Err(error) = file.sync() {
                return Err(self.poison(StoreError::io(format!("sync pack {}", tail.pack), error)));
            }
            lock(&self.packs).note_synced(tail);
        }
        if batches.iter().any(|frozen| frozen.batch.renamed && !frozen.journalled.load(Ordering::Acquire)) {
            let synced = self.disk.sync_dir(files::DIRECTORY);
            synced.map_err(|error| self.poison(StoreError::io("sync the names of blobs", error)))?;
        }
        Ok((tail, batches))
    }

    /// Writes the facts down.
    fn publish(
        &self,
        journal: &mut MutexGuard<'_, Journal>,
        batches: &[Arc<Frozen>],
        extra: &[Record],
        tail: Tail,
    ) -> Result<(), StoreError> {
        let new: Vec<_> = batches.iter().filter(|frozen| !frozen.journalled.load(Ordering::Acquire)).collect();
        let mut records = Vec::new();
        {
            let facts = read(&self.facts);
            let links = new.iter().flat_map(|frozen| &frozen.batch.links);
            // A link that is gone again was found to be wrong in the meantime.
            records.extend(links.filter_map(|id| facts.links.get(id)).map(|link| Record::Link((**link).clone())));
        }
        records.extend_from_slice(extra);
        let packed = (tail > read(&self.facts).packed).then_some(Record::Packed(tail));
        records.extend(packed.clone());
        if !records.is_empty() {
            journal.append(&records).map_err(|error| match error {
                AppendError::Write(error) => StoreError::io("append to the journal", error),
                AppendError::Sync(error) => self.poison(StoreError::io("sync the journal", error)),
            })?;
        }
        for frozen in new {
            frozen.journalled.store(true, Ordering::Release);
        }
        let mut facts = write(&self.facts);
        for record in extra.iter().chain(&packed) {
            facts.apply(record);
        }
        Ok(())
    }

    /// Copies the blocks of a pack that the index points at behind all others, and commits; the pack is free to go then.
    /// The caller holds the gate alone.
    pub(crate) fn rewrite_pack(&self, pack: u32) -> Result<(), StoreError> {
        {
            let mut packs = lock(&self.packs);
            if packs.tail().pack == pack {
                packs.roll().map_err(|error| match error {
                    PackError::Write(error) => StoreError::io("begin a pack", error),
                    PackError::Sync(error) => self.poison(StoreError::io("sync a full pack", error)),
                })?;
            }
        }
        let bytes = packs::read(&*self.disk, pack).doing(|| format!("read pack {pack}"))?;
        let scanned = packs::scan_promised(&bytes, self.promised(pack, bytes.len()));
        let index = self.index()?;
        let mut lost = !scanned.damaged.is_empty();
        for packed in scanned.blocks {
            let hash = hash_bytes(packed.cid.hash());
            let here = |location: &Location| {
                matches!(location, Location::Pack { pack: at, offset, .. }
                    if *at == pack && *offset as usize == packed.data.start)
            };
            if index.locations(&hash).map_err(|error| self.index_failed(error))?.iter().any(here) {
                let data = Bytes::copy_from_slice(&bytes[packed.data.clone()]);
                match Block::verify(packed.cid, data) {
                    Ok(block) => self.append_block(&block, &hash)?,
                    Err(_) => lost = true,
                }
            }
        }
        self.commit_with(&[])?;
        if lost {
            tracing::warn!(pack, "blocks of a damaged pack are lost");
            self.drop_rows(pack)?;
        }
        self.handles.forget(Target::Pack(pack));
        Ok(())
    }

    /// Removes the rows that still point into a pack that is about to go.
    fn drop_rows(&self, gone: u32) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        let index = self.index()?;
        let mut each = |key: &[u8], value: &[u8]| {
            if matches!(Location::decode(key, value), Some((_, Location::Pack { pack, .. })) if pack == gone) {
                keys.push(key.to_vec());
            }
            true
        };
        let dropped = index.for_each(&[], &mut each).and_then(|()| {
            keys.iter().try_for_each(|key| index.remove(key))?;
            index.flush()
        });
        dropped.map_err(|error| self.index_failed(error))
    }

    pub(crate) fn check_poisoned(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Notes that a sync failed. The kernel may have dropped the pages, and a second sync would succeed without them: so
    /// no commit is let through any more, and what the packs hold beyond the last commit is cut off.
    pub(crate) fn poison(&self, error: StoreError) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        tracing::error!(%error, "a sync failed; the store must be opened again");
        error
    }
}

/// Writes the rows of journalled batches, and notes how far the index is.
fn write_rows(index: &dyn Index, batches: &[Arc<Frozen>], state: State) -> Result<(), IndexError> {
    for (key, value) in batches.iter().flat_map(|frozen| &frozen.batch.rows.0) {
        index.insert(key, value)?;
    }
    // A commit of facts alone costs no second sync.
    if batches.iter().any(|frozen| !frozen.batch.rows.0.is_empty()) {
        index.flush()?;
    }
    index.set_state(state)
}

fn check_sizes(records: &[Record]) -> Result<(), StoreError> {
    for record in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        if bytes.len() > MAX_RECORD_BYTES {
            let name = match record {
                Record::Keep(keep) => keep.name.clone(),
                Record::Pin(pin) => pin.name.clone(),
                _ => String::new(),
            };
            return Err(StoreError::RecordTooLarge { name, size: bytes.len(), limit: MAX_RECORD_BYTES });
        }
    }
    Ok(())
}
