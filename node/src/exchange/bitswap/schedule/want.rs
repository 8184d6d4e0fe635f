//! What is wanted, who waits for it, and what comes of it.

use super::{Hash, SessionId};
use crate::block::{Block, Cid};
use libp2p::PeerId;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;
use tokio::sync::mpsc;

/// A peer said that it does not have it.
pub(super) struct Denial {
    pub(super) peer: PeerId,
    pub(super) at: Instant,
}

/// A block that sessions wait for.
pub(super) struct Wanted {
    pub(super) cid: Cid,
    /// Its place among all wants; the least is asked for first.
    pub(super) order: u64,
    pub(super) sessions: Vec<SessionId>,
    pub(super) asked: Vec<PeerId>,
    pub(super) denied: Vec<Denial>,
    /// All who were asked, those that denied it included: they send it when they have it, unless it is taken back.
    pub(super) told: Vec<PeerId>,
    /// The session that has it in a queue, if it is to be asked of anybody (else).
    pub(super) queued: Option<SessionId>,
    /// Peers to have been asked before it leaves the queue.
    pub(super) copies: usize,
    /// All who were asked are late.
    pub(super) late: bool,
}

impl Wanted {
    pub(super) fn new(cid: Cid, order: u64, session: SessionId, copies: usize) -> Self {
        let (sessions, asked, denied, told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { cid, order, sessions, asked, denied, told, queued: Some(session), copies, late: false }
    }

    /// A peer is asked for it.
    pub(super) fn ask(&mut self, peer: PeerId) {
        for list in [&mut self.asked, &mut self.told] {
            if !list.contains(&peer) {
                list.push(peer);
            }
        }
    }
}

/// What one session waits for, and of whom.
pub(super) struct SessionState {
    /// Wanted and to be asked for, by their order.
    pub(super) queue: BTreeMap<u64, Hash>,
    /// Wanted, and nobody is known to hold them.
    pub(super) unheld: BTreeMap<u64, Hash>,
    /// All who may have it are late with it.
    pub(super) stuck: Option<Cid>,
    pub(super) holders: Vec<PeerId>,
    /// What it wanted first, if that is more than one block.
    pub(super) root: Option<Cid>,
    pub(super) probed: HashSet<PeerId>,
    pub(super) probes: usize,
    /// What was searched for last.
    pub(super) probe: Option<Hash>,
    pub(super) blocks: mpsc::UnboundedSender<Block>,
    pub(super) last_seek: Option<Instant>,
}

impl SessionState {
    pub(super) fn new(blocks: mpsc::UnboundedSender<Block>, holders: Vec<PeerId>) -> Self {
        Self {
            queue: BTreeMap::new(),
            unheld: BTreeMap::new(),
            stuck: None,
            holders,
            root: None,
            probed: HashSet::new(),
            probes: 0,
            probe: None,
            blocks,
            last_seek: None,
        }
    }
}

/// What is to be done about a want that may be asked of somebody.
pub(super) enum Pick {
    /// Ask this peer.
    Ask(PeerId),
    /// Somebody may have it, and is busy.
    Wait,
    /// Enough lies in memory, or is on its way.
    Pause,
    /// All who may have it were asked.
    Stuck,
    /// Nobody is known to have it.
    Unheld,
}

/// What the state machine asks its surroundings to do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::exchange::bitswap) enum Action {
    /// Look for providers of this CID and connect to them.
    Seek(Cid),
    /// Dial this peer beside the connection that it has, which seems to be dead.
    Redial(PeerId),
    /// Disconnect this peer and do not let it back: it sends what nobody asked for. Said again at each further offence.
    Ban(PeerId),
}

/// What became of a block that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::exchange::bitswap) enum Arrival {
    /// Somebody waited for it.
    Wanted,
    /// It was asked for, and came from another peer meanwhile, or is no longer wanted.
    Duplicate,
    /// The peer was not asked for it, or has sent it already.
    Bogus,
}
