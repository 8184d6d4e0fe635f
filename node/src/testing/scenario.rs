//! A life of a store, and what must be true of it at any moment.
//!
//! Two images share a layer and a chunk; one blob is there under two CIDs, cut in two ways; one layer is received in two
//! attempts; DAGs are pinned; images are released, collected and kept again; packs are rewritten, the journal compacted.
//! Imports the store's API.

use super::disk::{Image, Log, Op, SimulatedDisk};
use super::index::{IndexImage, MemoryHome};
use crate::block::{Block, Cid};
use crate::pin::Keep;
use crate::store::open::OpenOptions;
use crate::store::tests::{add, build, noise};
use crate::store::{Blockstore as _, OpenError, Store, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Bytes of a chunk, and of the other cut.
const CHUNK: usize = 1000;
const OTHER_CHUNK: usize = 1700;

/// What a pin or keep holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    blocks: HashMap<Cid, Block>,
    /// Whole files, by CID.
    files: HashMap<Cid, Bytes>,
}

impl Held {
    fn file(mut self, data: &Bytes, chunk: usize) -> Self {
        let (blocks, _, tree) = build(data, chunk);
        self.files.insert(tree.root, data.clone());
        self.blocks.extend(blocks.into_iter().chain(tree.nodes).map(|block| (*block.cid(), block)));
        self
    }
}

/// Something that is to be true: a subject (`keep NAME` or `pin CID`) holds something, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    subject: String,
    held: Option<Held>,
}

/// A store on a simulated disk, and the claims made so far.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) disk: SimulatedDisk,
    pub(crate) home: MemoryHome,
    pub(crate) log: Log,
    claims: Mutex<Vec<Claim>>,
}

impl Life {
    pub(crate) fn new() -> Self {
        let log = Log::default();
        Self {
            disk: SimulatedDisk::new(Image::default(), Some(log.clone())),
            home: MemoryHome::new(IndexImage::default(), Some(log.clone())),
            log,
            claims: Mutex::default(),
        }
    }

    pub(crate) fn claims(&self) -> Vec<Claim> {
        self.claims.lock().expect("lock").clone()
    }

    fn claim(
        &self,
        subject: String,
        held: Option<Held>,
        act: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let number = {
            let mut claims = self.claims.lock().expect("lock");
            claims.push(Claim { subject, held });
            claims.len() - 1
        };
        self.log.push(Op::Begun(number));
        act()?;
        self.log.push(Op::Done(number));
        Ok(())
    }

    fn keep(&self, store: &Store, name: &str, parts: &[(&Bytes, usize)]) -> Result<(), StoreError> {
        let held = parts.iter().fold(Held::default(), |held, (data, chunk)| held.file(data, *chunk));
        let cids: Vec<Cid> = parts.iter().map(|(data, chunk)| build(data, *chunk).2.root).collect();
        let keep = Keep {
            name: name.into(),
            root: cids[0],
            members: cids[1..].to_vec(),
            note: vec![7; 30],
            incomplete: false,
        };
        self.claim(format!("keep {name}"), Some(held), || store.keep(keep))
    }

    fn release(&self, store: &Store, name: &str) -> Result<(), StoreError> {
        self.claim(format!("keep {name}"), None, || store.release(name).map(|_| ()))
    }

    pub(crate) fn open(&self) -> Result<Store, OpenError> {
        open(&self.disk, &self.home)
    }

