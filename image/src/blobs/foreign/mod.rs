//! The storage seam over a daemon of somebody else's, by Kubo's RPC.
//!
//! Blobs lie with the daemon and nowhere else: what is added is hashed here while it is sent, what is fetched is checked
//! here while it arrives and lies in a file without a name until it is used. Documents are small and stay in memory. A blob
//! that our own store has is taken from there. Imports its parent and the node; the records are in `records`.
//!
//! Until a record keeps it, the daemon may collect what was added: then the record is refused and the push has to be run
//! again.

mod error;
mod records;
mod spool;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use shipfs_node::{
    Cid,
    block::{Block, CODEC_RAW, cid_from_sha256},
    dag::{self, BlockSource, BlockSourceError, CHUNK_BYTES, Leaf},
    node::Node,
    rpc::client::{Kubo, Piece},
    store::{Blockstore as _, Store},
};

pub(crate) use self::error::{directory_error, import_error, rpc_error};
pub use self::records::is_foreign;
use self::{
    error::{file_error, upload_error},
    spool::Spool,
};
use super::{
    Added, BlobFile, Blobs, BlobsError, Content, Directory, Entry, Expected, Progress, Records, Want,
    convert::{MAX_ENTRIES, stored},
};

/// Storage by a daemon, for one piece of work.
pub struct ForeignBlobs {
    kubo: Kubo,
    node: Node,
    /// Who the daemon is, wherever it listens.
    peer: String,
    spool: PathBuf,
    known: Mutex<BTreeMap<[u8; 32], Added>>,
    /// What came from the daemon during this work.
    fetched: Mutex<BTreeSet<Cid>>,
}

impl ForeignBlobs {
    /// Begins a piece of work with the daemon whose peer ID is `peer`. Records are written into the repository of `node`,
    /// and files without names into `spool`.
    pub fn new(kubo: Kubo, peer: &str, node: Node, spool: PathBuf) -> Self {
        Self { kubo, node, peer: peer.to_owned(), spool, known: Mutex::default(), fetched: Mutex::default() }
    }

    fn remember(&self, added: Added) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(added.digest, added);
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Added> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    /// The file, when our own store has it.
    async fn own(&self, cid: &Cid, want: Want) -> Result<Option<BlobFile>, BlobsError> {
        let (store, wanted) = (self.node.store().clone(), *cid);
        let Some(info) = crate::bring::blocking(move || store.file(&wanted)).await else { return Ok(None) };
        want.check(cid, info.digest, info.size)?;
        Ok(Some(stored(*cid, info, true)))
    }
}

#[async_trait]
impl Blobs for ForeignBlobs {
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError> {
        if let Some(expected) = expected
            && let Some(found) = self.find(&expected.digest, Some(expected.size)).await?
        {
            progress(found.size);
            return Ok(found);
        }
        let added = self.kubo.add(content.into(), expected.map(Into::into), progress).await;
        let added = Added::from(added.map_err(|error| upload_error(expected, error))?);
        self.remember(Added { existed: true, ..added });
        Ok(added)
    }

    async fn add_directory(&self, entries: Vec<Entry>) -> Result<Directory, BlobsError> {
        let encoded = dag::encode_directory(entries.into_iter().map(Into::into).collect());
        let (block, cumulative) = encoded.map_err(|error| BlobsError::Other(Box::new(error)))?;
        self.kubo.put_node(&block).await.map_err(rpc_error)?;
        Ok(Directory { cid: *block.cid(), cumulative })
    }

    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError> {
        let digest = *digest;
        if let Some(known) = self.known(&digest).filter(|known| size.is_none_or(|size| size == known.size)) {
            return Ok(Some(known));
        }
        let Some(size) = size else { return Ok(None) };
        let found = if size <= CHUNK_BYTES as u64 {
            // One block, which is called by the digest itself.
            let cid = cid_from_sha256(CODEC_RAW, &digest);
            let added = Added { cid, digest, size, cumulative: size, existed: true };
            self.kubo.has_block(&cid).await.map_err(rpc_error)?.then_some(added)
        } else {
            // Nothing but a record of ours says what the daemon calls it; what is pinned is whole.
            match self.recorded(&digest, size).await? {
                Some(added) if self.kubo.pinned(&added.cid).await.map_err(rpc_error)?.is_some() => Some(added),
                _ => None,
            }
        };
        found.into_iter().for_each(|added| self.remember(added));
        Ok(found)
    }

    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError> {
        if let Some(own) = self.own(cid, want).await? {
            progress(own.size);
            return Ok(own);
        }
        let (expected, limit) = want.bounds();
        let failed = |error| file_error(*cid, expected, error);
        let existed = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).contains(cid);
        let size = expected.map(|expected| expected.size);
        let mut reader = self.kubo.file(cid, size, limit).await.map_err(failed)?;
        let mut spool = Spool::new(&self.spool, reader.size()).await.map_err(error::spool_error)?;
        let (mut leaves, mut cumulative) = (Vec::new(), 0);
        while let Some(piece) = reader.next(&|_, _, _| None).await.map_err(failed)? {
            let bytes = match piece {
                Piece::Node(node) => {
                    cumulative += node.data().len() as u64;
                    continue;
                }
                Piece::Leaf { block, .. } => {
                    cumulative += block.data().len() as u64;
                    leaves.push(Leaf { cid: *block.cid(), size: block.data().len() as u64 });
                    block.into_data()
                }
                Piece::Inline { bytes, .. } => bytes,
            };
            spool = spool.write(bytes).await.map_err(error::spool_error)?;
            progress(spool.size());
        }
        let (digest, size, body) = spool.finish();
        if let Some(expected) = expected.filter(|expected| expected.digest != digest) {
            return Err(BlobsError::Mismatch { expected, got_digest: Some(digest), got_size: size });
        }
        if dag::balanced(&leaves).root == *cid {
            // It is called as this program calls it.
            self.remember(Added { cid: *cid, digest, size, cumulative, existed: true });
        }
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(*cid);
        Ok(BlobFile { cid: *cid, digest, size, existed, body })
    }

    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError> {
        let body = self.fetch(cid, Want::AtMost(limit), &|_| {}).await?.body;
        crate::bring::blocking(move || body.read(limit)).await.map_err(|error| BlobsError::Other(Box::new(error)))
    }

    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
        list(&OwnFirst { store: self.node.store(), kubo: &self.kubo, keeps: false }, cid).await
    }

    fn records(&self) -> &dyn Records {
        self
    }
}

/// Lists a directory.
pub(crate) async fn list(source: &OwnFirst<'_>, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
    let entries = dag::list_directory(source, cid, MAX_ENTRIES).await.map_err(directory_error)?;
    Ok(entries.into_iter().map(Into::into).collect())
}

/// Blocks of our own store, then of the daemon's.
pub(crate) struct OwnFirst<'b> {
    pub(crate) store: &'b Store,
    pub(crate) kubo: &'b Kubo,
    /// Whether what the daemon gave stays in our store.
    pub(crate) keeps: bool,
}

#[async_trait]
impl BlockSource for OwnFirst<'_> {
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError> {
        let (store, wanted) = (self.store.clone(), *cid);
        let own = crate::bring::blocking(move || store.get(&wanted)).await?;
        if let Some(block) = own.and_then(|bytes| Block::verify(*cid, bytes).ok()) {
            return Ok(block);
        }
        let block = Kubo::block(self.kubo, cid).await?;
        if self.keeps {
            let (store, stored) = (self.store.clone(), block.clone());
            crate::bring::blocking(move || store.put(&stored)).await?;
        }
        Ok(block)
    }
}

#[cfg(test)]
mod tests;
