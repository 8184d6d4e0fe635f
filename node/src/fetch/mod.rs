//! Makes files and blocks local: what is here first, then whoever has it.
//!
//! A file is fetched leaf by leaf in its own order, each leaf checked against its CID by the exchange, written at its
//! offset in a sparse partial file, and hashed once more in sequence for the digest of the whole: a file is complete
//! only when that digest is the one its descriptor promised. What already lies in the partial file, or in any other
//! file of the store, is not asked for.
//!
//! May import [`crate::block`], [`crate::dag`], [`crate::exchange`] and [`crate::store`]. It never trusts a size that
//! a DAG claims: the caller's is the budget.

mod error;
mod order;

pub use error::FetchError;
pub(crate) use error::unavailable;

use crate::block::{Block, CODEC_RAW, Cid, MAX_BLOCK_BYTES, Multihash, sha256_of};
use crate::dag::{self, At, Part};
use crate::exchange::bitswap::Exchange;
use crate::exchange::bitswap::session::Session;
use crate::net::NetError;
use crate::store::{Blockstore as _, FileInfo, Incoming, Store};
use bytes::Bytes;
use order::InOrder;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Blocks of one file that are wanted at once: 8 MiB, twice what one peer is asked for, so that a fast peer can take over
/// what a slow one would have had. All of them may lie in memory, if this thread is slower than the network.
const MAX_WANTED: usize = 32;
/// Interior nodes wanted ahead of their leaves: each stands for 45 MiB, so two keep the queue full.
const NODES_AHEAD: usize = 2;
/// Parts among which the next one is drawn when several peers have some of the file: 64 MiB of the usual size, so that
/// neither disk has far to go.
const DRAWN_FROM: usize = 256;
/// So many pieces that came early, and wait to be hashed, for each that is still to be asked for: then those that are left
/// are asked for in order. Hashing is some fifteen times as fast as a network of 1 Gbit/s, so it has caught up when the last
/// ones come, instead of beginning then.
const EARLY_FOR_EACH_LEFT: usize = 8;
/// Fewer of them, 32 MiB, are hashed within 20 ms, which does not matter; that pullers help each other does.
const EARLY_THAT_MATTER: usize = 128;
/// Received bytes after which the disk is told to start writing, so that the sync at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// Blocks that any file may have, and bytes that each further one must stand for on average. The finest chunkers in use
/// cut at 16 KiB or more; a file of one-byte leaves would cost a round through every queue a byte.
const BLOCKS_OF_ANY_SIZE: u64 = 4096;
const MIN_AVERAGE_BYTES: u64 = 4096;
/// Finished files of so many bytes together are committed, rather than left to whoever commits next: they would have to
/// be fetched again after a crash. A commit costs a few syncs, a hundredth of a second each on a slow disk.
const COMMIT_BYTES: u64 = 1 << 20;
/// How often what has arrived is made durable: the most that a power cut can cost.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What a file must turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// SHA2-256 of the whole file.
    pub digest: [u8; 32],
    /// Its size in bytes.
    pub size: u64,
}

/// Enters the network when it is first needed.
pub(crate) trait GoOnline: Send + Sync {
    /// The exchange, or why there is none.
    fn exchange(&self) -> Result<Exchange, NetError>;
}

/// One fetch of one file, run on a blocking thread.
pub(crate) struct FileFetch<'a> {
    pub(crate) store: &'a Store,
    pub(crate) online: &'a dyn GoOnline,
    pub(crate) runtime: Handle,
    pub(crate) patience: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) cid: Cid,
    pub(crate) expected: Option<Expected>,
    /// Longest file accepted when nothing is expected.
    pub(crate) limit: u64,
    pub(crate) progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Told how many bytes from the start lie in the partial file without a gap, each checked against its CID.
    pub(crate) prefix: &'a (dyn Fn(u64) + Send + Sync),
}

struct Child {
    cid: Cid,
    at: At,
}

/// Whether a child stands for more than one block: a dag-pb node may also be a leaf.
fn is_interior(child: &Child) -> bool {
    child.cid.codec() != CODEC_RAW && child.at.size.is_none_or(|size| size > MAX_BLOCK_BYTES as u64)
}

/// What goes on while a file is being received.
struct Receiving {
    incoming: Arc<Incoming>,
    pending: BTreeMap<(u64, u64), Child>,
    serial: u64,
    size: u64,
    digest: InOrder,
    received: u64,
    /// What lies in the file since the disk was last told to write.
    unwritten: Vec<Range<u64>>,
    unwritten_bytes: u64,
}

