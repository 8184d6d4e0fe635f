//! The in-memory twin of the storage seam, for tests: real CIDs, real checks, no disk and no network.
//!
//! Imports its parent and the node's DAG builders. Peers are other values of the same type, asked in order. It lies when
//! it is told to ([`MemoryBlobs::falsify`]), as a peer's DAG may.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shipfs_node::{
    Cid,
    block::{CODEC_RAW, cid_of},
    dag::{CHUNK_BYTES, Kind, Leaf, Link, UnixFs, balanced, encode_node, encode_unixfs},
};

use super::{
    Added, BlobFile, Blobs, BlobsError, Body, Content, Directory, Entry, Expected, Progress, Record, Records, Want,
};

/// Blobs in memory.
#[derive(Default)]
pub struct MemoryBlobs {
    state: Mutex<State>,
    peers: Vec<Arc<MemoryBlobs>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<Cid, Bytes>,
    directories: BTreeMap<Cid, Vec<Entry>>,
    records: BTreeMap<String, Record>,
    added: usize,
    fetched: Vec<Cid>,
}

impl MemoryBlobs {
    /// An empty store that asks `peers` for what it lacks.
    pub fn with_peers(peers: Vec<Arc<MemoryBlobs>>) -> Self {
        Self { peers, ..Self::default() }
    }

    /// How many blobs were read from their content so far.
    pub fn added(&self) -> usize {
        self.state().added
    }

    /// What was taken from peers so far, in order.
    pub fn fetched(&self) -> Vec<Cid> {
        self.state().fetched.clone()
    }

    /// How many files it holds.
    pub fn files(&self) -> usize {
        self.state().files.len()
    }

    /// Makes `cid` name other bytes, as a DAG does that is not what a descriptor says.
    pub fn falsify(&self, cid: Cid, bytes: impl Into<Bytes>) {
        self.state().files.insert(cid, bytes.into());
    }

    /// Forgets a file or directory.
    pub fn forget(&self, cid: &Cid) {
        let mut state = self.state();
        state.files.remove(cid);
        state.directories.remove(cid);
    }

    /// The bytes of a file that is here.
    pub fn bytes(&self, cid: &Cid) -> Option<Bytes> {
        self.local(cid)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self, cid: &Cid) -> Option<Bytes> {
        self.state().files.get(cid).cloned()
    }

    /// The file, and whether it was here.
    fn file(&self, cid: &Cid) -> Result<(Bytes, bool), BlobsError> {
        if let Some(bytes) = self.local(cid) {
            return Ok((bytes, true));
        }
        if self.state().directories.contains_key(cid) || self.peers.iter().any(|peer| peer.names(cid).is_some()) {
            return Err(BlobsError::NotAFile { cid: *cid });
        }
        let found = self.peers.iter().find_map(|peer| peer.local(cid));
        let asked = format!("{} peers asked", self.peers.len());
        found.map(|bytes| (bytes, false)).ok_or(BlobsError::NotFound { cid: *cid, asked })
    }

    fn names(&self, cid: &Cid) -> Option<Vec<Entry>> {
        self.state().directories.get(cid).cloned()
    }

    fn keep_file(&self, cid: &Cid, bytes: &Bytes) {
        let mut state = self.state();
        state.files.insert(*cid, bytes.clone());
        state.fetched.push(*cid);
    }
}

/// The CID of a file, and the bytes of its whole DAG.
fn name(bytes: &[u8]) -> (Cid, u64) {
    let leaf = |chunk: &[u8]| Leaf { cid: cid_of(CODEC_RAW, chunk), size: chunk.len() as u64 };
    let tree = balanced(&bytes.chunks(CHUNK_BYTES).map(leaf).collect::<Vec<_>>());
    (tree.root, tree.cumulative)
}

