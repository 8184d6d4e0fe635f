//! Who is asked for what: the client half of Bitswap as a plain state machine.
//!
//! Blocks are asked for in the order sessions want them, sessions taking turns, from peers that are believed to hold
//! them, a window of bytes at a time. What a peer denies is asked of another; what it does not deliver in time is asked
//! of another *as well*, then of two more, then of four: one honest holder among many is found in a few rounds, and a
//! slow one is never cut off. Nothing here does I/O or reads a clock: callers pass the time in and carry out the
//! [`Action`]s that come back.

mod search;
mod source;
mod want;

use super::wire::Want;
use crate::block::{Block, CODEC_RAW, Cid, Multihash};
use libp2p::PeerId;
use source::{Came, MAX_STRIKES, Source};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
pub(super) use want::{Action, Arrival};
use want::{Denial, Pick, SessionState, Wanted};

/// Bytes asked for, of all peers together, or received and not taken by a session yet: what the exchange may hold in
/// memory. Four peers with full windows.
const MAX_BYTES: usize = 16 << 20;
/// Blocks nobody asked for, long messages of that kind, and blocks sent again far too often, after which a peer is cut off.
const MAX_BOGUS_BLOCKS: u32 = 16;
/// Peers asked at once for the first block of all that a session wants, if none of them has delivered anything yet: it
/// is the small root of a file, and shows who is honest.
const FIRST_COPIES: usize = 3;
/// Peers whose offences are remembered after they disconnected.
const MAX_OFFENDERS: usize = 1024;
/// A denial is forgotten after this long: the peer may be fetching the block itself.
const DENIAL_LIFETIME: Duration = Duration::from_secs(2);
/// A peer that delivered within this time is asked first by a new session: the blobs of one image lie together.
const TRUSTED_FOR: Duration = Duration::from_secs(300);

/// The key of a want: the digest, since two CIDs with one multihash name the same bytes.
type Hash = Multihash;
/// Names a session.
pub(super) type SessionId = u64;

/// The state machine. One lock guards it; every call is short.
#[derive(Default)]
pub(super) struct Schedule {
    sources: HashMap<PeerId, Source>,
    wants: HashMap<Hash, Wanted>,
    sessions: BTreeMap<SessionId, SessionState>,
    next_session: SessionId,
    next_order: u64,
    /// Which session is served first.
    turn: usize,
    actions: Vec<Action>,
    /// Bytes of blocks that sessions have not taken yet.
    held: usize,
    /// Something was not asked for because of [`MAX_BYTES`].
    paused: bool,
    /// How often peers that are not connected now have sent what nobody asked for.
    offenders: HashMap<PeerId, u32>,
}

impl Schedule {
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// `arriving` counts the bytes of messages that come from the peer, before they are complete.
    pub(super) fn peer_connected(&mut self, peer: PeerId, wake: Arc<Notify>, arriving: Arc<AtomicU64>, now: Instant) {
        let source = self.sources.entry(peer).or_insert_with(|| Source::new(wake, arriving, now));
        source.bogus += self.offenders.remove(&peer).unwrap_or_default();
        self.search(now);
    }

    pub(super) fn peer_disconnected(&mut self, peer: &PeerId, now: Instant) {
        let Some(source) = self.sources.remove(peer) else { return };
        if source.bogus > 0 {
            if self.offenders.len() >= MAX_OFFENDERS {
                self.offenders.clear();
            }
            self.offenders.insert(*peer, source.bogus);
        }
        for session in self.sessions.values_mut() {
            session.holders.retain(|holder| holder != peer);
            session.probed.remove(peer);
        }
        for hash in source.asked.keys() {
            self.forget_asked(hash, peer);
        }
        self.assign(now);
    }

    /// A connection to the peer that had died was given up for a new one: what was asked over it is asked again.
    pub(super) fn peer_moved(&mut self, peer: &PeerId, now: Instant) {
        if let Some(source) = self.sources.get_mut(peer) {
            source.moved(now);
        }
    }

    /// Whether wants of ours are outstanding at this peer.
    pub(super) fn expects_from(&self, peer: &PeerId) -> bool {
        self.sources.get(peer).is_some_and(|source| !source.asked.is_empty())
    }

    /// Whether blocks may come from this peer that it was asked for, even if they are no longer wanted.
    pub(super) fn may_send_blocks(&self, peer: &PeerId) -> bool {
        self.sources.get(peer).is_some_and(Source::owes_blocks)
    }

    /// What is to be sent to this peer now.
    pub(super) fn take_outbox(&mut self, peer: &PeerId) -> Vec<Want> {
        self.sources.get_mut(peer).map(Source::take_outbox).unwrap_or_default()
    }

