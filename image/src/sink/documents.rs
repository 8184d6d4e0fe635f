//! The documents of an image as a registry takes them.
//!
//! Imports [`oci`](crate::oci) and [`plan`](crate::plan). A registry refuses an index that lists what it has not, and some
//! refuse addresses of blobs that are not on the web; documents are written anew only where one of those is so.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    oci::{Descriptor, Digest, descriptor::IPFS_URL},
    plan::{Body, Document, Part, Plan},
};

/// The documents of what was chosen of an image, each after what it refers to, the top one last. An index of which one
/// entry was chosen gives way to that entry.
pub(super) fn chosen(plan: &Plan) -> Vec<(Descriptor, Bytes)> {
    let is_complete = |part: &Part| match &part.document {
        Some(Document { body: Body::Index { index, taken }, .. }) => taken.len() == index.manifests().len(),
        _ => true,
    };
    let mut documents = plan.documents();
    while let [first, ..] = documents[..]
        && let Some(Document { body: Body::Index { taken, .. }, .. }) = &first.document
        && taken.len() == 1
        && !is_complete(first)
    {
        documents.remove(0);
    }
    if documents.iter().any(|part| !is_complete(part)) {
        return written(plan, &documents, false);
    }
    let as_it_is = |part: &&Part| Some((part.descriptor.clone(), part.document.as_ref()?.bytes.clone()));
    documents.iter().rev().filter_map(as_it_is).collect()
}

/// The same without the addresses on IPFS; nothing when there are none.
pub(super) fn without_ipfs(plan: &Plan) -> Option<Vec<(Descriptor, Bytes)>> {
    let has_any = plan.parts.iter().skip(1).any(|part| part.descriptor.ipfs_cid().is_some());
    has_any.then(|| written(plan, &plan.documents(), true))
}

fn written(plan: &Plan, documents: &[&Part], is_stripped: bool) -> Vec<(Descriptor, Bytes)> {
    let changed = plan.changed(|descriptor| {
        let mut descriptor = descriptor.clone();
        if is_stripped {
            descriptor.urls.retain(|url| !url.starts_with(IPFS_URL));
        }
        descriptor
    });
    let mut wanted: BTreeSet<&Digest> = documents.iter().map(|part| &part.descriptor.digest).collect();
    let mut written = Vec::new();
    for (old, new) in plan.parts.iter().zip(changed.parts) {
        if wanted.remove(&old.descriptor.digest)
            && let Some(document) = new.document
        {
            written.push((new.descriptor, document.bytes));
        }
    }
    written.reverse();
    written
}
