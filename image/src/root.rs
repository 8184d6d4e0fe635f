//! What the root of an image is, and where it says its blobs are.
//!
//! Imports [`blobs`](crate::blobs), [`oci`](crate::oci) and [`names::Shape`](crate::names::Shape). Both shapes are told apart
//! by what the root is: a directory, or a small file. Everything in it came from a stranger: nothing is followed that is
//! not well-formed, and no digest is believed here.

use std::collections::{BTreeMap, BTreeSet};

use shipfs_node::{
    Cid,
    block::{CODEC_DAG_PB, CidError, check_cid},
};

use crate::{
    blobs::{Blobs, BlobsError},
    names::Shape,
    oci::{Descriptor, Digest, DocumentError, Index, MAX_DOCUMENT_BYTES},
};

/// A root that was read.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its CID.
    pub cid: Cid,
    /// Its top document.
    pub top: Descriptor,
    places: Places,
}

/// Where the blobs of an image are.
#[derive(Clone, Debug)]
enum Places {
    /// Each descriptor says it.
    Urls,
    /// The files of the layout.
    Layout { files: BTreeMap<Digest, (Cid, u64)>, marker: Cid },
}

impl Root {
    /// Reads the root `cid`, from peers if need be.
    ///
    /// # Errors
    /// [`RootError`] when it is not the root of an image.
    pub async fn open(blobs: &dyn Blobs, cid: &Cid) -> Result<Self, RootError> {
        if cid.codec() == CODEC_DAG_PB {
            match blobs.list(cid).await {
                Ok(entries) => {
                    let entries = entries.into_iter().map(|entry| (entry.name, entry.cid)).collect();
                    return Self::open_layout(blobs, cid, &entries).await;
                }
                Err(BlobsError::NotADirectory { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let bytes = blobs.read(cid, MAX_DOCUMENT_BYTES).await?;
        let top = Descriptor::parse(&bytes)
            .map_err(|source| RootError::NotAnImage { cid: *cid, source: Box::new(source) })?;
        if top.ipfs_cid().is_none() {
            return Err(RootError::NoCid { digest: top.digest });
        }
        Ok(Self { cid: *cid, top, places: Places::Urls })
    }

    /// An image, or a part of one, whose descriptors say where everything is.
    pub(crate) fn of_urls(top: Descriptor) -> Self {
        Self { cid: Cid::default(), top, places: Places::Urls }
    }

    async fn open_layout(blobs: &dyn Blobs, cid: &Cid, files: &BTreeMap<String, Cid>) -> Result<Self, RootError> {
        let missing = |name: &'static str| RootError::NotALayout { cid: *cid, name };
        let marker = *files.get("oci-layout").ok_or_else(|| missing("oci-layout"))?;
        let index = files.get("index.json").ok_or_else(|| missing("index.json"))?;
        let folder = files.get("blobs").ok_or_else(|| missing("blobs"))?;
        let bytes = blobs.read(index, MAX_DOCUMENT_BYTES).await?;
        let index =
            Index::parse(&bytes).map_err(|source| RootError::NotAnImage { cid: *cid, source: Box::new(source) })?;
        let top = match index.manifests() {
            [only] => only.clone(),
            other => return Err(RootError::Images { cid: *cid, count: other.len() }),
        };
        let mut places = BTreeMap::new();
        for algorithm in
            blobs.list(folder).await?.into_iter().filter(|entry| matches!(entry.name.as_str(), "sha256" | "sha512"))
        {
            for entry in blobs.list(&algorithm.cid).await? {
                // Whatever has another name is not a blob.
                if let Ok(digest) = format!("{}:{}", algorithm.name, entry.name).parse::<Digest>() {
                    places.insert(digest, (entry.cid, entry.size));
                }
            }
        }
        Ok(Self { cid: *cid, top, places: Places::Layout { files: places, marker } })
    }

    /// How the image lies on IPFS.
    pub fn shape(&self) -> Shape {
        match self.places {
            Places::Urls => Shape::Descriptor,
            Places::Layout { .. } => Shape::Layout,
        }
    }

    /// What a layout holds besides the blobs that its image refers to: its marker, and each other blob with a bound of
    /// its size, signatures for instance. Nothing of a descriptor root.
    pub(crate) fn extras(&self, known: &BTreeSet<Digest>) -> (Option<Cid>, Vec<(Digest, Cid, u64)>) {
        let Places::Layout { files, marker } = &self.places else { return (None, Vec::new()) };
        let others = files.iter().filter(|(digest, _)| !known.contains(digest));
        (Some(*marker), others.map(|(digest, (cid, size))| (digest.clone(), *cid, *size)).collect())
    }

    /// The CID that the image gives for a blob.
    ///
    /// # Errors
    /// [`RootError::NoCid`] when it gives none, [`RootError::BadCid`] when that is none that can be checked.
    pub fn cid_of(&self, blob: &Descriptor) -> Result<Cid, RootError> {
        match &self.places {
            Places::Layout { files, .. } => {
                let found = files.get(&blob.digest).map(|(cid, _)| *cid);
                found.ok_or_else(|| RootError::Absent { digest: blob.digest.clone() })
            }
            Places::Urls => {
                let text = blob.ipfs_cid().ok_or_else(|| RootError::NoCid { digest: blob.digest.clone() })?;
                let bad = |source| RootError::BadCid {
                    digest: blob.digest.clone(),
                    text: text.chars().take(100).collect(),
                    source,
                };
                let cid = if text.contains('/') { None } else { Cid::try_from(text).ok() };
                let cid = cid.ok_or_else(|| bad(None))?;
                check_cid(&cid).map_err(|error| bad(Some(error)))?;
                Ok(cid)
            }
        }
    }
}

/// Why something is not the root of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// It could not be read.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
    /// It is something else.
    #[error("`{cid}` is not an image")]
    NotAnImage {
        /// The root.
        cid: Cid,
        /// What is wrong with it.
        #[source]
        source: Box<DocumentError>,
    },
    /// It is a directory of something else.
    #[error("`{cid}` is a directory without `{name}`, so it is not an image layout")]
    NotALayout {
        /// The root.
        cid: Cid,
        /// What a layout has.
        name: &'static str,
    },
    /// A layout that does not hold exactly one image.
    #[error("the layout `{cid}` holds {count} images, expected one")]
    Images {
        /// The root.
        cid: Cid,
        /// Images in it.
        count: usize,
    },
    /// A descriptor without an `ipfs://` URL.
    #[error("no CID is recorded in `{digest}`")]
    NoCid {
        /// The blob.
        digest: Digest,
    },
    /// A descriptor whose URL holds no CID that can be checked.
    #[error("the CID recorded in `{digest}`, `{}`, is not valid", text.escape_debug())]
    BadCid {
        /// The blob.
        digest: Digest,
        /// What stands in its place.
        text: String,
        /// Why it is refused, when it is a CID at all.
        #[source]
        source: Option<CidError>,
    },
    /// A layout that lacks a blob.
    #[error("content `{digest}` is not in the layout")]
    Absent {
        /// The blob.
        digest: Digest,
    },
}
