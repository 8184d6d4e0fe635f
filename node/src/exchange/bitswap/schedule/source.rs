//! One connected peer: what it was asked for, how fast it answers, how far it is relied on.
//!
//! Imports the wire's types. It never decides who is asked for what: its parent does, by what is known here.

use super::super::wire::Want;
use super::Hash;
use crate::block::{Block, Cid};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes asked of one peer and not yet received: enough to cover a round trip of 30 ms at 1 Gbit/s, and a bound on
/// what one peer can make us hold.
pub(super) const WINDOW_BYTES: usize = 4 << 20;
/// Fewest and most blocks in a window, whatever their size.
const WINDOW_BLOCKS: (usize, usize) = (2, 128);
/// Blocks asked of a peer that has delivered none yet; each that comes quickly makes room for one more.
pub(super) const FIRST_WINDOW: usize = 4;
/// Size of a block that nothing is known about: the chunk size that this node, Kubo and nerdctl write.
pub(super) const USUAL_BLOCK_BYTES: usize = 256 << 10;
/// A block that takes four times as long as usual, within these bounds, is late: another peer is asked as well. The
/// lower one is what a busy disk takes now and then.
pub(super) const PATIENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// A block kept this many times the peer's patience is late even while others arrive from it.
const DRIP_FACTOR: u32 = 4;
/// A silent peer is asked whether it has what it is late with after this long, then after twice, four and eight times as
/// long. If it says so, it is asked for the block once more: the want may have been lost with a stream. Were it asked for
/// the block at once, all that was on the wire when a link broke would come twice when the link is back.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A block that takes longer than this, and than four times the shortest, waits behind too many others: the window
/// shrinks.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// A block that takes less than this, or than twice the shortest: the window may grow.
const QUICK: Duration = Duration::from_millis(300);
/// Bytes that must arrive within [`PROGRESS_TIME`] for an unfinished block to count as coming.
const PROGRESS_BYTES: u64 = 16 << 10;
/// A peer whose bytes came within this time is not silent.
const PROGRESS_TIME: Duration = Duration::from_secs(2);
/// Blocks in a row that a peer may be late with before it is left alone for a while.
pub(super) const MAX_STRIKES: u32 = 3;
/// A peer that was late is passed over this long while another one may have the block.
const REST: Duration = Duration::from_secs(5);
/// A peer that was late too often is not even searched for this long.
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(15);
/// A peer that has delivered before, owes something and says nothing at all for this long is dialled beside the connection
/// that it has: TCP waits for as long again as a link was cut before it tries, a new connection gets through at once. Every
/// such connection that brought nothing doubles it, up to sixteen times.
pub(super) const REDIAL_AFTER: Duration = Duration::from_secs(2);
/// A peer is silent after so many times the longest pause between bytes of late: over a slow link, they come in lumps, as
/// muxers hand on whole frames only.
const SILENT_PAUSES: u32 = 3;
/// What is left of a long pause in what is expected of the next one.
const PAUSE_MEMORY: f64 = 0.9;
/// How often it is dialled while it cannot be reached: with the system's own second try after a second, one try a second.
const REDIAL_INTERVAL: Duration = Duration::from_secs(2);
/// Blocks remembered as asked for and not received: what may still come late. Far more than any window.
const MAX_OWED: usize = 4096;

/// Blocks remembered as having come from a peer: three full windows. Some peers (Helia is one) send what they are still
/// sending once more whenever another message comes, and a busy machine makes that many.
const MAX_LATELY: usize = 3 * WINDOW_BLOCKS.1;
/// Blocks that a peer may have sent again beyond those that it has delivered.
pub(super) const MAX_REPEATS: u64 = 16;

/// A block that a peer was asked for.
pub(super) struct Asked {
    pub(super) cid: Cid,
    pub(super) at: Instant,
    /// It did not come in time, and another peer may be asked.
    pub(super) late: bool,
    sent_again: (u32, Instant),
    /// It is asked whether it has the block, and has not answered.
    reminded: bool,
}

impl Asked {
    fn new(cid: Cid, at: Instant) -> Self {
        Self { cid, at, late: false, sent_again: (0, at), reminded: false }
    }
}

/// How often a peer was asked for a block, and how often whether it has it: a small one is sent in answer to either.
#[derive(Default)]
struct Owed {
    blocks: u32,
    presences: u32,
}

