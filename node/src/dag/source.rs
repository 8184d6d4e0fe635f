//! Where the blocks of a DAG come from while it is read.
//!
//! Imports `block`. [`load`] is the only way the readers of this module get a block: a CID that nobody can check is
//! refused before anybody is asked, and one that holds its own bytes is not asked for.

use async_trait::async_trait;

use crate::block::{Block, Cid, CidError, check_cid};

/// Gives out blocks by their CID: a store, a node that fetches what it lacks, a map in a test.
#[async_trait]
pub trait BlockSource: Send + Sync {
    /// The block of exactly this CID. Dropping the future gives up on the block and nothing else.
    ///
    /// # Errors
    /// Whatever keeps the source from having it; a source that waits for peers gives up by its own deadline.
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError>;
}

/// What a [`BlockSource`] failed with.
pub type BlockSourceError = Box<dyn std::error::Error + Send + Sync>;

/// Gets a block from `source`, or out of the CID itself.
pub(super) async fn load(source: &dyn BlockSource, cid: &Cid) -> Result<Block, LoadError> {
    check_cid(cid).map_err(|source| LoadError::Refused { cid: *cid, source })?;
    if let Ok(Some(block)) = Block::inline(cid) {
        return Ok(block);
    }
    match source.block(cid).await {
        Ok(block) if block.cid() == cid => Ok(block),
        Ok(_) => Err(LoadError::Another { cid: *cid }),
        Err(source) => Err(LoadError::Source { cid: *cid, source }),
    }
}

/// Why a block is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The CID names bytes in a way that cannot be checked.
    #[error("cannot read block `{cid}`")]
    Refused {
        /// The block.
        cid: Cid,
        /// What is wrong with its CID.
        source: CidError,
    },
    /// The source does not have it.
    #[error("cannot get block `{cid}`")]
    Source {
        /// The block.
        cid: Cid,
        /// Why not.
        source: BlockSourceError,
    },
    /// A bug of the source: it gave another block.
    #[error("another block was given for `{cid}`")]
    Another {
        /// The block.
        cid: Cid,
    },
}
