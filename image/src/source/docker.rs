//! What `docker save` wrote before it wrote layouts, and what podman and skopeo still write: `manifest.json` beside a
//! configuration and layers.
//!
//! Imports its parent and [`oci`](crate::oci). There is no manifest in such an archive, so one is made, with the bytes
//! that containerd makes after its conversion to OCI types: the same archive gives the same CID there and here. Layers
//! keep the bytes they have.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
};

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    Listed, Source, SourceError, WholeLayout,
    layout::Files as _,
    tarball::{Member, Tarball},
};
use crate::{
    blobs::Content,
    oci::{
        Descriptor, Digest, DocumentError, ImageConfig, MAX_DESCRIPTORS, MAX_DOCUMENT_BYTES, Manifest,
        descriptor::{IMAGE_NAME, REF_NAME},
        media::{self, Compression},
    },
    reference::Name,
};

/// The file that lists the images of the archive.
const LIST: &str = "manifest.json";

/// An archive that was opened.
pub(super) struct DockerArchive {
    images: Vec<Listed>,
    blobs: BTreeMap<Digest, Blob>,
}

enum Blob {
    Made(Bytes),
    Member(Member),
}

/// One element of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl DockerArchive {
    /// Reads the lists of the archive and makes its manifests. Layers are read only to see how they are compressed, and
    /// whole if they are, since nothing in the archive says what a compressed one hashes to.
    pub(super) fn open(tarball: Tarball) -> Result<Self, SourceError> {
        let list = document(&tarball, LIST)?.ok_or_else(|| SourceError::NotAnImage { what: LIST.to_owned() })?;
        let list: Vec<Image> =
            serde_json::from_slice(&list).map_err(|source| SourceError::Json { what: LIST.to_owned(), source })?;
        let mut archive = Self { images: Vec::new(), blobs: BTreeMap::new() };
        for image in list {
            archive.take_in(&tarball, image)?;
            if archive.blobs.len() > MAX_DESCRIPTORS || archive.images.len() > MAX_DESCRIPTORS {
                return Err(SourceError::TooManyEntries { limit: MAX_DESCRIPTORS });
            }
        }
        Ok(archive)
    }

    fn take_in(&mut self, tarball: &Tarball, image: Image) -> Result<(), SourceError> {
        let missing = || SourceError::Missing { what: image.config.clone() };
        let config_bytes = document(tarball, &image.config)?.ok_or_else(missing)?;
        let config = ImageConfig::parse(&config_bytes)
            .map_err(|source| SourceError::Document { what: image.config.clone(), source })?;
        let diff_ids =
            config.diff_ids().map_err(|source| SourceError::Digest { what: image.config.clone(), source })?;
        let names = image.layers.unwrap_or_default();
        if names.len() != diff_ids.len() {
            let (layers, diff_ids) = (names.len(), diff_ids.len());
            return Err(SourceError::LayerCount { name: image.config, layers, diff_ids });
        }
        let mut layers = Vec::with_capacity(names.len());
        for (name, diff_id) in names.iter().zip(diff_ids) {
            layers.push(self.layer(tarball, name, diff_id)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            artifact_type: String::new(),
            config: self.keep(media::CONFIG, config_bytes),
            layers: Some(layers),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut top = self.keep(media::MANIFEST, manifest.to_json().into());
        top.platform = Some(config.platform.normalized());
        let tags = image.repo_tags.unwrap_or_default();
        if tags.is_empty() {
            self.images.push(Listed::from(top.clone()));
        }
        for tag in tags {
            let mut descriptor = top.clone();
            // A name that is none is left out rather than refused: the image is whole without it.
            if let Ok(name) = tag.parse::<Name>() {
                descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
                descriptor.annotations.insert(REF_NAME.to_owned(), name.tag.unwrap_or_default());
            }
            self.images.push(Listed::from(descriptor));
        }
        Ok(())
    }

    fn keep(&mut self, media_type: &str, bytes: Bytes) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        self.blobs.insert(descriptor.digest.clone(), Blob::Made(bytes));
        descriptor
    }

    fn layer(&mut self, tarball: &Tarball, name: &str, diff_id: Digest) -> Result<Descriptor, SourceError> {
        let member = tarball.find(name)?.ok_or_else(|| SourceError::Missing { what: name.to_owned() })?;
        let failed = |source| SourceError::Read { what: name.to_owned(), source };
        let mut start = Vec::new();
        member.clone().take(Compression::SNIFF_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
        let compression = Compression::sniff(&start);
        let digest = match compression {
            // What a plain layer hashes to is in the configuration; whoever reads it checks that.
            Compression::None => diff_id,
            Compression::Gzip | Compression::Zstd => digest(&mut member.clone()).map_err(failed)?,
        };
        let descriptor = Descriptor::new(compression.layer_type(), digest, member.size());
        self.blobs.insert(descriptor.digest.clone(), Blob::Member(member));
        Ok(descriptor)
    }
}

impl Source for DockerArchive {
    fn images(&self) -> &[Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        match self.blobs.get(&blob.digest) {
            Some(Blob::Made(bytes)) => Ok(Content::Bytes(bytes.clone())),
            Some(Blob::Member(member)) => Ok(Content::Reader(Box::new(member.clone()))),
            None => Err(SourceError::Missing { what: blob.digest.to_string() }),
        }
    }

    fn layout(&self) -> Option<&WholeLayout> {
        None
    }
}

fn document(tarball: &Tarball, name: &str) -> Result<Option<Bytes>, SourceError> {
    let Some(bytes) = tarball.read(name, MAX_DOCUMENT_BYTES)? else { return Ok(None) };
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        let source = DocumentError::TooLarge { size: bytes.len() as u64 };
        return Err(SourceError::Document { what: name.to_owned(), source });
    }
    Ok(Some(bytes))
}

fn digest(member: &mut Member) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match member.read(&mut buffer)? {
            0 => return Ok(Digest::Sha256(hasher.finalize().into())),
            length => hasher.update(&buffer[..length]),
        }
    }
}
