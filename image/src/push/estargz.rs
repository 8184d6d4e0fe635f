//! An image whose layers become eStargz on the way into the store.
//!
//! Imports its siblings and [`layer::estargz`](crate::layer::estargz). What is converted is the image as nerdctl converts
//! it: layers, the digests in its configurations, the documents above, in OCI's types, which alone can say on a layer that
//! it may be mounted. A layer that is eStargz or zstd:chunked already, and says so, is kept as it is.

use std::{
    collections::BTreeMap,
    io::Read,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    CONCURRENT_BLOBS, Push, PushError,
    config::with_diff_ids,
    pipe::{PipeReader, pipe},
};
use crate::{
    blobs::{Added, Body, Content},
    bring::blocking,
    event::{BlobKind, Event},
    layer::{
        decompress::check_type,
        estargz::{self, ConvertError, ConvertOptions, Converted, Estargz, ReadAt},
    },
    names::Shape,
    oci::{Descriptor, Digest, media},
    plan::{Body as DocumentBody, Plan},
};

/// How layers become eStargz.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conversion {
    /// Bytes of a file that can be had without the rest of it, in [`estargz::CHUNK_RANGE`].
    pub chunk_bytes: u64,
    /// Where is laid aside what can be read only once, in files without names.
    pub spool: PathBuf,
}

impl Conversion {
    /// With upstream's chunks.
    pub fn new(spool: PathBuf) -> Self {
        Self { chunk_bytes: estargz::CHUNK_BYTES, spool }
    }
}

/// What came of a layer.
struct Became {
    added: Added,
    /// Absent when it was kept.
    converted: Option<Converted>,
}

impl Became {
    /// How the layer is referred to, after it was as `layer` says.
    fn descriptor(&self, layer: &Descriptor) -> Option<Descriptor> {
        let converted = self.converted.as_ref()?;
        let mut descriptor = layer.clone();
        descriptor.media_type = media::to_gzip(&layer.media_type);
        descriptor.digest = Digest::Sha256(self.added.digest);
        descriptor.size = self.added.size;
        (descriptor.urls, descriptor.data) = (Vec::new(), Vec::new());
        let annotations = &mut descriptor.annotations;
        annotations.insert(estargz::TOC_DIGEST.to_owned(), converted.toc_digest.to_string());
        annotations.insert(estargz::UNCOMPRESSED_SIZE.to_owned(), converted.uncompressed_size.to_string());
        Some(descriptor)
    }
}