impl Receiving {
    /// Has the disk write what came, wherever it lies, so that no sync has much to do; waits for it if `sync`. On a thread of
    /// its own: on a busy machine even the former takes long.
    fn write_out(&mut self, sync: bool, runtime: &Handle) -> JoinHandle<()> {
        let (incoming, mut ranges) = (self.incoming.clone(), std::mem::take(&mut self.unwritten));
        self.unwritten_bytes = 0;
        runtime.spawn_blocking(move || {
            ranges.sort_unstable_by_key(|range| range.start);
            ranges.dedup_by(|next, range| {
                let is_next = next.start == range.end;
                if is_next {
                    range.end = next.end;
                }
                is_next
            });
            ranges.into_iter().for_each(|range| incoming.start_writeback(range));
            if sync {
                // If it fails, the partial file is gone, and whoever finishes it is told.
                let _ = incoming.sync();
            }
        })
    }

    /// Any of the next leaves. In order, all who fetch a file at the same time would ask for the same blocks at the same
    /// time, and none would have anything to give to the others.
    fn draw(&self, draws: &RandomState) -> (u64, u64) {
        let early = self.digest.early();
        if early >= EARLY_THAT_MATTER
            && self.pending.len() <= MAX_WANTED + early / EARLY_FOR_EACH_LEFT
            && let Some((first, _)) = self.pending.first_key_value()
        {
            return *first;
        }
        let leaves = || self.pending.iter().take(DRAWN_FROM).filter(|(_, child)| !is_interior(child));
        let (first, count) = (self.pending.first_key_value(), leaves().count().max(1));
        let drawn = draws.hash_one((self.pending.len(), first.map(|(key, _)| key))) as usize % count;
        *leaves().nth(drawn).or(first).expect("something is pending").0
    }
}

