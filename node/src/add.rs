//! Takes files in: hashed while they are read, checked against what is expected, stored once.
//!
//! May import [`crate::dag`] and [`crate::store`]. It never publishes anything: a file that turns out wrong leaves no
//! trace.

use crate::block::{Block, CODEC_RAW, Cid, cid_from_sha256};
use crate::dag::{self, CHUNK_BYTES, Hashed, Leaf, Part, Tree};
use crate::fetch::{Expected, threads};
use crate::store::files::hex;
use crate::store::{Blockstore as _, FileInfo, Store, StoreError};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// Where the bytes of a file come from.
pub enum Content {
    /// A file on disk, read once from its beginning.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
    /// Anything that can be read, on a blocking thread.
    Reader(Box<dyn Read + Send>),
}

/// A file that is in the store now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The CID of the file.
    pub cid: Cid,
    /// SHA2-256 of the whole file.
    pub digest: [u8; 32],
    /// Its size in bytes.
    pub size: u64,
    /// Its size with the nodes of its DAG, in bytes: what a directory entry (and Kubo's `add`) states.
    pub cumulative: u64,
    /// It was there before.
    pub existed: bool,
}

/// Why content cannot be taken: it cannot be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The source cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// The source.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The content is another than expected.
    #[error("content has digest sha256:{}, expected sha256:{}", hex(.got), hex(.expected))]
    Digest {
        /// The digest expected.
        expected: [u8; 32],
        /// The digest found.
        got: [u8; 32],
    },
    /// The content is shorter or longer than expected. Longer content is not read past the first byte too many.
    #[error("content has {got} bytes or more, expected {expected}")]
    Size {
        /// The size expected, in bytes.
        expected: u64,
        /// Bytes read.
        got: u64,
    },
}

impl Content {
    /// Opens it; says what it is, for messages. Blocks.
    pub(crate) fn open(self) -> Result<(Box<dyn Read + Send>, String), ContentError> {
        Ok(match self {
            Self::File(path) => {
                let what = format!("`{}`", path.display());
                match File::open(&path) {
                    Ok(file) => (Box::new(file), what),
                    Err(source) => return Err(ContentError::Read { what, source }),
                }
            }
            Self::Bytes(bytes) => (Box::new(io::Cursor::new(bytes)), "bytes in memory".to_owned()),
            Self::Reader(reader) => (reader, "the source".to_owned()),
        })
    }
}

/// How much of a source is read: one byte past the expected size is enough to know that it is wrong.
pub(crate) fn limit(expected: Option<Expected>) -> u64 {
    expected.map_or(u64::MAX, |expected| expected.size.saturating_add(1))
}

/// Whether content is what was expected.
pub(crate) fn check(expected: Option<Expected>, hashed: &Hashed) -> Result<(), ContentError> {
    match expected {
        Some(Expected { size: expected, .. }) if hashed.size != expected => {
            Err(ContentError::Size { expected, got: hashed.size })
        }
        Some(Expected { digest: expected, .. }) if hashed.digest != expected => {
            Err(ContentError::Digest { expected, got: hashed.digest })
        }
        _ => Ok(()),
    }
}

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The content cannot be read, or is another than expected.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A directory entry cannot be written.
    #[error(transparent)]
    Directory(#[from] dag::DirectoryError),
    /// The repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller, or the node's shutdown, ended it; nothing is kept.
    #[error("adding a file was stopped")]
    Stopped,
}

/// Stops a read when its caller went away.
struct Stoppable<'a> {
    inner: &'a mut dyn Read,
    stop: &'a CancellationToken,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("stopped"));
        }
        self.inner.read(buffer)
    }
}

