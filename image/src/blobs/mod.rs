//! The seam between images and whatever stores them.
//!
//! push and pull know [`Blobs`] and [`Records`] and nothing of nodes, sockets or disks. One value is one piece of work:
//! what it added, found or fetched is safe from garbage collection until it is dropped, and kept for good once a
//! [`Record`] lists it. Imports nothing of this crate. Nothing here trusts a CID or a digest that was not checked.

mod convert;
pub mod embedded;
pub mod foreign;
pub mod import;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
#[cfg(test)]
pub(crate) mod suite;

use std::{
    fmt, io,
    io::Read as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use shipfs_node::Cid;

/// What a blob must turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// SHA-256 of the whole.
    pub digest: [u8; 32],
    /// Bytes.
    pub size: u64,
}

/// What a file that is fetched may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly this.
    Exactly(Expected),
    /// Anything of at most so many bytes.
    AtMost(u64),
}

impl Want {
    /// What must come, if that is known, and how many bytes may.
    fn bounds(self) -> (Option<Expected>, u64) {
        match self {
            Self::Exactly(expected) => (Some(expected), expected.size),
            Self::AtMost(limit) => (None, limit),
        }
    }

    /// Whether a file that is here already, and was checked when it came, is what is wanted.
    fn check(self, cid: &Cid, digest: [u8; 32], size: u64) -> Result<(), BlobsError> {
        match self {
            Self::Exactly(expected) if (expected.digest, expected.size) != (digest, size) => {
                Err(BlobsError::Mismatch { expected, got_digest: Some(digest), got_size: size })
            }
            Self::AtMost(limit) if size > limit => Err(BlobsError::TooLarge { cid: *cid, limit }),
            _ => Ok(()),
        }
    }
}

/// Where the bytes of a blob to be added come from.
pub enum Content {
    /// A file that lies still while it is read.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
    /// A stream, read once, on a thread that may block.
    Reader(Box<dyn io::Read + Send>),
}

impl Content {
    /// The bytes as a stream. Blocks.
    ///
    /// # Errors
    /// What opening says.
    pub(crate) fn into_reader(self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(match self {
            Self::Reader(reader) => reader,
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Self::File(path) => Box::new(std::fs::File::open(path)?),
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Bytes(bytes) => formatter.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Self::Reader(_) => formatter.write_str("Reader"),
        }
    }
}

/// A blob that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// CID of the UnixFS file.
    pub cid: Cid,
    /// SHA-256 of the whole.
    pub digest: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Bytes of the file's whole DAG: what a directory entry calls its size.
    pub cumulative: u64,
    /// Whether it was there before.
    pub existed: bool,
}

/// One name in a UnixFS directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A single path component.
    pub name: String,
    /// What it names.
    pub cid: Cid,
    /// Bytes of that DAG; untrusted where it was read from a peer.
    pub size: u64,
}

/// A whole, checked blob on this machine.
#[derive(Clone, Debug)]
pub struct BlobFile {
    /// CID of the UnixFS file.
    pub cid: Cid,
    /// SHA-256 of the whole, checked.
    pub digest: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Whether it was here before it was asked for.
    pub existed: bool,
    /// How to read it.
    pub body: Body,
}

/// Where the bytes of a [`BlobFile`] lie.
#[derive(Clone, Debug)]
pub enum Body {
    /// A file of the store: never to be written to or linked from outside.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file without a name, whose room is given back with the last clone.
    Spooled(Arc<std::fs::File>),
    /// Bytes that are made anew whenever they are read, and lie nowhere.
    Made(Made),
}

/// What makes bytes.
#[derive(Clone)]
pub struct Made(Arc<dyn Fn() -> io::Result<Box<dyn io::Read + Send>> + Send + Sync>);

impl Made {
    /// Bytes that `make` gives a reader of, the same ones each time.
    pub(crate) fn new(make: impl Fn() -> io::Result<Box<dyn io::Read + Send>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Made(..)")
    }
}

