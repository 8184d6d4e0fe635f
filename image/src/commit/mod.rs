//! A container as an image: what it changed becomes a layer on top of its image's.
//!
//! Reading order: `change` (`--change`), `document` (the configuration), `container` (what it changed, packed while it stands
//! still). Imports [`run`](crate::run), [`layer`](crate::layer) and [`push`]. The layer goes into the store as it is packed, and
//! the new image gets its name last: whatever fails before leaves nothing that a collection does not free.

mod change;
mod container;
mod document;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};

use bytes::Bytes;

pub use self::change::{ChangeError, change};
use self::{container::Changed, document::Parts};
use crate::{
    blobs::{Blobs, BlobsError, Content},
    bring::{BringError, Bringer, blocking},
    crypt::is_encrypted,
    event::{Event, EventSink},
    inspect,
    layer::WriteError,
    names::{self, Image, NamesError},
    oci::{Descriptor, Digest, DocumentError, Manifest, Platforms, media, media::Compression},
    plan::{Body, Plan, PlanError},
    push::{self, Naming, PushError, PushFrom, PushOptions},
    reference::{Name, Reference},
    rfc3339,
    root::{Root, RootError},
    run::{RunError, state::Container},
    source::{Listed, Source, SourceError, WholeLayout},
};

/// What is to become an image, and how.
#[derive(Clone, Debug)]
pub struct CommitOptions {
    /// What to call it; by its CID alone, if absent.
    pub name: Option<Name>,
    /// Who made it.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that change its configuration.
    pub changes: Vec<String>,
    /// How its layer is compressed.
    pub compression: Compression,
    /// Whether a container that runs stands still while its files are read.
    pub pause: bool,
}

/// Makes an image of the container `id` in `repository`.
///
/// The image has the shape of the container's own, and one manifest. Dropping the future stops it, and lets the container go on.
///
/// # Errors
/// [`CommitError`]; no name is recorded then.
pub async fn commit(
    blobs: &dyn Blobs,
    repository: &Path,
    id: &str,
    options: &CommitOptions,
    events: &dyn EventSink,
) -> Result<Image, CommitError> {
    let container =
        Container::by_id(repository, id).ok_or_else(|| RunError::UnknownContainer { text: id.to_owned() })?;
    let (image, settings) = (container.image()?, container.settings()?);
    let (parent, root) = parent(blobs, &image.cid, &image.config).await?;
    let told = |diff_id| {
        let now = rfc3339::nanoseconds(SystemTime::now());
        let (author, message) = (options.author.as_deref(), options.message.as_deref());
        let (old, settings, changes) = (&image.config, &settings, &options.changes[..]);
        Parts { old, settings, diff_id, created: &now, author, message, changes }.document()
    };
    // What is wrong with it shows before anything is stored.
    told(None)?;
    let media_type = media::like(options.compression.layer_type(), &parent.top.media_type);
    let layer = new_layer(blobs, repository, container, media_type, options, events).await?;
    let config = Bytes::from(told(layer.as_ref().map(|layer| &layer.0))?);
    let mut manifest = Manifest { subject: None, annotations: BTreeMap::new(), ..parent.manifest };
    manifest.config = Descriptor::new(&manifest.config.media_type, Digest::of(&config), config.len() as u64);
    if let Some((_, layer)) = layer {
        if manifest.layers().iter().any(is_encrypted) {
            let told =
                "the new layer is not encrypted as those below it are: `image encrypt` makes an image in which it is";
            events.emit(Event::Warning(told.to_owned()));
        }
        manifest.layers.get_or_insert_default().push(layer);
    }
    let bytes = Bytes::from(manifest.to_json());
    let top = Descriptor::new(&parent.top.media_type, Digest::of(&bytes), bytes.len() as u64);
    let documents = BTreeMap::from([(manifest.config.digest.clone(), config), (top.digest.clone(), bytes)]);
    let made = Made { listed: [Listed::from(top)], documents };
    let naming = options.name.clone().map_or(Naming::Cid, Naming::As);
    let options = PushOptions { platforms: Platforms::All, shape: root.shape(), naming, ..PushOptions::default() };
    Ok(push::push(blobs, &PushFrom::Source(Arc::new(made), None), &options, events).await?)
}

