//! Bitswap, both halves, over libp2p streams.
//!
//! [`wire`] is the protocol's bytes, `schedule` decides who is asked for what, `receive` reads streams and checks
//! what arrives, [`session`] is what a fetch holds, `ledger` is what a peer wants and `serve` answers it, [`behaviour`] ties all of it to the
//! swarm. The swarm's task carries no data: each stream is read by a task of its own, hashing happens on blocking
//! threads, and every queue between them is bounded.
//!
//! May import [`crate::block`], the limits of [`crate::config`] and the `Blockstore` seam of [`crate::store`]. It never dials, never writes to the
//! store, and never hands out bytes that were not hashed.

pub mod behaviour;
mod buffers;
mod ledger;
mod receive;
mod schedule;
mod serve;
pub mod session;
pub mod wire;

use crate::block::Cid;
use crate::config::Limits;
use crate::store::Blockstore;
use crate::trace::Trace;
use behaviour::{InboundSlot, OpenError, Opener, Version};
use buffers::Buffers;
use futures::AsyncWriteExt as _;
use ledger::Ledger;
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use receive::Intake;
use schedule::{Action, Schedule};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often late peers are looked for: a third of the shortest patience.
const TICK: Duration = Duration::from_millis(100);
/// Longest time one write to a peer may take: a block of 256 KiB at 10 KiB/s. A peer that reads slower is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time it may take once there is another connection to the peer: the one that is written to may be dead, which
/// TCP finds out after a quarter of an hour.
const MOVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages with blocks that are hashed or wait for it, of all peers together: 4 MiB at the usual block size.
const MAX_HASHING: usize = 16;
/// Messages whose wants are looked up at once, of all peers together: enough to keep the index busy.
const MAX_LOOKUPS: usize = 4;
/// Long lists of wants that are decoded at once, of all peers together: each takes 128 KiB until it is in a ledger.
const MAX_LISTS: usize = 8;
/// Signals to the owner of the swarm that may wait; a full queue drops a search, which is repeated anyway.
const MAX_SIGNALS: usize = 64;

/// What the exchange asks of the owner of the swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// Find providers of this CID and connect to them.
    Seek(Cid),
    /// Nothing comes from this peer, though it owes something: see whether another connection does better.
    Redial(PeerId),
    /// Disconnect this peer and refuse it from now on.
    Ban(PeerId),
}

/// Bytes and blocks exchanged with one peer since it connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Block bytes received that somebody waited for.
    pub received: u64,
    /// Block bytes sent.
    pub sent: u64,
    /// Block bytes received twice or never asked for.
    pub wasted: u64,
    /// Bytes of all Bitswap messages that came, unfinished ones too, without the lengths before them.
    pub wire_received: u64,
    /// Bytes of all Bitswap messages that went out.
    pub wire_sent: u64,
}

#[derive(Default)]
struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
    wasted: AtomicU64,
    wire_sent: AtomicU64,
}

struct Peer {
    openers: Vec<(ConnectionId, Opener)>,
    wake: Arc<Notify>,
    /// There is another connection.
    newer: Arc<Notify>,
    token: CancellationToken,
    counters: Arc<Counters>,
    intake: Arc<Intake>,
    ledger: Arc<Mutex<Ledger>>,
}

struct Inner {
    schedule: Mutex<Schedule>,
    peers: Mutex<HashMap<PeerId, Peer>>,
    store: Arc<dyn Blockstore>,
    serving: AtomicBool,
    hashing: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    lists: Semaphore,
    /// What long messages of all who were asked for nothing take.
    unasked: Arc<Semaphore>,
    /// Blocks read ahead for all who are sent some.
    ahead: Arc<Semaphore>,
    limits: Limits,
    buffers: Buffers,
    signals: mpsc::Sender<Signal>,
    trace: Trace,
    runtime: Handle,
    tasks: TaskTracker,
    token: CancellationToken,
}

/// The exchange; clones share it.
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

