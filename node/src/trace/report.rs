//! What is told of a fetch: plain values, made when somebody asks.
//!
//! Imports its parent's notes.

use super::{FailedDial, Fetch, Trace};
use crate::block::Cid;
use libp2p::PeerId;
use std::time::{Duration, Instant};

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Running,
    /// All that was missing has come.
    Arrived,
    /// Why it failed.
    Failed(String),
    /// Nobody waits for it any more.
    Stopped,
}

/// One fetch of a file or a block from peers.
#[derive(Clone, Debug)]
pub struct FetchReport {
    /// What was fetched.
    pub cid: Cid,
    /// How long ago it began.
    pub began: Duration,
    /// How long it took, or takes so far.
    pub took: Duration,
    /// How it ended.
    pub end: End,
    /// The block that nobody delivered in time.
    pub missing: Option<Cid>,
    /// Blocks that came, and their bytes.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Who was asked.
    pub peers: Vec<PeerReport>,
    /// Times that further peers were asked or answered, beyond those that are told apart.
    pub more_peers: usize,
    /// Where else was looked.
    pub searched: Searched,
    /// Connections that could not be opened meanwhile, for whatever they were wanted.
    pub failed_dials: Vec<FailedDial>,
}

/// What one peer was asked for by a fetch, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// The peer.
    pub peer: PeerId,
    /// How often it was asked whether it has a block.
    pub asked_have: u32,
    /// How often it was asked for a block.
    pub asked_block: u32,
    /// How often it said that it has one.
    pub have: u32,
    /// How often it said that it has not.
    pub dont_have: u32,
    /// Blocks that came from it first.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// What it sent that was no answer: bytes of another CID, or what nobody asked for.
    pub wrong: u32,
    /// Whether its connection ended meanwhile.
    pub lost: bool,
    /// Why it could not be asked, if so.
    pub trouble: Option<String>,
    /// How long ago its last answer came.
    pub answered: Option<Duration>,
}

/// Where providers were looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Searches of the routing table (the DHT) that ended.
    pub table: u32,
    /// Most peers asked by one of them.
    pub table_asked: u32,
    /// Most providers found by one of them.
    pub providers: usize,
}

impl Trace {
    /// The last fetches of `cid`, the latest first.
    pub fn of(&self, cid: &Cid) -> Vec<FetchReport> {
        let state = self.state();
        let wanted = |fetch: &&Fetch| [fetch.cid, fetch.missing].iter().flatten().any(|own| own.hash() == cid.hash());
        let found = state.fetches.iter().rev().filter(wanted);
        found.filter_map(|fetch| fetch.report(state.dials.since(fetch.began))).collect()
    }

    /// The last fetches that failed, the latest first: what, and why.
    pub fn failures(&self) -> Vec<(Cid, String)> {
        let state = self.state();
        let failed = state.fetches.iter().rev();
        failed.filter_map(|fetch| Some((fetch.cid?, fetch.failed.clone()?))).collect()
    }

    /// Connections that could not be opened within this time, the latest first.
    pub fn failed_dials(&self, within: Duration) -> Vec<FailedDial> {
        let now = Instant::now();
        self.state().dials.since(now.checked_sub(within).unwrap_or(now))
    }
}

impl Fetch {
    fn report(&self, mut failed_dials: Vec<FailedDial>) -> Option<FetchReport> {
        let end = match (&self.failed, self.ended) {
            (Some(reason), _) => End::Failed(reason.clone()),
            (None, None) => End::Running,
            (None, Some(_)) if self.blocks > 0 && self.missing.is_none() => End::Arrived,
            (None, Some(_)) => End::Stopped,
        };
        let until = self.ended.unwrap_or_else(Instant::now);
        let since_end = until.elapsed();
        failed_dials.retain(|dial| dial.ago >= since_end || self.ended.is_none());
        Some(FetchReport {
            cid: self.cid?,
            began: self.began.elapsed(),
            took: until.duration_since(self.began),
            end,
            missing: self.missing,
            blocks: self.blocks,
            bytes: self.bytes,
            peers: self.peers.iter().map(|(peer, answers)| report(*peer, answers)).collect(),
            more_peers: self.more_peers,
            searched: self.searches,
            failed_dials,
        })
    }
}

fn report(peer: PeerId, answers: &super::Answers) -> PeerReport {
    PeerReport {
        peer,
        asked_have: answers.asked_have,
        asked_block: answers.asked_block,
        have: answers.have,
        dont_have: answers.dont_have,
        blocks: answers.blocks,
        bytes: answers.bytes,
        wrong: answers.wrong,
        lost: answers.lost,
        trouble: answers.trouble.clone(),
        answered: answers.answered.map(|at| at.elapsed()),
    }
}
