//! What we had the daemon keep: a record in our own journal, and pins with names in the daemon.
//!
//! A record lies in our journal as a keep called `kubo:PEER NAME`, where PEER is the daemon's peer ID: it may listen
//! elsewhere tomorrow. Its parts are not ours to keep, so the keep has none; they stand in its note:
//!
//! ```text
//! {"version":1,"root":CID,"members":[CID…],"incomplete":false,"note":BASE64,"files":[[DIGEST,SIZE,CID,CUMULATIVE]…]}
//! ```
//! A pin is called `shipfs-ID:NAME`, ID being the end of our repository's own peer ID. Kubo has one pin for a CID: one
//! that somebody else made is left as it is, when an image comes and when it goes. Pins come before the record and go before
//! it does, so that whatever is recorded is pinned, and what breaks off half-way can be repeated. What is about to be pinned
//! stands in a keep called `kubo+:PEER NAME` meanwhile: one that is still there later tells what a crash left pinned.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use shipfs_node::{Cid, pin::Keep, store::Store};

use super::{super::Record, Added, BlobsError, ForeignBlobs, Records, rpc_error};
use crate::oci::Digest;

/// Version of the note that is written.
const NOTE_VERSION: u32 = 1;
/// What the name of such a keep begins with; no image is called so.
const PREFIX: &str = "kubo:";
/// What the name of a keep begins with while its parts are being pinned.
const PENDING_PREFIX: &str = "kubo+:";
/// Longest name of a pin, in bytes: Kubo's limit.
const MAX_PIN_NAME_BYTES: usize = 255;
/// Characters of our peer ID that tell the pins of two repositories apart.
const ID_CHARACTERS: usize = 8;
/// The CID of nothing, which holds its own bytes: these keeps have no root of ours.
const NOTHING: &str = "bafkqaaa";

/// One change of pins at a time: whether a pin is still needed is decided by all records.
static CHANGING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Whether a keep of our journal is of an image that lies with a daemon.
pub fn is_foreign(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with(PENDING_PREFIX)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    root: String,
    members: Vec<String>,
    incomplete: bool,
    note: String,
    #[serde(default)]
    files: Vec<(String, u64, String, u64)>,
}

/// A record as it lies in the journal.
#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    files: Vec<Added>,
}

impl Kept {
    fn cids(&self) -> BTreeSet<Cid> {
        std::iter::once(self.record.root).chain(self.record.members.iter().copied()).collect()
    }

    fn to_keep(&self, prefix: &str, peer: &str) -> Result<Keep, BlobsError> {
        let files = self.files.iter().map(|file| {
            let digest = Digest::Sha256(file.digest).to_string();
            (digest, file.size, file.cid.to_string(), file.cumulative)
        });
        let note = Note {
            version: NOTE_VERSION,
            root: self.record.root.to_string(),
            members: self.record.members.iter().map(Cid::to_string).collect(),
            incomplete: self.record.incomplete,
            note: STANDARD.encode(&self.record.note),
            files: files.collect(),
        };
        let note = serde_json::to_vec(&note).map_err(|error| BlobsError::Other(Box::new(error)))?;
        let root = NOTHING.parse().expect("the constant is a CID");
        Ok(Keep { name: keep_name(prefix, peer, &self.record.name), root, members: Vec::new(), note, incomplete: true })
    }

    /// The record in a keep, if it is one for this daemon, of a version that is understood.
    fn from_keep(keep: &Keep, prefix: &str, peer: &str) -> Option<Self> {
        let name = keep.name.strip_prefix(prefix)?.strip_prefix(peer)?.strip_prefix(' ')?.to_owned();
        let note: Note = serde_json::from_slice(&keep.note).ok().filter(|note: &Note| note.version == NOTE_VERSION)?;
        let members: Result<_, _> = note.members.iter().map(|text| text.parse()).collect();
        let record = Record {
            name,
            root: note.root.parse().ok()?,
            members: members.ok()?,
            note: STANDARD.decode(&note.note).ok()?,
            incomplete: note.incomplete,
        };
        let files = note.files.iter().filter_map(|(digest, size, cid, cumulative)| {
            let digest = digest.parse::<Digest>().ok()?.sha256()?;
            Some(Added { cid: cid.parse().ok()?, digest, size: *size, cumulative: *cumulative, existed: true })
        });
        let files = files.collect();
        Some(Self { record, files })
    }
}

fn keep_name(prefix: &str, peer: &str, name: &str) -> String {
    format!("{prefix}{peer} {name}")
}