    /// Lives it, until something fails.
    pub(crate) fn play(&self) -> Result<(), Box<dyn Error>> {
        let (shared, second) = (noise(1, 6500), noise(3, 3300));
        let first: Bytes = [&shared[2 * CHUNK..3 * CHUNK], &noise(2, 2500)].concat().into();
        let (root_a, root_b, root_c) = (noise(4, 150), noise(5, 160), noise(6, 170));
        let junk = noise(7, 4000);

        let store = self.open()?;
        let lease = store.lease();
        try_add(&store, &shared, CHUNK)?;
        try_add(&store, &first, CHUNK)?;
        store.commit()?;
        try_add(&store, &root_a, CHUNK)?;
        self.keep(&store, "a", &[(&root_a, CHUNK), (&shared, CHUNK), (&first, CHUNK)])?;

        // The same blob under another CID, and a layer that comes in two attempts.
        receive(&store, &shared, OTHER_CHUNK, usize::MAX)?;
        receive(&store, &second, CHUNK, 2)?;
        receive(&store, &second, CHUNK, usize::MAX)?;
        try_add(&store, &root_b, CHUNK)?;
        self.keep(&store, "b", &[(&root_b, CHUNK), (&shared, OTHER_CHUNK), (&second, CHUNK)])?;
        drop(lease);

        // A pinned DAG of loose blocks, one of which lies in a file only.
        let lease = store.lease();
        let part: Bytes = [&first[..CHUNK], &noise(8, 1200)].concat().into();
        let (blocks, _, tree) = build(&part, CHUNK);
        blocks.iter().chain(&tree.nodes).try_for_each(|block| store.put(block))?;
        let mut pinned = Held::default().file(&part, CHUNK);
        pinned.files.clear();
        let subject = format!("pin {}", tree.root);
        self.claim(subject.clone(), Some(pinned.clone()), || store.pin(&tree.root, "part"))?;
        drop(lease);

        // Much that dies: a kept file, and loose blocks that fill a pack.
        let lease = store.lease();
        try_add(&store, &junk, 300)?;
        try_add(&store, &root_c, CHUNK)?;
        self.keep(&store, "c", &[(&root_c, CHUNK), (&junk, 300)])?;
        for n in 0..12 {
            store.put(&Block::raw(noise(100 + n, 300)))?;
        }
        store.commit()?;
        drop(lease);
        self.release(&store, "c")?;
        store.gc()?;
        store.close()?;

        // The journal is compacted here.
        let store = self.open()?;
        self.release(&store, "a")?;
        store.gc()?;
        let lease = store.lease();
        try_add(&store, &first, CHUNK)?;
        try_add(&store, &shared, CHUNK)?;
        try_add(&store, &root_a, CHUNK)?;
        self.keep(&store, "a", &[(&root_a, CHUNK), (&shared, CHUNK), (&first, CHUNK)])?;
        drop(lease);
        self.claim(subject, None, || store.unpin(&tree.root).map(|_| ()))?;
        self.keep(&store, "b", &[(&root_b, CHUNK), (&shared, OTHER_CHUNK)])?;
        store.gc()?;
        store.close()?;

        let store = self.open()?;
        store.gc()?;
        store.close()?;
        Ok(())
    }
}

pub(crate) fn open(disk: &SimulatedDisk, home: &MemoryHome) -> Result<Store, OpenError> {
    let options = OpenOptions { compact_at: 0, compact_ratio: 1, pack_bytes: 2000 };
    Store::open_on(Path::new("/simulated"), Arc::new(disk.clone()), Box::new(home.clone()), None, options)
}

fn try_add(store: &Store, data: &Bytes, chunk: usize) -> Result<(), StoreError> {
    let (_, hashed, tree) = build(data, chunk);
    let staged = store.stage()?;
    for at in (0..data.len()).step_by(3000) {
        staged.write_at(at as u64, &data[at..data.len().min(at + 3000)])?;
    }
    staged.finish(&hashed, &tree).map(|_| ())
}

/// Receives at most `most` blocks that are not there.
fn receive(store: &Store, data: &Bytes, chunk: usize, most: usize) -> Result<(), StoreError> {
    let (blocks, hashed, tree) = build(data, chunk);
    let incoming = store.receive(&tree.root, hashed.size, Some(hashed.digest))?;
    tree.nodes.iter().try_for_each(|node| store.put(node))?;
    let mut written = 0;
    for (n, block) in blocks.iter().enumerate() {
        let offset = (n * chunk) as u64;
        if incoming.present(offset, block.data().len(), block.cid())?.is_some() {
            continue;
        }
        if written == most {
            return Ok(());
        }
        incoming.write(offset, block)?;
        written += 1;
    }
    incoming.finish(hashed.digest, hashed.size).map(|_| ())
}

/// What each subject may hold.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    subjects: BTreeMap<&'a str, Vec<Option<&'a Held>>>,
    /// Everything that was ever held.
    ever: Vec<&'a Held>,
}

/// What each subject may hold, given what was begun and done in `ops`: the last that was done, or any begun since.
pub(crate) fn expected<'a>(ops: &[Op], claims: &'a [Claim]) -> Expected<'a> {
    let mut expected = BTreeMap::<&str, Vec<_>>::new();
    for claim in claims {
        expected.insert(&claim.subject, vec![None]);
    }
    for op in ops {
        match op {
            Op::Begun(number) => {
                let claim = &claims[*number];
                expected.entry(&claim.subject).or_default().push(claim.held.as_ref());
            }
            Op::Done(number) => {
                let claim = &claims[*number];
                expected.insert(&claim.subject, vec![claim.held.as_ref()]);
            }
            _ => {}
        }
    }
    Expected { subjects: expected, ever: claims.iter().filter_map(|claim| claim.held.as_ref()).collect() }
}

