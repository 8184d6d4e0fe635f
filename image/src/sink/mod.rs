//! Where images go to when they leave the store.
//!
//! A [`Sink`] takes the blobs of one image and shows it only when [`Sink::finish`] is called; dropped before, it leaves
//! nothing behind. [`open`] makes one from a [`Location`]. Imports [`oci`](crate::oci), [`plan`],
//! [`location`](crate::location) and [`blobs::Body`](crate::blobs::Body). Everything blocks; services are waited for by the
//! async threads. Blobs come from the store,
//! where their digests were checked; here their lengths are.

mod archive;
mod containerd;
mod documents;
mod engine;
#[cfg(test)]
mod interop;
mod layout;
mod pending;
mod registry;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::{
    blobs::Body,
    containerd::{ContainerdError, image_name},
    crypt::is_encrypted,
    engine::{Engine, EngineError},
    location::{Format, Location, Place},
    oci::{Descriptor, DescriptorError, Digest, DocumentError, descriptor},
    plan::{self, Plan},
    reference::Name,
    registry_client::RegistryError,
    services::Services,
};

/// Takes one image.
pub trait Sink: Send {
    /// Whether it wants to know the configuration of a container image when it is asked what it takes.
    fn wants_config(&self) -> bool {
        false
    }

    /// Says whether it takes this image at all, before any of it is written.
    ///
    /// # Errors
    /// [`SinkError`] says why it does not.
    fn accepts(&self, image: &Image<'_>) -> Result<(), SinkError>;

    /// Whether a blob need not be written, since it is there.
    fn has(&self, blob: &Descriptor) -> bool;

    /// Writes one blob.
    ///
    /// # Errors
    /// [`SinkError::Write`], or [`SinkError::Length`] when the body is longer or shorter than its descriptor says.
    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError>;

    /// Writes the lists and shows the image, all at once. Says what its top is there: another one only where the place does
    /// not take the image as it is.
    ///
    /// # Errors
    /// [`SinkError`]; nothing is shown then.
    fn finish(self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError>;
}

/// What a sink writes its lists from.
#[derive(Clone, Copy, Debug)]
pub struct Image<'i> {
    /// The image; each of its parts was written before it is shown.
    pub plan: &'i Plan,
    /// What it is called in the store, if it has a name there.
    pub name: Option<&'i Name>,
    /// The configuration of its only container image, for a sink that wants to know it.
    pub config: Option<&'i Bytes>,
}

impl Image<'_> {
    /// The top descriptor as lists refer to it: without URLs, which are made anew by every push.
    fn top(&self) -> Descriptor {
        Descriptor { urls: Vec::new(), ..self.plan.top().descriptor.clone() }
    }

    /// The one manifest of the image that has a configuration to run, with that and its layers.
    pub(crate) fn only_manifest(&self) -> Result<(&Descriptor, Vec<&Descriptor>), SinkError> {
        let parts = &self.plan.parts;
        let mut found = None;
        for part in self.plan.documents() {
            let Some(plan::Document { body: plan::Body::Manifest { config, layers, .. }, .. }) = &part.document else {
                continue;
            };
            let is_attestation = part.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            let config = &parts[*config].descriptor;
            if is_attestation || !crate::oci::media::is_config(&config.media_type) {
                continue;
            }
            let layers = layers.iter().map(|at| &parts[*at].descriptor).collect();
            if found.replace((config, layers)).is_some() {
                return Err(SinkError::ManyPlatforms);
            }
        }
        let (config, layers): (_, Vec<&Descriptor>) = found.ok_or(SinkError::NoImage)?;
        match layers.iter().find(|layer| is_encrypted(layer)) {
            Some(layer) => Err(SinkError::Encrypted { digest: layer.digest.clone() }),
            None => Ok((config, layers)),
        }
    }
}

/// Opens the place that `location` names. `stdout` is written to when it names the standard stream. Services are where they
/// usually are.
///
/// # Errors
/// [`SinkError`] when the place cannot take an image.
pub fn open(location: &Location, stdout: Option<Box<dyn Write + Send>>) -> Result<Box<dyn Sink>, SinkError> {
    open_with(location, stdout, &Services::default(), &[])
}

