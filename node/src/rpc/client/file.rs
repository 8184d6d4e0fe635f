//! A file of the daemon's, every byte of it checked against its CID as it arrives.
//!
//! Imports `block`, `dag` and its siblings. The nodes of the file come one by one (`block/get`), since they say how the
//! leaves are to be cut and hashed; the bytes of raw leaves come in one stream (`cat`). So any shape of DAG is read, one
//! request does for most of the bytes, and a daemon can withhold but not falsify.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Kubo, RpcError, blocks::BlockGetError, cat::Cat};
use crate::{
    block::{Block, BlockError, CODEC_RAW, Cid, MAX_BLOCK_BYTES, check_cid},
    dag::{self, At, Part, WalkError},
};

/// Nodes and leaves that any file may have, and bytes that each further one must stand for on average: as for files that
/// come from peers.
const PARTS_OF_ANY_SIZE: u64 = 4096;
const MIN_AVERAGE_BYTES: u64 = 4096;

/// Something of a file, in order.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A node; it stands before what it links to, and has no bytes of the file that are not told by themselves.
    Node(Block),
    /// A raw block of the file.
    Leaf {
        /// Where it lies in the file.
        offset: u64,
        /// Its bytes.
        block: Block,
    },
    /// Bytes that lie in a node.
    Inline {
        /// Where they lie in the file.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
}

/// Whether the caller has a leaf already: told its CID, its place and its length.
pub type AtHand<'a> = &'a (dyn Fn(&Cid, u64, usize) -> Option<Block> + Send + Sync);

/// A file while it arrives.
pub struct FileReader {
    kubo: Kubo,
    cid: Cid,
    size: u64,
    parts: u64,
    ready: VecDeque<Piece>,
    /// What comes next, the first on top.
    stack: Vec<(Cid, At)>,
    cat: Option<Cat>,
    held: BytesMut,
}

impl Kubo {
    /// Begins to read a file of `expected` bytes; without that, of `limit` bytes at most.
    ///
    /// # Errors
    /// [`FileError`], before more than its root is read.
    pub async fn file(&self, cid: &Cid, expected: Option<u64>, limit: u64) -> Result<FileReader, FileError> {
        check_cid(cid).map_err(|error| FileError::Block { cid: *cid, source: error.into() })?;
        let mut reader = FileReader {
            kubo: self.clone(),
            cid: *cid,
            size: 0,
            parts: 0,
            ready: VecDeque::new(),
            stack: Vec::new(),
            cat: None,
            held: BytesMut::new(),
        };
        let inline = Block::inline(cid).map_err(|error| FileError::Block { cid: *cid, source: error.into() })?;
        let root = match inline {
            Some(block) => block,
            None if cid.codec() == CODEC_RAW => reader.raw_root(expected, limit).await?,
            None => reader.block(cid).await?,
        };
        let at = At::root(expected);
        let parts = dag::expand(&root, &at).map_err(|source| FileError::Dag { cid: *cid, source })?;
        reader.size = size_of(&parts);
        if expected.is_none() && reader.size > limit {
            return Err(FileError::TooLong { cid: *cid, limit });
        }
        reader.lay(&root, parts)?;
        Ok(reader)
    }
}

