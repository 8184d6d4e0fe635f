//! What became of the last fetches: who was asked, who answered what, which dials failed, where else was looked.
//!
//! Others tell it what happens, in one line each; it answers `why`. Bounded in all directions: so many fetches, so many
//! peers of each, so many failed dials. Imports libp2p's plain types and the wire's wants. It never decides anything,
//! never waits, and nothing depends on it.

mod dials;
mod report;

pub use dials::FailedDial;
pub use report::{End, FetchReport, PeerReport, Searched};

use crate::block::{Cid, Multihash};
use crate::exchange::bitswap::wire::Want;
use dials::Dials;
use libp2p::PeerId;
use libp2p::swarm::DialError;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Fetches that are remembered, files or blocks: those of a large image. Those that failed go last.
const MAX_FETCHES: usize = 64;
/// Peers of one fetch that are told apart; the others are counted.
const MAX_PEERS: usize = 64;
/// Longest reason that is kept, in bytes: it may quote foreign text.
const MAX_REASON_BYTES: usize = 256;

type Hash = Multihash;

/// The memory; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    fetches: VecDeque<Fetch>,
    /// Blocks that running fetches wait for, with the sessions that want them.
    wanted: HashMap<Hash, Vec<u64>>,
    dials: Dials,
}

/// One fetch, as it is written down.
#[derive(Debug)]
struct Fetch {
    session: u64,
    cid: Option<Cid>,
    began: Instant,
    ended: Option<Instant>,
    failed: Option<String>,
    missing: Option<Cid>,
    blocks: u64,
    bytes: u64,
    peers: Vec<(PeerId, Answers)>,
    more_peers: usize,
    searches: Searched,
}

/// What was asked of one peer, and what it answered.
#[derive(Clone, Debug, Default)]
struct Answers {
    asked_have: u32,
    asked_block: u32,
    have: u32,
    dont_have: u32,
    blocks: u64,
    bytes: u64,
    wrong: u32,
    lost: bool,
    trouble: Option<String>,
    answered: Option<Instant>,
}

fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

