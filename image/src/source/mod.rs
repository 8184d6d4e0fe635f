//! Where pushed images come from.
//!
//! A [`Source`] lists its images and opens their blobs; whoever reads a blob checks its digest, since nothing here is
//! trusted. [`open`] makes one from a [`Location`]. Imports [`oci`](crate::oci), [`location`](crate::location) and
//! [`blobs`](crate::blobs). Everything blocks. A source that can be read only once is read when it is opened, and what it
//! holds is laid [`Aside`]; nothing else is written. Services are asked through their clients, whose waiting is done by the async threads: a source of a service may
//! be used on any thread that may block.

mod aside;
mod containerd;
mod directory;
mod docker;
mod ensured;
mod layout;
mod passing;
mod registry;
mod spool;
mod tarball;
#[cfg(test)]
mod tests;

pub(crate) use self::{ensured::Ensured, spool::nameless};
pub use aside::{Aside, IntoStore};

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::runtime::Handle;

use self::tarball::Tarball;
use crate::{
    blobs::{Added, BlobsError, Content},
    containerd::ContainerdError,
    engine::{Engine, EngineError},
    location::{Format, Location, Place},
    oci::{Descriptor, Digest, DigestError, DocumentError, MAX_DOCUMENT_BYTES, descriptor},
    reference::Name,
    registry_client::RegistryError,
    services::Services,
};

/// A place that holds images.
pub trait Source: Send + Sync {
    /// Every image here, in the order of the place.
    fn images(&self) -> &[Listed];

    /// Opens a blob. What comes out is unchecked.
    ///
    /// # Errors
    /// [`SourceError::Missing`] when it is not here.
    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError>;

    /// What the store made of a blob while the source was opened; `None` when it is yet to be read.
    fn added(&self, _: &Descriptor) -> Option<Added> {
        None
    }

    /// The layout as it lies here, if it is one and holds this one image: what a layout root copies as it is.
    fn layout(&self) -> Option<&WholeLayout>;
}

/// One image of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its top document, with the annotations and platform that its place gives it.
    pub descriptor: Descriptor,
    /// What its place calls it where that is not among the annotations.
    pub called: Option<Name>,
}

impl From<Descriptor> for Listed {
    fn from(descriptor: Descriptor) -> Self {
        Self { descriptor, called: None }
    }
}

impl Listed {
    /// The full name it carries, normalised; absent when it carries none, or only a bare tag.
    pub fn name(&self) -> Option<Name> {
        if let Some(called) = &self.called {
            return Some(called.clone());
        }
        let annotations = &self.descriptor.annotations;
        let full = annotations
            .get(descriptor::IMAGE_NAME)
            .or_else(|| annotations.get(descriptor::REF_NAME).filter(|text| text.contains(['/', ':'])))?;
        full.parse::<Name>().ok()
    }

    /// Whether `wanted` means this image: its tag, its name, the same name in other words, or its digest.
    fn is(&self, wanted: &str) -> bool {
        let annotations = &self.descriptor.annotations;
        let is_same = |key: &str| annotations.get(key).is_some_and(|text| text == wanted);
        is_same(descriptor::REF_NAME)
            || is_same(descriptor::IMAGE_NAME)
            || self.descriptor.digest.to_string() == wanted
            || wanted.parse::<Name>().is_ok_and(|wanted| self.name() == Some(wanted))
    }

    /// What to call it in a message.
    fn label(&self) -> String {
        let annotations = &self.descriptor.annotations;
        let name = annotations.get(descriptor::IMAGE_NAME).or_else(|| annotations.get(descriptor::REF_NAME));
        name.map_or_else(|| self.descriptor.digest.to_string(), |name| name.escape_debug().to_string())
    }
}

/// A layout's own files, unchecked but for their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeLayout {
    /// The bytes of `oci-layout`.
    pub marker: Bytes,
    /// The bytes of `index.json`.
    pub index: Bytes,
    /// Every file under `blobs/`.
    pub blobs: Vec<(Digest, u64)>,
}

