//! A file as an ordered stream of its bytes, of all of them or of a range.
//!
//! Imports `block`, `walk` and `source`. It never fetches a node whose bytes nobody wants, never hands on a byte that
//! was not hashed, and spawns nothing: blocks are fetched while the stream is polled, up to [`WINDOW_BYTES`] ahead of
//! the reader, and dropping the stream gives all of them up.
//!
//! The file is a queue of slots in its own order. A slot is bytes, a block on its way, or parts nobody asked for yet;
//! blocks that turn out to be inner nodes are replaced by their parts where they stand.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt as _, unfold};

use crate::block::{Block, Cid, MAX_BLOCK_BYTES};
use crate::dag::source::{BlockSource, LoadError, load};
use crate::dag::walk::{At, Part, WalkError, expand};

/// Bytes that may be on their way or wait for the reader: 32 chunks of 256 KiB, which keeps a peer that answers in
/// 10 ms busy at 800 MB/s. A node is counted with what it must cover, at most a whole block.
const WINDOW_BYTES: u64 = 8 << 20;
/// Blocks that may be on their way or wait, however small they claim to be: 64 MiB when all of them lie.
const WINDOW_BLOCKS: usize = 32;
/// Parts up to which inner nodes that are not next in line are laid out; past it they wait as the block they are.
const PARTS_AHEAD: usize = 32_768;
/// Parts that may wait (136 bytes each). Five levels of the widest nodes there are; honest files, 174 to 8192 wide,
/// stay below by far.
const MAX_PARTS: usize = 262_144;

/// Streams the bytes of the file `root` that lie in `range`, in order and without gaps.
///
/// A range that goes past the end stops there. `size` is what the file must have, when somebody knows.
/// The stream ends after its first error. Dropping it is safe at any time.
pub fn read_file(
    source: Arc<dyn BlockSource>,
    root: Cid,
    range: Range<u64>,
    size: Option<u64>,
) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
    unfold(Reader::new(source, root, range, size), |mut reader| async move {
        let item = reader.next().await.transpose()?;
        if item.is_err() {
            reader.slots.clear();
            reader.fetches.clear();
        }
        Some((item, reader))
    })
}

struct Reader {
    source: Arc<dyn BlockSource>,
    range: Range<u64>,
    slots: VecDeque<Slot>,
    fetches: FuturesUnordered<BoxFuture<'static, (u64, Result<Block, LoadError>)>>,
    /// The number of the next fetch.
    number: u64,
    /// Parts in the slots that nobody asked for yet.
    parts: usize,
}

enum Slot {
    Data(Bytes),
    Parts(VecDeque<Part>),
    Fetch { number: u64, at: At },
    Block { block: Block, at: At },
    Failed(LoadError),
}

impl Slot {
    /// Its share of the window in bytes.
    fn cost(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Fetch { at, .. } => at.size.unwrap_or(u64::MAX).min(MAX_BLOCK_BYTES as u64),
            Self::Block { block, .. } => block.data().len() as u64,
            Self::Parts(_) | Self::Failed(_) => 0,
        }
    }
}

