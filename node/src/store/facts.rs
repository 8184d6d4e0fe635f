//! The facts in memory: what the journal says, and the links that it will say at the next commit.
//!
//! Imports records. It never does I/O.

use super::packs::Tail;
use super::record::{Link, Peers, Record};
use crate::block::Cid;
use crate::pin::{Keep, Pin};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Networks whose peers are remembered: a host is part of few.
const MAX_NETWORKS: usize = 8;

/// Everything that is known without looking at the disk.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) links: HashMap<u32, Arc<Link>>,
    by_cid: HashMap<Cid, u32>,
    by_digest: HashMap<[u8; 32], Vec<u32>>,
    pub(crate) pins: BTreeMap<Cid, String>,
    pub(crate) keeps: BTreeMap<String, Arc<Keep>>,
    /// Addresses of peers, by network.
    pub(crate) peers: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    next_id: u32,
    /// Up to where the packs are known to be synced.
    pub(crate) packed: Tail,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            links: HashMap::new(),
            by_cid: HashMap::new(),
            by_digest: HashMap::new(),
            pins: BTreeMap::new(),
            keeps: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_id: 1,
            packed: Tail::default(),
        }
    }
}

impl Facts {
    /// Applies one fact.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Link(link) => self.add(Arc::new(link.clone())),
            Record::Unlink(id) => self.remove(*id),
            Record::Pin(pin) => {
                self.pins.insert(pin.cid, pin.name.clone());
            }
            Record::Unpin(cid) => {
                self.pins.remove(cid);
            }
            Record::Keep(keep) => {
                self.keeps.insert(keep.name.clone(), Arc::new(keep.clone()));
            }
            Record::Release(name) => {
                self.keeps.remove(name);
            }
            Record::Peers(peers) => {
                // Another network than ever before takes the place of one.
                if self.peers.len() >= MAX_NETWORKS && !self.peers.contains_key(&peers.network) {
                    self.peers.pop_first();
                }
                self.peers.insert(peers.network.clone(), peers.addresses.clone());
            }
            Record::Packed(tail) => self.packed = self.packed.max(*tail),
            Record::Reserve(id) => self.next_id = self.next_id.max(*id),
        }
    }

    fn add(&mut self, link: Arc<Link>) {
        let id = link.id;
        self.next_id = self.next_id.max(id.saturating_add(1));
        self.by_cid.insert(link.cid, id);
        let ids = self.by_digest.entry(link.digest).or_default();
        if !ids.contains(&id) {
            ids.push(id);
        }
        self.links.insert(id, link);
    }

    fn remove(&mut self, id: u32) {
        let Some(link) = self.links.remove(&id) else { return };
        if self.by_cid.get(&link.cid) == Some(&id) {
            self.by_cid.remove(&link.cid);
        }
        if let Some(ids) = self.by_digest.get_mut(&link.digest) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_digest.remove(&link.digest);
            }
        }
    }

    /// The link of a file CID.
    pub(crate) fn by_cid(&self, cid: &Cid) -> Option<Arc<Link>> {
        self.links.get(self.by_cid.get(cid)?).cloned()
    }

    /// Every link to the file of this digest.
    pub(crate) fn by_digest(&self, digest: &[u8; 32]) -> Vec<Arc<Link>> {
        self.by_digest.get(digest).into_iter().flatten().filter_map(|id| self.links.get(id).cloned()).collect()
    }

    /// A link id that was never given out. Ids whose rows were never written may be given out again after a restart.
    pub(crate) fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).expect("four thousand million files are more than a disk holds");
        id
    }

    /// All facts, as records: what compaction writes.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut links: Vec<_> = self.links.values().collect();
        links.sort_by_key(|link| link.id);
        let links = links.into_iter().map(|link| Record::Link(Link::clone(link)));
        let pins = self.pins.iter().map(|(cid, name)| Record::Pin(Pin { cid: *cid, name: name.clone() }));
        let keeps = self.keeps.values().map(|keep| Record::Keep(Keep::clone(keep)));
        let peer = |(network, addresses): (&Vec<u8>, &Vec<Vec<u8>>)| {
            Record::Peers(Peers { network: network.clone(), addresses: addresses.clone() })
        };
        [Record::Reserve(self.next_id), Record::Packed(self.packed)]
            .into_iter()
            .chain(links)
            .chain(pins)
            .chain(keeps)
            .chain(self.peers.iter().map(peer))
            .collect()
    }
}