/// Most names that a message lists.
const MAX_LISTED: usize = 20;

/// Picks the image that is meant: the one called `wanted`, or the only one.
///
/// # Errors
/// [`SourceError::NoSuchImage`] or [`SourceError::Ambiguous`], which list what there is.
pub fn select<'s>(source: &'s dyn Source, wanted: Option<&str>) -> Result<&'s Listed, SourceError> {
    let images = source.images();
    let have = || images.iter().map(Listed::label).take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    match (wanted, images) {
        (_, []) => Err(SourceError::Empty),
        (Some(wanted), _) => images
            .iter()
            .find(|image| image.is(wanted))
            .ok_or_else(|| SourceError::NoSuchImage { wanted: wanted.to_owned(), have: have() }),
        // One image under several names is still one image.
        (None, [first, rest @ ..]) if rest.iter().all(|image| image.descriptor.digest == first.descriptor.digest) => {
            Ok(first)
        }
        (None, _) => Err(SourceError::Ambiguous { have: have() }),
    }
}

/// Reads a small blob whole and checks it against its descriptor.
///
/// # Errors
/// [`SourceError::Document`] past [`MAX_DOCUMENT_BYTES`], [`SourceError::Mismatch`] when the bytes are others.
pub fn read_document(source: &dyn Source, blob: &Descriptor) -> Result<Bytes, SourceError> {
    if let Some(inlined) = blob.inlined() {
        return Ok(Bytes::copy_from_slice(inlined));
    }
    let what = || blob.digest.to_string();
    if blob.size > MAX_DOCUMENT_BYTES {
        let source = DocumentError::TooLarge { size: blob.size };
        return Err(SourceError::Document { what: what(), source });
    }
    let mut bytes = Vec::new();
    let mut read = |reader: &mut dyn Read| {
        // One byte more than it should have tells a long blob from a right one.
        reader.take(blob.size + 1).read_to_end(&mut bytes).map_err(|source| SourceError::Read { what: what(), source })
    };
    match source.open(blob)? {
        Content::Bytes(whole) => read(&mut &whole[..])?,
        Content::Reader(mut reader) => read(&mut reader)?,
        Content::File(path) => {
            let mut file = std::fs::File::open(&path).map_err(|source| SourceError::Read { what: what(), source })?;
            read(&mut file)?
        }
    };
    if bytes.len() as u64 != blob.size || !blob.digest.matches(&bytes) {
        let got_size = bytes.len() as u64;
        return Err(SourceError::Mismatch { expected: blob.digest.clone(), size: blob.size, got_size });
    }
    Ok(bytes.into())
}

/// Opens the place that `location` names. `stdin` is read when it names the standard stream; what an archive holds that
/// cannot be read at random lies in a nameless file in `spool`. Services are where they usually are.
///
/// # Errors
/// [`SourceError`] says what is wrong with the place.
pub fn open(
    location: &Location,
    stdin: Option<Box<dyn Read + Send>>,
    spool: &Path,
) -> Result<Box<dyn Source>, SourceError> {
    open_with(location, stdin, &Aside::Folder(spool.to_owned()), &Services::default())
}

/// As [`open`], with services where `services` says, and what passes once kept where `aside` says. To ask a service, it has
/// to be called on a thread of an async runtime that may block.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    location: &Location,
    stdin: Option<Box<dyn Read + Send>>,
    aside: &Aside,
    services: &Services,
) -> Result<Box<dyn Source>, SourceError> {
    match (&location.place, location.format) {
        (Place::Service, format) => {
            let runtime = Handle::try_current().map_err(|_| SourceError::NoRuntime)?;
            service(format, location.image.as_deref().unwrap_or_default(), aside, services, &runtime)
        }
        (Place::Path(path), Format::Oci) => {
            Ok(Box::new(layout::Layout::open(directory::Directory::new(path.clone()))?))
        }
        (Place::Path(path), _) => {
            let file = std::fs::File::open(path).map_err(|source| SourceError::Open { path: path.clone(), source })?;
            let metadata = file.metadata().map_err(|source| SourceError::Open { path: path.clone(), source })?;
            if metadata.is_dir() {
                return Err(SourceError::Open { path: path.clone(), source: io::ErrorKind::IsADirectory.into() });
            }
            if !metadata.is_file() {
                // A pipe or a device has no ends to seek between.
                return from_stream(Box::new(file), aside);
            }
            match spool::decoded_file(file)? {
                Ok(plain) => from_archive(Tarball::scan(plain)?),
                Err(stream) => from_archive(Tarball::take_in(stream, aside)?),
            }
        }
        (Place::Standard, _) => from_stream(stdin.ok_or(SourceError::NoStream)?, aside),
    }
}

