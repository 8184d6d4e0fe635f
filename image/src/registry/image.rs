//! From digests to what they name, within one image.
//!
//! Imports reading a [`Root`] and the seam to storage. What was found out about a root stays, since a root never changes;
//! documents are read only as far as somebody asks for what they name, and are checked before they are believed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use shipfs_node::{
    Cid,
    block::CODEC_RAW,
    dag::{self, BlockSource as _},
    node::Node,
};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    blob::Deadlines,
    error::{Code, Refusal},
};
use crate::{
    blobs::{Blobs, Expected, Want},
    bring::blocking,
    names::Shape,
    oci::{Descriptor, Digest, Index, MAX_DEPTH, MAX_DESCRIPTORS, MAX_DOCUMENT_BYTES, Manifest, media},
    root::Root,
};

/// Roots about which is remembered what they name: some hundred kilobytes each, at most.
const MAX_IMAGES: usize = 256;
/// Documents that are read at a time.
const CONCURRENT_DOCUMENTS: usize = 8;
/// Documents of a layout that are looked at for what they refer to.
const MAX_EXTRAS: usize = 512;

/// Makes the seam to storage for one request: what it touches is safe from collection until that is answered.
pub(super) type Storage = Arc<dyn Fn() -> Box<dyn Blobs> + Send + Sync>;

/// An image that is read by the first who asks for it.
type Reading = Arc<OnceCell<Arc<Image>>>;

/// The images that were asked for lately.
pub(super) struct Images {
    node: Node,
    storage: Storage,
    deadlines: Deadlines,
    recent: Mutex<VecDeque<(Cid, Reading)>>,
}

/// One image.
pub(super) struct Image {
    pub(super) root: Root,
    /// Files of a layout, with the bytes of their DAGs.
    files: BTreeMap<Digest, (Cid, u64)>,
    known: Mutex<BTreeMap<Digest, Descriptor>>,
    walk: tokio::sync::Mutex<Walk>,
    referrers: OnceCell<Arc<Vec<Referrer>>>,
}

/// Documents that nobody has read so far, with their distance from the top.
struct Walk {
    unread: Vec<(Descriptor, usize)>,
}

/// What a digest names.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) root: Cid,
    pub(super) cid: Cid,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// What its descriptor says it is; empty when there is none.
    pub(super) media_type: String,
}

/// A manifest that is about another one.
#[derive(Clone, Debug)]
pub(super) struct Referrer {
    pub(super) subject: Digest,
    pub(super) descriptor: Descriptor,
}

impl Images {
    pub(super) fn new(node: Node, storage: Storage, deadlines: Deadlines) -> Self {
        Self { node, storage, deadlines, recent: Mutex::default() }
    }

    /// The image with this root.
    pub(super) async fn open(&self, cid: &Cid) -> Result<Arc<Image>, Refusal> {
        let cell = {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            let at = recent.iter().position(|(known, _)| known == cid);
            let entry = at.and_then(|at| recent.remove(at)).unwrap_or_else(|| (*cid, Arc::default()));
            let cell = entry.1.clone();
            recent.push_front(entry);
            recent.truncate(MAX_IMAGES);
            cell
        };
        // Those who ask at the same time wait for the first of them.
        cell.get_or_try_init(|| self.read(cid)).await.cloned()
    }

    async fn read(&self, cid: &Cid) -> Result<Arc<Image>, Refusal> {
        let root = self.in_time("the image", async {
            let blobs = (self.storage)();
            Root::open(&*blobs, cid).await.map_err(|error| Refusal::failed(&error))
        });
        let root = root.await?;
        let top = root.top.clone();
        let files = root.extras(&BTreeSet::new()).1;
        Ok(Arc::new(Image {
            files: files.into_iter().map(|(digest, cid, size)| (digest, (cid, size))).collect(),
            known: Mutex::new(BTreeMap::from([(top.digest.clone(), top.clone())])),
            walk: tokio::sync::Mutex::new(Walk { unread: vec![(top, 1)] }),
            root,
            referrers: OnceCell::new(),
        }))
    }

    async fn in_time<T>(&self, what: &str, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let wait = self.deadlines.wait.saturating_mul(self.deadlines.retries.saturating_add(1));
        timeout(wait, work).await.unwrap_or_else(|_| Err(Refusal::late(what)))
    }

