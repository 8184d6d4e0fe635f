//! Answers other peers: the server half of Bitswap.
//!
//! One ledger a peer, of at most [`MAX_WANTS`] wants; one task a peer, which sends one block at a time, so that a peer
//! that reads slowly holds two blocks of memory and no more. Nothing is served while serving is off: every want is
//! answered with DONT_HAVE.

use super::behaviour::Version;
use super::wire::{self, MAX_WANTS, Want};
use super::{Exchange, WRITE_TIMEOUT, lock};
use bytes::Bytes;
use cid::Cid;
use futures::{AsyncWriteExt as _, future::OptionFuture};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A block this small is sent in place of HAVE, as boxo does: the answer costs about the same.
const SMALL_BLOCK_BYTES: u64 = 1024;
/// Presences in one message: about 40 KiB.
const MAX_PRESENCES: usize = 1024;

#[derive(Clone, Copy)]
enum Reply {
    Block(Cid),
    Presence(Cid, bool),
}

impl Reply {
    fn cid(&self) -> &Cid {
        match self {
            Self::Block(cid) | Self::Presence(cid, _) => cid,
        }
    }
}

/// What one peer wants of us.
#[derive(Default)]
struct Ledger {
    replies: VecDeque<Reply>,
    /// Wanted and not here: answered should it arrive. `true` when the block itself is wanted.
    missing: HashMap<Cid, bool>,
    queued: HashSet<Cid>,
    wake: Arc<Notify>,
    /// The task that sends is running.
    running: bool,
    sending: bool,
}

impl Ledger {
    fn push(&mut self, reply: Reply) {
        if self.replies.len() < MAX_WANTS && self.queued.insert(*reply.cid()) {
            self.replies.push_back(reply);
        }
    }

    fn cancel(&mut self, cid: &Cid) {
        self.missing.remove(cid);
        if self.queued.remove(cid) {
            self.replies.retain(|reply| reply.cid() != cid);
        }
    }

    fn pop(&mut self) -> Option<Reply> {
        let reply = self.replies.pop_front()?;
        self.queued.remove(reply.cid());
        Some(reply)
    }
}

/// The ledgers of all connected peers.
#[derive(Default)]
pub(super) struct Ledgers(Mutex<HashMap<PeerId, Ledger>>);

impl Ledgers {
    pub(super) fn forget(&self, peer: &PeerId) {
        lock(&self.0).remove(peer);
    }

    pub(super) fn is_busy_with(&self, peer: &PeerId) -> bool {
        lock(&self.0).get(peer).is_some_and(|ledger| ledger.sending || !ledger.replies.is_empty())
    }

    /// Answers those who waited for this block.
    pub(super) fn stored(&self, cid: &Cid) {
        for ledger in lock(&self.0).values_mut() {
            if let Some(block) = ledger.missing.remove(cid) {
                ledger.push(if block { Reply::Block(*cid) } else { Reply::Presence(*cid, true) });
                ledger.wake.notify_one();
            }
        }
    }
}

/// The serving side of an exchange.
pub(super) struct Serving {
    pub(super) exchange: Exchange,
}

impl Serving {
    /// Takes a peer's wants into its ledger and starts answering.
    pub(super) async fn take_wants(&self, peer: PeerId, full: bool, wants: Vec<Want>) {
        let exchange = self.exchange.clone();
        let serving = exchange.0.serving.load(Ordering::Relaxed);
        // Looking sizes up reads the index, which may touch the disk.
        let looked_up = tokio::task::spawn_blocking(move || {
            let size = |want: &Want| exchange.0.store.size(&want.cid).ok().flatten();
            wants.into_iter().map(|want| (size(&want).filter(|_| serving && !want.cancel), want)).collect::<Vec<_>>()
        });
        let Ok(wants) = looked_up.await else { return };
        let start = {
            let mut ledgers = lock(&self.exchange.0.ledgers.0);
            let ledger = ledgers.entry(peer).or_default();
            if full {
                ledger.replies.clear();
                ledger.queued.clear();
                ledger.missing.clear();
            }
            for (size, want) in wants {
                match size {
                    _ if want.cancel => ledger.cancel(&want.cid),
                    Some(size) if !want.have_only || size <= SMALL_BLOCK_BYTES => ledger.push(Reply::Block(want.cid)),
                    Some(_) => ledger.push(Reply::Presence(want.cid, true)),
                    None => {
                        if ledger.missing.len() < MAX_WANTS {
                            ledger.missing.insert(want.cid, !want.have_only);
                        }
                        if want.send_dont_have {
                            ledger.push(Reply::Presence(want.cid, false));
                        }
                    }
                }
            }
            ledger.wake.notify_one();
            (!ledger.replies.is_empty() && !std::mem::replace(&mut ledger.running, true)).then(|| ledger.wake.clone())
        };
        let Some(wake) = start else { return };
        let token = lock(&self.exchange.0.peers).get(&peer).map(|entry| entry.token.clone());
        let Some(token) = token else { return self.exchange.0.ledgers.forget(&peer) };
        {
            let serving = Self { exchange: self.exchange.clone() };
            self.exchange.0.tasks.spawn_on(
                async move {
                    token.run_until_cancelled(serving.run(peer, wake)).await;
                },
                &self.exchange.0.runtime,
            );
        }
    }