/// What a container's image is in its own documents.
struct Parent {
    top: Descriptor,
    manifest: Manifest,
}

/// Finds the manifest whose configuration a container was made with.
async fn parent(blobs: &dyn Blobs, cid: &str, config: &str) -> Result<(Parent, Root), CommitError> {
    let reference: Reference = cid.parse().map_err(|_| CommitError::Config("image"))?;
    let image = names::resolve(blobs.records(), &reference).await?;
    let root = Root::open(blobs, &image.root).await?;
    let bringer = Bringer::new(blobs, &root, &());
    let plan: Plan = inspect::plan(&bringer, &root, &image.platforms().for_pull()).await?;
    let digest = Digest::of(config.as_bytes());
    let of_it = plan.documents().into_iter().find_map(|part| match &part.document.as_ref()?.body {
        Body::Manifest { manifest, config, .. } if plan.parts[*config].descriptor.digest == digest => {
            Some(Parent { top: part.descriptor.clone(), manifest: (**manifest).clone() })
        }
        _ => None,
    });
    Ok((of_it.ok_or_else(|| CommitError::OtherImage { cid: cid.to_owned() })?, root))
}

/// Packs and stores what a container changed; `None` when it changed nothing.
async fn new_layer(
    blobs: &dyn Blobs,
    repository: &Path,
    container: Container,
    media_type: &str,
    options: &CommitOptions,
    events: &dyn EventSink,
) -> Result<Option<(Digest, Descriptor)>, CommitError> {
    let changed = Changed::new(repository, container, options.pause);
    let (work, reader) = changed.pack(options.compression).ok_or(CommitError::Compression)?;
    let writing = blocking(work);
    let storing = blobs.add(Content::Reader(Box::new(reader)), None, &|_| {});
    let (packed, added) = tokio::join!(writing, storing);
    let (packed, written, added) = match (packed, added) {
        (Ok((packed, written)), Ok(added)) => (packed, written, added),
        // Nobody reads any more; why that is so is what matters.
        (Ok(_) | Err(CommitError::Write(WriteError::Write(_))), Err(error)) => return Err(CommitError::Store(error)),
        (Err(error), _) => return Err(error),
    };
    if written.sockets > 0 {
        events
            .emit(Event::Warning(format!("{} sockets are not in the image: no layer can have them", written.sockets)));
    }
    let layer = Descriptor::new(media_type, Digest::Sha256(added.digest), added.size);
    Ok((written.entries > 0).then_some((packed.diff_id, layer)))
}

/// The documents of a new image, whose layers are in the store.
struct Made {
    listed: [Listed; 1],
    documents: BTreeMap<Digest, Bytes>,
}

impl Source for Made {
    fn images(&self) -> &[Listed] {
        &self.listed
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        let found = self.documents.get(&blob.digest).cloned().map(Content::Bytes);
        found.ok_or_else(|| SourceError::Missing { what: blob.digest.to_string() })
    }

    fn layout(&self) -> Option<&WholeLayout> {
        None
    }
}

/// Why no image could be made of a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The container is not there, or cannot be paused.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What it changed cannot be read by this user.
    #[error(
        "what container `{id}` changed cannot be read: root alone can commit, and overlays alone keep changes apart"
    )]
    Unreadable {
        /// Its short name.
        id: String,
    },
    /// What it changed cannot be a layer.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Layers are not compressed in this way.
    #[error("layers are written uncompressed or with gzip, and in no other way")]
    Compression,
    /// The new layer could not be stored.
    #[error("the new layer cannot be stored")]
    Store(#[source] BlobsError),
    /// The container's image is not here any more.
    #[error("the image of the container is not here")]
    Names(#[from] NamesError),
    /// Its root cannot be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its documents cannot be read.
    #[error(transparent)]
    Plan(#[from] PlanError<BringError>),
    /// The image with this CID is not the one that the container was made of.
    #[error("image `{cid}` has no manifest with the configuration of the container")]
    OtherImage {
        /// Its CID.
        cid: String,
    },
    /// The configuration of its image breaks a rule.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The configuration of its image is not of the form that a new one could be made of.
    #[error("the `{0}` of the container's image is not what it should be")]
    Config(&'static str),
    /// An instruction cannot be understood.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The new image could not be put together.
    #[error(transparent)]
    Push(#[from] PushError),
}
