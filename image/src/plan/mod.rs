//! Which blobs an image consists of, for the platforms that are wanted.
//!
//! A [`Plan`] is made by reading the documents from the top down, level by level, within bounds that hold for the image
//! as a whole. Imports [`oci`](crate::oci). It reads through a function that is handed in, which checks digests; it never
//! reads a layer.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    event::BlobKind,
    oci::{
        Descriptor, Digest, DocumentError, Index, MAX_DEPTH, MAX_DESCRIPTORS, MAX_DOCUMENT_BYTES, Manifest, Selector,
        media,
    },
};

/// Most bytes that all documents of one image may have together; they are held in memory at once.
const MAX_DOCUMENTS_BYTES: u64 = 16 << 20;
/// Documents of one level that are read at a time.
const CONCURRENT_DOCUMENTS: usize = 8;

/// The parts of an image, the top first, each after what refers to it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The parts. Never empty.
    pub parts: Vec<Part>,
}

/// One blob of an image, at one place that refers to it.
#[derive(Clone, Debug)]
pub struct Part {
    /// How it is referred to there.
    pub descriptor: Descriptor,
    /// What it says, if it is a document that refers to others.
    pub document: Option<Document>,
}

/// A document, as it is and as it was understood.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its bytes.
    pub bytes: Bytes,
    /// What it refers to.
    pub body: Body,
}

/// What a document refers to. Numbers are positions in [`Plan::parts`].
#[derive(Clone, Debug)]
pub enum Body {
    /// A list of manifests, of which the selected ones became parts.
    Index {
        /// The document.
        index: Box<Index>,
        /// The selected entries, in its order.
        taken: Vec<usize>,
    },
    /// A configuration and its layers.
    Manifest {
        /// The document.
        manifest: Box<Manifest>,
        /// The configuration.
        config: usize,
        /// The layers, lowest first.
        layers: Vec<usize>,
    },
}

impl Plan {
    /// Reads the documents below `top` with `read`, which must give bytes that match the descriptor.
    ///
    /// # Errors
    /// [`PlanError`] names the bound or the document. `read`'s own errors come back as [`PlanError::Read`].
    pub async fn make<E, F>(
        top: Descriptor,
        selector: &Selector,
        read: impl Fn(Descriptor) -> F,
    ) -> Result<Self, PlanError<E>>
    where
        F: Future<Output = Result<Bytes, E>>,
    {
        let mut parts = vec![Part { descriptor: top, document: None }];
        let mut total = 0_u64;
        let mut level = 0..1;
        for depth in 1.. {
            let is_document = |at: &usize| is_document(&parts[*at].descriptor);
            let documents: Vec<usize> = level.clone().filter(is_document).collect();
            if documents.is_empty() {
                break;
            }
            for at in &documents {
                let Descriptor { digest, size, .. } = &parts[*at].descriptor;
                if depth > MAX_DEPTH {
                    return Err(PlanError::TooDeep { digest: digest.clone() });
                }
                total = total.saturating_add(*size);
                if *size > MAX_DOCUMENT_BYTES {
                    let source = DocumentError::TooLarge { size: *size };
                    return Err(PlanError::Document { digest: digest.clone(), source });
                }
                if total > MAX_DOCUMENTS_BYTES {
                    return Err(PlanError::TooLarge);
                }
            }
            let wanted: Vec<Descriptor> = documents.iter().map(|at| parts[*at].descriptor.clone()).collect();
            let bodies: Vec<Bytes> = stream::iter(wanted.into_iter().map(&read))
                .buffered(CONCURRENT_DOCUMENTS)
                .try_collect()
                .await
                .map_err(PlanError::Read)?;
            let next = parts.len();
            for (at, bytes) in documents.into_iter().zip(bodies) {
                let document = understand(&mut parts, at, bytes, selector)?;
                parts[at].document = Some(document);
            }
            level = next..parts.len();
        }
        Ok(Self { parts })
    }

    /// The top of the image.
    pub fn top(&self) -> &Part {
        &self.parts[0]
    }

