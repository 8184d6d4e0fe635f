//! Packs: blocks that belong to no file, appended one behind the other.
//!
//! ```text
//! packs/<n>     | "shipfs-p" | version u32 = 1 | block | block | ...          integers little-endian
//! block = | "blk1" | cid length u32 | data length u32 | cid | data | crc32 u32 of everything before it |
//! ```
//! The index points at *data*, so that reading a block is one read. Packs are only ever appended to, until they are full;
//! one that is more than half dead is copied into the current pack and removed (no holes are punched: readers would meet
//! zeros). The journal
//! says up to where they are synced: what lies behind is cut off at open where it is torn. Damage before that is bit rot,
//! and costs the damaged blocks only: the scan goes on at the next block that matches its checksum.
//!
//! Imports the `Disk` seam and `block`. It never hashes: the checksum finds accidents, `verify` finds the rest.
#![cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, reason = "the readers are public to be fuzzed")
)]

use super::disk::{Disk, DiskFile, Mode};
use crate::block::{Block, Cid, MAX_BLOCK_BYTES};
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Directory of the packs.
pub(crate) const DIRECTORY: &str = "packs";
/// Bytes before the first block.
pub(crate) const HEADER_BYTES: usize = 12;
/// A pack that has this many bytes gets no more blocks. Small enough to be scanned in memory.
pub(crate) const PACK_BYTES: u64 = 16 << 20;
/// Largest pack that is read, in bytes: a full one and the block that filled it.
pub(crate) const MAX_PACK_BYTES: u64 = PACK_BYTES + MAX_BLOCK_BYTES as u64 + 1024;
/// Longest CID in bytes: version, codec and multihash code as uvarints, and a digest of 64.
const MAX_CID_BYTES: usize = 128;
const BLOCK_HEADER_BYTES: usize = 12;
const MAGIC: &[u8; 8] = b"shipfs-p";
const BLOCK_MAGIC: &[u8; 4] = b"blk1";
const VERSION: u32 = 1;

/// A block in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its CID, not checked against the data.
    pub cid: Cid,
    /// Where its record begins and ends.
    pub record: Range<usize>,
    /// Where its data lies.
    pub data: Range<usize>,
}

/// What a pack holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Every block that matches its checksum, in order.
    pub blocks: Vec<Packed>,
    /// End of the last of them.
    pub valid: usize,
    /// Stretches before that end which hold none.
    pub damaged: Vec<Range<usize>>,
}

/// Finds the blocks of a whole pack, header included. Pure; a bad header counts as damage and hides no block.
pub fn scan(input: &[u8]) -> Scanned {
    let mut scanned = scan_from(input, HEADER_BYTES.min(input.len()));
    if !input.starts_with(&header()) {
        scanned.damaged.insert(0, 0..HEADER_BYTES.min(input.len()));
    }
    scanned
}

/// Finds the blocks from byte `start`, where a block begins.
pub(crate) fn scan_from(input: &[u8], start: usize) -> Scanned {
    let mut scanned = Scanned { valid: start, ..Scanned::default() };
    let mut at = start;
    while at < input.len() {
        // Behind damage nobody knows any more where a block begins: what looks like one may lie inside another, put there
        // by whoever made that. So from there on a checksum is not enough.
        let lost = at > scanned.valid || !scanned.damaged.is_empty();
        if let Some(packed) = block_at(input, at).filter(|packed| !lost || is_what_it_says(input, packed)) {
            if at > scanned.valid {
                scanned.damaged.push(scanned.valid..at);
            }
            at = packed.record.end;
            scanned.valid = at;
            scanned.blocks.push(packed);
        } else {
            at += 1;
            let next = input[at..].windows(BLOCK_MAGIC.len()).position(|window| window == BLOCK_MAGIC);
            at = next.map_or(input.len(), |skip| at + skip);
        }
    }
    scanned
}