fn service(
    format: Format,
    image: &str,
    aside: &Aside,
    services: &Services,
    runtime: &Handle,
) -> Result<Box<dyn Source>, SourceError> {
    let name = || image.parse::<Name>().map_err(|_| SourceError::Name { name: image.to_owned() });
    match format {
        Format::Docker => Ok(Box::new(registry::RegistrySource::open(&name()?, services, runtime)?)),
        Format::Containerd => {
            let reference = image.parse().map_err(|_| SourceError::Name { name: image.to_owned() })?;
            Ok(Box::new(containerd::ContainerdSource::open(&reference, services, runtime)?))
        }
        Format::DockerDaemon => from_engine(&Engine::docker(services, runtime).map_err(Box::new)?, image, aside),
        Format::ContainersStorage => from_engine(&Engine::podman(services, runtime).map_err(Box::new)?, image, aside),
        Format::Oci | Format::OciArchive | Format::DockerArchive => Err(SourceError::NoStream),
    }
}

fn from_engine(engine: &Engine, image: &str, aside: &Aside) -> Result<Box<dyn Source>, SourceError> {
    // An engine knows a name in full, or an ID as it is.
    let (full, called) = match (image.parse::<Digest>(), image.parse::<Name>()) {
        (Ok(id), _) => (id.to_string(), Some(None)),
        (Err(_), Ok(name)) if name.digest.is_none() => (name.to_string(), Some(Some(name.to_string()))),
        (Err(_), Ok(name)) => (name.to_string(), None),
        (Err(_), Err(_)) => return Err(SourceError::Name { name: image.to_owned() }),
    };
    let Some(held) = engine.held(&full).map_err(Box::new)? else {
        return Err(SourceError::NotThere { name: full, place: engine.title().to_owned() });
    };
    // An engine gives all of an image or nothing, so it is not asked for what is here.
    if let (Aside::Store(store), Some(tag)) = (aside, called)
        && !store.wants_layouts
        && let Some(known) = docker::DockerArchive::known(&held, tag, store)
    {
        return Ok(Box::new(known));
    }
    from_stream(engine.export(&full).map_err(Box::new)?, aside)
}

fn from_stream(stream: Box<dyn Read + Send>, aside: &Aside) -> Result<Box<dyn Source>, SourceError> {
    from_archive(Tarball::take_in(spool::decoded(stream)?, aside)?)
}

