//! Collecting what nothing keeps.
//!
//! Live is what pins, keeps and leases reach, and what came in while a lease lived. Everything else goes: links first (in
//! the journal, synced), then their files, then rows, then packs that are more than half dead, whose live blocks are copied
//! and synced before the pack is removed. A crash between any two steps leaves garbage, never a gap.
//!
//! Collection refuses to run when a pin, or a keep that is not flagged incomplete, has a root, member or inner node that
//! is missing: what lies below it is unknown then, and would be lost. A missing *leaf* hides nothing and does not stop it.
//! Imports the store. It never frees a block that a live DAG needs: one that lies only in a dead file is copied out first.

use super::lease::Leases;
use super::walk::{Live, Need};
use crate::block::{Block, CODEC_RAW, Cid, Multihash};
use crate::store::files::{self, PARTIAL, QUARANTINE, blob_path, hex};
use crate::store::guard::{lock, read, write};
use crate::store::handles::Target;
use crate::store::index::Location;
use crate::store::open::numbers;
use crate::store::packs;
use crate::store::record::{Link, Record};
use crate::store::{Inner, Store, StoreError};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

/// Rows looked at between two removals.
const SWEEP_ROWS: usize = 4096;

/// What a collection freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Files removed, orphans, abandoned partial files and quarantined ones included.
    pub files: u64,
    /// Blocks removed from packs.
    pub blocks: u64,
    /// Packs rewritten or removed.
    pub packs: u64,
    /// Bytes given back to the disk: files as long as they were, packs as much as they shrank.
    pub bytes: u64,
}

/// Why nothing was collected, or not everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// Something that is kept is not all there, so what it needs is unknown. Nothing was collected.
    #[error("`{name}` cannot be resolved, so nothing is collected: fetch it again or let go of it")]
    Unresolved {
        /// Name of the keep, or CID of the pin.
        name: String,
        /// The block that is missing or cannot be decoded.
        #[source]
        source: Box<StoreError>,
    },
    /// The store failed on the way; what was freed until then is free, everything kept is whole.
    #[error("the collection stopped")]
    Store(#[from] StoreError),
}

impl Store {
    /// Frees what nothing keeps. Marks while others go on, and lets nothing be put, finished, pinned or kept while it
    /// sweeps; reading goes on.
    ///
    /// # Errors
    /// [`GcError`].
    pub fn gc(&self) -> Result<GcReport, GcError> {
        let inner = &*self.inner;
        let first = match mark(inner, Live::default()) {
            // Perhaps it is only the index that lost sight of a block.
            Err(GcError::Unresolved { .. }) => {
                inner.doubt_index();
                mark(inner, Live::default())?
            }
            first => first?,
        };
        let _gate = write(&inner.gate);
        inner.commit_with(&[])?;
        // What was kept in the meantime is walked now; what was walked before is not walked again, unless something
        // may have been passed over.
        let live = mark(inner, if first.holes { Live::default() } else { first })?;
        let mut report = GcReport::default();
        // These need no room, and may make some.
        remove_strays(inner, &mut report)?;
        unlink_dead(inner, &live, &mut report)?;
        let used = sweep_rows(inner, &live, &mut report)?;
        shrink_packs(inner, &used, &mut report)?;
        inner.compact()?;
        Ok(report)
    }
}

/// Walks everything that is kept. Strict roots first, since nothing is walked twice.
fn mark(inner: &Inner, mut live: Live) -> Result<Live, GcError> {
    let (pins, keeps): (Vec<Cid>, Vec<_>) = {
        let facts = read(&inner.facts);
        (facts.pins.keys().copied().collect(), facts.keeps.values().cloned().collect())
    };
    for cid in pins {
        live.walk(inner, &cid, Need::Nodes).map_err(|source| unresolved(cid.to_string(), source))?;
    }
    let (lenient, strict): (Vec<_>, Vec<_>) = keeps.iter().partition(|keep| keep.incomplete);
    for keep in strict {
        for cid in std::iter::once(&keep.root).chain(&keep.members) {
            live.walk(inner, cid, Need::Nodes).map_err(|source| unresolved(keep.name.clone(), source))?;
        }
    }
    let leased = lock(&inner.leases).roots();
    let lenient = lenient.iter().flat_map(|keep| std::iter::once(&keep.root).chain(&keep.members));
    for cid in lenient.chain(&leased) {
        live.walk(inner, cid, Need::Any)?;
    }
    live.add_fresh(lock(&inner.leases).fresh_blocks());
    Ok(live)
}