    /// What a digest names in an image; `None` when it names nothing there.
    pub(super) async fn find(&self, image: &Image, digest: &Digest) -> Result<Option<Found>, Refusal> {
        let root = image.root.cid;
        if image.root.shape() == Shape::Layout {
            let Some((cid, cumulative)) = image.files.get(digest) else { return Ok(None) };
            let known = image.known(digest);
            let size = match &known {
                Some(descriptor) => descriptor.size,
                None => self.in_time("the blob", self.size(cid, *cumulative)).await?,
            };
            let media_type = known.map(|descriptor| descriptor.media_type).unwrap_or_default();
            return Ok(Some(Found { root, cid: *cid, digest: digest.clone(), size, media_type }));
        }
        let descriptor = match image.known(digest) {
            Some(descriptor) => descriptor,
            None => match self.walk(image, digest).await? {
                Some(descriptor) => descriptor,
                None => return Ok(None),
            },
        };
        let cid = image.root.cid_of(&descriptor).map_err(|error| Refusal::failed(&error))?;
        let Descriptor { digest, size, media_type, .. } = descriptor;
        Ok(Some(Found { root, cid, digest, size, media_type }))
    }

    /// Reads documents, level by level, until one of them names what is looked for. Dropping it loses nothing that was read.
    async fn walk(&self, image: &Image, wanted: &Digest) -> Result<Option<Descriptor>, Refusal> {
        let mut walk = image.walk.lock().await;
        let mut failed = BTreeMap::new();
        loop {
            // Somebody else may have come across it meanwhile.
            if let Some(found) = image.known(wanted) {
                return Ok(Some(found));
            }
            let is_due = |(document, _): &&(Descriptor, usize)| !failed.contains_key(&document.digest);
            let level: Vec<_> = walk.unread.iter().filter(is_due).cloned().collect();
            if level.is_empty() {
                // What another platform lacks is no matter, unless what is looked for is not found elsewhere.
                return failed.into_values().next().map_or(Ok(None), Err);
            }
            let reading = level.into_iter().map(|(document, depth)| async move {
                let bytes = self.document(image, &document).await;
                (document, depth, bytes)
            });
            let mut reading = stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(CONCURRENT_DOCUMENTS);
            while let Some((document, depth, bytes)) = reading.next().await {
                match bytes.and_then(|bytes| children(&bytes, &document.media_type)) {
                    Ok(children) => {
                        walk.unread.retain(|(unread, _)| unread.digest != document.digest);
                        walk.unread.extend(image.learn(children, depth + 1)?);
                    }
                    Err(refusal) => {
                        failed.insert(document.digest, refusal);
                    }
                }
                if let Some(found) = image.known(wanted) {
                    return Ok(Some(found));
                }
            }
        }
    }

    /// The bytes of a document, checked.
    async fn document(&self, image: &Image, descriptor: &Descriptor) -> Result<Bytes, Refusal> {
        if let Some(inlined) = descriptor.inlined() {
            return Ok(Bytes::copy_from_slice(inlined));
        }
        let cid = image.root.cid_of(descriptor).map_err(|error| Refusal::failed(&error))?;
        self.bytes(&cid, &descriptor.digest, Some(descriptor.size)).await
    }

    /// The bytes of a small file, checked.
    pub(super) async fn bytes(&self, cid: &Cid, digest: &Digest, size: Option<u64>) -> Result<Bytes, Refusal> {
        let want = match (digest.sha256(), size) {
            (_, Some(size)) if size > MAX_DOCUMENT_BYTES => {
                let message = format!("`{digest}` of {size} bytes is longer than a document may be");
                return Err(Refusal::new(Code::ManifestInvalid, message).status(hyper::StatusCode::BAD_GATEWAY));
            }
            (Some(digest), Some(size)) => Want::Exactly(Expected { digest, size }),
            _ => Want::AtMost(size.unwrap_or(MAX_DOCUMENT_BYTES)),
        };
        let reading = async {
            let blobs = (self.storage)();
            let file = blobs.fetch(cid, want, &|_| {}).await.map_err(|error| Refusal::failed(&error))?;
            let read = blocking(move || file.body.read(MAX_DOCUMENT_BYTES)).await;
            let bytes = read.map_err(|error| Refusal::failed(&error))?;
            if digest.matches(&bytes) {
                return Ok(bytes);
            }
            Err(Refusal::new(Code::DigestInvalid, format!("what `{cid}` names does not hash to `{digest}`"))
                .status(hyper::StatusCode::BAD_GATEWAY))
        };
        self.in_time(&format!("`{digest}`"), reading).await
    }

    /// Bytes of a file, from what is on top of it.
    async fn size(&self, cid: &Cid, cumulative: u64) -> Result<u64, Refusal> {
        if cid.codec() == CODEC_RAW {
            return Ok(cumulative);
        }
        let (store, wanted) = (self.node.store().clone(), *cid);
        if let Some(info) = blocking(move || store.file(&wanted)).await {
            return Ok(info.size);
        }
        let block = self.node.block(cid).await.map_err(|error| Refusal::failed(&*error))?;
        let parts = dag::expand(&block, &dag::At { offset: 0, size: None, depth: 0 });
        let ends = parts.map_err(|error| Refusal::failed(&error))?.into_iter().map(|part| match part {
            dag::Part::Data { offset, bytes } => offset + bytes.len() as u64,
            dag::Part::Child { offset, size, .. } => offset + size.unwrap_or(0),
        });
        Ok(ends.max().unwrap_or(0))
    }

