//! A connected peer, as far as asking it for blocks goes: its window, its pace, what it owes.

use super::Hash;
use crate::exchange::bitswap::wire::Want;
use cid::Cid;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes asked of one peer and not yet received: enough to cover a round trip of 30 ms at 1 Gbit/s, and a bound on
/// what one peer can make us hold.
pub(super) const WINDOW_BYTES: usize = 4 << 20;
/// Fewest and most blocks in a window, whatever their size.
const WINDOW_BLOCKS: (usize, usize) = (2, 128);
/// Size of a block that nothing is known about: the chunk size that this node, Kubo and nerdctl write.
pub(super) const USUAL_BLOCK_BYTES: usize = 256 << 10;
/// A peer that keeps a block longer than this, when it usually takes less than a quarter of it, is passed over.
pub(super) const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A block that takes longer than this from want to arrival waits behind too many others: the window shrinks.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// A block that takes less than this: the window may grow.
const QUICK: Duration = Duration::from_millis(300);

/// A block it was asked for.
pub(super) struct Asked {
    pub(super) cid: Cid,
    pub(super) at: Instant,
}

/// A connected peer.
pub(super) struct Source {
    pub(super) outbox: Vec<Want>,
    wake: Arc<Notify>,
    pub(super) asked: HashMap<Hash, Asked>,
    /// Closed once the window is full, open again once half of it has arrived: so that wants travel in few messages.
    pub(super) open: bool,
    /// Smoothed time from want to block.
    pub(super) latency: Duration,
    pub(super) block_bytes: usize,
    /// Blocks in the window, as far as its speed goes.
    pace: usize,
    pub(super) last_block: Option<Instant>,
    pub(super) last_ask: Instant,
    pub(super) strikes: u32,
    pub(super) bogus: u32,
}

impl Source {
    /// A peer that nothing is known about. `wake` tells whoever sends that there is something to send.
    pub(super) fn new(wake: Arc<Notify>, now: Instant) -> Self {
        Self {
            outbox: Vec::new(),
            wake,
            asked: HashMap::new(),
            open: true,
            latency: Duration::ZERO,
            block_bytes: USUAL_BLOCK_BYTES,
            pace: WINDOW_BLOCKS.1,
            last_block: None,
            last_ask: now,
            strikes: 0,
            bogus: 0,
        }
    }

    /// Learns from a block of `bytes` that arrived; `asked` unless it had been asked for elsewhere meanwhile.
    pub(super) fn delivered(&mut self, asked: Option<&Asked>, bytes: usize, now: Instant) {
        if let Some(asked) = asked {
            let took = now.duration_since(asked.at);
            self.latency = if self.last_block.is_none() { took } else { (self.latency * 7 + took) / 8 };
            self.strikes = 0;
            if took > SLOW {
                self.pace = (self.pace.min(self.asked.len() + 1) * 3 / 4).max(WINDOW_BLOCKS.0);
            } else if took < QUICK {
                self.pace = (self.pace + 1).min(WINDOW_BLOCKS.1);
            }
        }
        self.last_block = Some(now);
        self.block_bytes = (self.block_bytes * 7 + bytes.max(1)) / 8;
        if self.asked.len() <= self.window() / 2 {
            self.open = true;
        }
    }

    /// Bytes it owes, by the size of its blocks so far.
    pub(super) fn owed(&self) -> usize {
        self.asked.len() * self.block_bytes.max(1)
    }

    pub(super) fn window(&self) -> usize {
        (WINDOW_BYTES / self.block_bytes.max(1)).min(self.pace).clamp(WINDOW_BLOCKS.0, WINDOW_BLOCKS.1)
    }

    pub(super) fn patience(&self) -> Duration {
        (self.latency * 4).clamp(PATIENCE.0, PATIENCE.1)
    }

    pub(super) fn post(&mut self, want: Want) {
        self.outbox.push(want);
        self.wake.notify_one();
    }

    pub(super) fn cancel(&mut self, cid: Cid) {
        // A want that was not sent yet is taken back without a word.
        match self.outbox.iter().position(|want| want.cid == cid && !want.cancel) {
            Some(at) => drop(self.outbox.remove(at)),
            None => self.post(Want { cid, cancel: true, have_only: false, send_dont_have: false }),
        }
    }
}