fn unresolved(name: String, source: StoreError) -> GcError {
    match source {
        StoreError::Incomplete { .. } | StoreError::Undecodable { .. } => {
            GcError::Unresolved { name, source: Box::new(source) }
        }
        source => GcError::Store(source),
    }
}

/// Unlinks files that nothing live is, after copying out the blocks that something live needs.
fn unlink_dead(inner: &Inner, live: &Live, report: &mut GcReport) -> Result<(), StoreError> {
    let dead: BTreeMap<u32, Arc<Link>> = {
        let (facts, leases) = (read(&inner.facts), lock(&inner.leases));
        let is_live =
            |link: &Link, leases: &Leases| live.has_file(&link.cid) || leases.fresh_links().contains(&link.id);
        facts.links.values().filter(|link| !is_live(link, &leases)).map(|link| (link.id, link.clone())).collect()
    };
    if dead.is_empty() {
        return Ok(());
    }
    rescue(inner, live, &dead)?;
    let records: Vec<_> = dead.keys().map(|id| Record::Unlink(*id)).collect();
    inner.commit_with(&records)?;
    let digests: HashSet<[u8; 32]> = dead.values().map(|link| link.digest).collect();
    for digest in digests {
        if read(&inner.facts).by_digest(&digest).is_empty() {
            inner.handles.forget(Target::Blob(digest));
            remove(inner, &blob_path(&digest), report)?;
        }
    }
    Ok(())
}

/// Copies live blocks that lie only in dead files into the packs.
fn rescue(inner: &Inner, live: &Live, dead: &BTreeMap<u32, Arc<Link>>) -> Result<(), StoreError> {
    let is_dead = |location: &Location| match location {
        Location::Pack { .. } => false,
        Location::File { link, .. } => dead.contains_key(link) || !read(&inner.facts).links.contains_key(link),
    };
    let mut wanted: Vec<Vec<u8>> = Vec::new();
    let (mut hash, mut only_dead) = (Vec::new(), false);
    let mut each = |key: &[u8], value: &[u8]| {
        let Some((hash_bytes, location)) = Location::decode(key, value) else { return true };
        if key[..hash_bytes] != hash[..] {
            if only_dead && live.has_block(&hash) {
                wanted.push(std::mem::take(&mut hash));
            }
            hash = key[..hash_bytes].to_vec();
            only_dead = true;
        }
        only_dead &= is_dead(&location);
        true
    };
    inner.index()?.for_each(&[], &mut each).map_err(|error| inner.index_failed(error))?;
    if only_dead && live.has_block(&hash) {
        wanted.push(hash);
    }
    for hash in wanted {
        let Ok(multihash) = Multihash::from_bytes(&hash) else { continue };
        let Some(bytes) = inner.read_committed_block(&hash)? else { continue };
        // Only raw leaves lie in files.
        if let Ok(block) = Block::verify(Cid::new_v1(CODEC_RAW, multihash), bytes) {
            inner.append_block(&block, &hash)?;
        }
    }
    inner.commit_with(&[])
}