    /// Every blob that is not a document, once each: what is moved as bytes.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        self.once(|part| part.document.is_none())
    }

    /// Every document, once each, the top first.
    pub fn documents(&self) -> Vec<&Part> {
        let mut seen = BTreeSet::new();
        self.parts.iter().filter(|part| part.document.is_some() && seen.insert(&part.descriptor.digest)).collect()
    }

    /// Bytes of all blobs and documents, each counted once.
    pub fn size(&self) -> u64 {
        self.once(|_| true).iter().map(|descriptor| descriptor.size).sum()
    }

    /// What the image's platforms are, when its index says so: those taken, and all there are.
    pub fn platforms(&self) -> (Vec<String>, Vec<String>) {
        let Some(Document { body: Body::Index { index, taken }, .. }) = &self.top().document else {
            return (Vec::new(), Vec::new());
        };
        let names = |list: &mut dyn Iterator<Item = &Descriptor>| {
            list.filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect()
        };
        let taken = names(&mut taken.iter().map(|at| &self.parts[*at].descriptor));
        (taken, names(&mut index.manifests().iter()))
    }

    /// Whether the top is an index none of whose entries was wanted.
    pub fn selects_nothing(&self) -> bool {
        let Some(Document { body: Body::Index { index, taken }, .. }) = &self.top().document else { return false };
        taken.is_empty() && !index.manifests().is_empty()
    }

    /// Whether something was left out because its platform was not wanted.
    pub fn is_partial(&self) -> bool {
        self.parts.iter().any(|part| match &part.document {
            Some(Document { body: Body::Index { index, taken }, .. }) => taken.len() < index.manifests().len(),
            _ => false,
        })
    }

    /// The same image with its descriptors changed, and its documents written anew where that changes what they say. What
    /// was not taken is left out; documents call themselves what their descriptors call them.
    pub fn changed(&self, change: impl Fn(&Descriptor) -> Descriptor) -> Self {
        let mut parts = self.parts.clone();
        // What a part refers to comes after it.
        for at in (0..parts.len()).rev() {
            let mut descriptor = change(&parts[at].descriptor);
            if let Some(old) = &parts[at].document {
                let child = |at: &usize| parts[*at].descriptor.clone();
                let named = |own: &str| if own.is_empty() { String::new() } else { descriptor.media_type.clone() };
                let (body, bytes) = match &old.body {
                    Body::Index { index, taken } => {
                        let mut new = index.clone();
                        new.media_type = named(&new.media_type);
                        new.manifests = new.manifests.map(|_| taken.iter().map(child).collect());
                        let bytes = (new != *index).then(|| new.to_json());
                        (Body::Index { index: new, taken: taken.clone() }, bytes)
                    }
                    Body::Manifest { manifest, config, layers } => {
                        let mut new = manifest.clone();
                        new.media_type = named(&new.media_type);
                        new.config = child(config);
                        new.layers = new.layers.map(|_| layers.iter().map(child).collect());
                        let bytes = (new != *manifest).then(|| new.to_json());
                        (Body::Manifest { manifest: new, config: *config, layers: layers.clone() }, bytes)
                    }
                };
                let bytes = bytes.map_or_else(|| old.bytes.clone(), Bytes::from);
                if bytes != old.bytes {
                    // Wherever the old one is, this one is not.
                    (descriptor.urls, descriptor.data) = (Vec::new(), Vec::new());
                }
                (descriptor.digest, descriptor.size) = (Digest::of(&bytes), bytes.len() as u64);
                parts[at].document = Some(Document { bytes, body });
            }
            parts[at].descriptor = descriptor;
        }
        Self { parts }
    }

    fn once(&self, wanted: impl Fn(&Part) -> bool) -> Vec<&Descriptor> {
        let mut seen = BTreeSet::new();
        let parts = self.parts.iter().filter(|part| wanted(part) && seen.insert(&part.descriptor.digest));
        parts.map(|part| &part.descriptor).collect()
    }
}

