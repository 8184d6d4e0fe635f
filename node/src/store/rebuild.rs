//! Writing the index again from what it was made of: journal, packs, and the nodes of each linked file.
//!
//! Nothing is hashed: bytes were verified before their fact was written. Imports its siblings and the walking half of
//! `dag`. It never changes a fact.

use super::disk::{Disk, Mode};
use super::facts::Facts;
use super::index::{Index, IndexError, Location, State, hash_bytes};
use super::journal::Decoded;
use super::open::{IndexHome, numbers};
use super::packs::{self, Tail};
use super::record::{Link, Record};
use crate::block::{Block, CODEC_RAW, Cid, MAX_BLOCK_BYTES};
use crate::dag::{self, At, Part};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

/// Links by id.
pub(crate) type Links = HashMap<u32, Arc<Link>>;

/// How far the index is behind.
#[derive(Debug, PartialEq, Eq)]
enum Lag {
    /// It is complete.
    None,
    /// What came after this is missing.
    Some(State),
    /// It tells nothing, or of another history.
    Unknown,
}

impl Lag {
    /// Compares what the index says of itself with what is there.
    fn between(state: Option<State>, now: State, decoded: &Decoded) -> Self {
        let Some(mut state) = state else { return Self::Unknown };
        if decoded.previous == Some(state.journal) {
            // The journal was compacted from exactly the state that the index has.
            state.journal = super::journal::Position { journal: now.journal.journal, length: decoded.snapshot_end };
        }
        let ahead = state.packs.pack > now.packs.pack
            || (state.packs.pack == now.packs.pack && state.packs.length > now.packs.length);
        if state.journal.journal != now.journal.journal || state.journal.length > now.journal.length || ahead {
            return Self::Unknown;
        }
        if state == now { Self::None } else { Self::Some(state) }
    }
}

/// Opens the index and brings it up to date; builds it anew when that cannot be done.
pub(crate) fn ready(
    disk: &dyn Disk,
    home: &dyn IndexHome,
    facts: &Facts,
    decoded: &Decoded,
    now: State,
) -> Result<Arc<dyn Index>, IndexError> {
    let current = home.open().and_then(|index| {
        let state = index.state()?;
        match Lag::between(state, now, decoded) {
            Lag::None => {}
            Lag::Some(from) => catch_up(disk, &*index, &facts.links, decoded, from, now)?,
            // It is new: whatever rows it has were written from what is read again here.
            Lag::Unknown if state.is_none() => rebuild(disk, &*index, &facts.links, now)?,
            Lag::Unknown => return Ok(None),
        }
        Ok(Some(index))
    });
    match current {
        Ok(Some(index)) => return Ok(index),
        Ok(None) => tracing::debug!("the block index is of another history; building it"),
        // There is nothing wrong with it, and no room for another.
        Err(error) if error.is_full() => return Err(error),
        Err(error) => tracing::warn!(%error, "the block index is broken; building it anew"),
    }
    home.move_aside()?;
    let index = home.open()?;
    rebuild(disk, &*index, &facts.links, now)?;
    Ok(index)
}

/// Adds what came after `from`.
fn catch_up(
    disk: &dyn Disk,
    index: &dyn Index,
    links: &Links,
    decoded: &Decoded,
    from: State,
    now: State,
) -> Result<(), IndexError> {
    index_packs(disk, index, from.packs)?;
    let new: BTreeSet<u32> = decoded
        .records
        .iter()
        .filter(|(end, _)| *end > from.journal.length)
        .filter_map(|(_, record)| if let Record::Link(link) = record { Some(link.id) } else { None })
        .collect();
    for link in new.iter().filter_map(|id| links.get(id)) {
        index_file(disk, index, links, link)?;
    }
    finish(index, now)
}

/// Fills an empty index.
fn rebuild(disk: &dyn Disk, index: &dyn Index, links: &Links, now: State) -> Result<(), IndexError> {
    add_all(disk, index, links)?;
    finish(index, now)
}

/// Writes the rows of everything that is there.
pub(crate) fn add_all(disk: &dyn Disk, index: &dyn Index, links: &Links) -> Result<(), IndexError> {
    index_packs(disk, index, Tail::default())?;
    let ids: BTreeSet<u32> = links.keys().copied().collect();
    for link in ids.iter().filter_map(|id| links.get(id)) {
        index_file(disk, index, links, link)?;
    }
    index.flush()
}

fn finish(index: &dyn Index, now: State) -> Result<(), IndexError> {
    index.flush()?;
    index.set_state(now)?;
    index.flush()
}

