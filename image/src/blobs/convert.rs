//! The seam's words in the node's, and back.
//!
//! Imports its parent and the node. It translates and decides nothing.

use shipfs_node::{
    Cid,
    add::{self, ContentError},
    dag, fetch,
    store::FileInfo,
};

use super::{Added, BlobFile, BlobsError, Body, Content, Entry, Expected};

/// Most entries of a directory that is read: a layout's blobs, many images' worth.
pub(super) const MAX_ENTRIES: usize = 16_384;

impl From<Expected> for fetch::Expected {
    fn from(Expected { digest, size }: Expected) -> Self {
        Self { digest, size }
    }
}

impl From<Content> for add::Content {
    fn from(content: Content) -> Self {
        match content {
            Content::File(path) => Self::File(path),
            Content::Bytes(bytes) => Self::Bytes(bytes),
            Content::Reader(reader) => Self::Reader(reader),
        }
    }
}

impl From<add::Added> for Added {
    fn from(added: add::Added) -> Self {
        let add::Added { cid, digest, size, cumulative, existed } = added;
        Self { cid, digest, size, cumulative, existed }
    }
}

impl From<Entry> for dag::Entry {
    fn from(Entry { name, cid, size }: Entry) -> Self {
        Self { name, cid, size }
    }
}

impl From<dag::Entry> for Entry {
    fn from(dag::Entry { name, cid, size }: dag::Entry) -> Self {
        Self { name, cid, size }
    }
}

/// A file of the node's store, under the CID that it was asked by.
pub(super) fn stored(cid: Cid, info: FileInfo, existed: bool) -> BlobFile {
    BlobFile { cid, digest: info.digest, size: info.size, existed, body: Body::File(info.path) }
}

/// What was wrong with content that was to be added.
pub(super) fn content_error(expected: Option<Expected>, error: ContentError) -> BlobsError {
    match (error, expected) {
        (ContentError::Digest { got, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: Some(got), got_size: expected.size }
        }
        (ContentError::Size { got, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: None, got_size: got }
        }
        (ContentError::Read { source, .. }, _) => BlobsError::Content(source),
        (error, _) => BlobsError::Other(Box::new(error)),
    }
}