/// Finds the blocks of a pack of which so many bytes were promised: what cannot be read of those is damaged, and no torn
/// end.
pub(crate) fn scan_promised(input: &[u8], promised: u64) -> Scanned {
    let mut scanned = scan(input);
    let end = usize::try_from(promised).unwrap_or(usize::MAX);
    if scanned.valid < end {
        scanned.damaged.push(scanned.valid..end);
    }
    scanned
}

fn is_what_it_says(input: &[u8], packed: &Packed) -> bool {
    Block::verify(packed.cid, Bytes::copy_from_slice(&input[packed.data.clone()])).is_ok()
}

fn block_at(input: &[u8], at: usize) -> Option<Packed> {
    let head = input.get(at..at.checked_add(BLOCK_HEADER_BYTES)?)?;
    let length = |from: usize| Some(u32::from_le_bytes(head[from..from + 4].try_into().ok()?) as usize);
    let (cid_bytes, data_bytes) = (length(4)?, length(8)?);
    if !head.starts_with(BLOCK_MAGIC) || cid_bytes > MAX_CID_BYTES || data_bytes > MAX_BLOCK_BYTES {
        return None;
    }
    let data = at + BLOCK_HEADER_BYTES + cid_bytes..at + BLOCK_HEADER_BYTES + cid_bytes + data_bytes;
    let crc = input.get(data.end..data.end + 4)?;
    if crc32fast::hash(&input[at..data.end]).to_le_bytes() != crc {
        return None;
    }
    let cid = Cid::try_from(&input[at + BLOCK_HEADER_BYTES..data.start]).ok()?;
    Some(Packed { cid, record: at..data.end + 4, data })
}

/// Bytes of a record beside its data, for a CIDv1 with a multihash of this length.
pub(crate) fn overhead(hash_bytes: usize) -> u64 {
    (BLOCK_HEADER_BYTES + 2 + hash_bytes + 4) as u64
}

/// The bytes that begin every pack.
pub(crate) fn header() -> Vec<u8> {
    [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat()
}

/// Encodes a block; the data begins at the returned offset.
pub(crate) fn encode_block(block: &Block) -> (Vec<u8>, usize) {
    let (cid, data) = (block.cid().to_bytes(), block.data());
    let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES + cid.len() + data.len() + 4);
    out.extend_from_slice(BLOCK_MAGIC);
    out.extend_from_slice(&u32::try_from(cid.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&cid);
    let offset = out.len();
    out.extend_from_slice(data);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    (out, offset)
}

/// The end of the packs, in the order blocks are appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tail {
    /// Number of the pack; 0 when there is none.
    pub pack: u32,
    /// Bytes of it.
    pub length: u64,
}

/// The pack that is appended to.
#[derive(Debug)]
pub(crate) struct Packs {
    disk: Arc<dyn Disk>,
    file: Option<Arc<dyn DiskFile>>,
    tail: Tail,
    /// Bytes of the current pack that are synced.
    synced: u64,
    /// Bytes at which the current pack gets no more blocks.
    full_at: u64,
}