impl FileReader {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece of the file, in order; `None` at its end.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn next(&mut self, at_hand: AtHand<'_>) -> Result<Option<Piece>, FileError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            let Some((cid, at)) = self.stack.pop() else { return Ok(None) };
            let raw = (cid.codec() == CODEC_RAW).then(|| at.size.and_then(|size| usize::try_from(size).ok())).flatten();
            if let Some(length) = raw {
                let known = Block::inline(&cid).ok().flatten().or_else(|| at_hand(&cid, at.offset, length));
                let block = match known {
                    Some(block) if block.data().len() == length => block,
                    _ => self.leaf(&cid, at.offset, length).await?,
                };
                return Ok(Some(Piece::Leaf { offset: at.offset, block }));
            }
            let block = self.block(&cid).await?;
            let parts = dag::expand(&block, &at).map_err(|source| FileError::Dag { cid: self.cid, source })?;
            self.lay(&block, parts)?;
        }
    }

    /// Queues what a node says.
    fn lay(&mut self, block: &Block, parts: Vec<Part>) -> Result<(), FileError> {
        let is_raw = block.cid().codec() == CODEC_RAW;
        if !is_raw {
            self.ready.push_back(Piece::Node(block.clone()));
        }
        self.parts += parts.len() as u64;
        let limit = PARTS_OF_ANY_SIZE + self.size / MIN_AVERAGE_BYTES;
        if self.parts > limit {
            return Err(FileError::TooFine { cid: self.cid, limit });
        }
        let first = self.stack.len();
        for part in parts {
            match part {
                Part::Data { offset, .. } if is_raw => {
                    self.ready.push_back(Piece::Leaf { offset, block: block.clone() });
                }
                Part::Data { offset, bytes } => self.ready.push_back(Piece::Inline { offset, bytes }),
                Part::Child { cid, offset, size, depth } => self.stack.push((cid, At { offset, size, depth })),
            }
        }
        self.stack[first..].reverse();
        Ok(())
    }

    /// A file that is one raw block: its own bytes, which need no second command.
    async fn raw_root(&mut self, expected: Option<u64>, limit: u64) -> Result<Block, FileError> {
        // One byte more than it may have is enough to know that it is longer.
        let most = expected.unwrap_or(limit).min(MAX_BLOCK_BYTES as u64);
        let mut cat = Cat::new(&self.kubo, &self.cid, 0, most + 1);
        let mut body = Vec::new();
        while let Some(bytes) = cat.next().await? {
            body.extend_from_slice(&bytes);
        }
        let found = body.len() as u64;
        match expected {
            Some(expected) if found != expected => {
                return Err(FileError::Dag {
                    cid: self.cid,
                    source: WalkError::Size { cid: self.cid, expected, found },
                });
            }
            None if found > limit => return Err(FileError::TooLong { cid: self.cid, limit }),
            _ => {}
        }
        Block::verify(self.cid, body.into()).map_err(|source| FileError::Block { cid: self.cid, source })
    }

    async fn block(&self, cid: &Cid) -> Result<Block, FileError> {
        self.kubo.block(cid).await.map_err(|error| match error {
            BlockGetError::Rpc(error) => FileError::Rpc(error),
            BlockGetError::Block(source) => FileError::Block { cid: *cid, source },
        })
    }

    /// A leaf out of the stream of the file's bytes.
    async fn leaf(&mut self, cid: &Cid, offset: u64, length: usize) -> Result<Block, FileError> {
        let too_large = || BlockError::TooLarge { cid: *cid, size: length };
        if length > MAX_BLOCK_BYTES {
            return Err(FileError::Block { cid: *cid, source: too_large() });
        }
        // What was at hand leaves a gap in the stream.
        let position = self.cat.as_ref().map(|cat| cat.offset() - self.held.len() as u64);
        if position != Some(offset) {
            self.held.clear();
            self.cat = Some(Cat::new(&self.kubo, &self.cid, offset, self.size));
        }
        let cat = self.cat.as_mut().expect("it was just opened");
        while self.held.len() < length {
            match cat.next().await? {
                Some(bytes) => self.held.extend_from_slice(&bytes),
                None => {
                    let (expected, got) = (self.size, cat.offset());
                    return Err(RpcError::Length { command: "cat", expected, got }.into());
                }
            }
        }
        if offset + length as u64 == self.size && self.held.len() == length {
            // The last one: whether the daemon ended well is in what follows.
            if let Some(more) = cat.next().await? {
                let (expected, got) = (self.size, self.size + more.len() as u64);
                return Err(RpcError::Length { command: "cat", expected, got }.into());
            }
        }
        let bytes = self.held.split_to(length).freeze();
        Block::verify(*cid, bytes).map_err(|source| FileError::Block { cid: *cid, source })
    }
}

/// Bytes of a file, by its root; the walk has added them up without an overflow.
fn size_of(parts: &[Part]) -> u64 {
    let end = |part: &Part| match part {
        Part::Data { offset, bytes } => offset + bytes.len() as u64,
        Part::Child { offset, size, .. } => offset + size.unwrap_or(0),
    };
    parts.iter().map(end).max().unwrap_or(0)
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The daemon did not give it.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It gave other bytes.
    #[error("the IPFS daemon gave something else for block `{cid}`")]
    Block {
        /// The block.
        cid: Cid,
        /// What is wrong.
        #[source]
        source: BlockError,
    },
    /// It is no file, or not the one that was expected.
    #[error("`{cid}` cannot be read as a file")]
    Dag {
        /// The file.
        cid: Cid,
        /// What is wrong.
        #[source]
        source: WalkError,
    },
    /// It is longer than it may be.
    #[error("file `{cid}` is longer than {limit} bytes")]
    TooLong {
        /// The file.
        cid: Cid,
        /// The limit in bytes.
        limit: u64,
    },
    /// It is cut into more pieces than anybody needs.
    #[error("file `{cid}` has more than {limit} pieces, too many for its size")]
    TooFine {
        /// The file.
        cid: Cid,
        /// The limit.
        limit: u64,
    },
}