impl Body {
    /// Opens the bytes for reading from their start. Blocks.
    ///
    /// # Errors
    /// What opening the file says.
    pub fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(std::fs::File::open(path)?),
            Self::Bytes(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Self::Spooled(file) => Box::new(Positioned { file: Arc::clone(file), offset: 0 }),
            Self::Made(made) => (made.0)()?,
        })
    }

    /// Opens the file that the bytes lie in, with a cursor of its own; `None` when they lie in none. Blocks.
    ///
    /// # Errors
    /// What opening the file says.
    pub fn open_file(&self) -> io::Result<Option<std::fs::File>> {
        match self {
            Self::File(path) => std::fs::File::open(path).map(Some),
            Self::Bytes(_) | Self::Made(_) => Ok(None),
            // It has no name left but this one.
            Self::Spooled(file) => std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(Some),
        }
    }

    /// Reads at most `limit` bytes, and fails when there are more. Blocks.
    ///
    /// # Errors
    /// What reading says.
    pub fn read(&self, limit: u64) -> io::Result<Bytes> {
        if let Self::Bytes(bytes) = self
            && bytes.len() as u64 <= limit
        {
            return Ok(bytes.clone());
        }
        let mut bytes = Vec::new();
        io::Read::take(self.open()?, limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("more than {limit} bytes")));
        }
        Ok(bytes.into())
    }

    /// The bytes as content for another store; a stream only where there is no name to open. Blocks.
    ///
    /// # Errors
    /// What opening says.
    pub(crate) fn into_content(self) -> io::Result<Content> {
        Ok(match self {
            Self::File(path) => Content::File(path),
            Self::Bytes(bytes) => Content::Bytes(bytes),
            Self::Spooled(_) | Self::Made(_) => Content::Reader(self.open()?),
        })
    }

    /// The file, when the bytes lie in one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Bytes(_) | Self::Spooled(_) | Self::Made(_) => None,
        }
    }
}

/// Who was asked for what is not here, when peers may not be asked.
pub(crate) const NOBODY: &str = "nobody was asked";
/// The same of a node that is part of no network.
pub(crate) const OFFLINE: &str = "this node is offline";

/// A file read from its start, its cursor left alone: several may read it.
struct Positioned {
    file: Arc<std::fs::File>,
    offset: u64,
}

impl io::Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Told the number of bytes done so far; must not block.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Storage of blobs by CID and by digest.
///
/// Dropping a future half-way leaves the store whole: what was not finished is not found, and `fetch` resumes.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores `content` as a UnixFS file.
    ///
    /// # Errors
    /// [`BlobsError::Mismatch`] when it is not as `expected`; nothing is stored then.
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError>;

    /// Stores a UnixFS directory. Entries may come in any order; the CID does not depend on it.
    ///
    /// # Errors
    /// [`BlobsError::Other`] when a name is not a single path component, or occurs twice.
    async fn add_directory(&self, entries: Vec<Entry>) -> Result<Directory, BlobsError>;

    /// Looks for a whole blob by what it hashes to; asks nobody. With a size it is that long, without one it may be missed
    /// where looking needs it.
    ///
    /// # Errors
    /// Only when the store itself fails.
    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError>;

    /// Makes the whole file `cid` lie here, from peers if need be, if it is what is wanted.
    ///
    /// # Errors
    /// [`BlobsError::Mismatch`], [`BlobsError::TooLarge`], [`BlobsError::NotFound`], [`BlobsError::NotAFile`]; what came
    /// in so far is kept aside for the next try.
    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError>;

    /// Reads a small file whole, from peers if need be, and leaves it in the store.
    ///
    /// # Errors
    /// [`BlobsError::TooLarge`] past `limit` bytes, before that many are held.
    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError>;

    /// Lists a UnixFS directory, from peers if need be.
    ///
    /// # Errors
    /// [`BlobsError::NotADirectory`] when `cid` is something else.
    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError>;

    /// The records that live beside the blobs.
    fn records(&self) -> &dyn Records;
}