/// A tar is a layout when it says so, whatever it was announced as: Docker writes both into one archive.
fn from_archive(tarball: Tarball) -> Result<Box<dyn Source>, SourceError> {
    if tarball.contains("oci-layout") {
        return Ok(Box::new(layout::Layout::open(tarball)?));
    }
    Ok(Box::new(docker::DockerArchive::open(tarball)?))
}

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The place is not there.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Standard input was named, but none was given.
    #[error("there is no standard input to read")]
    NoStream,
    /// Reading failed half-way.
    #[error("cannot read `{}`", what.escape_debug())]
    Read {
        /// What.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What passes once could not be stored, or is not what it is called.
    #[error("cannot store `{}`", what.escape_debug())]
    Store {
        /// Its name.
        what: String,
        /// What the store says.
        #[source]
        source: Box<BlobsError>,
    },
    /// The archive could not be unpacked into the spool directory.
    #[error("cannot unpack the archive into `{}`", path.display())]
    Spool {
        /// The spool directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The tar is malformed.
    #[error("the archive is damaged")]
    Archive(#[source] io::Error),
    /// The tar ends before it should.
    #[error("the archive is cut off: `{}` should have {size} bytes at {offset}, but it ends at {end}", name.escape_debug())]
    Truncated {
        /// The entry that is cut.
        name: String,
        /// Its bytes.
        size: u64,
        /// Where they begin.
        offset: u64,
        /// Where the archive ends.
        end: u64,
    },
    /// An entry's name leaves the archive.
    #[error("archive entry `{}` points outside the archive", name.escape_debug())]
    Escapes {
        /// The name.
        name: String,
    },
    /// The tar has more entries, or longer headers, than an image has.
    #[error("the archive has too many entries, at most {limit} are read")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// An entry that is needed is a link to nothing in the archive, or to itself.
    #[error("archive entry `{}` is a link to `{}`, which is not a file of the archive", name.escape_debug(), target.escape_debug())]
    Link {
        /// The entry.
        name: String,
        /// Where it points.
        target: String,
    },
    /// Neither an OCI layout nor what Docker writes.
    #[error("`{}` is missing: this is not an image", what.escape_debug())]
    NotAnImage {
        /// What was looked for.
        what: String,
    },
    /// The layout has a version that is not known.
    #[error("the layout has version `{}`, expected `1.0.0`", version.escape_debug())]
    LayoutVersion {
        /// Its version.
        version: String,
    },
    /// A blob is referred to but not there.
    #[error("content `{}` is not in the source", what.escape_debug())]
    Missing {
        /// Its digest or name.
        what: String,
    },
    /// A document breaks a rule.
    #[error("`{}` is not valid", what.escape_debug())]
    Document {
        /// Its digest or name.
        what: String,
        /// The rule.
        #[source]
        source: DocumentError,
    },
    /// A digest inside a document is malformed.
    #[error("`{}` is not valid", what.escape_debug())]
    Digest {
        /// The document.
        what: String,
        /// What is wrong.
        #[source]
        source: DigestError,
    },
    /// A document of Docker's archive format is malformed.
    #[error("`{}` is not valid", what.escape_debug())]
    Json {
        /// Its name.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A configuration lists another number of layers than the archive.
    #[error("image `{}` has {layers} layers, but its configuration says {diff_ids}", name.escape_debug())]
    LayerCount {
        /// The configuration's name.
        name: String,
        /// Layers in the archive.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// A blob has other bytes than its descriptor says.
    #[error("blob `{expected}` should have {size} bytes, but the source has {got_size} bytes that do not match it")]
    Mismatch {
        /// Its digest.
        expected: Digest,
        /// Its size.
        size: u64,
        /// Bytes read; one more than `size` when there are more.
        got_size: u64,
    },
    /// A service was named where nothing can wait for it.
    #[error("a service is asked where there is no async runtime")]
    NoRuntime,
    /// The name given to the image is none.
    #[error("`{}` is not a name for an image", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// A service has no such image.
    #[error("there is no `{name}` in {place}")]
    NotThere {
        /// The image.
        name: String,
        /// The service.
        place: String,
    },
    /// A registry did not do what it was asked.
    #[error(transparent)]
    Registry(#[from] Box<RegistryError>),
    /// containerd did not do what it was asked.
    #[error(transparent)]
    Containerd(#[from] Box<ContainerdError>),
    /// Docker or podman did not do what it was asked.
    #[error(transparent)]
    Engine(#[from] Box<EngineError>),
    /// There is no image in it.
    #[error("the source holds no image")]
    Empty,
    /// The image asked for is not in it.
    #[error("image `{}` is not in the source, which has: {have}", wanted.escape_debug())]
    NoSuchImage {
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
    /// There are several, and none was named.
    #[error("the source holds several images, name one of: {have}")]
    Ambiguous {
        /// What there is.
        have: String,
    },
}
