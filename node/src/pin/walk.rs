//! Walking the DAGs that are kept.
//!
//! Imports the store and `dag::links`. It never fetches, and never holds more of a DAG than 16 bytes a block.

use crate::block::{Block, CODEC_DAG_PB, CODEC_RAW, Cid};
use crate::dag;
use crate::store::guard::read;
use crate::store::index::hash_bytes;
use crate::store::{Inner, StoreError};
use std::collections::HashSet;

/// The last 16 bytes of a multihash, all of which are digest. Two blocks that share them would be *kept* for each other's
/// sake; nothing is ever freed for it.
pub(crate) fn short(hash: &[u8]) -> u128 {
    let tail = &hash[hash.len().saturating_sub(16)..];
    tail.iter().fold(0, |short, byte| short << 8 | u128::from(*byte))
}

/// What is needed of a DAG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// As much as is there.
    Any,
    /// The root and every node, so that all of its CIDs are known.
    Nodes,
    /// Every block. Leaves of a linked file are there with it and are not looked up one by one.
    Whole,
}

/// What the walked DAGs consist of.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Every block that was walked.
    blocks: HashSet<u128>,
    /// Blocks that are kept without being walked: what they link to is not for that reason.
    fresh: HashSet<u128>,
    /// Those that may be a file of their own: not parts of a larger file.
    files: HashSet<u128>,
    /// Whether a node was missing where it was allowed to be.
    pub(crate) holes: bool,
}

#[derive(Clone, Copy)]
struct Step {
    cid: Cid,
    /// Not a part of a larger file.
    file: bool,
    /// A part of a file that is linked.
    linked: bool,
}

impl Live {
    pub(crate) fn has_block(&self, hash: &[u8]) -> bool {
        self.blocks.contains(&short(hash)) || self.fresh.contains(&short(hash))
    }

    pub(crate) fn has_file(&self, cid: &Cid) -> bool {
        self.files.contains(&short(&hash_bytes(cid.hash())))
    }

    pub(crate) fn add_fresh(&mut self, blocks: &HashSet<u128>) {
        self.fresh.extend(blocks);
    }

    /// Adds the DAG below `root`. Bounded by the store: every step but the last on a path is a block that is there, and
    /// none is taken twice.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] and [`StoreError::Undecodable`] when `need` is not met.
    pub(crate) fn walk(&mut self, inner: &Inner, root: &Cid, need: Need) -> Result<(), StoreError> {
        let mut stack = vec![Step { cid: *root, file: true, linked: false }];
        while let Some(step) = stack.pop() {
            let cid = step.cid;
            let hash = hash_bytes(cid.hash());
            let linked = step.linked || (step.file && read(&inner.facts).by_cid(&cid).is_some());
            if step.file {
                self.files.insert(short(&hash));
            }
            if self.blocks.contains(&short(&hash)) {
                continue;
            }
            if cid.codec() == CODEC_RAW {
                let needed = need == Need::Whole || (need == Need::Nodes && cid == *root);
                if needed && !linked && !inner.has_committed(&cid)? {
                    return Err(missing(root, cid));
                }
                self.blocks.insert(short(&hash));
                continue;
            }
            match expand(inner, root, cid)? {
                Ok((links, directory)) => {
                    self.blocks.insert(short(&hash));
                    stack.extend(links.into_iter().map(|cid| Step {
                        cid,
                        file: directory,
                        linked: linked && !directory,
                    }));
                }
                Err(error) if need == Need::Any => {
                    self.holes = true;
                    if matches!(error, StoreError::Undecodable { .. }) {
                        // It is there, wherever it leads.
                        self.blocks.insert(short(&hash));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The links of a node, and whether they lead to things of their own rather than to parts of one file. What is wrong with
/// the DAG is the inner error; the outer one is the disk's.
fn expand(inner: &Inner, root: &Cid, cid: Cid) -> Result<Result<(Vec<Cid>, bool), StoreError>, StoreError> {
    let Ok(inline) = Block::inline(&cid) else { return Ok(Err(undecodable(root, cid))) };
    let block = match inline {
        Some(block) => Some(block),
        None => inner.read_committed_block(&hash_bytes(cid.hash()))?.and_then(|bytes| Block::verify(cid, bytes).ok()),
    };
    let Some(block) = block else { return Ok(Err(missing(root, cid))) };
    Ok(dag::links(&block).map(|links| (links, is_directory(&block))).map_err(|_| undecodable(root, cid)))
}

fn missing(root: &Cid, cid: Cid) -> StoreError {
    StoreError::Incomplete { root: Box::new(*root), missing: Box::new(cid) }
}

fn undecodable(root: &Cid, cid: Cid) -> StoreError {
    StoreError::Undecodable { root: Box::new(*root), block: Box::new(cid) }
}

/// Whether the links of a node lead to things of their own, rather than to parts of one file.
fn is_directory(block: &Block) -> bool {
    if block.cid().codec() != CODEC_DAG_PB {
        return true;
    }
    let kind = dag::decode_node(block.data()).and_then(|node| dag::decode_unixfs(&node.data)).map(|unixfs| unixfs.kind);
    !matches!(kind, Ok(dag::Kind::File | dag::Kind::Raw))
}