/// A lock whose holders never panic half-way through a change; if one did, its state is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exchange {
    /// An exchange that serves from `store` (once [`Exchange::set_serving`] allows it), runs its tasks on `runtime` and
    /// keeps to `limits`.
    /// The receiver carries what the owner of the swarm is to do.
    pub fn new(
        store: Arc<dyn Blockstore>,
        runtime: Handle,
        tasks: TaskTracker,
        token: CancellationToken,
        limits: &Limits,
    ) -> (Self, mpsc::Receiver<Signal>) {
        let (signals, receiver) = mpsc::channel(MAX_SIGNALS);
        let exchange = Self(Arc::new(Inner {
            schedule: Mutex::default(),
            peers: Mutex::default(),
            store,
            serving: AtomicBool::new(false),
            hashing: Arc::new(Semaphore::new(MAX_HASHING)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            lists: Semaphore::new(MAX_LISTS),
            unasked: Arc::new(Semaphore::new(limits.unasked_bytes.max(receive::MAX_UNASKED_BYTES))),
            ahead: Arc::new(Semaphore::new(limits.blocks_read_ahead)),
            limits: limits.clone(),
            buffers: Buffers::default(),
            signals,
            trace: Trace::default(),
            runtime,
            tasks,
            token,
        }));
        let ticking = exchange.clone();
        exchange.spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                ticking.with_schedule(|schedule| schedule.tick(Instant::now()));
            }
        });
        (exchange, receiver)
    }

    /// What became of the last fetches.
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Whether other peers get blocks from us. Off until the user asks for it.
    pub fn set_serving(&self, serving: bool) {
        self.0.serving.store(serving, Ordering::Relaxed);
    }

    /// Whether other peers get blocks from us.
    pub fn is_serving(&self) -> bool {
        self.0.serving.load(Ordering::Relaxed)
    }

    /// Tells peers that wait for this block that it is here now.
    pub fn announce_stored(&self, cid: &Cid) {
        if self.0.serving.load(Ordering::Relaxed) {
            for peer in lock(&self.0.peers).values() {
                lock(&peer.ledger).stored(cid);
            }
        }
    }

    /// What was exchanged with a connected peer.
    pub fn traffic(&self, peer: &PeerId) -> Traffic {
        let peers = lock(&self.0.peers);
        peers.get(peer).map_or(Traffic::default(), |peer| Traffic {
            received: peer.counters.received.load(Ordering::Relaxed),
            sent: peer.counters.sent.load(Ordering::Relaxed),
            wasted: peer.counters.wasted.load(Ordering::Relaxed),
            wire_received: peer.intake.arriving.load(Ordering::Relaxed),
            wire_sent: peer.counters.wire_sent.load(Ordering::Relaxed),
        })
    }

    fn count_sent(&self, peer: &PeerId, bytes: usize) {
        if let Some(entry) = lock(&self.0.peers).get(peer) {
            entry.counters.wire_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Counts bytes that came from and went to a connected peer, those of unfinished messages too: whether it is alive.
    pub(crate) fn bytes_exchanged(&self, peer: &PeerId) -> u64 {
        let peers = lock(&self.0.peers);
        peers
            .get(peer)
            .map_or(0, |peer| peer.intake.arriving.load(Ordering::Relaxed) + peer.counters.sent.load(Ordering::Relaxed))
    }

    /// Runs `task` until it ends or the node shuts down.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.0.token.clone();
        self.0.tasks.spawn_on(
            async move {
                token.run_until_cancelled(task).await;
            },
            &self.0.runtime,
        );
    }

    /// One short look at the schedule, then whatever it asks for.
    fn with_schedule<T>(&self, look: impl FnOnce(&mut Schedule) -> T) -> T {
        let (value, actions) = {
            let mut schedule = lock(&self.0.schedule);
            let value = look(&mut schedule);
            (value, schedule.take_actions())
        };
        for action in actions {
            let signal = match action {
                Action::Seek(cid) => Signal::Seek(cid),
                Action::Redial(peer) => Signal::Redial(peer),
                Action::Ban(peer) => Signal::Ban(peer),
            };
            if self.0.signals.try_send(signal).is_err() {
                tracing::debug!("the swarm is busy, a search is put off");
            }
        }
        value
    }

    pub(crate) fn is_busy_with(&self, peer: &PeerId) -> bool {
        lock(&self.0.schedule).expects_from(peer)
            || lock(&self.0.peers).get(peer).is_some_and(|peer| lock(&peer.ledger).is_busy())
    }

    pub(crate) fn connected(&self, peer: PeerId, connection: ConnectionId, opener: Opener) {
        let mut peers = lock(&self.0.peers);
        let entry = peers.entry(peer).or_insert_with(|| {
            let token = self.0.token.child_token();
            let (wake, newer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let ledger = Arc::new(Mutex::new(Ledger::new(&self.0.limits)));
            let intake = Arc::new(Intake::new(&self.0.limits));
            let (exchange, wants, moves, cut) = (self.clone(), wake.clone(), newer.clone(), token.clone());
            let asking = async move { cut.run_until_cancelled(exchange.send_wants(peer, wants, moves)).await };
            let (exchange, replies, moves, cut) = (self.clone(), ledger.clone(), newer.clone(), token.clone());
            let answering = async move { cut.run_until_cancelled(exchange.send_replies(peer, replies, moves)).await };
            self.0.tasks.spawn_on(asking, &self.0.runtime);
            self.0.tasks.spawn_on(answering, &self.0.runtime);
            Peer { openers: Vec::new(), wake, newer, token, counters: Arc::default(), intake, ledger }
        });
        entry.openers.push((connection, opener));
        entry.newer.notify_waiters();
        let (wake, arriving) = (entry.wake.clone(), entry.intake.arriving.clone());
        drop(peers);
        self.with_schedule(|schedule| schedule.peer_connected(peer, wake, arriving, Instant::now()));
    }

    pub(crate) fn disconnected(&self, peer: PeerId, connection: ConnectionId) {
        let mut peers = lock(&self.0.peers);
        let Some(entry) = peers.get_mut(&peer) else { return };
        entry.openers.retain(|(id, _)| *id != connection);
        if !entry.openers.is_empty() {
            return;
        }
        entry.token.cancel();
        peers.remove(&peer);
        drop(peers);
        self.0.trace.lost(&peer);
        self.with_schedule(|schedule| schedule.peer_disconnected(&peer, Instant::now()));
    }

    /// Bytes of messages that came from a connected peer, those of unfinished ones too.
    pub(crate) fn bytes_heard(&self, peer: &PeerId) -> u64 {
        lock(&self.0.peers).get(peer).map_or(0, |peer| peer.intake.arriving.load(Ordering::Relaxed))
    }

    /// Asks a peer again for everything that it was asked for over a connection that was dead, and is gone now.
    pub(crate) fn ask_again(&self, peer: &PeerId) {
        self.with_schedule(|schedule| schedule.peer_moved(peer, Instant::now()));
    }

    /// Starts a reader for an inbound stream.
    pub(crate) fn read(&self, peer: PeerId, stream: Stream, slot: InboundSlot) {
        let exchange = self.clone();
        self.spawn(async move {
            if let Err(error) = exchange.receive(peer, stream).await {
                tracing::debug!(%peer, %error, "a bitswap stream ended");
            }
            drop(slot);
        });
    }

    /// Opens a stream on the newest connection to a peer, or on an older one if that is just ending.
    async fn open(&self, peer: &PeerId) -> Result<(Stream, Version), OpenError> {
        let openers = lock(&self.0.peers).get(peer).map(|peer| peer.openers.clone()).unwrap_or_default();
        for (_, opener) in openers.iter().rev() {
            match opener.open().await {
                Err(OpenError::Closed) => {}
                done => return done,
            }
        }
        Err(OpenError::Closed)
    }

    /// Sends what we want from a peer, on one stream, for as long as it is connected.
    async fn send_wants(&self, peer: PeerId, wake: Arc<Notify>, newer: Arc<Notify>) {
        let mut stream: Option<(Stream, Version)> = None;
        loop {
            wake.notified().await;
            let mut wants = lock(&self.0.schedule).take_outbox(&peer);
            if wants.is_empty() {
                continue;
            }
            self.0.trace.asked(&peer, &wants);
            // A broken stream is opened once more; after that the connection is as good as gone.
            for attempt in 0..2 {
                let (sender, version) = match &mut stream {
                    Some(open) => open,
                    None => match self.open(&peer).await {
                        Ok(open) => stream.insert(open),
                        Err(error) => {
                            tracing::debug!(%peer, %error, "no bitswap stream to the peer");
                            self.0.trace.not_asked(&peer, &wants, &error);
                            break;
                        }
                    },
                };
                if *version < Version::V1_2 {
                    lock(&self.0.schedule).without_presences(&peer, &mut wants, Instant::now());
                }
                let message = wire::encode_wants(&wants, false);
                let write = async {
                    sender.write_all(&message).await?;
                    sender.flush().await
                };
                match in_time(write, &newer).await {
                    Ok(Ok(())) => {
                        self.count_sent(&peer, message.len());
                        break;
                    }
                    _ if attempt == 0 => stream = None,
                    _ => {
                        tracing::debug!(%peer, "the peer does not read what we want");
                        stream = None;
                    }
                }
            }
        }
    }
}

/// Waits for a write to a peer, for [`WRITE_TIMEOUT`] at most; once there is another connection to it, for
/// [`MOVE_TIMEOUT`], after which the one that is written to counts as broken.
async fn in_time<T>(write: impl Future<Output = io::Result<T>>, newer: &Notify) -> Result<io::Result<T>, Elapsed> {
    let moved = async {
        newer.notified().await;
        tokio::time::sleep(MOVE_TIMEOUT).await;
    };
    let write = async {
        tokio::select! {
            done = write => done,
            () = moved => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    tokio::time::timeout(WRITE_TIMEOUT, write).await
}
