//! Storage that asks nobody: what is not here is not found.
//!
//! Imports the seam to storage and the node. Verbs that need no peer, and every verb of a user who said `offline`, see the
//! store through this, whatever network the holder is part of.

use async_trait::async_trait;
use bytes::Bytes;
use shipfs_node::Cid;

use crate::blobs::{
    Added, BlobFile, Blobs, BlobsError, Content, Directory, Entry, Expected, Progress, Records, Want,
    embedded::EmbeddedBlobs,
};

pub(super) use crate::blobs::NOBODY;

/// The store of an embedded node, without its network.
pub(super) struct LocalBlobs(pub(super) EmbeddedBlobs);

impl LocalBlobs {
    /// Fails unless the whole file, or the directory's own node, is here.
    async fn check(&self, cid: &Cid, is_file: bool) -> Result<(), BlobsError> {
        let (store, wanted) = (self.0.node().store().clone(), *cid);
        let is_here = if is_file {
            crate::bring::blocking(move || store.file(&wanted).is_some()).await
        } else {
            self.0.node().has(cid).await
        };
        if is_here { Ok(()) } else { Err(BlobsError::NotFound { cid: *cid, asked: NOBODY.to_owned() }) }
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError> {
        self.0.add(content, expected, progress).await
    }

    async fn add_directory(&self, entries: Vec<Entry>) -> Result<Directory, BlobsError> {
        self.0.add_directory(entries).await
    }

    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError> {
        self.0.find(digest, size).await
    }

    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError> {
        self.check(cid, true).await?;
        self.0.fetch(cid, want, progress).await
    }

    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError> {
        self.check(cid, true).await?;
        self.0.read(cid, limit).await
    }

    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
        self.check(cid, false).await?;
        self.0.list(cid).await
    }

    fn records(&self) -> &dyn Records {
        self.0.records()
    }
}
