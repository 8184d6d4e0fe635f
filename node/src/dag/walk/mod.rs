//! What one node of a DAG says: the parts of a file, or plain links.
//!
//! Imports `block` and `codec`. One call reads one node, whoever walks decides what to fetch next, so nothing here
//! recurses. The size that a descriptor or a parent states is the budget: a node that wants to be larger or smaller is
//! refused before anything below it is fetched, so that a walk of a file visits at most as many leaves as the file has
//! bytes and goes at most [`MAX_DEPTH`] deep. `Tsize` and `filesize` are never looked at.

use bytes::Bytes;

use crate::block::{Block, CODEC_DAG_PB, CODEC_RAW, Cid};
use crate::dag::MAX_DEPTH;
use crate::dag::codec::{CodecError, Kind, decode_node, decode_unixfs};

/// A piece of a file, as one of its nodes lays it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes that another node holds.
    Child {
        /// The node.
        cid: Cid,
        /// Where its first byte lies in the file.
        offset: u64,
        /// Its bytes, at least one; hand it to [`expand`] as the child's budget.
        size: Option<u64>,
        /// Its distance from the root.
        depth: usize,
    },
    /// Bytes that lie in the node itself.
    Data {
        /// Where they lie in the file.
        offset: u64,
        /// The bytes; they share the block's memory.
        bytes: Bytes,
    },
}

/// Where in a file a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Where its first byte lies in the file.
    pub offset: u64,
    /// Bytes that it must have, as its parent or the descriptor says; `None` takes what it has.
    pub size: Option<u64>,
    /// Its distance from the root.
    pub depth: usize,
}

impl At {
    /// The root of a file, of which `size` bytes are expected.
    pub fn root(size: Option<u64>) -> Self {
        Self { offset: 0, size, depth: 0 }
    }
}

/// Lays out one node of a file: the bytes in it, then its children in the order of the file, without gap or overlap.
///
/// # Errors
/// [`WalkError`] when the node is no part of a file, is too deep, or does not fit the size it must have.
pub fn expand(block: &Block, at: &At) -> Result<Vec<Part>, WalkError> {
    let cid = *block.cid();
    if at.depth > MAX_DEPTH {
        return Err(WalkError::TooDeep { cid });
    }
    if cid.codec() == CODEC_RAW {
        budget(cid, at, block.data().len() as u64)?;
        return Ok(vec![Part::Data { offset: at.offset, bytes: block.data().clone() }]);
    }
    if cid.codec() != CODEC_DAG_PB {
        return Err(WalkError::UnknownCodec { cid, codec: cid.codec() });
    }
    let node = decode_node(block.data()).map_err(|source| malformed(cid, source))?;
    let unixfs = decode_unixfs(&node.data).map_err(|source| malformed(cid, source))?;
    match unixfs.kind {
        Kind::File | Kind::Raw => {}
        Kind::Directory | Kind::HamtShard => return Err(WalkError::Directory { cid }),
        kind @ (Kind::Metadata | Kind::Symlink) => return Err(WalkError::NotAFile { cid, kind }),
    }
    if node.links.len() != unixfs.block_sizes.len() {
        return Err(WalkError::BlockSizes { cid, links: node.links.len(), sizes: unixfs.block_sizes.len() });
    }
    let total = unixfs
        .block_sizes
        .iter()
        .try_fold(unixfs.data.len() as u64, |sum, size| sum.checked_add(*size))
        .ok_or(WalkError::Overflow { cid })?;
    budget(cid, at, total)?;

    let mut parts = Vec::with_capacity(node.links.len() + 1);
    let mut offset = at.offset;
    if !unixfs.data.is_empty() {
        offset += unixfs.data.len() as u64;
        parts.push(Part::Data { offset: at.offset, bytes: unixfs.data });
    }
    for (link, size) in node.links.iter().zip(unixfs.block_sizes) {
        if size == 0 {
            return Err(WalkError::EmptyChild { cid });
        }
        parts.push(Part::Child { cid: link.cid, offset, size: Some(size), depth: at.depth + 1 });
        offset += size;
    }
    Ok(parts)
}

fn malformed(cid: Cid, source: CodecError) -> WalkError {
    WalkError::Malformed { cid, source: Box::new(source) }
}

/// Checks a node's `total` against what it must be, and that the file does not pass what 64 bits hold.
fn budget(cid: Cid, at: &At, total: u64) -> Result<(), WalkError> {
    at.offset.checked_add(total).ok_or(WalkError::Overflow { cid })?;
    match at.size {
        Some(expected) if expected != total => Err(WalkError::Size { cid, expected, found: total }),
        _ => Ok(()),
    }
}

/// Every link of a node, whatever it is: a file, a directory or plain dag-pb. A raw block has none.
///
/// # Errors
/// [`WalkError::Malformed`] and [`WalkError::UnknownCodec`].
pub fn links(block: &Block) -> Result<Vec<Cid>, WalkError> {
    let cid = *block.cid();
    match cid.codec() {
        CODEC_RAW => Ok(Vec::new()),
        CODEC_DAG_PB => {
            let node = decode_node(block.data()).map_err(|source| malformed(cid, source))?;
            Ok(node.links.into_iter().map(|link| link.cid).collect())
        }
        codec => Err(WalkError::UnknownCodec { cid, codec }),
    }
}

/// Why a node cannot be walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Neither raw nor dag-pb.
    #[error("block `{cid}` has codec 0x{codec:x}, only raw and dag-pb are read")]
    UnknownCodec {
        /// The block.
        cid: Cid,
        /// Its multicodec.
        codec: u64,
    },
    /// The bytes are no node.
    #[error("block `{cid}` is no UnixFS node")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong with them.
        source: Box<CodecError>,
    },
    /// A directory where a file was expected.
    #[error("`{cid}` is a directory, not a file")]
    Directory {
        /// The block.
        cid: Cid,
    },
    /// A symbolic link or metadata where a file was expected.
    #[error("`{cid}` is of kind {kind:?}, not a file")]
    NotAFile {
        /// The block.
        cid: Cid,
        /// What it is.
        kind: Kind,
    },
    /// A node does not say how much of the file lies below each link.
    #[error("file node `{cid}` has {links} links and states {sizes} sizes")]
    BlockSizes {
        /// The block.
        cid: Cid,
        /// Its links.
        links: usize,
        /// The sizes it states.
        sizes: usize,
    },
    /// A node is larger or smaller than its parent or the descriptor says.
    #[error("file node `{cid}` covers {found} bytes, {expected} are expected")]
    Size {
        /// The block.
        cid: Cid,
        /// Bytes that it must cover.
        expected: u64,
        /// Bytes that it covers.
        found: u64,
    },
    /// Sizes add up to more than 64 bits hold.
    #[error("file node `{cid}` states sizes that no file can have")]
    Overflow {
        /// The block.
        cid: Cid,
    },
    /// A child without a byte: no writer makes one, and endless many of them would fit any budget.
    #[error("file node `{cid}` has a link that stands for no bytes")]
    EmptyChild {
        /// The block.
        cid: Cid,
    },
    /// The DAG is deeper than any file needs.
    #[error("file node `{cid}` lies more than {MAX_DEPTH} levels below the root")]
    TooDeep {
        /// The block.
        cid: Cid,
    },
}

#[cfg(test)]
mod tests;