/// Removes files that no fact speaks of: a crash left them, or their transfer was given up, or they are in quarantine.
fn remove_strays(inner: &Inner, report: &mut GcReport) -> Result<(), StoreError> {
    let known: HashSet<String> = read(&inner.facts).links.values().map(|link| hex(&link.digest)).collect();
    for name in list(inner, files::DIRECTORY)? {
        if !known.contains(&name) {
            remove(inner, &format!("{}/{name}", files::DIRECTORY), report)?;
        }
    }
    let wanted: HashSet<String> = {
        let mut wanted: HashSet<String> = lock(&inner.leases).roots().iter().map(Cid::to_string).collect();
        let facts = read(&inner.facts);
        let keeps = facts.keeps.values().filter(|keep| keep.incomplete);
        wanted.extend(keeps.flat_map(|keep| std::iter::once(&keep.root).chain(&keep.members)).map(Cid::to_string));
        wanted
    };
    for name in list(inner, PARTIAL)? {
        let pending = read(&inner.pending);
        let open = name.starts_with(files::STAGE_PREFIX) || pending.partials.keys().any(|cid| cid.to_string() == name);
        if !open && !wanted.contains(&name) {
            remove(inner, &format!("{PARTIAL}/{name}"), report)?;
        }
    }
    for name in list(inner, QUARANTINE)? {
        remove(inner, &format!("{QUARANTINE}/{name}"), report)?;
    }
    Ok(())
}

/// Removes dead rows; says how many bytes of each pack are live.
fn sweep_rows(inner: &Inner, live: &Live, report: &mut GcReport) -> Result<BTreeMap<u32, u64>, StoreError> {
    let links: HashSet<u32> = read(&inner.facts).links.keys().copied().collect();
    let index = inner.index()?;
    let mut used = BTreeMap::new();
    let mut from = Vec::new();
    loop {
        let (mut dead, mut seen, mut last) = (Vec::new(), 0, Vec::new());
        let mut each = |key: &[u8], value: &[u8]| {
            seen += 1;
            last = key.to_vec();
            match Location::decode(key, value) {
                Some((_, Location::File { link, .. })) if links.contains(&link) => {}
                Some((hash_bytes, Location::Pack { pack, length, .. })) if live.has_block(&key[..hash_bytes]) => {
                    *used.entry(pack).or_default() += u64::from(length) + packs::overhead(hash_bytes);
                }
                Some((_, Location::Pack { .. })) => {
                    report.blocks += 1;
                    dead.push(key.to_vec());
                }
                _ => dead.push(key.to_vec()),
            }
            seen < SWEEP_ROWS
        };
        let swept = index.for_each(&from, &mut each).and_then(|()| dead.iter().try_for_each(|key| index.remove(key)));
        swept.map_err(|error| inner.index_failed(error))?;
        if seen < SWEEP_ROWS {
            break;
        }
        // The smallest key behind the last one.
        last.push(0);
        from = last;
    }
    index.flush().map_err(|error| inner.index_failed(error))?;
    Ok(used)
}

/// Rewrites packs that are more than half dead.
fn shrink_packs(inner: &Inner, used: &BTreeMap<u32, u64>, report: &mut GcReport) -> Result<(), StoreError> {
    for pack in numbers::<u32>(&list(inner, packs::DIRECTORY)?) {
        let size = inner.disk.stat(&packs::path(pack)).map_err(|error| StoreError::io("look at a pack", error))?;
        let size = size.map_or(0, |stat| stat.size);
        let live = used.get(&pack).copied().unwrap_or(0);
        if size <= packs::HEADER_BYTES as u64 || live * 2 >= size {
            continue;
        }
        inner.rewrite_pack(pack)?;
        remove(inner, &packs::path(pack), report)?;
        report.files = report.files.saturating_sub(1);
        report.packs += 1;
        report.bytes = report.bytes.saturating_sub(live);
    }
    Ok(())
}

fn list(inner: &Inner, directory: &str) -> Result<Vec<String>, StoreError> {
    match inner.disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|error| StoreError::io(format!("list `{directory}`"), error)),
    }
}

/// Removes a file that may be gone already.
fn remove(inner: &Inner, path: &str, report: &mut GcReport) -> Result<(), StoreError> {
    let fail = |error| StoreError::io(format!("remove `{path}`"), error);
    let Some(stat) = inner.disk.stat(path).map_err(fail)? else { return Ok(()) };
    match inner.disk.unlink(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    report.files += 1;
    report.bytes += stat.size;
    Ok(())
}