    /// The manifests of an image that are about other manifests: the top itself, and what travels in a layout beside it.
    pub(super) async fn referrers(&self, image: &Image) -> Result<Arc<Vec<Referrer>>, Refusal> {
        let reading = async {
            let mut found = Vec::new();
            let mut candidates = vec![(image.root.top.digest.clone(), image.root.cid_of(&image.root.top))];
            let others = image.files.iter().filter(|(digest, _)| **digest != image.root.top.digest);
            let small = others.filter(|(_, (_, cumulative))| *cumulative <= MAX_DOCUMENT_BYTES);
            candidates.extend(small.take(MAX_EXTRAS).map(|(digest, (cid, _))| (digest.clone(), Ok(*cid))));
            let reading = candidates.into_iter().map(|(digest, cid)| async move {
                let bytes = self.bytes(&cid.ok()?, &digest, None).await.ok()?;
                referrer(digest, &bytes)
            });
            let mut reading = stream::iter(reading.collect::<Vec<_>>()).buffered(CONCURRENT_DOCUMENTS);
            while let Some(next) = reading.next().await {
                found.extend(next);
            }
            Ok(Arc::new(found))
        };
        image.referrers.get_or_try_init(|| reading).await.cloned()
    }
}

impl Image {
    /// Takes note of what a document names; gives what of it are documents, too.
    fn learn(&self, children: Vec<Descriptor>, depth: usize) -> Result<Vec<(Descriptor, usize)>, Refusal> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + children.len() > MAX_DESCRIPTORS {
            let refusal = Refusal::new(Code::ManifestInvalid, "the image has too many parts");
            return Err(refusal.status(hyper::StatusCode::BAD_GATEWAY));
        }
        let fresh = children.into_iter().filter(|child| !known.contains_key(&child.digest)).collect::<Vec<_>>();
        known.extend(fresh.iter().map(|child| (child.digest.clone(), child.clone())));
        let is_document = |child: &Descriptor| is_document(&child.media_type) && depth <= MAX_DEPTH;
        Ok(fresh.into_iter().filter(is_document).map(|child| (child, depth)).collect())
    }

    fn known(&self, digest: &Digest) -> Option<Descriptor> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// The digests of the files that a layout holds.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Digest, &Cid, u64)> {
        self.files.iter().map(|(digest, (cid, cumulative))| (digest, cid, *cumulative))
    }
}

/// Whether a blob of this type names others.
pub(super) fn is_document(media_type: &str) -> bool {
    media::is_index(media_type) || media::is_manifest(media_type)
}

/// What a document names.
pub(super) fn children(bytes: &[u8], media_type: &str) -> Result<Vec<Descriptor>, Refusal> {
    if media::is_index(media_type) {
        let index = Index::parse(bytes).map_err(|error| Refusal::failed(&error))?;
        return Ok(index.manifests.unwrap_or_default());
    }
    let manifest = Manifest::parse(bytes).map_err(|error| Refusal::failed(&error))?;
    Ok(std::iter::once(manifest.config).chain(manifest.layers.unwrap_or_default()).collect())
}

/// What a document is, by what it says, or else by what is in it.
pub(super) fn media_type(bytes: &[u8]) -> Option<String> {
    if let Ok(index) = Index::parse(bytes)
        && (index.manifests.is_some() || !index.media_type.is_empty())
    {
        return Some(if index.media_type.is_empty() { media::INDEX.to_owned() } else { index.media_type });
    }
    let manifest = Manifest::parse(bytes).ok()?;
    Some(if manifest.media_type.is_empty() { media::MANIFEST.to_owned() } else { manifest.media_type })
}

/// What a document refers to, if it does.
pub(super) fn referrer(digest: Digest, bytes: &[u8]) -> Option<Referrer> {
    let size = bytes.len() as u64;
    if let Ok(Index { subject: Some(subject), media_type, artifact_type, annotations, .. }) = Index::parse(bytes) {
        let media_type = if media_type.is_empty() { media::INDEX.to_owned() } else { media_type };
        let descriptor = Descriptor { artifact_type, annotations, ..Descriptor::new(&media_type, digest, size) };
        return Some(Referrer { subject: subject.digest, descriptor });
    }
    let manifest = Manifest::parse(bytes).ok()?;
    let subject = manifest.subject?;
    let media_type = if manifest.media_type.is_empty() { media::MANIFEST } else { &manifest.media_type };
    // What an artifact is stood in the type of its configuration before there was a field for it.
    let artifact_type =
        if manifest.artifact_type.is_empty() { manifest.config.media_type } else { manifest.artifact_type };
    let annotations = manifest.annotations;
    let descriptor = Descriptor { artifact_type, annotations, ..Descriptor::new(media_type, digest, size) };
    Some(Referrer { subject: subject.digest, descriptor })
}