    /// Rewrites wants for a peer whose protocol has no presences: there every want is for the block itself, and silence
    /// is the only denial.
    pub(super) fn without_presences(&mut self, peer: &PeerId, wants: &mut [Want], now: Instant) {
        let Some(source) = self.sources.get_mut(peer) else { return };
        for want in wants.iter_mut().filter(|want| !want.cancel) {
            want.send_dont_have = false;
            if std::mem::take(&mut want.have_only)
                && let Some(wanted) = self.wants.get_mut(want.cid.hash())
            {
                source.asked_by_search(want.cid, now);
                wanted.ask(*peer);
            }
        }
    }

    pub(super) fn open_session(&mut self, blocks: mpsc::UnboundedSender<Block>, now: Instant) -> SessionId {
        let id = self.next_session;
        self.next_session += 1;
        let trusted = |source: &Source| {
            source.is_reliable() && source.last_block.is_some_and(|at| now.duration_since(at) < TRUSTED_FOR)
        };
        let holders = self.sources.iter().filter(|(_, source)| trusted(source)).map(|(peer, _)| *peer).collect();
        self.sessions.insert(id, SessionState::new(blocks, holders));
        id
    }

    pub(super) fn close_session(&mut self, id: SessionId, now: Instant) {
        let Some(closed) = self.sessions.remove(&id) else { return };
        let sources = &mut self.sources;
        self.wants.retain(|_, wanted| {
            wanted.sessions.retain(|session| *session != id);
            if wanted.sessions.is_empty() {
                for peer in &wanted.told {
                    if let Some(source) = sources.get_mut(peer) {
                        source.cancel(wanted.cid);
                    }
                }
            }
            !wanted.sessions.is_empty()
        });
        // What it had queued for others as well is theirs to ask for now.
        for (order, hash) in closed.queue.into_iter().chain(closed.unheld) {
            let Some(wanted) = self.wants.get_mut(&hash) else { continue };
            wanted.queued = wanted.sessions.first().copied();
            if let Some(heir) = wanted.queued.and_then(|id| self.sessions.get_mut(&id)) {
                heir.queue.insert(order, hash);
            }
        }
        // The room it leaves is for others.
        self.assign(now);
    }

    pub(super) fn want(&mut self, id: SessionId, cids: impl IntoIterator<Item = Cid>, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let proven = |peer| self.sources.get(peer).is_some_and(|source| source.is_proven() && source.is_reliable());
        let mut copies = if session.holders.iter().any(proven) { 1 } else { FIRST_COPIES };
        for cid in cids {
            if session.root.is_none() {
                session.root = (cid.codec() != CODEC_RAW).then_some(cid);
            }
            let wanted = self.wants.entry(*cid.hash()).or_insert_with(|| {
                // One that another session asked for is only waited for.
                self.next_order += 1;
                session.queue.insert(self.next_order, *cid.hash());
                Wanted::new(cid, self.next_order, id, std::mem::replace(&mut copies, 1))
            });
            if !wanted.sessions.contains(&id) {
                wanted.sessions.push(id);
            }
        }
        self.assign(now);
    }

    /// A session has taken blocks of this many bytes, or went away without taking them.
    pub(super) fn taken(&mut self, bytes: usize, now: Instant) {
        self.held = self.held.saturating_sub(bytes);
        if self.paused && self.held <= MAX_BYTES / 2 {
            self.assign(now);
        }
    }

    /// How many peers are believed to hold what the session wants.
    pub(super) fn holders(&self, id: SessionId) -> usize {
        self.sessions.get(&id).map_or(0, |session| session.holders.len())
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
        let hash = cid.hash();
        if have {
            return self.has(peer, hash, now);
        }
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let Some(wanted) = self.wants.get_mut(hash) else { return };
        if !wanted.denied.iter().any(|denial| denial.peer == peer) {
            wanted.denied.push(Denial { peer, at: now });
        }
        if source.release(hash).is_some() {
            self.forget_asked(hash, &peer);
            self.assign(now);
        }
    }