impl Document {
    /// The same document with other children, as Go's tools write it, and with OCI's media types. One that has none and is
    /// OCI's stays as it is, whoever formatted it.
    ///
    /// # Errors
    /// What `child` says, which gives the descriptor to refer to a part by.
    pub(crate) fn rewrite<E>(&self, mut child: impl FnMut(usize) -> Result<Descriptor, E>) -> Result<Self, E> {
        Ok(match &self.body {
            Body::Manifest { manifest, config, layers } => {
                let mut manifest = manifest.clone();
                manifest.media_type = media::to_oci(&manifest.media_type).to_owned();
                let children = layers.iter().map(|at| child(*at)).collect::<Result<Vec<_>, _>>()?;
                // An absent list stays `null`.
                manifest.layers = manifest.layers.map(|_| children);
                manifest.config = child(*config)?;
                let bytes = manifest.to_json().into();
                Self { bytes, body: Body::Manifest { manifest, config: *config, layers: layers.clone() } }
            }
            Body::Index { index, taken } => {
                let media_type = media::to_oci(&index.media_type).to_owned();
                if index.manifests().is_empty() && media_type == index.media_type {
                    return Ok(self.clone());
                }
                let mut index = index.clone();
                index.media_type = media_type;
                let children = taken.iter().map(|at| child(*at)).collect::<Result<Vec<_>, _>>()?;
                index.manifests = (!children.is_empty()).then_some(children);
                let bytes = index.to_json().into();
                Self { bytes, body: Body::Index { index, taken: taken.clone() } }
            }
        })
    }
}

/// Whether a blob refers to others.
fn is_document(descriptor: &Descriptor) -> bool {
    matches!(media::kind(&descriptor.media_type), BlobKind::Index | BlobKind::Manifest)
}

/// Parses a document and appends what it refers to.
fn understand<E>(
    parts: &mut Vec<Part>,
    at: usize,
    bytes: Bytes,
    selector: &Selector,
) -> Result<Document, PlanError<E>> {
    let Descriptor { digest, media_type, .. } = parts[at].descriptor.clone();
    let refused = |source| PlanError::Document { digest: digest.clone(), source };
    let mut append = |descriptor: &Descriptor| {
        if parts.len() == MAX_DESCRIPTORS {
            return Err(PlanError::TooMany);
        }
        parts.push(Part { descriptor: descriptor.clone(), document: None });
        Ok(parts.len() - 1)
    };
    let body = if media::is_index(&media_type) {
        let index = Index::parse(&bytes).map_err(refused)?;
        let chosen = selector.select(index.manifests());
        let taken = chosen.into_iter().map(|entry| append(&index.manifests()[entry])).collect::<Result<_, _>>()?;
        Body::Index { index: Box::new(index), taken }
    } else {
        let manifest = Manifest::parse(&bytes).map_err(refused)?;
        let layers = manifest.layers().iter().map(&mut append).collect::<Result<_, _>>()?;
        let config = append(&manifest.config)?;
        Body::Manifest { manifest: Box::new(manifest), config, layers }
    };
    Ok(Document { bytes, body })
}

/// Why an image cannot be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError<E> {
    /// A document could not be read, or is not what its descriptor says.
    #[error(transparent)]
    Read(E),
    /// A document breaks a rule.
    #[error("document `{digest}` is not valid")]
    Document {
        /// The document.
        digest: Digest,
        /// The rule.
        #[source]
        source: DocumentError,
    },
    /// Documents refer to documents without end.
    #[error("document `{digest}` lies deeper than {MAX_DEPTH} documents")]
    TooDeep {
        /// The document.
        digest: Digest,
    },
    /// The image has more blobs than any image has.
    #[error("the image has more than {MAX_DESCRIPTORS} blobs")]
    TooMany,
    /// Its documents are too large together.
    #[error("the documents of the image have more than {MAX_DOCUMENTS_BYTES} bytes")]
    TooLarge,
}

#[cfg(test)]
mod tests;