impl Trace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins to look for something.
    pub(crate) fn begin(&self, session: u64) {
        let mut state = self.state();
        while state.fetches.len() >= MAX_FETCHES {
            let good = |fetch: &Fetch| fetch.ended.is_some() && fetch.failed.is_none();
            let first = state.fetches.iter().position(good).unwrap_or(0);
            state.fetches.remove(first);
        }
        state.fetches.push_back(Fetch {
            session,
            cid: None,
            began: Instant::now(),
            ended: None,
            failed: None,
            missing: None,
            blocks: 0,
            bytes: 0,
            peers: Vec::new(),
            more_peers: 0,
            searches: Searched::default(),
        });
    }

    /// What a session's blocks are for; without a word, it is the first of them.
    pub(crate) fn about(&self, session: u64, cid: Cid) {
        if let Some(fetch) = self.state().of(session) {
            fetch.cid = Some(cid);
        }
    }

    /// A session waits for a block.
    pub(crate) fn wanted(&self, session: u64, cid: &Cid) {
        let mut state = self.state();
        let Some(fetch) = state.of(session) else { return };
        fetch.cid.get_or_insert(*cid);
        let sessions = state.wanted.entry(*cid.hash()).or_default();
        if !sessions.contains(&session) {
            sessions.push(session);
        }
    }

    /// Wants have gone out to a peer.
    pub(crate) fn asked(&self, peer: &PeerId, wants: &[Want]) {
        let mut state = self.state();
        for want in wants.iter().filter(|want| !want.cancel) {
            state.each(want.cid.hash(), |fetch| {
                if let Some(answers) = fetch.answers(peer) {
                    *(if want.have_only { &mut answers.asked_have } else { &mut answers.asked_block }) += 1;
                }
            });
        }
    }

    /// A peer could not be asked.
    pub(crate) fn not_asked(&self, peer: &PeerId, wants: &[Want], reason: &dyn std::error::Error) {
        let mut state = self.state();
        for want in wants.iter().filter(|want| !want.cancel) {
            state.each(want.cid.hash(), |fetch| {
                if let Some(answers) = fetch.answers(peer) {
                    answers.trouble = Some(shortened(&reason.to_string()));
                }
            });
        }
    }

    /// A peer says whether it has blocks.
    pub(crate) fn presences(&self, peer: &PeerId, presences: &[(Cid, bool)]) {
        let mut state = self.state();
        for (cid, have) in presences {
            state.each(cid.hash(), |fetch| {
                if let Some(answers) = fetch.answers(peer) {
                    *(if *have { &mut answers.have } else { &mut answers.dont_have }) += 1;
                    answers.answered = Some(Instant::now());
                }
            });
        }
    }

    /// A block came that somebody waited for.
    pub(crate) fn arrived(&self, peer: &PeerId, cid: &Cid, bytes: usize) {
        let mut state = self.state();
        state.each(cid.hash(), |fetch| {
            (fetch.blocks, fetch.bytes) = (fetch.blocks + 1, fetch.bytes + bytes as u64);
            if let Some(answers) = fetch.answers(peer) {
                (answers.blocks, answers.bytes) = (answers.blocks + 1, answers.bytes + bytes as u64);
                answers.answered = Some(Instant::now());
            }
        });
        state.wanted.remove(cid.hash());
    }

    /// A peer sent something that is no answer: bytes that are not those of their CID, or what nobody asked for.
    pub(crate) fn wrong(&self, peer: &PeerId) {
        self.with_running(peer, |answers| answers.wrong += 1);
    }

    /// A peer is gone.
    pub(crate) fn lost(&self, peer: &PeerId) {
        self.with_running(peer, |answers| answers.lost = true);
    }

    fn with_running(&self, peer: &PeerId, change: impl Fn(&mut Answers)) {
        for fetch in self.state().fetches.iter_mut().filter(|fetch| fetch.ended.is_none()) {
            if let Some((_, answers)) = fetch.peers.iter_mut().find(|(other, _)| other == peer) {
                change(answers);
            }
        }
    }

    /// A search for providers has ended, with so many peers asked.
    pub(crate) fn searched(&self, cid: &Cid, asked: u32, providers: usize) {
        self.state().each(cid.hash(), |fetch| {
            fetch.searches.table += 1;
            fetch.searches.table_asked = fetch.searches.table_asked.max(asked);
            fetch.searches.providers = fetch.searches.providers.max(providers);
        });
    }

    /// A connection could not be opened.
    pub(crate) fn dial_failed(&self, peer: Option<PeerId>, error: &DialError) {
        self.state().dials.failed(peer, error);
    }

    /// A session has gone without a block for too long.
    pub(crate) fn starved(&self, session: u64, missing: &Cid) {
        if let Some(fetch) = self.state().of(session) {
            fetch.missing = Some(*missing);
        }
    }

    /// A session is over.
    pub(crate) fn end(&self, session: u64) {
        let mut state = self.state();
        state.wanted.retain(|_, sessions| {
            sessions.retain(|other| *other != session);
            !sessions.is_empty()
        });
        if let Some(fetch) = state.of(session) {
            fetch.ended = Some(Instant::now());
        }
    }

    /// The last fetch of `cid` failed, and why.
    pub(crate) fn failed(&self, cid: &Cid, error: &dyn std::error::Error) {
        let mut state = self.state();
        if let Some(fetch) = state.fetches.iter_mut().rev().find(|fetch| fetch.cid == Some(*cid)) {
            fetch.failed = Some(shortened(&error.to_string()));
        }
    }
}

impl State {
    /// The running fetch of a session.
    fn of(&mut self, session: u64) -> Option<&mut Fetch> {
        self.fetches.iter_mut().rev().find(|fetch| fetch.session == session && fetch.ended.is_none())
    }

    /// Every running fetch that waits for a block.
    fn each(&mut self, hash: &Hash, mut change: impl FnMut(&mut Fetch)) {
        let Some(sessions) = self.wanted.get(hash) else { return };
        for fetch in self.fetches.iter_mut().filter(|fetch| fetch.ended.is_none()) {
            if sessions.contains(&fetch.session) {
                change(fetch);
            }
        }
    }
}

impl Fetch {
    fn answers(&mut self, peer: &PeerId) -> Option<&mut Answers> {
        // Found twice: the borrow checker does not see that the first one ends when nothing is found.
        let known = self.peers.iter().position(|(other, _)| other == peer);
        match known {
            Some(place) => Some(&mut self.peers[place].1),
            None if self.peers.len() < MAX_PEERS => {
                self.peers.push((*peer, Answers::default()));
                self.peers.last_mut().map(|(_, answers)| answers)
            }
            None => {
                self.more_peers = self.more_peers.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
