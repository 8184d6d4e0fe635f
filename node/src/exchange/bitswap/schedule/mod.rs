//! Who is asked for what: the client half of Bitswap as a plain state machine.
//!
//! Blocks are asked for in the order a session wants them, from peers that are believed to hold them, a window of
//! bytes at a time; what a peer does not deliver in time, or denies, is asked of another. Nothing here does I/O or
//! reads a clock: callers pass the time in and carry out the [`Action`]s that come back.

mod source;

use super::wire::Want;
use crate::block::Block;
use cid::Cid;
use libp2p::PeerId;
use multihash::Multihash;
use source::{Asked, Source};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Bytes asked for, of all peers together, or received and not taken by a session yet: what the exchange may hold in
/// memory. Four peers with full windows.
const MAX_BYTES: usize = 16 << 20;
/// A block kept this many times the peer's patience is late even while others arrive from it.
const DRIP_FACTOR: u32 = 4;
/// A peer that was given up is tried again after this long.
const FORGIVEN_AFTER: Duration = Duration::from_secs(15);
/// Blocks that a peer may be late with, one after another, before a session stops relying on it.
const MAX_STRIKES: u32 = 3;
/// Blocks nobody asked for that a peer may send before it is cut off. Late duplicates do not count.
const MAX_BOGUS_BLOCKS: u32 = 16;
/// A denial is forgotten after this long: the peer may be fetching the block itself.
const DENIAL_LIFETIME: Duration = Duration::from_secs(2);
/// How often peers and routing are asked again for what nobody is known to hold.
const SEEK_INTERVAL: Duration = Duration::from_secs(2);
/// Most peers asked whether they have a block, at a time: a bound on how loud a search is.
const MAX_PROBES: usize = 64;
/// Delivered blocks that are remembered, to tell a late duplicate from a block nobody asked for.
const REMEMBERED: usize = 4096;
/// A peer that delivered within this time is asked first by a new session: the blobs of one image lie together.
const TRUSTED_FOR: Duration = Duration::from_secs(300);

/// The key of a want: the digest, since two CIDs with one multihash name the same bytes.
type Hash = Multihash<64>;
/// Names a session.
pub(super) type SessionId = u64;

/// What the state machine asks its surroundings to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Look for providers of this CID and connect to them.
    Seek(Cid),
    /// Disconnect this peer and do not let it back: it sends what nobody asked for.
    Ban(PeerId),
}

/// What became of a block that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Somebody waited for it.
    Wanted,
    /// It came twice.
    Duplicate,
    /// Nobody asked for it.
    Bogus,
}

struct Denial {
    peer: PeerId,
    at: Instant,
}

#[derive(Default)]
struct Wanted {
    sessions: Vec<SessionId>,
    asked: Vec<PeerId>,
    denied: Vec<Denial>,
}

struct SessionState {
    /// Wanted and not asked of anybody now, in order.
    queue: VecDeque<Cid>,
    holders: Vec<PeerId>,
    probed: HashSet<PeerId>,
    blocks: mpsc::UnboundedSender<Block>,
    last_seek: Option<Instant>,
}

/// The state machine. One lock guards it; every call is short.
#[derive(Default)]
pub(super) struct Schedule {
    sources: HashMap<PeerId, Source>,
    wants: HashMap<Hash, Wanted>,
    sessions: HashMap<SessionId, SessionState>,
    next_session: SessionId,
    remembered: HashSet<Hash>,
    remembered_order: VecDeque<Hash>,
    actions: Vec<Action>,
    /// Bytes of blocks that sessions have not taken yet.
    held: usize,
    /// Something was not asked for because of [`MAX_BYTES`].
    paused: bool,
}

