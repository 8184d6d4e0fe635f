//! Makes a file of the daemon's lie in our own store, once.
//!
//! Imports the store and its siblings. What an earlier attempt left is hashed and not asked for again; the file is named
//! when its digest is the one that was expected. Everything is checked against its CID on the way.

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{FileError, Kubo, Piece};
use crate::{
    block::Cid,
    fetch::Expected,
    pin::Lease,
    store::{Blockstore as _, FileInfo, Store, StoreError},
};

/// Bytes after which the disk is told to start writing, so that the sync at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// Bytes after which what arrived is made durable: what is lost with the power must be fetched again.
const SYNC_BYTES: u64 = 256 << 20;
/// Finished files of so many bytes together are committed.
const COMMIT_BYTES: u64 = 1 << 20;

impl Kubo {
    /// Makes the file `cid` lie in `store`, if it is what is expected, or has `limit` bytes at most. Durable after the
    /// store's next commit.
    ///
    /// Dropping the future stops it; what has arrived is used by the next attempt.
    ///
    /// # Errors
    /// [`ImportError`].
    pub async fn import(
        &self,
        store: &Store,
        cid: &Cid,
        expected: Option<Expected>,
        limit: u64,
        lease: &Lease,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<FileInfo, ImportError> {
        lease.hold(cid);
        let (sender, mut receiver) = tokio::sync::watch::channel(0);
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let (kubo, store, cid, runtime) = (self.clone(), store.clone(), *cid, Handle::current());
        let mut work = tokio::task::spawn_blocking(move || {
            let receive = Receive { kubo, store, cid, expected, limit, runtime, stop };
            receive.run(&|done| sender.send_modify(|seen| *seen = done))
        });
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                Ok(()) = receiver.changed() => progress(*receiver.borrow_and_update()),
            }
        };
        progress(*receiver.borrow_and_update());
        match done {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ImportError::Stopped),
            },
        }
    }
}

struct Receive {
    kubo: Kubo,
    store: Store,
    cid: Cid,
    expected: Option<Expected>,
    limit: u64,
    runtime: Handle,
    stop: CancellationToken,
}

impl Receive {
    fn run(&self, progress: &dyn Fn(u64)) -> Result<FileInfo, ImportError> {
        let size = self.expected.map(|expected| expected.size);
        let opening = self.kubo.file(&self.cid, size, self.limit);
        let mut reader = self.wait(opening)?;
        let digest = self.expected.map(|expected| expected.digest);
        let incoming = self.store.receive(&self.cid, reader.size(), digest)?;
        let (mut hasher, mut position, mut written, mut synced) = (Sha256::new(), 0, 0, 0);
        let at_hand = |cid: &Cid, offset: u64, length: usize| {
            let bytes = incoming.present(offset, length, cid).ok().flatten()?;
            crate::block::Block::verify(*cid, bytes).ok()
        };
        while let Some(piece) = self.wait(reader.next(&at_hand))? {
            let bytes = match &piece {
                Piece::Node(block) => {
                    self.store.put(block)?;
                    continue;
                }
                Piece::Leaf { offset, block } => {
                    incoming.write(*offset, block)?;
                    block.data()
                }
                Piece::Inline { offset, bytes } => {
                    incoming.write_inline(*offset, bytes)?;
                    bytes
                }
            };
            hasher.update(bytes);
            position += bytes.len() as u64;
            progress(position);
            if position >= written + WRITEBACK_BYTES {
                incoming.start_writeback(written..position);
                written = position;
            }
            if position >= synced + SYNC_BYTES {
                incoming.sync()?;
                synced = position;
            }
        }
        let got: [u8; 32] = hasher.finalize().into();
        if let Some(expected) = self.expected.filter(|expected| expected.digest != got) {
            incoming.discard()?;
            return Err(ImportError::Digest { cid: self.cid, expected: expected.digest, got });
        }
        let info = incoming.finish(got, position)?;
        if self.store.uncommitted_bytes() >= COMMIT_BYTES {
            self.store.commit()?;
        }
        Ok(info)
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, FileError>>) -> Result<T, ImportError> {
        match self.runtime.block_on(self.stop.run_until_cancelled(work)) {
            Some(done) => Ok(done?),
            None => Err(ImportError::Stopped),
        }
    }
}

/// Why a file of the daemon's does not lie here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It could not be had.
    #[error(transparent)]
    File(#[from] FileError),
    /// It hashes to something else than was promised.
    #[error("what `{cid}` names does not have the digest that is expected")]
    Digest {
        /// The file.
        cid: Cid,
        /// The digest expected.
        expected: [u8; 32],
        /// The digest found.
        got: [u8; 32],
    },
    /// Our repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller went away.
    #[error("fetching a file was stopped")]
    Stopped,
}