/// A stored directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its CID.
    pub cid: Cid,
    /// Bytes of the whole DAG under it.
    pub cumulative: u64,
}

/// A named set of CIDs that are kept until the record is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What a user calls it; unique.
    pub name: String,
    /// What the name stands for.
    pub root: Cid,
    /// Every other DAG that is kept with it.
    pub members: Vec<Cid>,
    /// Whatever the writer needs to know about it later; small.
    pub note: Vec<u8>,
    /// Whether parts of the DAGs are known to be missing: a layout of which one platform was pulled.
    pub incomplete: bool,
}

/// The records of a store. Each change is durable, with all bytes it depends on, before it returns.
#[async_trait]
pub trait Records: Send + Sync {
    /// Writes `record`, in place of one with the same name.
    ///
    /// # Errors
    /// When the store fails; the earlier record stands then.
    async fn keep(&self, record: Record) -> Result<(), BlobsError>;

    /// Removes the record called `name`; says whether there was one.
    ///
    /// # Errors
    /// When the store fails.
    async fn release(&self, name: &str) -> Result<bool, BlobsError>;

    /// All records, sorted by name.
    ///
    /// # Errors
    /// When the store fails.
    async fn kept(&self) -> Result<Vec<Record>, BlobsError>;
}

/// Why storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobsError {
    /// The bytes are others than promised.
    #[error("blob has {}{got_size} bytes, expected {} and {} bytes", found(got_digest.as_ref()), hex(&expected.digest), expected.size)]
    Mismatch {
        /// What was promised.
        expected: Expected,
        /// SHA-256 of what came; absent when its size was wrong already, so that nobody hashed it.
        got_digest: Option<[u8; 32]>,
        /// Bytes that came, at least.
        got_size: u64,
    },
    /// Neither here nor with anybody who was asked.
    #[error("`{cid}` is not here, and no peer gave it ({asked})")]
    NotFound {
        /// What was wanted.
        cid: Cid,
        /// Who was asked, for how long.
        asked: String,
    },
    /// A document longer than documents may be.
    #[error("`{cid}` is longer than the {limit} bytes it may have")]
    TooLarge {
        /// What was read.
        cid: Cid,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file was wanted.
    #[error("`{cid}` is not a file")]
    NotAFile {
        /// What was wanted.
        cid: Cid,
    },
    /// A directory was wanted.
    #[error("`{cid}` is not a directory")]
    NotADirectory {
        /// What was wanted.
        cid: Cid,
    },
    /// Reading the content to be added failed.
    #[error("cannot read the content to be stored")]
    Content(#[source] io::Error),
    /// What arrives for whoever reads it could not be laid aside.
    #[error("cannot lay aside what the IPFS daemon gives")]
    Spool(#[source] io::Error),
    /// The store, or the node around it, failed.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

fn found(digest: Option<&[u8; 32]>) -> String {
    digest.map_or_else(String::new, |digest| hex(digest) + " and ")
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().fold("`sha256:".to_owned(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    }) + "`"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BlobsError, Expected, memory::MemoryBlobs, suite};

    #[test]
    fn a_digest_that_nobody_computed_is_not_told() {
        let expected = Expected { digest: [1; 32], size: 5 };
        let told = |got_digest| BlobsError::Mismatch { expected, got_digest, got_size: 4 }.to_string();
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        assert_eq!(told(None), format!("blob has 4 bytes, expected `sha256:{one}` and 5 bytes"));
        let both = format!("blob has `sha256:{two}` and 4 bytes, expected `sha256:{one}` and 5 bytes");
        assert_eq!(told(Some([2; 32])), both);
    }

    #[tokio::test]
    async fn memory_does_what_storage_does() {
        let store = Arc::new(MemoryBlobs::default());
        suite::run(&*store, &MemoryBlobs::with_peers(vec![Arc::clone(&store)])).await;
    }
}
