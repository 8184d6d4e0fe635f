//! Our own store, which gets what it lacks from a daemon of somebody else's instead of from peers.
//!
//! Imports its siblings and the node. What arrives is checked block by block and lies here once; the daemon is asked for
//! nothing that is here, and keeps nothing for us.

use async_trait::async_trait;
use bytes::Bytes;
use shipfs_node::{Cid, rpc::Kubo, store::FileInfo};

use super::{
    Added, BlobFile, Blobs, BlobsError, Body, Content, Directory, Entry, Expected, Progress, Records, Want,
    convert::stored,
    embedded::EmbeddedBlobs,
    foreign::{OwnFirst, import_error, list},
};

/// The store of an embedded node, fed by a daemon.
pub struct ImportingBlobs {
    own: EmbeddedBlobs,
    kubo: Kubo,
}

impl ImportingBlobs {
    /// Begins a piece of work.
    pub fn new(own: EmbeddedBlobs, kubo: Kubo) -> Self {
        Self { own, kubo }
    }

    /// Makes a file lie here; says whether it did before.
    async fn get(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<(FileInfo, bool), BlobsError> {
        let (store, wanted) = (self.own.node().store().clone(), *cid);
        if let Some(info) = crate::bring::blocking(move || store.file(&wanted)).await {
            self.own.lease().hold(cid);
            want.check(cid, info.digest, info.size)?;
            progress(info.size);
            return Ok((info, true));
        }
        let (expected, limit) = want.bounds();
        let (store, lease) = (self.own.node().store(), self.own.lease());
        let imported = self.kubo.import(store, cid, expected.map(Into::into), limit, lease, progress).await;
        Ok((imported.map_err(|error| import_error(*cid, expected, error))?, false))
    }
}

#[async_trait]
impl Blobs for ImportingBlobs {
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError> {
        self.own.add(content, expected, progress).await
    }

    async fn add_directory(&self, entries: Vec<Entry>) -> Result<Directory, BlobsError> {
        self.own.add_directory(entries).await
    }

    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError> {
        self.own.find(digest, size).await
    }

    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError> {
        let (info, existed) = self.get(cid, want, progress).await?;
        Ok(stored(*cid, info, existed))
    }

    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError> {
        let (info, _) = self.get(cid, Want::AtMost(limit), &|_| {}).await?;
        let reading = crate::bring::blocking(move || Body::File(info.path).read(limit));
        reading.await.map_err(|error| BlobsError::Other(Box::new(error)))
    }

    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
        self.own.lease().hold(cid);
        list(&OwnFirst { store: self.own.node().store(), kubo: &self.kubo, keeps: true }, cid).await
    }

    fn records(&self) -> &dyn Records {
        self.own.records()
    }
}