impl Push<'_> {
    /// The image with converted layers. What is new of it is in the store, in `made`.
    pub(super) async fn convert_layers(
        &mut self,
        plan: Plan,
        how: &Conversion,
        shape: Shape,
    ) -> Result<Plan, PushError> {
        let layers = layers(&plan);
        let converting: Vec<_> = layers.into_values().map(|layer| self.convert(layer, how)).collect();
        let became: BTreeMap<Digest, Became> =
            stream::iter(converting).buffer_unordered(CONCURRENT_BLOBS).try_collect().await?;
        self.made.extend(became.values().map(|became| (Digest::Sha256(became.added.digest), became.added)));
        let diff_ids = became.values().filter_map(|became| became.converted.as_ref());
        let diff_ids: BTreeMap<_, _> = diff_ids.map(|made| (made.before.clone(), made.diff_id.clone())).collect();
        if diff_ids.is_empty() {
            return Ok(plan);
        }
        let mut configs = BTreeMap::new();
        for config in plan.blobs().into_iter().filter(|blob| media::is_config(&blob.media_type)) {
            let changed = with_diff_ids(&self.origin.document(config).await?, &diff_ids);
            let failed = |source| PushError::Config { digest: config.digest.clone(), source };
            if let Some(bytes) = changed.map_err(failed)? {
                let made = self.make(BlobKind::Config, bytes.into()).await?;
                configs.insert(config.digest.clone(), made);
            }
        }
        let plan = plan.changed(|blob| {
            let mut new = became.get(&blob.digest).and_then(|became| became.descriptor(blob)).unwrap_or(blob.clone());
            if let Some(made) = configs.get(&blob.digest) {
                (new.digest, new.size) = (Digest::Sha256(made.digest), made.size);
                (new.urls, new.data) = (Vec::new(), Vec::new());
            }
            new.media_type = media::to_oci(&new.media_type).to_owned();
            new
        });
        if shape == Shape::Layout {
            // In a layout documents are blobs like all others; with CIDs in them they are written later.
            for part in plan.documents() {
                let Some(document) = &part.document else { continue };
                self.make(media::kind(&part.descriptor.media_type), document.bytes.clone()).await?;
            }
        }
        Ok(plan)
    }

    async fn make(&mut self, kind: BlobKind, bytes: Bytes) -> Result<Added, PushError> {
        let digest = Digest::of(&bytes);
        let added = self.add_bytes(&digest.to_string(), kind, bytes).await?;
        self.made.insert(digest, added);
        Ok(added)
    }

    /// Converts one layer, unless it is eStargz already.
    async fn convert(&self, layer: &Descriptor, how: &Conversion) -> Result<(Digest, Became), PushError> {
        let failed = |source: ConvertError| PushError::Convert { digest: layer.digest.clone(), source: source.into() };
        check_type(&layer.media_type).map_err(|error| failed(error.into()))?;
        let name = layer.digest.to_string();
        self.events.emit(Event::Started { digest: name.clone(), kind: BlobKind::Layer, size: layer.size });
        let body = self.origin.body(layer, &how.spool).await?;
        let (looked, wanted) = (body.clone(), layer.clone());
        let became = if blocking(move || is_estargz(&looked, &wanted)).await {
            self.events.emit(Event::Note(format!("reusing eStargz layer {name} without conversion")));
            let progress = |bytes| self.events.emit(Event::Progress { digest: name.clone(), bytes });
            Became { added: self.origin.add(layer, &progress).await?, converted: None }
        } else {
            let (converted, added) = self.convert_body(&name, layer, body, how).await?;
            let digest = Digest::Sha256(added.digest);
            let media_type = layer.media_type.escape_debug();
            self.events.emit(Event::Note(format!("converted \"{media_type}\" to {digest}")));
            Became { added, converted: Some(converted) }
        };
        self.finished(&name, &became.added);
        Ok((layer.digest.clone(), became))
    }

    /// Converts what was read on threads of its own while it is stored.
    async fn convert_body(
        &self,
        name: &str,
        layer: &Descriptor,
        body: Body,
        how: &Conversion,
    ) -> Result<(Converted, Added), PushError> {
        let mut options = ConvertOptions::new(how.spool.clone());
        options.chunk_bytes = how.chunk_bytes;
        let (reader, mut writer) = pipe();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let converting = blocking(move || {
            let open = || -> std::io::Result<Box<dyn Read + Send>> {
                counted.store(0, Ordering::Relaxed);
                Ok(Box::new(Counted { inner: body.open()?, count: Arc::clone(&counted) }))
            };
            let converted = estargz::convert(&open, &options, &mut writer)?;
            writer.end().map_err(ConvertError::Output)?;
            Ok(converted)
        });
        let progress = |_| {
            let bytes = count.load(Ordering::Relaxed).min(layer.size);
            self.events.emit(Event::Progress { digest: name.to_owned(), bytes });
        };
        let storing = self.store(reader, &progress);
        match futures::join!(converting, storing) {
            (Ok(converted), Ok(added)) => Ok((converted, added)),
            // Whoever stores has failed, and so nobody took what was written.
            (Err(ConvertError::Output(_)) | Ok(_), Err(source)) => {
                Err(PushError::Blob { digest: layer.digest.clone(), source: Box::new(source) })
            }
            (Err(source), _) => Err(PushError::Convert { digest: layer.digest.clone(), source: source.into() }),
        }
    }

    async fn store(
        &self,
        reader: PipeReader,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Added, crate::blobs::BlobsError> {
        self.blobs.add(Content::Reader(Box::new(reader)), None, progress).await
    }
}

/// The filesystem layers of an image's manifests, once each.
fn layers(plan: &Plan) -> BTreeMap<&Digest, &Descriptor> {
    let manifests = plan.parts.iter().filter_map(|part| match &part.document.as_ref()?.body {
        DocumentBody::Manifest { layers, .. } => Some(layers),
        DocumentBody::Index { .. } => None,
    });
    let layers = manifests.flatten().map(|at| &plan.parts[*at].descriptor);
    layers.filter(|layer| media::is_layer(&layer.media_type)).map(|layer| (&layer.digest, layer)).collect()
}

/// Whether a layer is what can be mounted before it is there, and says so.
fn is_estargz(body: &Body, layer: &Descriptor) -> bool {
    let Some(toc) = layer.annotations.get(estargz::TOC_DIGEST).and_then(|text| text.parse().ok()) else { return false };
    fn opens<B: ReadAt>(blob: B, size: u64, toc: &Digest) -> bool {
        Estargz::open(blob, size, toc).is_ok()
    }
    match body {
        Body::Bytes(bytes) => opens(bytes.clone(), layer.size, &toc),
        file => file.open_file().ok().flatten().is_some_and(|file| opens(file, layer.size, &toc)),
    }
}

/// Counts what is read, for whoever shows it.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