/// Opens a store on what is left, and checks that everything claimed is true, that no block is another, that a collection
/// frees what is free and nothing else, and that the store can be worked with: `eager`ly, before anything is collected, or
/// after.
pub(crate) fn check(disk: &SimulatedDisk, home: &MemoryHome, expected: &Expected<'_>, eager: bool) {
    let mut store = open(disk, home).expect("opens");
    let new = noise(50, 2500);
    if eager {
        // What was compacted away at the first open is forgotten at the second.
        drop(store);
        store = work(open(disk, home).expect("opens twice"), disk, home, &new);
        check_claims(&store, expected);
        check_bytes(&store, expected);
        store.unpin(&build(&new, CHUNK).2.root).expect("unpins");
    }
    let kept = check_claims(&store, expected);
    check_bytes(&store, expected);
    store.gc().expect("collects");
    assert_eq!(check_claims(&store, expected).len(), kept.len());
    check_freed(&store, disk, &kept);
    check_bytes(&store, expected);
    let report = store.verify(false, &|_| ()).expect("verifies");
    assert!(report.is_clean(), "{report:?}");
    store = work(store, disk, home, &new);
    check_claims(&store, expected);
    store.close().expect("closes");
}

/// Adds and pins a file; it is there when the store is opened again.
fn work(store: Store, disk: &SimulatedDisk, home: &MemoryHome, new: &Bytes) -> Store {
    let lease = store.lease();
    let file = add(&store, new, CHUNK);
    store.pin(&file.cid, "new").expect("pins");
    drop(lease);
    store.close().expect("closes");
    let store = open(disk, home).expect("opens again");
    check_held(&store, &Held::default().file(new, CHUNK));
    store
}

/// Whatever was ever claimed is as it should be, if it is there at all.
fn check_bytes(store: &Store, expected: &Expected<'_>) {
    for (cid, block) in expected.ever.iter().flat_map(|held| &held.blocks) {
        let found = store.get(cid).expect("reads");
        assert!(found.is_none_or(|found| found == *block.data()), "{cid} is another block");
    }
}

fn check_claims<'a>(store: &Store, expected: &Expected<'a>) -> Vec<&'a Held> {
    let keeps: HashMap<String, Keep> =
        store.kept().into_iter().map(|keep| (format!("keep {}", keep.name), keep)).collect();
    let pins: HashSet<String> = store.pins().iter().map(|pin| format!("pin {}", pin.cid)).collect();
    let mut kept = Vec::new();
    for (subject, may_hold) in &expected.subjects {
        let present = pins.contains(*subject) || keeps.contains_key(*subject);
        // Two images under one name differ in their files.
        let fits = |held: &Held| {
            keeps.get(*subject).is_none_or(|keep| {
                let cids: HashSet<&Cid> = std::iter::once(&keep.root).chain(&keep.members).collect();
                held.files.keys().collect::<HashSet<_>>() == cids
            })
        };
        let held = may_hold.iter().find(|held| held.is_some() == present && held.is_none_or(fits));
        let held = held.unwrap_or_else(|| panic!("`{subject}` is present: {present}"));
        if let Some(held) = held {
            check_held(store, held);
            kept.push(*held);
        }
    }
    kept
}

fn check_held(store: &Store, held: &Held) {
    for (cid, block) in &held.blocks {
        let found = store.get(cid).expect("reads");
        assert_eq!(found.as_ref(), Some(block.data()), "{cid}");
    }
    for (cid, data) in &held.files {
        assert_eq!(store.file(cid).expect("a whole file").size, data.len() as u64);
    }
}

/// Nothing is left but what is kept.
fn check_freed(store: &Store, disk: &SimulatedDisk, kept: &[&Held]) {
    let digests: HashSet<String> = kept
        .iter()
        .flat_map(|held| held.files.keys())
        .map(|cid| store.file(cid).expect("a file").path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(disk.names("blobs/sha256").into_iter().collect::<HashSet<_>>(), digests);
    assert_eq!(disk.names("partial"), Vec::<String>::new());
    let live: HashSet<&Cid> = kept.iter().flat_map(|held| held.blocks.keys()).collect();
    for block in (0..12).map(|n| Block::raw(noise(100 + n, 300))) {
        assert!(live.contains(block.cid()) || store.size(block.cid()).expect("size").is_none());
    }
    let packed: usize = kept.iter().flat_map(|held| held.blocks.values()).map(|block| block.data().len() + 100).sum();
    let usage = store.usage().expect("usage");
    // Half of a pack may be dead, every pack has a header, and the last may be new.
    assert!(usage.pack_bytes <= 2 * packed as u64 + 12 * usage.packs, "{usage:?} {packed}");
}