/// Whether a block that came was to come.
pub(super) enum Came {
    /// It was asked for.
    Asked,
    /// It was, and came before.
    Again,
    /// It was not, as far as anybody remembers, or has come again more often than is good for anything.
    Unasked,
}

/// A connected peer.
pub(super) struct Source {
    outbox: Vec<Want>,
    wake: Arc<Notify>,
    pub(super) asked: HashMap<Hash, Asked>,
    /// What the peer may send: what was asked for and has not come since.
    owed: HashMap<Hash, Owed>,
    /// Blocks themselves among those.
    blocks_owed: usize,
    /// The first bytes of the hashes of what came last.
    lately: VecDeque<u64>,
    /// Blocks that somebody waited for, and those that came again.
    useful: u64,
    repeated: u64,
    /// Closed once the window is full, open again once half of it has arrived: so that wants travel in few messages.
    open: bool,
    /// Smoothed time from want to block.
    latency: Duration,
    /// The shortest such time.
    shortest: Duration,
    pub(super) block_bytes: usize,
    /// Blocks in the window, as far as its speed goes.
    pace: usize,
    pub(super) last_block: Option<Instant>,
    /// Bytes of its messages so far, counted by whoever reads them.
    arriving: Arc<AtomicU64>,
    progress: (u64, Option<Instant>),
    /// The last byte that came, or the time since when something is asked of it.
    heard: (u64, Instant),
    /// The longest time without a byte of late, while something was asked.
    pause: Duration,
    /// Connections that were made in place of another since.
    moves: u32,
    redialled: Option<Instant>,
    pub(super) strikes: u32,
    last_strike: Instant,
    /// What it has sent without being asked.
    pub(super) bogus: u32,
}

impl Source {
    pub(super) fn new(wake: Arc<Notify>, arriving: Arc<AtomicU64>, now: Instant) -> Self {
        Self {
            outbox: Vec::new(),
            wake,
            asked: HashMap::new(),
            owed: HashMap::new(),
            blocks_owed: 0,
            lately: VecDeque::new(),
            useful: 0,
            repeated: 0,
            open: true,
            latency: Duration::ZERO,
            shortest: Duration::MAX,
            block_bytes: USUAL_BLOCK_BYTES,
            pace: FIRST_WINDOW,
            last_block: None,
            progress: (arriving.load(Ordering::Relaxed), None),
            heard: (arriving.load(Ordering::Relaxed), now),
            // Until more is known, it may be a slow one.
            pause: REDIAL_AFTER,
            moves: 0,
            redialled: None,
            arriving,
            strikes: 0,
            last_strike: now,
            bogus: 0,
        }
    }

    /// It has delivered something.
    pub(super) fn is_proven(&self) -> bool {
        self.last_block.is_some()
    }

    /// Its last block, if any was late, came in time.
    pub(super) fn is_reliable(&self) -> bool {
        self.strikes == 0
    }

    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    fn window(&self) -> usize {
        (WINDOW_BYTES / self.block_bytes.max(1)).min(self.pace).clamp(WINDOW_BLOCKS.0, WINDOW_BLOCKS.1)
    }

    /// Whether its window has room.
    pub(super) fn has_room(&self) -> bool {
        self.open
    }

