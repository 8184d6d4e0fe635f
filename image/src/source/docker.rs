//! What `docker save` wrote before it wrote layouts, and what podman and skopeo still write: `manifest.json` beside a
//! configuration and layers.
//!
//! Imports its parent and [`oci`](crate::oci). There is no manifest in such an archive, so one is made, with the bytes
//! that containerd makes after its conversion to OCI types: the same archive gives the same CID there and here. Layers
//! keep the bytes they have.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    Listed, Source, SourceError, WholeLayout,
    aside::{IntoStore, Kept},
    layout::Files as _,
    tarball::Tarball,
};
use crate::{
    blobs::{Added, Content},
    engine::Held,
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
    blobs: BTreeMap<Digest, Kept>,
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

    /// The image that an engine says it has, put together from what the store has of it; nothing when a part is missing, or
    /// is another than the engine says. It is the same as the archive would give: the engine's ID is the digest of the
    /// configuration, which lists the digests of the layers.
    pub(super) fn known(held: &Held, tag: Option<String>, store: &IntoStore) -> Option<Self> {
        let config = Kept::Stored(store.find(held.id.as_ref()?)?);
        let mut bytes = Vec::new();
        if config.size() > MAX_DOCUMENT_BYTES {
            return None;
        }
        config.open().ok()?.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).ok()?;
        let is_same = ImageConfig::parse(&bytes).ok()?.diff_ids().ok()? == held.layers;
        let find = |layer: &Digest| Some((layer.to_string(), Kept::Stored(store.find(layer)?)));
        let layers = held.layers.iter().map(find).collect::<Option<Vec<_>>>()?;
        let mut archive = Self { images: Vec::new(), blobs: BTreeMap::new() };
        let layers = layers.into_iter().map(Ok);
        archive.add("", bytes.into(), layers, tag.into_iter().collect()).ok()?;
        is_same.then_some(archive)
    }

    fn take_in(&mut self, tarball: &Tarball, image: Image) -> Result<(), SourceError> {
        let missing = |what: &str| SourceError::Missing { what: what.to_owned() };
        let config = document(tarball, &image.config)?.ok_or_else(|| missing(&image.config))?;
        let layers = image.layers.unwrap_or_default().into_iter().map(|name| {
            let kept = tarball.find(&name)?.ok_or_else(|| missing(&name))?;
            Ok((name, kept))
        });
        self.add(&image.config, config, layers, image.repo_tags.unwrap_or_default())
    }

    /// Adds an image: the name and the bytes of its configuration, the name and the bytes of each layer, what it is called.
    fn add(
        &mut self,
        name: &str,
        config_bytes: Bytes,
        files: impl ExactSizeIterator<Item = Result<(String, Kept), SourceError>>,
        tags: Vec<String>,
    ) -> Result<(), SourceError> {
        let config = ImageConfig::parse(&config_bytes)
            .map_err(|source| SourceError::Document { what: name.to_owned(), source })?;
        let diff_ids = config.diff_ids().map_err(|source| SourceError::Digest { what: name.to_owned(), source })?;
        if files.len() != diff_ids.len() {
            let (layers, diff_ids) = (files.len(), diff_ids.len());
            return Err(SourceError::LayerCount { name: name.to_owned(), layers, diff_ids });
        }
        let mut layers = Vec::with_capacity(files.len());
        for (file, diff_id) in files.zip(diff_ids) {
            let (name, kept) = file?;
            layers.push(self.layer(&name, kept, diff_id)?);
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
        self.blobs.insert(descriptor.digest.clone(), Kept::Small(bytes));
        descriptor
    }

    fn layer(&mut self, name: &str, kept: Kept, diff_id: Digest) -> Result<Descriptor, SourceError> {
        let failed = |source| SourceError::Read { what: name.to_owned(), source };
        let mut start = Vec::new();
        let mut reader = kept.open().map_err(failed)?;
        reader.by_ref().take(Compression::SNIFF_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
        let compression = Compression::sniff(&start);
        let digest = match (compression, kept.digest()) {
            // What a plain layer hashes to is in the configuration; whoever reads it checks that.
            (Compression::None, _) => diff_id,
            (Compression::Gzip | Compression::Zstd, Some(digest)) => digest,
            (Compression::Gzip | Compression::Zstd, None) => {
                digest(&mut io::Cursor::new(start).chain(reader)).map_err(failed)?
            }
        };
        let descriptor = Descriptor::new(compression.layer_type(), digest, kept.size());
        self.blobs.insert(descriptor.digest.clone(), kept);
        Ok(descriptor)
    }
}

impl Source for DockerArchive {
    fn images(&self) -> &[Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        let what = || blob.digest.to_string();
        let kept = self.blobs.get(&blob.digest).ok_or_else(|| SourceError::Missing { what: what() })?;
        kept.content().map_err(|source| SourceError::Read { what: what(), source })
    }

    fn added(&self, blob: &Descriptor) -> Option<Added> {
        let added = self.blobs.get(&blob.digest)?.added()?;
        (blob.digest.sha256() == Some(added.digest) && blob.size == added.size).then_some(added)
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

fn digest(reader: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Digest::Sha256(hasher.finalize().into())),
            length => hasher.update(&buffer[..length]),
        }
    }
}