impl FileFetch<'_> {
    /// Makes the file local. The result is durable after the store's next commit.
    pub(crate) fn run(&self) -> Result<FileInfo, FetchError> {
        if let Some(info) = self.local()? {
            return Ok(info);
        }
        let cid = self.cid;
        let mut session = None;
        let root = self.block(&cid, &mut session)?;
        let root_at = At { offset: 0, size: self.expected.map(|expected| expected.size), depth: 0 };
        let parts = self.expand(&root, &root_at)?;
        let size = self.size_of(&parts)?;
        let known = self.expected.map(|expected| expected.digest);
        let incoming = self.store.receive(&cid, size, known)?;
        let mut state = Receiving {
            incoming: Arc::new(incoming),
            pending: BTreeMap::new(),
            serial: 0,
            size,
            digest: InOrder::new(),
            received: 0,
            unwritten: Vec::new(),
            unwritten_bytes: 0,
        };
        self.accept(&mut state, &root, &root_at)?;
        if let Some(session) = &session {
            session.stored(&cid);
        }
        self.receive(&mut state, &mut session)?;
        drop(session);
        // The digest of a file of one raw block is in its CID.
        let digest = if cid.codec() == CODEC_RAW { sha256_of(&cid) } else { None };
        if state.digest.position != size {
            return Err(self.wrong_size(state.digest.position));
        }
        let digest = digest.unwrap_or_else(|| state.digest.finish());
        if let Some(expected) = self.expected.filter(|expected| expected.digest != digest) {
            state.incoming.discard()?;
            return Err(FetchError::Digest { cid, expected: expected.digest, got: digest });
        }
        let incoming = Arc::into_inner(state.incoming).expect("the last sync was waited for, nobody else has a clone");
        let known = self.store.file(&cid).is_some();
        let info = incoming.finish(digest, size)?;
        if known {
            // Its nodes were lost, and what they place with them.
            self.store.write_again(&[])?;
        }
        if self.store.uncommitted_bytes() >= COMMIT_BYTES {
            self.store.commit()?;
        }
        Ok(info)
    }

    /// The file, when nothing has to be fetched for it.
    fn local(&self) -> Result<Option<FileInfo>, FetchError> {
        let known = self.store.file(&self.cid);
        if let Some(info) = &known {
            self.check(info.digest, info.size)?;
            if self.has_nodes(info)? {
                (self.progress)(info.size);
                return Ok(known);
            }
        }
        // The same bytes may be here under another CID, or the nodes over them were lost: then only the DAG is missing,
        // and can be made, if it is ours.
        let twins = || self.store.file_by_digest(&self.expected?.digest).into_iter().next();
        let Some(twin) = known.clone().or_else(twins) else { return Ok(None) };
        let hashed = std::fs::File::open(&twin.path).and_then(|file| dag::hash_file(&file, threads()));
        let Ok(hashed) = hashed else { return Ok(None) };
        let tree = dag::balanced(&hashed.leaves);
        if tree.root.hash() != self.cid.hash() || hashed.digest != twin.digest {
            return Ok(None);
        }
        if known.is_some() {
            self.store.write_again(&tree.nodes)?;
        }
        (self.progress)(hashed.size);
        Ok(Some(self.store.index_file(&hashed, &tree)?))
    }

    /// Whether all nodes of a file that is here are here as well; its leaves lie in it.
    fn has_nodes(&self, info: &FileInfo) -> Result<bool, FetchError> {
        let mut stack = vec![(self.cid, At { offset: 0, size: Some(info.size), depth: 0 })];
        while let Some((cid, at)) = stack.pop() {
            if cid.codec() == CODEC_RAW {
                continue;
            }
            let Some(block) = self.node_at_hand(&cid)? else { return Ok(false) };
            stack.extend(self.expand(&block, &at)?.into_iter().filter_map(|part| match part {
                Part::Child { cid, offset, size, depth } => Some((cid, At { offset, size, depth })),
                Part::Data { .. } => None,
            }));
        }
        Ok(true)
    }

    fn node_at_hand(&self, cid: &Cid) -> Result<Option<Block>, FetchError> {
        if let Ok(Some(block)) = Block::inline(cid) {
            return Ok(Some(block));
        }
        // Damaged is as good as absent.
        Ok(self.store.get(cid)?.and_then(|bytes| Block::verify(*cid, bytes).ok()))
    }

    fn check(&self, digest: [u8; 32], size: u64) -> Result<(), FetchError> {
        match self.expected {
            Some(expected) if expected.size != size => Err(self.wrong_size(size)),
            Some(expected) if expected.digest != digest => {
                Err(FetchError::Digest { cid: self.cid, expected: expected.digest, got: digest })
            }
            None if size > self.limit => Err(self.wrong_size(size)),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, got: u64) -> FetchError {
        match self.expected {
            Some(expected) => FetchError::Size { cid: self.cid, expected: expected.size, got },
            None => FetchError::TooLong { cid: self.cid, limit: self.limit, got },
        }
    }

    /// The size of the file, from its root: checked against the descriptor's before a byte is reserved.
    fn size_of(&self, parts: &[Part]) -> Result<u64, FetchError> {
        let end = |part: &Part| match part {
            Part::Data { offset, bytes } => offset + bytes.len() as u64,
            Part::Child { offset, size, .. } => offset + size.unwrap_or(0),
        };
        // The walk has added these sizes up without an overflow.
        let size = parts.iter().map(end).max().unwrap_or(0);
        match self.expected {
            Some(expected) if expected.size != size => Err(self.wrong_size(size)),
            None if size > self.limit => Err(self.wrong_size(size)),
            _ => Ok(size),
        }
    }

    fn expand(&self, block: &Block, at: &At) -> Result<Vec<Part>, FetchError> {
        dag::expand(block, at).map_err(|source| FetchError::Dag { cid: self.cid, source })
    }

    /// Lays one block of the file down and queues what it links to.
    fn accept(&self, state: &mut Receiving, block: &Block, at: &At) -> Result<(), FetchError> {
        let raw = block.cid().codec() == CODEC_RAW;
        // The file's digest is the block's.
        let single = raw && at.depth == 0 && sha256_of(block.cid()).is_some();
        if !raw {
            self.store.put(block)?;
        }
        for part in self.expand(block, at)? {
            match part {
                Part::Data { offset, bytes } => {
                    if raw {
                        state.incoming.write(offset, block)?;
                    } else {
                        state.incoming.write_inline(offset, &bytes)?;
                    }
                    self.took(state, offset, &bytes, single)?;
                }
                Part::Child { cid, offset, size, depth } => {
                    state.serial += 1;
                    let limit = BLOCKS_OF_ANY_SIZE + state.size / MIN_AVERAGE_BYTES;
                    if state.serial > limit {
                        return Err(FetchError::TooFine { cid: self.cid, size: state.size, limit });
                    }
                    let child = Child { cid, at: At { offset, size, depth } };
                    state.pending.insert((offset, state.serial), child);
                }
            }
        }
        Ok(())
    }

    fn took(&self, state: &mut Receiving, offset: u64, bytes: &Bytes, single: bool) -> Result<(), FetchError> {
        if single {
            state.digest.position += bytes.len() as u64;
        } else {
            state.digest.take(offset, bytes, &state.incoming)?;
        }
        state.received += bytes.len() as u64;
        state.unwritten.push(offset..offset + bytes.len() as u64);
        state.unwritten_bytes += bytes.len() as u64;
        (self.progress)(state.received);
        (self.prefix)(state.digest.position);
        Ok(())
    }

    /// A child that need not be asked for.
    fn at_hand(&self, state: &Receiving, child: &Child) -> Result<Option<Block>, FetchError> {
        if let Ok(Some(block)) = Block::inline(&child.cid) {
            return Ok(Some(block));
        }
        if child.cid.codec() == CODEC_RAW
            && let Some(length) = child.at.size.and_then(|size| usize::try_from(size).ok())
            && let Some(bytes) = state.incoming.present(child.at.offset, length, &child.cid)?
            && let Ok(block) = Block::verify(child.cid, bytes)
        {
            return Ok(Some(block));
        }
        // Damaged here is as good as absent: it is fetched again.
        Ok(self.store.get(&child.cid)?.and_then(|bytes| Block::verify(child.cid, bytes).ok()))
    }

    fn receive(&self, state: &mut Receiving, session: &mut Option<Session>) -> Result<(), FetchError> {
        let mut wanted: HashMap<Multihash, Vec<Child>> = HashMap::new();
        let (mut nodes, mut last_sync, draws) = (0, Instant::now(), RandomState::new());
        let mut writing: Option<JoinHandle<()>> = None;
        loop {
            let mut batch = Vec::new();
            while wanted.len() < MAX_WANTED {
                let Some((first, next)) = state.pending.first_key_value() else { break };
                if nodes >= NODES_AHEAD && is_interior(next) {
                    break;
                }
                let is_shared = session.as_ref().is_some_and(|session| session.holders() > 1);
                let key = if is_shared && !is_interior(next) { state.draw(&draws) } else { *first };
                let child = state.pending.remove(&key).expect("the key was just found");
                if let Some(twins) = wanted.get_mut(child.cid.hash()) {
                    twins.push(child);
                    continue;
                }
                match self.at_hand(state, &child)? {
                    Some(block) => self.accept(state, &block, &child.at)?,
                    None => {
                        nodes += usize::from(is_interior(&child));
                        batch.push(child.cid);
                        wanted.insert(*child.cid.hash(), vec![child]);
                    }
                }
                if self.stop.is_cancelled() {
                    return Err(FetchError::Stopped { cid: self.cid });
                }
            }
            if wanted.is_empty() && state.pending.is_empty() {
                // The file is finished by this thread alone.
                if let Some(writing) = writing {
                    let _ = self.runtime.block_on(writing);
                }
                return Ok(());
            }
            let session = self.session(session, &batch)?;
            session.want(batch);
            let block = self.next(session, &wanted)?;
            for child in wanted.remove(block.cid().hash()).unwrap_or_default() {
                nodes -= usize::from(is_interior(&child));
                if let Some(block) = block.clone().under(child.cid) {
                    self.accept(state, &block, &child.at)?;
                    session.stored(&child.cid);
                }
            }
            let sync = last_sync.elapsed() >= SYNC_INTERVAL;
            let is_due = sync || state.unwritten_bytes >= WRITEBACK_BYTES;
            if is_due && writing.as_ref().is_none_or(JoinHandle::is_finished) {
                writing = Some(state.write_out(sync, &self.runtime));
                if sync {
                    last_sync = Instant::now();
                }
            }
        }
    }

    fn session<'s>(&self, session: &'s mut Option<Session>, missing: &[Cid]) -> Result<&'s mut Session, FetchError> {
        if session.is_none() {
            *session = Some(
                self.online
                    .exchange()
                    .map_err(|error| match error {
                        NetError::Offline => FetchError::Offline { cid: missing.first().copied().unwrap_or(self.cid) },
                        other => other.into(),
                    })?
                    .session()
                    .about(&self.cid),
            );
        }
        Ok(session.as_mut().expect("it was just opened"))
    }

    fn next(&self, session: &mut Session, wanted: &HashMap<Multihash, Vec<Child>>) -> Result<Block, FetchError> {
        if let Some(block) = session.try_next() {
            return Ok(block);
        }
        let waited = self.runtime.block_on(self.stop.run_until_cancelled(session.next(self.patience)));
        match waited {
            None => Err(FetchError::Stopped { cid: self.cid }),
            Some(Ok(block)) => Ok(block),
            Some(Err(starved)) => {
                let missing = wanted.values().flatten().min_by_key(|child| child.at.offset);
                let missing = missing.map_or(self.cid, |child| child.cid);
                session.starved(&missing);
                Err(unavailable(missing, starved))
            }
        }
    }

    /// One block, from the store or from whoever has it.
    fn block(&self, cid: &Cid, session: &mut Option<Session>) -> Result<Block, FetchError> {
        if let Some(block) = Block::inline(cid).map_err(|source| FetchError::Cid { cid: *cid, source })? {
            return Ok(block);
        }
        if let Some(block) = self.store.get(cid)?.and_then(|bytes| Block::verify(*cid, bytes).ok()) {
            return Ok(block);
        }
        let session = self.session(session, &[*cid])?;
        session.want([*cid]);
        loop {
            let block = self.next(session, &HashMap::new())?;
            if let Some(block) = block.under(*cid) {
                return Ok(block);
            }
        }
    }
}

/// Threads to hash with: all cores.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