impl Reader {
    fn new(source: Arc<dyn BlockSource>, root: Cid, range: Range<u64>, size: Option<u64>) -> Self {
        let mut reader =
            Self { source, range, slots: VecDeque::new(), fetches: FuturesUnordered::new(), number: 0, parts: 0 };
        let parts: VecDeque<Part> =
            reader.clip(Part::Child { cid: root, offset: 0, size, depth: 0 }).into_iter().collect();
        reader.parts = parts.len();
        reader.slots.push_back(Slot::Parts(parts));
        reader
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            self.lay_out_first()?;
            self.ask_ahead();
            // Starts what was just asked for, and takes in what has come, before the reader is kept waiting for it.
            while let Some(Some(done)) = self.fetches.next().now_or_never() {
                self.take_in(done);
            }
            match self.slots.pop_front() {
                None => return Ok(None),
                Some(Slot::Data(bytes)) => return Ok(Some(bytes)),
                Some(Slot::Failed(error)) => return Err(error.into()),
                Some(slot @ Slot::Fetch { .. }) => {
                    self.slots.push_front(slot);
                    if let Some(done) = self.fetches.next().await {
                        self.take_in(done);
                    }
                }
                Some(slot) => self.slots.push_front(slot),
            }
        }
    }

    /// Makes the first slot anything but an inner node or an empty list of parts.
    fn lay_out_first(&mut self) -> Result<(), ReadError> {
        loop {
            match self.slots.pop_front() {
                Some(Slot::Block { block, at }) => {
                    for slot in self.lay_out(&block, &at)?.into_iter().rev() {
                        self.slots.push_front(slot);
                    }
                }
                Some(Slot::Parts(parts)) if parts.is_empty() => {}
                Some(slot) => {
                    self.slots.push_front(slot);
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    /// Turns a node into the slots that stand for it: its own bytes, then the rest of its parts.
    fn lay_out(&mut self, block: &Block, at: &At) -> Result<Vec<Slot>, ReadError> {
        let mut parts: VecDeque<Part> = expand(block, at)?.into_iter().filter_map(|part| self.clip(part)).collect();
        let mut slots = Vec::with_capacity(2);
        if let Some(Part::Data { .. }) = parts.front()
            && let Some(Part::Data { bytes, .. }) = parts.pop_front()
        {
            // A few bytes must not keep a large node in memory.
            let small = bytes.len() < block.data().len() / 2;
            slots.push(Slot::Data(if small { Bytes::copy_from_slice(&bytes) } else { bytes }));
        }
        self.parts += parts.len();
        if self.parts > MAX_PARTS {
            return Err(ReadError::TooWide { cid: *block.cid() });
        }
        slots.push(Slot::Parts(parts));
        Ok(slots)
    }

    /// Asks for the blocks that come next until the window is full.
    fn ask_ahead(&mut self) {
        let mut cost: u64 = self.slots.iter().map(Slot::cost).sum();
        let mut blocks = self.slots.iter().filter(|slot| !matches!(slot, Slot::Parts(_))).count();
        let mut index = 0;
        while index < self.slots.len() && blocks < WINDOW_BLOCKS && (cost < WINDOW_BYTES || blocks == 0) {
            let Slot::Parts(parts) = &mut self.slots[index] else {
                index += 1;
                continue;
            };
            let slot = match parts.pop_front() {
                None => {
                    self.slots.remove(index);
                    continue;
                }
                Some(Part::Data { bytes, .. }) => Slot::Data(bytes),
                Some(Part::Child { cid, offset, size, depth }) => {
                    let (source, number) = (self.source.clone(), self.number);
                    self.number += 1;
                    self.fetches.push(async move { (number, load(&*source, &cid).await) }.boxed());
                    Slot::Fetch { number, at: At { offset, size, depth } }
                }
            };
            self.parts -= 1;
            cost += slot.cost();
            blocks += 1;
            self.slots.insert(index, slot);
            index += 1;
        }
    }

    /// Puts a block where it was waited for; an inner node is laid out at once unless too much waits already.
    fn take_in(&mut self, (done, result): (u64, Result<Block, LoadError>)) {
        let waiting = |slot: &Slot| matches!(slot, Slot::Fetch { number, .. } if *number == done);
        let Some(index) = self.slots.iter().position(waiting) else { return };
        let Slot::Fetch { at, .. } = self.slots[index] else { return };
        self.slots[index] = match result {
            Ok(block) => Slot::Block { block, at },
            Err(error) => Slot::Failed(error),
        };
        if let Slot::Block { block, .. } = &self.slots[index]
            && self.parts < PARTS_AHEAD
        {
            let block = block.clone();
            // What does not fit its place is an error when its turn comes, not before.
            if let Ok(slots) = self.lay_out(&block, &at) {
                self.slots.remove(index);
                for slot in slots.into_iter().rev() {
                    self.slots.insert(index, slot);
                }
            }
        }
    }

    /// What of a part lies in the range.
    fn clip(&self, part: Part) -> Option<Part> {
        match part {
            Part::Child { offset, size, .. } => {
                let end = size.map_or(u64::MAX, |size| offset.saturating_add(size));
                (offset.max(self.range.start) < end.min(self.range.end)).then_some(part)
            }
            Part::Data { offset, bytes } => {
                let length = bytes.len() as u64;
                let start = self.range.start.saturating_sub(offset).min(length);
                let end = self.range.end.saturating_sub(offset).min(length);
                (start < end)
                    .then(|| Part::Data { offset: offset + start, bytes: bytes.slice(start as usize..end as usize) })
            }
        }
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A block is not to be had.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A node is no part of a file, or does not fit its place in it.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Nodes so wide, on so many levels, that no file looks like it.
    #[error("the nodes above `{cid}` have more than {MAX_PARTS} links, no file is that wide")]
    TooWide {
        /// The node that was too much.
        cid: Cid,
    },
}

#[cfg(test)]
mod tests;