impl Schedule {
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(super) fn peer_connected(&mut self, peer: PeerId, wake: Arc<Notify>, now: Instant) {
        self.sources.entry(peer).or_insert_with(|| Source::new(wake, now));
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.probe(id, now);
        }
    }

    pub(super) fn peer_disconnected(&mut self, peer: &PeerId, now: Instant) {
        let Some(source) = self.sources.remove(peer) else { return };
        for session in self.sessions.values_mut() {
            session.holders.retain(|holder| holder != peer);
            session.probed.remove(peer);
        }
        for (hash, asked) in source.asked {
            self.requeue(&hash, asked.cid, peer);
        }
        self.assign_all(now);
    }

    /// Whether wants of ours are outstanding at this peer.
    pub(super) fn expects_from(&self, peer: &PeerId) -> bool {
        self.sources.get(peer).is_some_and(|source| !source.asked.is_empty())
    }

    /// What is to be sent to this peer now.
    pub(super) fn take_outbox(&mut self, peer: &PeerId) -> Vec<Want> {
        self.sources.get_mut(peer).map(|source| std::mem::take(&mut source.outbox)).unwrap_or_default()
    }

    pub(super) fn open_session(&mut self, blocks: mpsc::UnboundedSender<Block>, now: Instant) -> SessionId {
        let id = self.next_session;
        self.next_session += 1;
        let trusted = |source: &Source| {
            source.strikes < MAX_STRIKES && source.last_block.is_some_and(|at| now.duration_since(at) < TRUSTED_FOR)
        };
        let holders = self.sources.iter().filter(|(_, source)| trusted(source)).map(|(peer, _)| *peer).collect();
        let state = SessionState { queue: VecDeque::new(), holders, probed: HashSet::new(), blocks, last_seek: None };
        self.sessions.insert(id, state);
        id
    }

    pub(super) fn close_session(&mut self, id: SessionId) {
        let Some(closed) = self.sessions.remove(&id) else { return };
        let mut cancelled = Vec::new();
        self.wants.retain(|hash, wanted| {
            wanted.sessions.retain(|session| *session != id);
            if wanted.sessions.is_empty() {
                cancelled.extend(wanted.asked.iter().map(|peer| (*peer, *hash)));
            }
            !wanted.sessions.is_empty()
        });
        // What it had queued for others as well is theirs to ask for now.
        for cid in closed.queue {
            let wanted = self.wants.get(cid.hash());
            let heir = wanted.and_then(|wanted| wanted.sessions.first()).and_then(|id| self.sessions.get_mut(id));
            if let Some(heir) = heir {
                heir.queue.push_back(cid);
            }
        }
        for (peer, hash) in cancelled {
            self.remember(hash);
            if let Some(source) = self.sources.get_mut(&peer)
                && let Some(asked) = source.asked.remove(&hash)
            {
                source.cancel(asked.cid);
            }
        }
    }

    pub(super) fn want(&mut self, id: SessionId, cids: impl IntoIterator<Item = Cid>, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for cid in cids {
            let wanted = self.wants.entry(*cid.hash()).or_default();
            if wanted.sessions.contains(&id) {
                continue;
            }
            // One that another session asked for is only waited for.
            if wanted.sessions.is_empty() {
                session.queue.push_back(cid);
            }
            wanted.sessions.push(id);
        }
        self.assign(id, now);
    }

    /// A session has taken blocks of this many bytes, or went away without taking them.
    pub(super) fn taken(&mut self, bytes: usize, now: Instant) {
        self.held = self.held.saturating_sub(bytes);
        if self.paused && self.held <= MAX_BYTES / 2 {
            self.paused = false;
            self.assign_all(now);
        }
    }

    /// Peers that are believed to hold what the session wants, and how many were asked at all.
    pub(super) fn asked_peers(&self, id: SessionId) -> (Vec<PeerId>, usize) {
        self.sessions.get(&id).map_or((Vec::new(), 0), |session| {
            let mut all: HashSet<_> = session.probed.iter().copied().collect();
            all.extend(session.holders.iter().copied());
            (session.holders.clone(), all.len())
        })
    }

    pub(super) fn on_presence(&mut self, peer: PeerId, cid: &Cid, have: bool, now: Instant) {
        let Some(wanted) = self.wants.get_mut(cid.hash()) else { return };
        let sessions = wanted.sessions.clone();
        if have {
            for id in sessions {
                if let Some(session) = self.sessions.get_mut(&id) {
                    if !session.holders.contains(&peer) {
                        session.holders.push(peer);
                    }
                    self.assign(id, now);
                }
            }
            return;
        }
        if !wanted.denied.iter().any(|denial| denial.peer == peer) {
            wanted.denied.push(Denial { peer, at: now });
        }
        let asked = self.sources.get_mut(&peer).and_then(|source| source.asked.remove(cid.hash()));
        if let Some(asked) = asked {
            self.requeue(&cid.hash().to_owned(), asked.cid, &peer);
            for id in sessions {
                self.assign(id, now);
            }
        }
    }

    /// Takes a verified block in and hands it to whoever waits for it.
    pub(super) fn on_block(&mut self, peer: PeerId, block: &Block, now: Instant) -> Arrival {
        let hash = *block.cid().hash();
        let asked = self.sources.get_mut(&peer).and_then(|source| source.asked.remove(&hash));
        let Some(wanted) = self.wants.remove(&hash) else {
            if self.remembered.contains(&hash) {
                return Arrival::Duplicate;
            }
            if let Some(source) = self.sources.get_mut(&peer) {
                source.bogus += 1;
                if source.bogus == MAX_BOGUS_BLOCKS {
                    self.actions.push(Action::Ban(peer));
                }
            }
            return Arrival::Bogus;
        };
        self.remember(hash);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.delivered(asked.as_ref(), block.data().len(), now);
        }
        for other in wanted.asked.iter().filter(|other| **other != peer) {
            if let Some(source) = self.sources.get_mut(other)
                && let Some(asked) = source.asked.remove(&hash)
            {
                source.cancel(asked.cid);
            }
        }
        for id in &wanted.sessions {
            if let Some(session) = self.sessions.get_mut(id) {
                // Denied, then queued, then delivered late by the first peer.
                if wanted.asked.is_empty() {
                    session.queue.retain(|cid| *cid.hash() != hash);
                }
                // The session counts what it wants, so this never holds more than that.
                if session.blocks.send(block.clone()).is_ok() {
                    self.held += block.data().len();
                }
                if !session.holders.contains(&peer) {
                    session.holders.push(peer);
                }
            }
        }
        self.assign_all(now);
        Arrival::Wanted
    }

    /// Passes over peers that are late, forgets old denials, searches again for what nobody holds.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (peer, source) in &mut self.sources {
            let patience = source.patience();
            let silent = source.last_block.is_none_or(|at| now.duration_since(at) > patience);
            let limit = if silent { patience } else { patience * DRIP_FACTOR };
            let before = late.len();
            let overdue = source.asked.iter().filter(|(_, asked)| now.duration_since(asked.at) > limit);
            late.extend(overdue.map(|(hash, asked)| (*peer, *hash, asked.cid)));
            if late.len() > before {
                source.strikes += 1;
            }
        }
        for wanted in self.wants.values_mut() {
            wanted.denied.retain(|denial| now.duration_since(denial.at) < DENIAL_LIFETIME);
        }
        for (peer, hash, cid) in late {
            self.pass_over(peer, hash, cid, now);
        }
        let ids: Vec<_> = self.sessions.keys().copied().collect();
        for id in ids {
            self.assign(id, now);
        }
    }

    /// Takes a want from a peer that is late, if another one may have it; else asks the same one again.
    fn pass_over(&mut self, peer: PeerId, hash: Hash, cid: Cid, now: Instant) {
        let Some(wanted) = self.wants.get_mut(&hash) else { return };
        let denied = |other: &PeerId| wanted.denied.iter().any(|denial| denial.peer == *other);
        let others = wanted.sessions.iter().filter_map(|id| self.sessions.get(id)).flat_map(|session| &session.holders);
        let another = others.filter(|other| **other != peer && !denied(other)).count() > 0;
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if another || source.strikes >= MAX_STRIKES {
            source.asked.remove(&hash);
            source.cancel(cid);
            wanted.denied.push(Denial { peer, at: now });
            if source.strikes >= MAX_STRIKES {
                for session in self.sessions.values_mut() {
                    session.holders.retain(|holder| *holder != peer);
                }
            }
            self.requeue(&hash, cid, &peer);
        } else if let Some(asked) = source.asked.get_mut(&hash) {
            asked.at = now;
            source.post(Want { cid, cancel: false, have_only: false, send_dont_have: true });
        }
    }

    /// Puts a want that `peer` no longer answers back to the head of the queue of those who wait for it.
    fn requeue(&mut self, hash: &Hash, cid: Cid, peer: &PeerId) {
        let Some(wanted) = self.wants.get_mut(hash) else { return };
        wanted.asked.retain(|asked| asked != peer);
        if wanted.asked.is_empty()
            && let Some(id) = wanted.sessions.iter().find(|id| self.sessions.contains_key(id))
            && let Some(session) = self.sessions.get_mut(id)
            && !session.queue.contains(&cid)
        {
            session.queue.push_front(cid);
        }
    }

    fn assign_all(&mut self, now: Instant) {
        let waiting = |session: &SessionState| !session.queue.is_empty();
        let ids: Vec<_> = self.sessions.iter().filter(|(_, state)| waiting(state)).map(|(id, _)| *id).collect();
        for id in ids {
            self.assign(id, now);
        }
    }

    /// Asks holders with room in their windows for what the session has queued.
    fn assign(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut owed: usize = self.sources.values().map(Source::owed).sum();
        let mut nobody = Vec::new();
        while let Some(cid) = session.queue.pop_front() {
            if owed > 0 && owed + self.held >= MAX_BYTES {
                self.paused = true;
                session.queue.push_front(cid);
                break;
            }
            let Some(wanted) = self.wants.get_mut(cid.hash()) else { continue };
            let may_have = |peer: &PeerId| !wanted.denied.iter().any(|denial| denial.peer == *peer);
            let holders = session.holders.iter().filter(|peer| may_have(peer));
            let (mut best, mut any) = (None, false);
            for peer in holders {
                let Some(source) = self.sources.get(peer) else { continue };
                any = true;
                if source.open {
                    // The time this peer would take to get to one more block.
                    let score = (source.latency.as_micros().max(1), source.asked.len());
                    let load = score.0 * (score.1 as u128 + 1) / source.window() as u128;
                    if best.is_none_or(|(least, _)| load < least) {
                        best = Some((load, *peer));
                    }
                }
            }
            let Some((_, peer)) = best else {
                if any {
                    session.queue.push_front(cid);
                    break;
                }
                nobody.push(cid);
                continue;
            };
            let source = self.sources.get_mut(&peer).expect("the best peer was looked up above");
            source.asked.insert(*cid.hash(), Asked { cid, at: now });
            owed += source.block_bytes;
            source.last_ask = now;
            source.open = source.asked.len() < source.window();
            source.post(Want { cid, cancel: false, have_only: false, send_dont_have: true });
            wanted.asked.push(peer);
        }
        let searching = !nobody.is_empty();
        for cid in nobody.into_iter().rev() {
            session.queue.push_front(cid);
        }
        if searching {
            self.probe(id, now);
        }
    }

    /// Asks peers that were not asked yet whether they have the first block that nobody is known to hold.
    fn probe(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let denied = |peer: &PeerId, cid: &Cid| {
            self.wants.get(cid.hash()).is_some_and(|wanted| wanted.denied.iter().any(|denial| denial.peer == *peer))
        };
        let held = |cid: &Cid| session.holders.iter().any(|peer| !denied(peer, cid));
        let Some(cid) = session.queue.iter().find(|cid| !held(cid)).copied() else { return };
        if session.last_seek.is_none_or(|at| now.duration_since(at) >= SEEK_INTERVAL) {
            session.last_seek = Some(now);
            session.probed.clear();
            self.actions.push(Action::Seek(cid));
        }
        for (peer, source) in &mut self.sources {
            let given_up = source.strikes >= MAX_STRIKES * 2 && now.duration_since(source.last_ask) < FORGIVEN_AFTER;
            if session.probed.len() < MAX_PROBES && !given_up && session.probed.insert(*peer) {
                source.post(Want { cid, cancel: false, have_only: true, send_dont_have: true });
            }
        }
    }

    fn remember(&mut self, hash: Hash) {
        if self.remembered.insert(hash) {
            self.remembered_order.push_back(hash);
            if self.remembered_order.len() > REMEMBERED
                && let Some(oldest) = self.remembered_order.pop_front()
            {
                self.remembered.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