/// As [`open`], with services where `services` says; a registry may take blobs over from the repositories of `known` names.
/// To ask a service, it has to be called on a thread of an async runtime that may block.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    location: &Location,
    stdout: Option<Box<dyn Write + Send>>,
    services: &Services,
    known: &[Name],
) -> Result<Box<dyn Sink>, SinkError> {
    let image = location.image.clone();
    match (&location.place, location.format) {
        (Place::Service, format) => {
            let runtime = Handle::try_current().map_err(|_| SinkError::NoRuntime)?;
            service(format, &image.unwrap_or_default(), services, known, &runtime)
        }
        (Place::Path(path), Format::Oci) => Ok(Box::new(layout::LayoutSink::open(path, image)?)),
        (Place::Path(path), format) => Ok(Box::new(archive::ArchiveSink::create(path, format, image)?)),
        (Place::Standard, Format::Oci) => Err(SinkError::NoStream),
        (Place::Standard, format) => {
            let stdout = stdout.ok_or(SinkError::NoStream)?;
            Ok(Box::new(archive::ArchiveSink::stream(stdout, format, image)))
        }
    }
}

fn service(
    format: Format,
    image: &str,
    services: &Services,
    known: &[Name],
    runtime: &Handle,
) -> Result<Box<dyn Sink>, SinkError> {
    let name = || image.parse::<Name>().map_err(|_| SinkError::Name { name: image.to_owned() });
    match format {
        Format::Docker => Ok(Box::new(registry::RegistrySink::open(name()?, services, known, runtime)?)),
        Format::Containerd => {
            let name = image.parse().ok().and_then(|reference| image_name(&reference));
            let name = name.ok_or_else(|| SinkError::Name { name: image.to_owned() })?;
            Ok(Box::new(containerd::ContainerdSink::open(name, services, runtime)?))
        }
        Format::DockerDaemon => {
            let engine = Engine::docker(services, runtime).map_err(Box::new)?;
            Ok(Box::new(engine::EngineSink::new(engine, name()?)))
        }
        Format::ContainersStorage => {
            let engine = Engine::podman(services, runtime).map_err(Box::new)?;
            Ok(Box::new(engine::EngineSink::new(engine, name()?)))
        }
        Format::Oci | Format::OciArchive | Format::DockerArchive => Err(SinkError::NoStream),
    }
}

/// Where a blob lies in a layout.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Sets the tag of a list's entry.
fn tag(entry: &mut Descriptor, tag: &str) {
    entry.annotations.insert(descriptor::REF_NAME.to_owned(), tag.to_owned());
}

/// Copies a body of exactly `size` bytes.
fn copy(blob: &Descriptor, body: &Body, writer: &mut dyn Write) -> io::Result<u64> {
    // One byte more than it should have tells a long body from a right one.
    io::copy(&mut io::Read::take(body.open()?, blob.size.saturating_add(1)), writer)
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The place cannot be made or opened.
    #[error("cannot write to `{}`", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Writing failed half-way; what was written is gone again.
    #[error("cannot write `{what}`")]
    Write {
        /// What.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A body has another length than its descriptor.
    #[error("blob `{digest}` should have {expected} bytes, but {got} were read")]
    Length {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        expected: u64,
        /// What it has; one more when it has more.
        got: u64,
    },
    /// The directory holds something else.
    #[error("`{}` is neither empty nor an image layout", path.display())]
    NotALayout {
        /// Where.
        path: PathBuf,
    },
    /// The list of the layout that is there is malformed.
    #[error("the index of `{}` is not valid", path.display())]
    Index {
        /// Where.
        path: PathBuf,
        /// The rule it breaks.
        #[source]
        source: DocumentError,
    },
    /// Standard output was named, but none was given, or it cannot take a directory.
    #[error("there is no standard output to write to")]
    NoStream,
    /// The name given to the image is none.
    #[error("`{}` is not a name for an image", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// A Docker archive holds one platform.
    #[error("the image has several platforms, and a docker-archive holds one")]
    ManyPlatforms,
    /// A Docker archive holds images.
    #[error("there is no container image in it, which is all that a docker-archive holds")]
    NoImage,
    /// Who takes such archives can open no layers.
    #[error("layer `{digest}` is encrypted, and neither Docker nor podman can open it")]
    Encrypted {
        /// The layer.
        digest: Digest,
    },
    /// A service was named where nothing can wait for it.
    #[error("a service is asked where there is no async runtime")]
    NoRuntime,
    /// A registry did not do what it was asked.
    #[error(transparent)]
    Registry(#[from] Box<RegistryError>),
    /// containerd did not do what it was asked.
    #[error(transparent)]
    Containerd(#[from] Box<ContainerdError>),
    /// Docker or podman did not do what it was asked.
    #[error(transparent)]
    Engine(#[from] Box<EngineError>),
    /// A descriptor is malformed.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
}
