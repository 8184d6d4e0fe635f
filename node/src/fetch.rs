//! Makes files and blocks local: what is here first, then whoever has it.
//!
//! A file is fetched leaf by leaf in its own order, each leaf checked against its CID by the exchange, written at its
//! offset in a sparse partial file, and hashed once more in sequence for the digest of the whole: a file is complete
//! only when that digest is the one its descriptor promised. What already lies in the partial file, or in any other
//! file of the store, is not asked for.
//!
//! May import [`crate::block`], [`crate::dag`], [`crate::exchange`] and [`crate::store`]. It never trusts a size that
//! a DAG claims: the caller's is the budget.

use crate::block::{Block, BlockError, CODEC_RAW, CidError, MAX_BLOCK_BYTES, sha256_of};
use crate::dag::{self, At, Part, WalkError};
use crate::exchange::bitswap::Exchange;
use crate::exchange::bitswap::session::{Session, Starved};
use crate::net::NetError;
use crate::store::{Blockstore as _, FileInfo, Incoming, Store, StoreError};
use bytes::Bytes;
use cid::Cid;
use multihash::Multihash;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
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
/// Bytes that may wait in memory for earlier ones before the digest; past it they are read back from the file.
const MAX_EARLY_BYTES: usize = 2 << 20;
/// Finished bytes after which the disk is told to start writing, so that the sync at the end is short.
const WRITEBACK_BYTES: u64 = 8 << 20;
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

/// Why something could not be made local.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It is not here, and this node may not ask anybody.
    #[error("block `{cid}` is not in the repository, and this node is offline")]
    Offline {
        /// The missing block.
        cid: Cid,
    },
    /// Nobody delivered it in time. Trying again later can help.
    #[error("block `{cid}` did not arrive: {}", starved(*.asked, .holders.len(), *.waited))]
    Unavailable {
        /// The missing block.
        cid: Cid,
        /// Peers that were asked.
        asked: usize,
        /// Peers that have it, as far as is known.
        holders: Vec<libp2p::PeerId>,
        /// How long nothing arrived.
        waited: Duration,
    },
    /// The file is another one than its descriptor says. Trying again does not help: the CID names this content.
    #[error("file `{cid}` has digest sha256:{}, its descriptor says sha256:{}", hex(.got), hex(.expected))]
    Digest {
        /// The file.
        cid: Cid,
        /// What the descriptor says.
        expected: [u8; 32],
        /// What the content hashes to.
        got: [u8; 32],
    },
    /// The file has another size than its descriptor says.
    #[error("file `{cid}` has {got} bytes, its descriptor says {expected}")]
    Size {
        /// The file.
        cid: Cid,
        /// What the descriptor says, in bytes.
        expected: u64,
        /// What the DAG holds (or claims), in bytes.
        got: u64,
    },
    /// The file is longer than the caller accepts.
    #[error("file `{cid}` has {got} bytes, at most {limit} are accepted here")]
    TooLong {
        /// The file.
        cid: Cid,
        /// The caller's limit, in bytes.
        limit: u64,
        /// What the DAG holds (or claims), in bytes.
        got: u64,
    },
    /// The DAG is not that of a file, or deeper, wider or longer than it may be.
    #[error("the DAG of file `{cid}` is refused")]
    Dag {
        /// The file.
        cid: Cid,
        /// What is wrong with it.
        #[source]
        source: WalkError,
    },
    /// The CID itself is refused.
    #[error("cannot fetch `{cid}`")]
    Cid {
        /// The CID.
        cid: Cid,
        /// Which rule it breaks.
        #[source]
        source: CidError,
    },
    /// A block in the repository is not what it should be; `verify` repairs that.
    #[error("block `{cid}` in the repository is damaged")]
    Damaged {
        /// The block.
        cid: Cid,
        /// How.
        #[source]
        source: BlockError,
    },
    /// The repository failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network cannot be entered.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The caller, or the node's shutdown, ended it. What has arrived is kept.
    #[error("the fetch of `{cid}` was stopped")]
    Stopped {
        /// The file or block.
        cid: Cid,
    },
}

