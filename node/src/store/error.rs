//! What can go wrong in the store, and whose matter it is.
//!
//! Imports the error types of its siblings. It never hides a cause.

use super::index::IndexError;
use super::journal::JournalError;
use crate::block::{Cid, CidError};
use std::io;
use std::path::PathBuf;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the repository.
    #[error("the repository `{path}` is held by another process")]
    Held {
        /// The repository.
        path: PathBuf,
    },
    /// Written by a version of this program that does things differently.
    #[error("the repository `{path}` has layout version `{found}`, this program knows {known}")]
    UnknownVersion {
        /// The repository.
        path: PathBuf,
        /// What its `version` file says, cut to a sane length.
        found: String,
        /// The newest version known here.
        known: u32,
    },
    /// Nothing can be written here.
    #[error("the repository `{path}` is read-only")]
    ReadOnly {
        /// The repository.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Facts would be lost by going on.
    #[error("journal {number} of the repository `{path}` cannot be read")]
    Journal {
        /// The repository.
        path: PathBuf,
        /// Number of the journal.
        number: u64,
        /// What is wrong with it.
        #[source]
        source: JournalError,
    },
    /// The disk is full: opening could not finish what it had to write.
    #[error("the disk that holds the repository `{path}` is full")]
    Full {
        /// The repository.
        path: PathBuf,
    },
    /// The index could not be rebuilt.
    #[error("the index of the repository `{path}` could not be rebuilt")]
    Index {
        /// The repository.
        path: PathBuf,
        /// What the index said the second time.
        #[source]
        source: IndexError,
    },
    /// Anything else the operating system refuses.
    #[error("the repository `{path}` could not be opened")]
    Io {
        /// The repository.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Why the store did not do something. Nothing is half done: see each operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space, or no quota, is left.
    #[error("could not {action}: no space is left on the disk")]
    Full {
        /// What was being done to which file.
        action: String,
    },
    /// The repository cannot be written to.
    #[error("could not {action}: the repository is read-only")]
    ReadOnly {
        /// What was being done to which file.
        action: String,
    },
    /// Anything else the operating system refuses.
    #[error("could not {action}")]
    Io {
        /// What was being done to which file.
        action: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The index failed; it is opened again or rebuilt before it is asked the next time.
    #[error("could not use the block index")]
    Index(#[source] IndexError),
    /// An earlier sync failed, so what was written since the last commit may be lost; the store must be opened again.
    #[error("an earlier sync failed, the store must be opened again")]
    Poisoned,
    /// The CID names nothing that can be checked.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// The file of this CID is already being received.
    #[error("the file `{cid}` is already being received")]
    Busy {
        /// The file CID.
        cid: Cid,
    },
    /// A write would end behind the size that was declared, which is the budget.
    #[error("{length} bytes at offset {offset} of `{subject}` end behind its {size} bytes")]
    OutOfRange {
        /// What is being written.
        subject: String,
        /// First byte written.
        offset: u64,
        /// Bytes written.
        length: u64,
        /// Size that was declared.
        size: u64,
    },
    /// A file does not have the length it must have.
    #[error("`{subject}` has {found} bytes, {expected} were expected")]
    WrongSize {
        /// What was finished.
        subject: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A received file is not the one that was announced.
    #[error("the file of `{cid}` has another digest than was announced")]
    WrongDigest {
        /// The file CID.
        cid: Cid,
    },
    /// A pinned or kept DAG lacks a block.
    #[error("block `{missing}` of `{root}` is not in the store")]
    Incomplete {
        /// Root of the DAG.
        root: Box<Cid>,
        /// The block.
        missing: Box<Cid>,
    },
    /// A pinned or kept DAG has a block that cannot be decoded.
    #[error("block `{block}` of `{root}` cannot be decoded")]
    Undecodable {
        /// Root of the DAG.
        root: Box<Cid>,
        /// The block.
        block: Box<Cid>,
    },
    /// A record is larger than the journal takes.
    #[error("the record of `{name}` has {size} bytes, at most {limit} fit")]
    RecordTooLarge {
        /// Name of the pin or keep.
        name: String,
        /// Encoded size.
        size: usize,
        /// Limit.
        limit: usize,
    },
}

impl StoreError {
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { action },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { action },
            _ => Self::Io { action, source },
        }
    }
}

/// Says what was being done when the operating system refused.
pub(crate) trait Doing<T> {
    /// `action` reads on from "could not".
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(action(), source))
    }
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> Self {
        if error.is_full() { Self::Full { action: "write the block index".into() } } else { Self::Index(error) }
    }
}
