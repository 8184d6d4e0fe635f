//! Announces what this node has, and goes on doing so.
//!
//! The table republishes its records every twelve hours by itself; what it cannot know is that a record was placed while
//! nobody was there to take it. So while the network is smaller than a record's replication, everything is announced
//! again to each newcomer. Entities are announced (roots, manifests, configs, one record a blob), never every block.
//!
//! May import [`crate::net`]. It never announces what it was not told to.

use crate::block::Cid;
use crate::net::{Net, NetError};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;

/// Announcements under way at once: each asks up to twenty peers.
const AT_ONCE: usize = 4;
/// Entities that are announced: as many as the table keeps records of its own.
const MAX_ENTITIES: usize = 64 << 10;
/// Announcements that may wait to be taken up.
const MAX_WAITING: usize = 256;
/// Peers that take a record (Kademlia's k): in a larger network a newcomer need not have it.
const REPLICATION: usize = 20;
/// Newcomers that arrive within this time are served together.
const SETTLE: Duration = Duration::from_millis(500);

/// The way to the announcer. Dropping all clones ends it; the table then forgets within a day.
#[derive(Clone, Debug)]
pub(crate) struct Provider(mpsc::Sender<Cid>);

impl Provider {
    /// A provider, and the task that is to be run for it.
    pub(crate) fn new(net: Net) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), run(net, receiver))
    }

    /// Takes an entity up. Waits while too many others wait.
    pub(crate) async fn announce(&self, cid: Cid) -> Result<(), NetError> {
        self.0.send(cid).await.map_err(|_| NetError::Closed)
    }
}

async fn run(net: Net, mut receiver: mpsc::Receiver<Cid>) {
    let mut entities: Vec<Cid> = Vec::new();
    let mut waiting: VecDeque<Cid> = VecDeque::new();
    let mut newcomers = net.table_peers();
    loop {
        tokio::select! {
            entity = receiver.recv() => match entity {
                Some(cid) if entities.len() < MAX_ENTITIES && !entities.contains(&cid) => {
                    entities.push(cid);
                    waiting.push_back(cid);
                }
                Some(cid) => tracing::debug!(%cid, "announced already, or too many announcements"),
                None => return,
            },
            changed = newcomers.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(SETTLE).await;
                if *newcomers.borrow_and_update() <= REPLICATION {
                    waiting = entities.iter().copied().collect();
                }
            }
            () = announce(&net, &mut waiting), if !waiting.is_empty() => {}
        }
    }
}

/// Announces the next few. What is interrupted is announced again by the next newcomer or republication.
async fn announce(net: &Net, waiting: &mut VecDeque<Cid>) {
    let batch: Vec<_> = waiting.drain(..waiting.len().min(AT_ONCE)).collect();
    let announced = futures::future::join_all(batch.iter().map(|cid| net.provide(*cid))).await;
    let placed = announced.iter().filter(|done| matches!(done, Ok(true))).count();
    tracing::debug!(placed, of = batch.len(), "announced");
}
