//! What a fetch holds while it waits for blocks.

use super::{Exchange, lock};
use crate::block::{Block, Cid};
use libp2p::PeerId;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Wants blocks and receives them, in whatever order they arrive. Dropping it takes back every want that nobody else
/// shares.
pub struct Session {
    exchange: Exchange,
    id: u64,
    blocks: mpsc::UnboundedReceiver<Block>,
}

/// Nobody delivered anything in time.
#[derive(Debug, Clone)]
pub struct Starved {
    /// Peers that were asked.
    pub asked: usize,
    /// Those that said they had it, or had delivered before.
    pub holders: Vec<PeerId>,
    /// How long nothing came.
    pub waited: Duration,
}

impl Exchange {
    /// Opens a session. It asks peers that lately delivered something first, then everybody who is connected.
    pub fn session(&self) -> Session {
        // Bounded by what the session's owner wants: one block a want, each counted before it is asked for.
        let (sender, blocks) = mpsc::unbounded_channel();
        let id = self.with_schedule(|schedule| schedule.open_session(sender, Instant::now()));
        self.0.trace.begin(id);
        Session { exchange: self.clone(), id, blocks }
    }
}

impl Session {
    /// Says what its blocks are for, to whoever asks why it did not come.
    pub(crate) fn about(self, cid: &Cid) -> Self {
        self.exchange.0.trace.about(self.id, *cid);
        self
    }

    /// Says which block nobody delivered in time.
    pub(crate) fn starved(&self, missing: &Cid) {
        self.exchange.0.trace.starved(self.id, missing);
    }

    /// Wants these blocks, first come first asked. Wanting a block again before it came changes nothing.
    pub fn want(&self, cids: impl IntoIterator<Item = Cid>) {
        let cids = cids.into_iter().inspect(|cid| self.exchange.0.trace.wanted(self.id, cid));
        self.exchange.with_schedule(|schedule| schedule.want(self.id, cids, Instant::now()));
    }

    /// The next block, checked against its CID's hash (the CID may be another version or codec of the one wanted).
    ///
    /// # Errors
    /// [`Starved`] when nothing comes for `patience`. The wants stay; waiting again is allowed.
    pub async fn next(&mut self, patience: Duration) -> Result<Block, Starved> {
        match tokio::time::timeout(patience, self.blocks.recv()).await {
            Ok(Some(block)) => {
                self.took(&block);
                Ok(block)
            }
            _ => {
                let (holders, asked) = lock(&self.exchange.0.schedule).asked_peers(self.id);
                Err(Starved { asked, holders, waited: patience })
            }
        }
    }

    /// A block that already came, without waiting.
    pub fn try_next(&mut self) -> Option<Block> {
        let block = self.blocks.try_recv().ok()?;
        self.took(&block);
        Some(block)
    }

    /// How many peers are believed to hold what is wanted, or to be fetching it themselves.
    pub fn holders(&self) -> usize {
        lock(&self.exchange.0.schedule).holders(self.id)
    }

    /// Gives a block, which is in the store now, to the peers that wait for it.
    pub fn stored(&self, cid: &Cid) {
        self.exchange.announce_stored(cid);
    }

    fn took(&self, block: &Block) {
        self.exchange.with_schedule(|schedule| schedule.taken(block.data().len(), Instant::now()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.exchange.with_schedule(|schedule| schedule.close_session(self.id, Instant::now()));
        while self.try_next().is_some() {}
        self.exchange.0.trace.end(self.id);
    }
}