impl Packs {
    /// Finds where to go on appending, given up to where the packs are known to be synced, and cuts off what is torn.
    pub(crate) fn resume(disk: Arc<dyn Disk>, synced: Tail, full_at: u64) -> io::Result<Self> {
        let numbers = super::open::numbers::<u32>(&disk.list(DIRECTORY)?);
        let mut packs = Self { disk, file: None, tail: synced, synced: 0, full_at };
        // A synced pack that is gone or shorter than it was is never appended to, nor is its number given out again.
        let Some(&pack) = numbers.last().filter(|pack| **pack >= synced.pack) else { return Ok(packs) };
        let bytes = read(&*packs.disk, pack)?;
        let whole =
            if pack == synced.pack { usize::try_from(synced.length).unwrap_or(usize::MAX) } else { HEADER_BYTES };
        packs.tail = Tail { pack, length: bytes.len() as u64 };
        let file = packs.disk.open(&path(pack), Mode::Write)?;
        if bytes.len() < whole && pack == synced.pack {
            return Ok(packs);
        }
        if pack != synced.pack && !bytes.starts_with(&header()) {
            file.set_len(0)?;
            file.write(0, &header())?;
            packs.tail.length = HEADER_BYTES as u64;
        } else {
            let torn = scan_from(&bytes, whole);
            // A whole block behind a torn one may be there, and was never promised.
            let end = torn.damaged.first().map_or(torn.valid, |damaged| damaged.start);
            if end < bytes.len() {
                file.set_len(end as u64)?;
            }
            // Rows for the blocks behind the last commit are written soon. A sync of them may have failed, and what the
            // kernel still shows may not be on the disk: so they are written once more.
            let start = if pack == synced.pack { whole } else { 0 };
            file.write(start as u64, &bytes[start..end])?;
            packs.tail.length = end as u64;
        }
        file.sync()?;
        packs.disk.sync_dir(DIRECTORY)?;
        packs.synced = packs.tail.length;
        packs.file = Some(file);
        Ok(packs)
    }

    /// Where the next block goes.
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    /// Appends a block without syncing it; says where its data lies. After an error nothing has happened.
    pub(crate) fn append(&mut self, block: &Block) -> Result<(u32, u32), PackError> {
        if self.tail.length >= self.full_at || self.file.is_none() {
            self.roll()?;
        }
        let (record, data) = encode_block(block);
        let file = self.file.as_ref().ok_or_else(|| PackError::Write(io::ErrorKind::NotFound.into()))?;
        if let Err(error) = file.write(self.tail.length, &record) {
            let _ = file.set_len(self.tail.length);
            return Err(PackError::Write(error));
        }
        let offset = self.tail.length + data as u64;
        self.tail.length += record.len() as u64;
        Ok((self.tail.pack, u32::try_from(offset).map_err(|_| PackError::Write(io::ErrorKind::FileTooLarge.into()))?))
    }

    /// Begins the next pack, once the full one is synced.
    pub(crate) fn roll(&mut self) -> Result<(), PackError> {
        if let Some(file) = &self.file {
            file.sync().map_err(PackError::Sync)?;
        }
        let pack = self.tail.pack + 1;
        let file = self.disk.open(&path(pack), Mode::Truncate).map_err(PackError::Write)?;
        file.write(0, &header()).map_err(PackError::Write)?;
        self.disk.sync_dir(DIRECTORY).map_err(PackError::Write)?;
        self.file = Some(file);
        self.tail = Tail { pack, length: HEADER_BYTES as u64 };
        self.synced = 0;
        Ok(())
    }

    /// The file to sync so that everything up to [`Self::tail`] is durable, unless it already is.
    pub(crate) fn unsynced(&self) -> Option<Arc<dyn DiskFile>> {
        if self.synced == self.tail.length { None } else { self.file.clone() }
    }

    /// Notes that everything up to `tail` is durable.
    pub(crate) fn note_synced(&mut self, tail: Tail) {
        if tail.pack == self.tail.pack {
            self.synced = self.synced.max(tail.length);
        }
    }
}

/// Why a block was not appended.
#[derive(Debug)]
pub(crate) enum PackError {
    /// Not written; nothing has happened.
    Write(io::Error),
    /// The full pack could not be synced: its last blocks may be lost.
    Sync(io::Error),
}

/// Path of pack `number`.
pub(crate) fn path(number: u32) -> String {
    format!("{DIRECTORY}/{number}")
}

/// Reads a whole pack.
pub(crate) fn read(disk: &dyn Disk, number: u32) -> io::Result<Vec<u8>> {
    let file = disk.open(&path(number), Mode::Read)?;
    let size = file.stat()?.size.min(MAX_PACK_BYTES);
    file.read(0, usize::try_from(size).unwrap_or(usize::MAX))
}
