//! Takes an image into the store and gives it a root.
//!
//! The sentence to keep in mind: a push reads a source's documents, adds each blob while its digest is checked, links the
//! documents by CID, adds those, and writes the record last. Imports [`blobs`](crate::blobs), [`source`](crate::source),
//! [`plan`](crate::plan), [`link`] and [`names`]. Nothing is announced here, and nothing is
//! named before all of it is durable.

mod config;
mod encrypt;
mod estargz;
mod layout;
mod origin;
mod pipe;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use shipfs_node::Cid;

pub(crate) use self::origin::Origin;
pub use self::{config::ConfigError, estargz::Conversion};
use crate::{
    blobs::{Added, Blobs, BlobsError, Content, Expected},
    bring::BringError,
    crypt::{Change, Changed, CryptError},
    event::{BlobKind, Event, EventSink, Outcome},
    layer::estargz::ConvertError,
    link::{self, LinkError},
    names::{self, Image, NamesError, Note, Shape},
    oci::{Descriptor, Digest, Platforms, media},
    plan::{Plan, PlanError},
    reference::Name,
    root::RootError,
    source::{Source, SourceError},
};

/// Blobs that are read at a time. Each is hashed on all cores, so a second one only fills the gaps of the first.
const CONCURRENT_BLOBS: usize = 2;

/// Most missing blobs that are named.
const MAX_MISSING: usize = 20;

/// What is pushed.
#[derive(Clone)]
pub enum PushFrom {
    /// An image of a place outside the store; the only one, or the one called this.
    Source(Arc<dyn Source>, Option<String>),
    /// The image with this root, which the store has.
    Stored(Cid),
}

/// How it is pushed, and what it is called afterwards.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Which platforms.
    pub platforms: Platforms,
    /// How it lies on IPFS.
    pub shape: Shape,
    /// What it is called.
    pub naming: Naming,
    /// Whether its layers become such that can be mounted before they are there, and how.
    pub estargz: Option<Conversion>,
    /// What becomes of its layers.
    pub change: Change,
}

/// What an image is called in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// By its CID.
    #[default]
    Cid,
    /// By this name.
    As(Name),
    /// By the name that its source gives it, or its CID when it gives none.
    Source,
}

/// Pushes an image.
///
/// Dropping the future stops it; what was added by then is found by the next try, unless a collection frees it first.
///
/// # Errors
/// [`PushError`]; no name is recorded then.
pub async fn push(
    blobs: &dyn Blobs,
    from: &PushFrom,
    options: &PushOptions,
    events: &dyn EventSink,
) -> Result<Image, PushError> {
    let mut origin = Origin::open(blobs, from).await?;
    let selector = options.platforms.for_push();
    let mut plan = Plan::make(origin.top(), &selector, |blob| {
        let origin = &origin;
        async move { origin.document(&blob).await }
    })
    .await?;
    if plan.selects_nothing() {
        return Err(PushError::NoPlatform { wanted: selector.to_string(), have: plan.platforms().1.join(", ") });
    }
    let changed = match &options.change {
        Change::None => None,
        // What is converted is stored as it is, which what is to be encrypted must not be.
        _ if options.estargz.is_some() => return Err(PushError::ConvertChanged),
        Change::Encrypt { recipients, keys, layers } => {
            Some(encrypt::encrypt(blobs, &origin, &plan, (recipients, keys, layers), events).await?)
        }
        Change::Decrypt { keys, layers } => Some(Changed::decrypted(&plan, keys, layers).await?),
    };
    if let Some(changed) = changed {
        plan = changed.plan.clone();
        origin = origin.with(changed);
    }
    let mut push = Push { blobs, origin: &origin, events, made: BTreeMap::new() };
    if let Some(conversion) = &options.estargz {
        plan = push.convert_layers(plan, conversion, options.shape).await?;
    }
    let mut image = match options.shape {
        Shape::Descriptor => push.descriptor_root(&plan).await?,
        Shape::Layout => push.layout_root(&plan, &options.platforms).await?,
    };
    let name = match &options.naming {
        Naming::Cid => None,
        Naming::As(name) => Some(name.clone()),
        Naming::Source => origin.name(),
    };
    if let Some(name) = name {
        image.name = name.without_digest().to_string();
    }
    names::save(blobs.records(), &image).await?;
    Ok(image)
}

/// A push that is under way.
struct Push<'p> {
    blobs: &'p dyn Blobs,
    origin: &'p Origin<'p>,
    events: &'p dyn EventSink,
    /// Blobs that were made here, and so are in no other place; told already.
    made: BTreeMap<Digest, Added>,
}

