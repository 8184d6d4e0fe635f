//! From what the daemon's client says to what storage says.
//!
//! Imports the node's errors. A daemon that does not have something is told apart from one that cannot be worked with.

use std::io;

use shipfs_node::{
    Cid,
    dag::{DirectoryError, LoadError, WalkError},
    rpc::{
        RpcError,
        client::{BlockGetError, FileError, ImportError, UploadError},
    },
};

use super::super::{BlobsError, Expected, convert::content_error};

pub(crate) fn rpc_error(error: RpcError) -> BlobsError {
    BlobsError::Other(Box::new(error))
}

/// What was not had of `cid`.
fn absent_or(cid: Cid, error: RpcError) -> BlobsError {
    if error.is_absence() { BlobsError::NotFound { cid, asked: error.to_string() } } else { rpc_error(error) }
}

pub(super) fn spool_error(source: io::Error) -> BlobsError {
    BlobsError::Spool(source)
}

pub(super) fn upload_error(expected: Option<Expected>, error: UploadError) -> BlobsError {
    match error {
        UploadError::Content(error) => content_error(expected, error),
        UploadError::Rpc(error) => rpc_error(error),
        error => BlobsError::Other(Box::new(error)),
    }
}

pub(super) fn file_error(cid: Cid, expected: Option<Expected>, error: FileError) -> BlobsError {
    match (error, expected) {
        (FileError::Dag { source: WalkError::Size { found, .. }, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: None, got_size: found }
        }
        (FileError::Dag { source: WalkError::Directory { .. } | WalkError::NotAFile { .. }, .. }, _) => {
            BlobsError::NotAFile { cid }
        }
        (FileError::TooLong { limit, .. }, _) => BlobsError::TooLarge { cid, limit },
        (FileError::Rpc(error), _) => absent_or(cid, error),
        (error, _) => BlobsError::Other(Box::new(error)),
    }
}

pub(crate) fn import_error(cid: Cid, expected: Option<Expected>, error: ImportError) -> BlobsError {
    match (error, expected) {
        (ImportError::File(error), expected) => file_error(cid, expected, error),
        (ImportError::Digest { got, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: Some(got), got_size: expected.size }
        }
        (ImportError::Store(error), _) => BlobsError::Other(Box::new(error)),
        (error, _) => BlobsError::Other(Box::new(error)),
    }
}

pub(crate) fn directory_error(error: DirectoryError) -> BlobsError {
    match error {
        DirectoryError::NotADirectory { cid } => BlobsError::NotADirectory { cid },
        DirectoryError::Load(LoadError::Source { cid, source }) => match source.downcast::<BlockGetError>() {
            Ok(error) => match *error {
                BlockGetError::Rpc(error) => absent_or(cid, error),
                error => BlobsError::Other(Box::new(error)),
            },
            Err(source) => BlobsError::Other(source),
        },
        error => BlobsError::Other(Box::new(error)),
    }
}