/// Writes the rows of all blocks in packs behind `from`.
fn index_packs(disk: &dyn Disk, index: &dyn Index, from: Tail) -> Result<(), IndexError> {
    for number in numbers::<u32>(&disk.list(packs::DIRECTORY)?).into_iter().filter(|number| *number >= from.pack) {
        let bytes = packs::read(disk, number)?;
        let scanned = packs::scan(&bytes);
        for damaged in scanned.damaged {
            tracing::warn!(pack = number, from = damaged.start, to = damaged.end, "a pack is damaged");
        }
        let start = if number == from.pack { from.length } else { 0 };
        for packed in scanned.blocks.iter().filter(|packed| packed.record.start as u64 >= start) {
            let (Ok(offset), Ok(length)) = (u32::try_from(packed.data.start), u32::try_from(packed.data.len())) else {
                continue;
            };
            let location = Location::Pack { pack: number, offset, length };
            index.insert(&location.key(&hash_bytes(packed.cid.hash())), &location.value())?;
        }
    }
    Ok(())
}

/// Writes the rows of the leaves of a linked file, as its nodes place them.
fn index_file(disk: &dyn Disk, index: &dyn Index, links: &Links, link: &Link) -> Result<(), IndexError> {
    let mut missing = 0_usize;
    let mut failed = None;
    place_leaves(link, &mut |cid| read_committed(disk, index, links, cid), &mut |placed| match placed {
        Placed::Leaf { cid, offset, length } => {
            let location = Location::File { link: link.id, offset, length };
            let inserted = index.insert(&location.key(&hash_bytes(cid.hash())), &location.value());
            failed = failed.take().or(inserted.err());
        }
        Placed::Unresolved => missing += 1,
    })?;
    if missing > 0 {
        tracing::warn!(cid = %link.cid, missing, "nodes of a linked file are missing; its blocks are not served");
    }
    failed.map_or(Ok(()), Err)
}

/// A part of a file's DAG.
pub(crate) enum Placed {
    /// A raw leaf and where it lies in the file.
    Leaf { cid: Cid, offset: u64, length: u32 },
    /// A node that is missing or cannot be decoded, or a leaf that no node places.
    Unresolved,
}

/// Walks the nodes of a linked file and says where its leaves lie. Depth and size are bounded by `dag::expand`.
pub(crate) fn place_leaves<E>(
    link: &Link,
    node: &mut dyn FnMut(&Cid) -> Result<Option<Block>, E>,
    placed: &mut dyn FnMut(Placed),
) -> Result<(), E> {
    let mut stack = vec![(link.cid, At { offset: 0, size: Some(link.size), depth: 0 })];
    while let Some((cid, at)) = stack.pop() {
        if cid.codec() == CODEC_RAW {
            let length = at.size.filter(|size| {
                *size <= MAX_BLOCK_BYTES as u64 && at.offset.checked_add(*size).is_some_and(|end| end <= link.size)
            });
            placed(match length.and_then(|length| u32::try_from(length).ok()) {
                Some(length) => Placed::Leaf { cid, offset: at.offset, length },
                None => Placed::Unresolved,
            });
            continue;
        }
        let parts = node(&cid)?.and_then(|block| dag::expand(&block, &at).ok());
        let Some(parts) = parts else {
            placed(Placed::Unresolved);
            continue;
        };
        stack.extend(parts.into_iter().rev().filter_map(|part| match part {
            Part::Child { cid, offset, size, depth } => Some((cid, At { offset, size, depth })),
            Part::Data { .. } => None,
        }));
    }
    Ok(())
}

/// Reads a node by its committed rows, while the store is not open yet.
fn read_committed(disk: &dyn Disk, index: &dyn Index, links: &Links, cid: &Cid) -> Result<Option<Block>, IndexError> {
    for location in index.locations(&hash_bytes(cid.hash()))? {
        let (path, offset) = match location {
            Location::Pack { pack, offset, .. } => (packs::path(pack), u64::from(offset)),
            Location::File { link, offset, .. } => match links.get(&link) {
                Some(link) => (super::files::blob_path(&link.digest), offset),
                None => continue,
            },
        };
        let bytes = disk.open(&path, Mode::Read).and_then(|file| file.read(offset, location.length() as usize));
        // A few nodes a file: hashing them costs nothing and makes a block out of them.
        if let Some(block) = bytes.ok().and_then(|bytes| Block::verify(*cid, bytes.into()).ok()) {
            return Ok(Some(block));
        }
    }
    Ok(None)
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