/// Takes one file in; blocking. Durable after the store's next commit.
pub(crate) fn add(
    store: &Store,
    content: Content,
    expected: Option<Expected>,
    stop: &CancellationToken,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Added, AddError> {
    if let Some(expected) = expected
        && let Some((info, tree)) = present(store, &expected)?
    {
        progress(info.size);
        return Ok(added(&info, &tree, true));
    }
    let (mut source, what) = content.open()?;
    let staged = store.stage()?;
    let mut limited = Stoppable { inner: &mut source, stop }.take(limit(expected));
    let mut failed = None;
    let mut sink = |offset: u64, bytes: &[u8]| {
        staged.write_at(offset, bytes).map_err(|error| {
            failed = Some(error);
            io::Error::other("the store failed")
        })
    };
    let hashed = dag::ingest(&mut limited, &mut sink, threads(), progress);
    let hashed = match hashed {
        Ok(hashed) => hashed,
        Err(_) if stop.is_cancelled() => return Err(AddError::Stopped),
        Err(source) => {
            return Err(failed.map_or_else(|| ContentError::Read { what, source }.into(), AddError::Store));
        }
    };
    check(expected, &hashed)?;
    let tree = dag::balanced(&hashed.leaves);
    let existed = store.file(&tree.root).is_some();
    let info = staged.finish(&hashed, &tree)?;
    Ok(added(&info, &tree, existed))
}

fn added(info: &FileInfo, tree: &Tree, existed: bool) -> Added {
    Added { cid: tree.root, digest: info.digest, size: info.size, cumulative: tree.cumulative, existed }
}

/// The file with this digest and our own DAG over it, if both are here.
///
/// A file that was pulled may have been cut otherwise by whoever pushed it: then its bytes are here, and the DAG is
/// made anew over them.
fn present(store: &Store, expected: &Expected) -> Result<Option<(FileInfo, Tree)>, AddError> {
    let twins = store.file_by_digest(&expected.digest);
    let Some(any) = twins.first().cloned() else { return Ok(None) };
    if any.size != expected.size {
        return Err(ContentError::Size { expected: expected.size, got: any.size }.into());
    }
    if expected.size <= CHUNK_BYTES as u64 {
        let leaf = Leaf { cid: cid_from_sha256(CODEC_RAW, &expected.digest), size: expected.size };
        let tree = dag::balanced(&[leaf]);
        if let Some(info) = twins.iter().find(|info| info.cid == tree.root) {
            return Ok(Some((info.clone(), tree)));
        }
    }
    for info in &twins {
        if let Some(tree) = our_tree(store, info)? {
            return Ok(Some((info.clone(), tree)));
        }
    }
    let hashed = File::open(&any.path).and_then(|file| dag::hash_file(&file, threads()));
    // A file that cannot be read, or is no longer what it was, is taken in again.
    let Some(hashed) = hashed.ok().filter(|hashed| hashed.digest == expected.digest) else { return Ok(None) };
    let tree = dag::balanced(&hashed.leaves);
    let info = store.index_file(&hashed, &tree)?;
    Ok(Some((info, tree)))
}

/// The DAG of a stored file, if it is the one that this node would make of the file.
fn our_tree(store: &Store, info: &FileInfo) -> Result<Option<Tree>, StoreError> {
    let (mut leaves, mut stack) =
        (Vec::new(), vec![(info.cid, dag::At { offset: 0, size: Some(info.size), depth: 0 })]);
    while let Some((cid, at)) = stack.pop() {
        if cid.codec() == CODEC_RAW {
            leaves.push(Leaf { cid, size: at.size.unwrap_or(0) });
            continue;
        }
        let Some(block) = store.get(&cid)?.and_then(|bytes| Block::verify(cid, bytes).ok()) else {
            return Ok(None);
        };
        let Ok(parts) = dag::expand(&block, &at) else { return Ok(None) };
        for part in parts.into_iter().rev() {
            match part {
                Part::Child { cid, offset, size, depth } => stack.push((cid, dag::At { offset, size, depth })),
                Part::Data { .. } => return Ok(None),
            }
        }
    }
    let ours = leaves.iter().rev().skip(1).all(|leaf| leaf.size == CHUNK_BYTES as u64);
    let tree = dag::balanced(&leaves);
    Ok((ours && tree.root == info.cid).then_some(tree))
}