    /// A peer has a block: it holds what the sessions want that asked for it, or searched by it.
    fn has(&mut self, peer: PeerId, hash: &Hash, now: Instant) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.has(hash);
        let mut news = false;
        let wanted = self.wants.get(hash).map_or(&[][..], |wanted| &wanted.sessions);
        for (id, session) in &mut self.sessions {
            // Another peer may have delivered by now what was searched for: this one is a holder all the same.
            let root = session.root.filter(|root| root.hash() == hash);
            let concerns = root.is_some() || session.probe == Some(*hash) || wanted.contains(id);
            if concerns && !session.holders.contains(&peer) {
                session.holders.push(peer);
                session.queue.append(&mut session.unheld);
                news = true;
            }
        }
        // A holder that had denied it before is asked once its denial is forgotten.
        if news {
            self.requeue(hash);
            self.assign(now);
        }
    }

    /// Takes a verified block in and hands it to whoever waits for it.
    pub(super) fn on_block(&mut self, peer: PeerId, block: &Block, now: Instant) -> Arrival {
        let hash = *block.cid().hash();
        let mut source = self.sources.get_mut(&peer);
        let came = source.as_mut().map_or(Came::Unasked, |source| source.arrived(&hash));
        let asked = source.as_mut().and_then(|source| source.release(&hash));
        let Some(wanted) = self.wants.remove(&hash) else {
            match came {
                // A small block is sent in place of HAVE.
                Came::Asked => self.has(peer, &hash, now),
                Came::Again => {}
                Came::Unasked => {
                    self.on_bogus(peer);
                    return Arrival::Bogus;
                }
            }
            return Arrival::Duplicate;
        };
        if let Some(source) = source {
            source.delivered(block, asked.as_ref(), now);
        }
        for other in wanted.told.iter().filter(|other| **other != peer) {
            if let Some(source) = self.sources.get_mut(other) {
                source.cancel(wanted.cid);
            }
        }
        if let Some(session) = wanted.queued.and_then(|id| self.sessions.get_mut(&id)) {
            session.queue.remove(&wanted.order);
            session.unheld.remove(&wanted.order);
        }
        for id in &wanted.sessions {
            if let Some(session) = self.sessions.get_mut(id) {
                // The session counts what it wants, so this never holds more than that.
                if session.blocks.send(block.clone()).is_ok() {
                    self.held += block.data().len();
                }
                session.stuck = session.stuck.filter(|cid| *cid.hash() != hash);
                if !session.holders.contains(&peer) && self.sources.contains_key(&peer) {
                    session.holders.push(peer);
                    session.queue.append(&mut session.unheld);
                }
            }
        }
        self.assign(now);
        Arrival::Wanted
    }

    /// Counts a long message of a peer that owes nothing: blocks that it has sent before, perhaps, if it has sent any.
    pub(super) fn on_unneeded(&mut self, peer: PeerId, bytes: usize) {
        let is_repeat = |source: &mut Source| {
            source.is_proven() && source.may_repeat(bytes.div_ceil(source.block_bytes.max(1)) as u64)
        };
        if !self.sources.get_mut(&peer).is_some_and(is_repeat) {
            self.on_bogus(peer);
        }
    }

    /// Counts something that a peer sent without being asked, and cuts it off when that goes on.
    pub(super) fn on_bogus(&mut self, peer: PeerId) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.bogus += 1;
            if source.bogus >= MAX_BOGUS_BLOCKS {
                self.actions.push(Action::Ban(peer));
            }
        }
    }

    /// Finds out who is late, forgets old denials, searches again for what nobody holds.
    pub(super) fn tick(&mut self, now: Instant) {
        let reliable = self.sources.values().filter(|source| source.is_proven() && source.is_reliable());
        let usual = reliable.map(Source::latency).min().unwrap_or_default();
        for (peer, source) in &mut self.sources {
            source.tick(usual, now);
            if source.is_to_be_redialled(now) {
                self.actions.push(Action::Redial(*peer));
            }
        }
        for wanted in self.wants.values_mut() {
            wanted.denied.retain(|denial| now.duration_since(denial.at) < DENIAL_LIFETIME);
        }
        let waiting = self.wants.iter().filter(|(_, wanted)| wanted.queued.is_none());
        for hash in waiting.map(|(hash, _)| *hash).collect::<Vec<_>>() {
            self.requeue(&hash);
        }
        for session in self.sessions.values_mut() {
            session.queue.append(&mut session.unheld);
            session.stuck = None;
        }
        self.assign(now);
    }

    /// A peer will not deliver what it was asked for.
    fn forget_asked(&mut self, hash: &Hash, peer: &PeerId) {
        if let Some(wanted) = self.wants.get_mut(hash) {
            wanted.asked.retain(|asked| asked != peer);
            self.requeue(hash);
        }
    }

    /// Puts a want back in its place in the queue, if fewer were asked for it than are to be. If all of them are late,
    /// twice as many are to be.
    fn requeue(&mut self, hash: &Hash) {
        let Some(wanted) = self.wants.get_mut(hash) else { return };
        let sources = &self.sources;
        let is_late = |peer| sources.get(peer).and_then(|source| source.asked.get(hash)).is_none_or(|asked| asked.late);
        wanted.late = wanted.asked.iter().all(is_late);
        if wanted.late {
            wanted.copies = wanted.copies.max(wanted.asked.len() * 2);
        }
        if wanted.queued.is_some() || wanted.asked.len() >= wanted.copies {
            return;
        }
        wanted.queued = wanted.sessions.first().copied();
        if let Some(session) = wanted.queued.and_then(|id| self.sessions.get_mut(&id)) {
            session.queue.insert(wanted.order, *hash);
        }
    }

    /// Asks holders with room in their windows for what is queued, one block of each session at a time.
    fn assign(&mut self, now: Instant) {
        self.paused = false;
        let queued = self.sessions.iter().filter(|(_, session)| !session.queue.is_empty());
        let mut sessions: Vec<_> = queued.map(|(id, _)| *id).collect();
        if !sessions.is_empty() {
            let first = self.turn % sessions.len();
            sessions.rotate_left(first);
            self.turn = self.turn.wrapping_add(1);
            let mut under_way = self.sources.values().map(Source::bytes_asked).sum();
            while !sessions.is_empty() {
                sessions.retain(|id| self.assign_one(*id, &mut under_way, now));
            }
        }
        self.search(now);
    }

    /// Asks for the first block of a session's queue; `false` when nothing of it can be asked for now.
    fn assign_one(&mut self, id: SessionId, under_way: &mut usize, now: Instant) -> bool {
        loop {
            let Some(session) = self.sessions.get(&id) else { return false };
            let Some((order, hash)) = session.queue.first_key_value().map(|(order, hash)| (*order, *hash)) else {
                return false;
            };
            let pick = self.wants.get(&hash).map(|wanted| (wanted.cid, self.pick(wanted, *under_way, now)));
            let (Some(session), Some(wanted)) = (self.sessions.get_mut(&id), self.wants.get_mut(&hash)) else {
                return false;
            };
            match pick {
                Some((cid, Pick::Ask(peer))) => {
                    if let Some(source) = self.sources.get_mut(&peer) {
                        source.ask(cid, now);
                        *under_way += source.block_bytes;
                    }
                    wanted.ask(peer);
                    wanted.late = false;
                    if wanted.asked.len() >= wanted.copies {
                        wanted.queued = None;
                        session.queue.remove(&order);
                    }
                    return true;
                }
                // Others behind it may still be asked for; it comes back with the next tick.
                Some((_, Pick::Wait)) if !wanted.asked.is_empty() => {
                    wanted.queued = None;
                    session.queue.remove(&order);
                }
                Some((_, Pick::Wait)) => return false,
                Some((_, Pick::Pause)) => {
                    self.paused = true;
                    return false;
                }
                Some((cid, Pick::Stuck)) => {
                    wanted.queued = None;
                    session.queue.remove(&order);
                    if wanted.late {
                        session.stuck.get_or_insert(cid);
                    }
                }
                Some((_, Pick::Unheld)) => {
                    session.queue.remove(&order);
                    session.unheld.insert(order, hash);
                }
                None => drop(session.queue.remove(&order)),
            }
        }
    }

    /// Whom to ask for a block: reliable peers first, then those that were late lately, one block at a time, then those
    /// that nothing is known of, then those that keep being late, if they have rested or nobody else is left.
    ///
    /// While there is a reliable one, those that nothing is known of get one block at a time to show what they can.
    fn pick(&self, wanted: &Wanted, under_way: usize, now: Instant) -> Pick {
        let may_have =
            |peer: &PeerId| !wanted.asked.contains(peer) && !wanted.denied.iter().any(|denial| denial.peer == *peer);
        let candidates = || {
            let sessions = wanted.sessions.iter().filter_map(|id| self.sessions.get(id));
            let holders = sessions.flat_map(|session| &session.holders).filter(|peer| may_have(peer));
            holders.filter_map(|peer| Some((*peer, self.sources.get(peer)?)))
        };
        let proven = candidates().any(|(_, source)| source.is_reliable() && source.is_proven());
        let fresh = candidates().any(|(_, source)| source.is_reliable());
        let (mut best, mut any) = (None, false);
        for (peer, source) in candidates() {
            any = true;
            let (rank, room) = match (source.is_reliable(), source.is_proven()) {
                (true, true) => (0, source.has_room()),
                // One that has delivered before and was late once or twice.
                (false, true) if source.strikes < MAX_STRIKES => (1, source.is_idle()),
                (true, false) => (2, if proven { source.asked.is_empty() } else { source.has_room() }),
                (false, _) => (3, source.is_idle() && (!fresh || source.has_rested(now))),
            };
            let score = (rank, source.load());
            if room && best.is_none_or(|(least, _)| score < least) {
                best = Some((score, peer));
            }
        }
        match best {
            Some(_) if wanted.asked.is_empty() && under_way > 0 && under_way + self.held >= MAX_BYTES => Pick::Pause,
            Some((_, peer)) => Pick::Ask(peer),
            None if any => Pick::Wait,
            None if wanted.asked.is_empty() => Pick::Unheld,
            None => Pick::Stuck,
        }
    }
}

#[cfg(test)]
mod tests;