fn starved(asked: usize, holders: usize, waited: Duration) -> String {
    let waited = waited.as_secs_f32();
    match (asked, holders) {
        (0, _) => format!("no peer was found within {waited:.0} s"),
        (asked, 0) => format!("none of the {asked} peers asked within {waited:.0} s has it"),
        (_, holders) => format!("{holders} peers have it, but sent nothing for {waited:.0} s"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
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
}

struct Child {
    cid: Cid,
    at: At,
}

/// Whether a child stands for more than one block: a dag-pb node may also be a leaf.
fn is_interior(child: &Child) -> bool {
    child.cid.codec() != CODEC_RAW && child.at.size.is_none_or(|size| size > MAX_BLOCK_BYTES as u64)
}

/// The file's digest, taken in order from pieces that come in any.
struct InOrder {
    hasher: Sha256,
    position: u64,
    early: BTreeMap<u64, (u64, Option<Bytes>)>,
    early_bytes: usize,
}

impl InOrder {
    fn new() -> Self {
        Self { hasher: Sha256::new(), position: 0, early: BTreeMap::new(), early_bytes: 0 }
    }

    fn take(&mut self, offset: u64, bytes: &Bytes, incoming: &Incoming) -> Result<(), StoreError> {
        if offset != self.position {
            let held = self.early_bytes + bytes.len() <= MAX_EARLY_BYTES;
            if held {
                self.early_bytes += bytes.len();
            }
            self.early.insert(offset, (bytes.len() as u64, held.then(|| bytes.clone())));
            return Ok(());
        }
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() == self.position) {
            let (length, held) = entry.remove();
            match held {
                Some(bytes) => {
                    self.early_bytes -= bytes.len();
                    self.hasher.update(&bytes);
                }
                None => {
                    let length = usize::try_from(length).expect("no piece is longer than a block");
                    self.hasher.update(&incoming.read_at(self.position, length)?);
                }
            }
            self.position += length;
        }
        Ok(())
    }
}

/// What goes on while a file is being received.
struct Receiving {
    incoming: Arc<Incoming>,
    pending: BTreeMap<(u64, u64), Child>,
    serial: u64,
    digest: InOrder,
    received: u64,
    written_back: u64,
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
            digest: InOrder::new(),
            received: 0,
            written_back: 0,
        };
        self.accept(&mut state, &root, &root_at)?;
        self.receive(&mut state, &mut session)?;
        drop(session);
        // The digest of a file of one raw block is in its CID.
        let digest = if cid.codec() == CODEC_RAW { sha256_of(&cid) } else { None };
        if state.digest.position != size {
            return Err(self.wrong_size(state.digest.position));
        }
        let digest = digest.unwrap_or_else(|| state.digest.hasher.finalize().into());
        if let Some(expected) = self.expected.filter(|expected| expected.digest != digest) {
            state.incoming.discard()?;
            return Err(FetchError::Digest { cid, expected: expected.digest, got: digest });
        }
        let incoming = Arc::into_inner(state.incoming).expect("the last sync was waited for, nobody else has a clone");
        Ok(incoming.finish(digest, size)?)
    }

    /// The file, when nothing has to be fetched for it.
    fn local(&self) -> Result<Option<FileInfo>, FetchError> {
        if let Some(info) = self.store.file(&self.cid) {
            self.check(info.digest, info.size)?;
            (self.progress)(info.size);
            return Ok(Some(info));
        }
        // The same bytes may be here under another CID: then only the DAG is missing, and can be made, if it is ours.
        let Some(expected) = self.expected else { return Ok(None) };
        let Some(twin) = self.store.file_by_digest(&expected.digest).into_iter().next() else { return Ok(None) };
        let hashed = std::fs::File::open(&twin.path).and_then(|file| dag::hash_file(&file, threads()));
        let Ok(hashed) = hashed else { return Ok(None) };
        let tree = dag::balanced(&hashed.leaves);
        if tree.root.hash() != self.cid.hash() || hashed.digest != expected.digest {
            return Ok(None);
        }
        (self.progress)(hashed.size);
        Ok(Some(self.store.index_file(&hashed, &tree)?))
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
        let single = raw && at.depth == 0;
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
        if state.digest.position >= state.written_back + WRITEBACK_BYTES {
            state.incoming.start_writeback(state.written_back..state.digest.position);
            state.written_back = state.digest.position;
        }
        (self.progress)(state.received);
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
        let mut wanted: HashMap<Multihash<64>, Vec<Child>> = HashMap::new();
        let (mut nodes, mut last_sync) = (0, Instant::now());
        let mut syncing: Option<JoinHandle<_>> = None;
        loop {
            let mut batch = Vec::new();
            while wanted.len() < MAX_WANTED {
                let Some(next) = state.pending.first_entry() else { break };
                if nodes >= NODES_AHEAD && is_interior(next.get()) {
                    break;
                }
                let child = next.remove();
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
                if let Some(syncing) = syncing {
                    let _ = self.runtime.block_on(syncing);
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
                }
            }
            if last_sync.elapsed() >= SYNC_INTERVAL && syncing.as_ref().is_none_or(JoinHandle::is_finished) {
                let incoming = state.incoming.clone();
                syncing = Some(self.runtime.spawn_blocking(move || incoming.sync()));
                last_sync = Instant::now();
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
                    .session(),
            );
        }
        Ok(session.as_mut().expect("it was just opened"))
    }

    fn next(&self, session: &mut Session, wanted: &HashMap<Multihash<64>, Vec<Child>>) -> Result<Block, FetchError> {
        if let Some(block) = session.try_next() {
            return Ok(block);
        }
        let waited = self.runtime.block_on(self.stop.run_until_cancelled(session.next(self.patience)));
        match waited {
            None => Err(FetchError::Stopped { cid: self.cid }),
            Some(Ok(block)) => Ok(block),
            Some(Err(starved)) => {
                let missing = wanted.values().flatten().min_by_key(|child| child.at.offset);
                Err(unavailable(missing.map_or(self.cid, |child| child.cid), starved))
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

pub(crate) fn unavailable(cid: Cid, starved: Starved) -> FetchError {
    FetchError::Unavailable { cid, asked: starved.asked, holders: starved.holders, waited: starved.waited }
}

/// Threads to hash with: all cores.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
