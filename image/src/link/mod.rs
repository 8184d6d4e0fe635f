//! From digests to CIDs: the documents and the root that make an image findable on IPFS.
//!
//! A descriptor root is the JSON of the top descriptor, and every descriptor below it carries its blob's CID as a URL.
//! [`link`] rewrites a [`Plan`] to that, children first, byte for byte as nerdctl does, so that one image has one CID
//! whoever pushes it. [`index_json`] is the list of a layout root that could not be copied as it was. Imports
//! [`oci`](crate::oci), [`plan`](crate::plan) and the node's tree builder. Pure: nothing is stored here.

use bytes::Bytes;
use shipfs_node::{
    Cid,
    block::{CODEC_RAW, cid_of},
    dag::{CHUNK_BYTES, Leaf, balanced},
};

use crate::{
    oci::{Descriptor, Digest, Index, descriptor::IPFS_URL, media},
    plan::Plan,
};

/// The marker file of every layout that is written here.
pub const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image with its documents rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The rewritten documents, children before parents.
    pub documents: Vec<LinkedDocument>,
    /// The JSON of the root.
    pub root: Bytes,
    /// What the root's CID is.
    pub cid: Cid,
}

/// A rewritten document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedDocument {
    /// How it is referred to, its own CID included.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
    /// What its CID is.
    pub cid: Cid,
}

/// Rewrites the documents of `plan`, given the CID of each of its other blobs.
///
/// Docker's media types become OCI's, entries that were not taken are left out, and any earlier URL is lost. Of the top
/// descriptor only media type, digest, size and annotations reach the root: that is what containerd keeps of it, and so
/// what nerdctl writes.
///
/// # Errors
/// [`LinkError`] when `cid_of_blob` does not know a blob.
pub fn link(plan: &Plan, cid_of_blob: &dyn Fn(&Digest) -> Option<Cid>) -> Result<Linked, LinkError> {
    let mut documents = Vec::new();
    let top = rewrite(plan, 0, cid_of_blob, &mut documents)?;
    let top = Descriptor {
        urls: top.urls,
        annotations: top.annotations,
        ..Descriptor::new(&top.media_type, top.digest, top.size)
    };
    let root = Bytes::from(top.to_json());
    Ok(Linked { documents, cid: cid_of_file(&root), root })
}

/// Rewrites the part `at` and what is below it; gives the descriptor to refer to it by.
fn rewrite(
    plan: &Plan,
    at: usize,
    cid_of_blob: &dyn Fn(&Digest) -> Option<Cid>,
    documents: &mut Vec<LinkedDocument>,
) -> Result<Descriptor, LinkError> {
    let part = &plan.parts[at];
    let mut descriptor = part.descriptor.clone();
    descriptor.media_type = media::to_oci(&descriptor.media_type).to_owned();
    let Some(document) = &part.document else {
        let cid = cid_of_blob(&descriptor.digest).ok_or_else(|| LinkError { digest: descriptor.digest.clone() })?;
        descriptor.urls = vec![url(&cid)];
        return Ok(descriptor);
    };
    let bytes = document.rewrite(|at| rewrite(plan, at, cid_of_blob, documents))?.bytes;
    let cid = cid_of_file(&bytes);
    descriptor.digest = Digest::of(&bytes);
    descriptor.size = bytes.len() as u64;
    descriptor.urls = vec![url(&cid)];
    documents.push(LinkedDocument { descriptor: descriptor.clone(), bytes, cid });
    Ok(descriptor)
}

/// The `index.json` of a layout that holds one image: fixed bytes, whatever tool wrote the source.
pub fn index_json(top: &Descriptor) -> Bytes {
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.to_owned(),
        artifact_type: String::new(),
        manifests: Some(vec![top.clone()]),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    index.to_json().into()
}

/// The CID that `bytes` have as a file.
pub fn cid_of_file(bytes: &[u8]) -> Cid {
    let leaf = |chunk: &[u8]| Leaf { cid: cid_of(CODEC_RAW, chunk), size: chunk.len() as u64 };
    balanced(&bytes.chunks(CHUNK_BYTES).map(leaf).collect::<Vec<_>>()).root
}

fn url(cid: &Cid) -> String {
    format!("{IPFS_URL}{cid}")
}

/// A blob whose CID is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no CID is known for blob `{digest}`")]
pub struct LinkError {
    /// The blob.
    pub digest: Digest,
}

#[cfg(test)]
mod tests;