    /// Sends replies to one peer for as long as it is connected.
    async fn run(&self, peer: PeerId, wake: Arc<Notify>) {
        let mut stream: Option<(Stream, Version)> = None;
        // The block after the one being sent is read meanwhile.
        let mut ahead = None;
        loop {
            if ahead.is_none() {
                match self.next(&peer) {
                    Some(job) => ahead = Some(self.prepare(job)),
                    None => {
                        // Nothing more to say for now: let what was written go.
                        if let Some((open, _)) = &mut stream
                            && !matches!(tokio::time::timeout(WRITE_TIMEOUT, open.flush()).await, Ok(Ok(())))
                        {
                            stream = None;
                        }
                        wake.notified().await;
                        continue;
                    }
                }
            }
            let ready = OptionFuture::from(ahead.take()).await.and_then(Result::ok).flatten();
            let following = self.next(&peer);
            ahead = following.map(|job| self.prepare(job));
            let Some(ready) = ready else { continue };
            if stream.is_none() {
                match self.exchange.open(&peer).await {
                    Ok(open) => stream = Some(open),
                    Err(error) => {
                        tracing::debug!(%peer, %error, "replies cannot be sent to the peer");
                        continue;
                    }
                }
            }
            let Some((open, version)) = &mut stream else { continue };
            match tokio::time::timeout(WRITE_TIMEOUT, write(open, *version, &ready)).await {
                Ok(Ok(sent)) => {
                    if let Some(entry) = lock(&self.exchange.0.peers).get(&peer) {
                        entry.counters.sent.fetch_add(sent, Ordering::Relaxed);
                    }
                }
                _ => {
                    tracing::debug!(%peer, "the peer does not read its replies");
                    stream = None;
                }
            }
        }
    }

    /// Takes the next piece of work out of a ledger: all presences at its head, or one block.
    fn next(&self, peer: &PeerId) -> Option<Job> {
        let mut ledgers = lock(&self.exchange.0.ledgers.0);
        let ledger = ledgers.get_mut(peer)?;
        let job = match ledger.pop() {
            Some(Reply::Block(cid)) => Some(Job::Block(cid)),
            Some(Reply::Presence(cid, have)) => {
                let mut presences = vec![(cid, have)];
                while presences.len() < MAX_PRESENCES
                    && let Some(Reply::Presence(cid, have)) = ledger.replies.front().copied()
                {
                    ledger.pop();
                    presences.push((cid, have));
                }
                Some(Job::Presences(presences))
            }
            None => None,
        };
        ledger.sending = job.is_some();
        job
    }

    fn prepare(&self, job: Job) -> tokio::task::JoinHandle<Option<Ready>> {
        let store = self.exchange.0.store.clone();
        tokio::task::spawn_blocking(move || match job {
            Job::Presences(presences) => Some(Ready::Presences(presences)),
            Job::Block(cid) => match store.get(&cid) {
                Ok(Some(data)) => Some(Ready::Block(cid, data)),
                // It went away since it was looked up.
                Ok(None) => Some(Ready::Presences(vec![(cid, false)])),
                Err(error) => {
                    tracing::warn!(%cid, %error, "a block cannot be read to serve it");
                    Some(Ready::Presences(vec![(cid, false)]))
                }
            },
        })
    }
}

enum Job {
    Block(Cid),
    Presences(Vec<(Cid, bool)>),
}

enum Ready {
    Block(Cid, Bytes),
    Presences(Vec<(Cid, bool)>),
}

/// Writes one reply; returns the block bytes sent.
async fn write(stream: &mut Stream, version: Version, ready: &Ready) -> io::Result<u64> {
    match ready {
        Ready::Block(cid, data) => {
            let head = match version {
                Version::V1_0 if !wire::legacy_can_carry(cid) => return Ok(0),
                Version::V1_0 => wire::encode_legacy_block_head(data.len()),
                _ => wire::encode_block_head(cid, data.len()),
            };
            stream.write_all(&head).await?;
            stream.write_all(data).await?;
            Ok(data.len() as u64)
        }
        Ready::Presences(presences) if version == Version::V1_2 => {
            stream.write_all(&wire::encode_presences(presences)).await?;
            Ok(0)
        }
        Ready::Presences(_) => Ok(0),
    }
}