impl Push<'_> {
    /// Adds the blobs, the rewritten documents and the root.
    async fn descriptor_root(&self, plan: &Plan) -> Result<Image, PushError> {
        let added = self.add_all(plan.blobs()).await?;
        let linked = link::link(plan, &|digest| added.get(digest).map(|added| added.cid))?;
        let mut members: BTreeSet<Cid> = added.values().map(|added| added.cid).collect();
        let mut seen = BTreeSet::new();
        for document in linked.documents.iter().filter(|document| seen.insert(document.cid)) {
            let kind = media::kind(&document.descriptor.media_type);
            let name = document.descriptor.digest.to_string();
            let stored = self.add_bytes(&name, kind, document.bytes.clone()).await?;
            check_cid(document.cid, stored.cid)?;
            members.insert(stored.cid);
        }
        let root = self.add_bytes(&linked.cid.to_string(), BlobKind::Root, linked.root.clone()).await?;
        check_cid(linked.cid, root.cid)?;
        // What a puller sees of the image: the documents as they were rewritten.
        let top = linked.documents.last().map(|document| &document.descriptor).unwrap_or(&plan.top().descriptor);
        let documents: u64 = linked.documents.iter().map(|document| document.descriptor.size).sum();
        let size = added.values().map(|added| added.size).sum::<u64>() + documents;
        let note = Note::new(Shape::Descriptor, &top.media_type, top.digest.clone(), size, plan.platforms().0);
        let name = root.cid.to_string();
        Ok(Image { name, root: root.cid, members: members.into_iter().collect(), incomplete: false, note: Some(note) })
    }

    /// Adds many blobs, some at a time.
    async fn add_all<'b>(&self, wanted: Vec<&'b Descriptor>) -> Result<BTreeMap<Digest, Added>, PushError> {
        let adding = |blob: &'b Descriptor| async move {
            match self.add(blob).await {
                Ok(added) => Ok((blob.digest.clone(), Some(added))),
                // What else is missing is told with it, so that nobody has to find out one by one.
                Err(PushError::Source(SourceError::Missing { .. })) => Ok((blob.digest.clone(), None)),
                Err(error) => Err(error),
            }
        };
        // A list, not a lazy map: with the latter, the compiler cannot tell that this future is one for any thread.
        let adding: Vec<_> = wanted.into_iter().map(adding).collect();
        let all: Vec<(Digest, Option<Added>)> =
            stream::iter(adding).buffer_unordered(CONCURRENT_BLOBS).try_collect().await?;
        let mut missing: Vec<String> =
            all.iter().filter(|(_, added)| added.is_none()).map(|(digest, _)| digest.to_string()).collect();
        if missing.is_empty() {
            return Ok(all.into_iter().filter_map(|(digest, added)| Some((digest, added?))).collect());
        }
        missing.sort();
        let more = missing.len().saturating_sub(MAX_MISSING);
        missing.truncate(MAX_MISSING);
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(SourceError::Missing { what: missing.join(", ") + &and_more }.into())
    }

    /// Adds one blob, unless it is here.
    async fn add(&self, blob: &Descriptor) -> Result<Added, PushError> {
        if let Some(made) = self.made.get(&blob.digest) {
            return Ok(*made);
        }
        let name = blob.digest.to_string();
        self.events.emit(Event::Started { digest: name.clone(), kind: media::kind(&blob.media_type), size: blob.size });
        let progress = |bytes| self.events.emit(Event::Progress { digest: name.clone(), bytes });
        let added = self.origin.add(blob, &progress).await?;
        self.finished(&name, &added);
        Ok(added)
    }

    /// Adds a document that was made here.
    async fn add_bytes(&self, name: &str, kind: BlobKind, bytes: bytes::Bytes) -> Result<Added, PushError> {
        self.events.emit(Event::Started { digest: name.to_owned(), kind, size: bytes.len() as u64 });
        let digest = Digest::of(&bytes);
        let expected = digest.sha256().map(|digest| Expected { digest, size: bytes.len() as u64 });
        let stored = self.blobs.add(Content::Bytes(bytes), expected, &|_| {}).await;
        let added = stored.map_err(|source| PushError::Blob { digest, source: Box::new(source) })?;
        self.finished(name, &added);
        Ok(added)
    }

    fn finished(&self, name: &str, added: &Added) {
        let outcome = if added.existed { Outcome::Present } else { Outcome::Stored };
        self.events.emit(Event::Finished { digest: name.to_owned(), outcome });
    }
}

/// A store that cuts files in another way gives other CIDs, and the links would lead nowhere.
fn check_cid(expected: Cid, got: Cid) -> Result<(), PushError> {
    if expected == got { Ok(()) } else { Err(PushError::OtherCid { expected, got }) }
}

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The source cannot be read, or does not hold what it should.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The image of the store cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A blob of an image of the store is missing.
    #[error(transparent)]
    Bring(#[from] BringError),
    /// Its documents break a rule.
    #[error(transparent)]
    Plan(Box<PlanError<PushError>>),
    /// A blob could not be stored, or is not what its descriptor says.
    #[error("blob `{digest}` cannot be stored")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<BlobsError>,
    },
    /// A layer could not be converted.
    #[error("layer `{digest}` cannot be converted to eStargz")]
    Convert {
        /// The layer.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<ConvertError>,
    },
    /// A configuration could not be changed.
    #[error("configuration `{digest}` cannot be changed to what its layers became")]
    Config {
        /// The configuration.
        digest: Digest,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Its layers could not be encrypted or decrypted.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// Two things at once were to become of its layers.
    #[error("layers are converted to eStargz, or encrypted or decrypted: not both in one push")]
    ConvertChanged,
    /// A directory could not be stored.
    #[error("the layout's directories cannot be stored")]
    Directory(#[source] BlobsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] BlobsError),
    /// A blob that the documents refer to was not added.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The store cuts files in another way than the documents say.
    #[error("the store calls a document `{got}`, expected `{expected}`: it does not cut files as this program does")]
    OtherCid {
        /// What it should be called.
        expected: Cid,
        /// What it is called.
        got: Cid,
    },
    /// The record could not be written.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// It is not there for the platforms asked for.
    #[error("the image is not there for {wanted}, only for: {have}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
}

impl From<PlanError<PushError>> for PushError {
    fn from(error: PlanError<PushError>) -> Self {
        match error {
            PlanError::Read(error) => error,
            error => Self::Plan(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests;