fn check(bytes: &[u8], expected: Option<Expected>) -> Result<[u8; 32], BlobsError> {
    let got_digest: [u8; 32] = Sha256::digest(bytes).into();
    match expected {
        Some(expected) if (expected.digest, expected.size) != (got_digest, bytes.len() as u64) => {
            Err(BlobsError::Mismatch { expected, got_digest: Some(got_digest), got_size: bytes.len() as u64 })
        }
        _ => Ok(got_digest),
    }
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError> {
        let mut whole = Vec::new();
        let bytes: Bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::File(path) => std::fs::read(path).map_err(BlobsError::Content)?.into(),
            Content::Reader(mut reader) => {
                reader.read_to_end(&mut whole).map_err(BlobsError::Content)?;
                whole.into()
            }
        };
        let digest = check(&bytes, expected)?;
        let (cid, cumulative) = name(&bytes);
        let size = bytes.len() as u64;
        progress(size);
        let mut state = self.state();
        let existed = state.files.insert(cid, bytes).is_some();
        state.added += 1;
        Ok(Added { cid, digest, size, cumulative, existed })
    }

    async fn add_directory(&self, mut entries: Vec<Entry>) -> Result<Directory, BlobsError> {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('/');
        if !entries.iter().all(|entry| is_name(&entry.name))
            || entries.windows(2).any(|pair| pair[0].name == pair[1].name)
        {
            return Err(BlobsError::Other("a directory's names are malformed or not unique".into()));
        }
        let link = |entry: &Entry| Link { cid: entry.cid, name: entry.name.clone().into(), size: entry.size };
        let links: Vec<Link> = entries.iter().map(link).collect();
        let data = encode_unixfs(&UnixFs {
            kind: Kind::Directory,
            data: Bytes::new(),
            file_size: None,
            block_sizes: Vec::new(),
            hash_type: None,
            fanout: None,
        });
        let block = shipfs_node::block::Block::dag_pb(encode_node(&links, &data));
        let cumulative = block.data().len() as u64 + links.iter().map(|link| link.size).sum::<u64>();
        self.state().directories.insert(*block.cid(), entries);
        Ok(Directory { cid: *block.cid(), cumulative })
    }

    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError> {
        let state = self.state();
        let is_it = |bytes: &&Bytes| {
            let expected = Expected { digest: *digest, size: size.unwrap_or(bytes.len() as u64) };
            check(bytes, Some(expected)).is_ok()
        };
        Ok(state.files.values().find(is_it).map(|bytes| {
            let (cid, cumulative) = name(bytes);
            Added { cid, digest: *digest, size: bytes.len() as u64, cumulative, existed: true }
        }))
    }

    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError> {
        let (bytes, existed) = self.file(cid)?;
        let digest = match want {
            Want::Exactly(expected) => check(&bytes, Some(expected))?,
            Want::AtMost(limit) if bytes.len() as u64 > limit => return Err(BlobsError::TooLarge { cid: *cid, limit }),
            Want::AtMost(_) => check(&bytes, None)?,
        };
        if !existed {
            self.keep_file(cid, &bytes);
        }
        progress(bytes.len() as u64);
        Ok(BlobFile { cid: *cid, digest, size: bytes.len() as u64, existed, body: Body::Bytes(bytes) })
    }

    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError> {
        let (bytes, existed) = self.file(cid)?;
        if bytes.len() as u64 > limit {
            return Err(BlobsError::TooLarge { cid: *cid, limit });
        }
        if !existed {
            self.keep_file(cid, &bytes);
        }
        Ok(bytes)
    }

    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
        if let Some(entries) = self.names(cid) {
            return Ok(entries);
        }
        let Some(entries) = self.peers.iter().find_map(|peer| peer.names(cid)) else {
            return Err(match self.file(cid) {
                Ok(_) => BlobsError::NotADirectory { cid: *cid },
                Err(error) => error,
            });
        };
        let mut state = self.state();
        state.directories.insert(*cid, entries.clone());
        state.fetched.push(*cid);
        Ok(entries)
    }

    fn records(&self) -> &dyn Records {
        self
    }
}

#[async_trait]
impl Records for MemoryBlobs {
    async fn keep(&self, record: Record) -> Result<(), BlobsError> {
        let mut state = self.state();
        let is_here = |cid: &Cid| state.files.contains_key(cid) || state.directories.contains_key(cid);
        if let Some(absent) = std::iter::once(&record.root).chain(&record.members).find(|cid| !is_here(cid))
            && !record.incomplete
        {
            return Err(BlobsError::Other(format!("`{absent}` is not here").into()));
        }
        state.records.insert(record.name.clone(), record);
        Ok(())
    }

    async fn release(&self, name: &str) -> Result<bool, BlobsError> {
        Ok(self.state().records.remove(name).is_some())
    }

    async fn kept(&self) -> Result<Vec<Record>, BlobsError> {
        Ok(self.state().records.values().cloned().collect())
    }
}