    /// Whether nothing is under way that it is not late with.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.values().all(|asked| asked.late) && self.asked.len() < WINDOW_BLOCKS.1
    }

    /// Whether a peer that was late may be tried again while others could have the block.
    pub(super) fn has_rested(&self, now: Instant) -> bool {
        now.duration_since(self.last_strike) >= REST * self.strikes.min(8)
    }

    /// Whether it was late so often, and so lately, that a search leaves it out.
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        self.strikes >= MAX_STRIKES && now.duration_since(self.last_strike) < FORGIVEN_AFTER
    }

    /// The time it would take to get to one more block, in nanoseconds.
    pub(super) fn load(&self) -> u128 {
        // For one that nothing is known of, a time that grows with what it was asked for.
        self.latency.as_nanos().max(1 << 20) * (self.asked.len() as u128 + 1) / self.window() as u128
    }

    /// Bytes under way from it that are not late, as far as sizes are known.
    pub(super) fn bytes_asked(&self) -> usize {
        self.asked.values().filter(|asked| !asked.late).count() * self.block_bytes.max(1)
    }

    fn post(&mut self, want: Want) {
        if !want.cancel {
            if self.owed.len() >= MAX_OWED {
                self.owed.retain(|hash, _| self.asked.contains_key(hash));
                self.blocks_owed = self.owed.values().map(|owed| owed.blocks as usize).sum();
            }
            let owed = self.owed.entry(*want.cid.hash()).or_default();
            if want.have_only {
                owed.presences += 1;
            } else {
                owed.blocks += 1;
                self.blocks_owed += 1;
            }
        }
        self.outbox.push(want);
        self.wake.notify_one();
    }

    pub(super) fn take_outbox(&mut self) -> Vec<Want> {
        std::mem::take(&mut self.outbox)
    }

    /// Asks whether it has a block.
    pub(super) fn probe(&mut self, cid: Cid) {
        self.post(Want { cid, cancel: false, have_only: true, send_dont_have: true });
    }

    /// Asks for a block.
    pub(super) fn ask(&mut self, cid: Cid, now: Instant) {
        self.asked.insert(*cid.hash(), Asked::new(cid, now));
        self.open = self.asked.len() < self.window();
        self.post(Want { cid, cancel: false, have_only: false, send_dont_have: true });
    }

    /// It says that it has a block. If it was reminded of that, the want itself got lost.
    pub(super) fn has(&mut self, hash: &Hash) {
        let Some(asked) = self.asked.get_mut(hash) else { return };
        if std::mem::take(&mut asked.reminded) {
            let cid = asked.cid;
            self.post(Want { cid, cancel: false, have_only: false, send_dont_have: true });
        }
    }

    /// Everything asked of it is asked anew: the connection that carried it was given up for another.
    pub(super) fn moved(&mut self, now: Instant) {
        self.moves += 1;
        self.heard.1 = now;
        let asked: Vec<_> = self.asked.values().map(|asked| asked.cid).collect();
        for cid in asked {
            self.asked.insert(*cid.hash(), Asked::new(cid, now));
            self.post(Want { cid, cancel: false, have_only: false, send_dont_have: true });
        }
    }

    /// Whether the connection to it may be dead, and it is time to try another.
    pub(super) fn is_to_be_redialled(&mut self, now: Instant) -> bool {
        let arrived = self.arriving.load(Ordering::Relaxed);
        if arrived != self.heard.0 {
            self.pause = now.duration_since(self.heard.1).max(self.pause.mul_f64(PAUSE_MEMORY));
            (self.moves, self.redialled) = (0, None);
        }
        if arrived != self.heard.0 || self.asked.is_empty() || !self.is_proven() {
            self.heard = (arrived, now);
            return false;
        }
        let bearable = REDIAL_AFTER.max(self.pause * SILENT_PAUSES) * (1 << self.moves.min(4));
        let is_silent = now.duration_since(self.heard.1) >= bearable;
        let is_time = is_silent && self.redialled.is_none_or(|at| now.duration_since(at) >= REDIAL_INTERVAL);
        if is_time {
            self.redialled = Some(now);
        }
        is_time
    }

    /// Takes note that a search was sent as a want for the block itself, since the peer knows no searches.
    pub(super) fn asked_by_search(&mut self, cid: Cid, now: Instant) {
        let owed = self.owed.entry(*cid.hash()).or_default();
        owed.presences = owed.presences.saturating_sub(1);
        owed.blocks += 1;
        self.blocks_owed += 1;
        self.asked.entry(*cid.hash()).or_insert(Asked::new(cid, now));
    }

    /// A block is no longer expected from it, because it came or because the peer does not have it.
    pub(super) fn release(&mut self, hash: &Hash) -> Option<Asked> {
        let asked = self.asked.remove(hash);
        self.reopen();
        asked
    }

    /// A block that it was told of is no longer wanted from it.
    pub(super) fn cancel(&mut self, cid: Cid) {
        let hash = cid.hash();
        let cid = self.release(hash).map_or(cid, |asked| asked.cid);
        // A want that was not sent yet is taken back without a word.
        let before = self.outbox.len();
        self.outbox.retain(|want| want.cid != cid || want.cancel || want.have_only);
        for _ in self.outbox.len()..before {
            self.came(hash);
        }
        if self.outbox.len() == before {
            self.post(Want { cid, cancel: true, have_only: false, send_dont_have: false });
        }
    }

    fn reopen(&mut self) {
        // One that sends things again at each message gets few: the next when it is done with what is in the last.
        let done = if self.repeated > 0 { self.is_idle() } else { self.asked.len() <= self.window() / 2 };
        if done {
            self.open = true;
        }
    }

    /// A block came.
    pub(super) fn arrived(&mut self, hash: &Hash) -> Came {
        let first = hash.digest().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        if self.came(hash) {
            if self.lately.len() >= MAX_LATELY {
                self.lately.pop_front();
            }
            self.lately.push_back(first);
            Came::Asked
        } else if self.lately.contains(&first) && self.may_repeat(1) {
            Came::Again
        } else {
            Came::Unasked
        }
    }

    /// Whether it may have sent so many more blocks that nobody needs: as many as it has delivered, and some.
    pub(super) fn may_repeat(&mut self, blocks: u64) -> bool {
        self.repeated += blocks;
        self.repeated <= self.useful + MAX_REPEATS
    }

    /// Whether blocks may come that it was asked for, lately or long ago.
    pub(super) fn owes_blocks(&self) -> bool {
        self.blocks_owed > 0
    }

    /// A want is done with; whether the peer was asked for the block as often as it has sent it.
    fn came(&mut self, hash: &Hash) -> bool {
        let Some(owed) = self.owed.get_mut(hash) else { return false };
        if owed.blocks > 0 {
            owed.blocks -= 1;
            self.blocks_owed -= 1;
        } else {
            owed.presences -= 1;
        }
        if owed.blocks + owed.presences == 0 {
            self.owed.remove(hash);
        }
        true
    }

    /// Learns from a block that somebody waited for; `asked` when it was asked of this peer.
    pub(super) fn delivered(&mut self, block: &Block, asked: Option<&Asked>, now: Instant) {
        if let Some(asked) = asked {
            let took = now.duration_since(asked.at);
            self.latency = if self.last_block.is_none() { took } else { (self.latency * 7 + took) / 8 };
            self.shortest = self.shortest.min(took);
            if took > SLOW.max(self.shortest * 4) {
                self.pace = (self.pace.min(self.asked.len() + 1) * 3 / 4).max(WINDOW_BLOCKS.0);
            } else if took < QUICK.max(self.shortest * 2) {
                self.pace = (self.pace + 1).min(WINDOW_BLOCKS.1);
            }
        }
        self.strikes = 0;
        self.useful += 1;
        self.last_block = Some(now);
        self.block_bytes = (self.block_bytes * 7 + block.data().len().max(1)) / 8;
        self.reopen();
    }

    /// Marks what is late, and sends again what may have been lost. `usual` is how long reliable peers take, for a peer
    /// that nothing is known of. Returns what has become late now.
    pub(super) fn tick(&mut self, usual: Duration, now: Instant) -> Vec<Hash> {
        let arrived = self.arriving.load(Ordering::Relaxed);
        if arrived.wrapping_sub(self.progress.0) >= PROGRESS_BYTES {
            self.progress = (arrived, Some(now));
        }
        let latency = if self.is_proven() { self.latency } else { usual };
        let patience = (latency * 4).clamp(PATIENCE.0, PATIENCE.1);
        let recent = |at: Option<Instant>, time| at.is_some_and(|at| now.duration_since(at) <= time);
        let delivers = recent(self.last_block, patience);
        let coming = delivers || recent(self.progress.1, PROGRESS_TIME);
        let limit = if delivers { patience * DRIP_FACTOR } else { patience };
        let (mut late, mut again) = (Vec::new(), Vec::new());
        for (hash, asked) in &mut self.asked {
            if !asked.late && now.duration_since(asked.at) > limit {
                asked.late = true;
                late.push(*hash);
            }
            let (times, at) = asked.sent_again;
            if asked.late && !coming && now.duration_since(at) >= ASK_AGAIN.max(patience) * (1 << times.min(3)) {
                asked.sent_again = (times + 1, now);
                asked.reminded = true;
                again.push(asked.cid);
            }
        }
        if !late.is_empty() {
            self.strikes += 1;
            self.last_strike = now;
            self.pace = (self.pace / 2).max(WINDOW_BLOCKS.0);
        }
        for cid in again {
            self.probe(cid);
        }
        late
    }
}