impl ForeignBlobs {
    async fn journal<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
        let store = self.node.store().clone();
        crate::bring::blocking(move || work(&store)).await
    }

    /// All records of this daemon, by name.
    async fn all(&self) -> BTreeMap<String, Kept> {
        self.beginning_with(PREFIX).await
    }

    async fn beginning_with(&self, prefix: &str) -> BTreeMap<String, Kept> {
        let keeps = self.journal(|store| store.kept()).await;
        let kept = keeps.iter().filter_map(|keep| Kept::from_keep(keep, prefix, &self.peer));
        kept.map(|kept| (kept.record.name.clone(), kept)).collect()
    }

    async fn write(&self, prefix: &str, kept: &Kept) -> Result<(), BlobsError> {
        let keep = kept.to_keep(prefix, &self.peer)?;
        self.journal(move |store| store.keep(keep)).await.map_err(|error| BlobsError::Other(Box::new(error)))
    }

    async fn erase(&self, prefix: &str, name: &str) -> Result<bool, BlobsError> {
        let name = keep_name(prefix, &self.peer, name);
        let released = self.journal(move |store| store.release(&name)).await;
        released.map_err(|error| BlobsError::Other(Box::new(error)))
    }

    /// Takes back what an earlier process, or a verb that was stopped, pinned and did not record.
    async fn clean(&self, all: &BTreeMap<String, Kept>, mark: &str) -> Result<(), BlobsError> {
        for (name, kept) in self.beginning_with(PENDING_PREFIX).await {
            self.unpin(&kept, all, mark).await?;
            self.erase(PENDING_PREFIX, &name).await?;
        }
        Ok(())
    }

    /// What the daemon calls a blob, by our records.
    pub(super) async fn recorded(&self, digest: &[u8; 32], size: u64) -> Result<Option<Added>, BlobsError> {
        let all = self.all().await;
        let mut files = all.values().flat_map(|kept| &kept.files);
        Ok(files.find(|file| file.digest == *digest && file.size == size).copied())
    }

    /// What the names of our pins begin with.
    fn mark(&self) -> Result<String, BlobsError> {
        let identity = self.node.identity().map_err(|error| BlobsError::Other(Box::new(error)))?;
        let peer = identity.public().to_peer_id().to_string();
        Ok(format!("shipfs-{}:", &peer[peer.len().saturating_sub(ID_CHARACTERS)..]))
    }

    fn pin_name(mark: &str, name: &str) -> String {
        let mut text = format!("{mark}{name}");
        let end = (0..=MAX_PIN_NAME_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text
    }

    /// Pins what is not pinned yet.
    async fn pin(&self, kept: &Kept, mark: &str) -> Result<(), BlobsError> {
        let mut missing = Vec::new();
        for cid in kept.cids() {
            if self.kubo.pinned(&cid).await.map_err(rpc_error)?.is_none() {
                missing.push(cid);
            }
        }
        let name = Self::pin_name(mark, &kept.record.name);
        if !kept.record.incomplete {
            return self.kubo.pin(&missing, &name).await.map_err(|error| match error.is_absence() {
                true => BlobsError::Other(Box::new(Collected(error))),
                false => rpc_error(error),
            });
        }
        for cid in missing {
            match self.kubo.pin(&[cid], &name).await {
                Err(error) if !error.is_absence() => return Err(rpc_error(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes back our pins of what no other record holds, and renames those that are called after a record that goes.
    async fn unpin(&self, gone: &Kept, others: &BTreeMap<String, Kept>, mark: &str) -> Result<(), BlobsError> {
        let name = Self::pin_name(mark, &gone.record.name);
        for cid in gone.cids() {
            let Some(pinned) = self.kubo.pinned(&cid).await.map_err(rpc_error)? else { continue };
            if !pinned.name.starts_with(mark) {
                continue;
            }
            match others.values().find(|other| other.cids().contains(&cid)) {
                None => self.kubo.unpin(&cid).await.map_err(rpc_error)?,
                Some(other) if pinned.name == name => {
                    let name = Self::pin_name(mark, &other.record.name);
                    self.kubo.pin(&[cid], &name).await.map_err(rpc_error)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What is known of the files of a record.
    fn files(&self, record: &Record, all: &BTreeMap<String, Kept>) -> Vec<Added> {
        let recorded = all.values().flat_map(|kept| &kept.files).copied();
        let known: Vec<_> = {
            let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.values().copied().collect()
        };
        let by_cid: BTreeMap<Cid, Added> = recorded.chain(known).map(|file| (file.cid, file)).collect();
        record.members.iter().filter_map(|cid| by_cid.get(cid).copied()).collect()
    }
}

#[async_trait]
impl Records for ForeignBlobs {
    async fn keep(&self, record: Record) -> Result<(), BlobsError> {
        let _alone = CHANGING.lock().await;
        let mark = self.mark()?;
        let mut all = self.all().await;
        self.clean(&all, &mark).await?;
        let files = self.files(&record, &all);
        let kept = Kept { record, files };
        self.write(PENDING_PREFIX, &kept).await?;
        if let Err(error) = self.pin(&kept, &mark).await {
            // The daemon may be gone by now; then the next who works with it does this.
            if let Err(error) = self.clean(&all, &mark).await {
                tracing::debug!(%error, "pins are left to be taken back");
            }
            return Err(error);
        }
        self.write(PREFIX, &kept).await?;
        self.erase(PENDING_PREFIX, &kept.record.name).await?;
        let replaced = all.insert(kept.record.name.clone(), kept);
        if let Some(replaced) = replaced {
            self.unpin(&replaced, &all, &mark).await?;
        }
        Ok(())
    }

    async fn release(&self, name: &str) -> Result<bool, BlobsError> {
        let _alone = CHANGING.lock().await;
        let mark = self.mark()?;
        let mut all = self.all().await;
        self.clean(&all, &mark).await?;
        let Some(gone) = all.remove(name) else { return Ok(false) };
        self.unpin(&gone, &all, &mark).await?;
        self.erase(PREFIX, name).await
    }

    async fn kept(&self) -> Result<Vec<Record>, BlobsError> {
        Ok(self.all().await.into_values().map(|kept| kept.record).collect())
    }
}

/// Something that is to be kept is not there.
#[derive(Debug, thiserror::Error)]
#[error("the IPFS daemon has no longer all that is to be kept")]
pub(crate) struct Collected(#[source] shipfs_node::rpc::RpcError);
