//! The layout root: a directory on IPFS that is an OCI layout.
//!
//! Imports its parent. A source that is a layout with this one image is copied as it lies, every file of `blobs/` and the
//! bytes of its lists included, unless platforms were asked for: then the directory's CID is what adding the layout's
//! folder to IPFS gives, if nothing but a layout is in it. Otherwise `index.json` and `oci-layout` are written with fixed
//! bytes, and only blobs that the selected platforms need are taken along. Digests stay as they were either way.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{Push, PushError};
use crate::{
    blobs::{Added, Entry},
    event::{BlobKind, Event, Outcome},
    link::{LAYOUT_MARKER, index_json},
    names::{Image, Note, Shape},
    oci::{Descriptor, Digest, Platforms},
    plan::Plan,
    source::WholeLayout,
};

/// Most files of a layout that is copied as it lies; past it Kubo makes a directory of another kind, which is not written
/// here, so such a layout is written anew.
const MAX_COPIED_BLOBS: usize = 2048;

impl Push<'_> {
    /// Adds the blobs and documents as they are, and the directories over them.
    pub(super) async fn layout_root(&self, plan: &Plan, platforms: &Platforms) -> Result<Image, PushError> {
        let whole = self.origin.source().map(Arc::clone);
        let whole = whole.as_ref().and_then(|source| source.layout());
        let is_as_it_was = self.made.is_empty() && !self.origin.is_changed();
        let copied = whole.filter(|layout| is_as_it_was && is_copied(layout, plan, platforms));
        let (marker, index, blobs) = match copied {
            Some(layout) => (layout.marker.clone(), layout.index.clone(), everything(layout, plan)),
            None => {
                let documents = plan.documents().into_iter().map(|part| part.descriptor.clone());
                let blobs = documents.chain(plan.blobs().into_iter().cloned()).collect();
                (Bytes::from_static(LAYOUT_MARKER), index_json(&plan.top().descriptor), blobs)
            }
        };
        let added = self.add_all(blobs.iter().collect()).await?;
        let marker = self.add_bytes("oci-layout", BlobKind::Other, marker).await?;
        let index = self.add_bytes("index.json", BlobKind::Index, index).await?;
        let folder = self.blobs_folder(&added).await?;
        let entries = vec![file("oci-layout", &marker), file("index.json", &index), folder];
        let root = self.blobs.add_directory(entries).await.map_err(PushError::Directory)?.cid;
        let name = root.to_string();
        self.events.emit(Event::Started { digest: name.clone(), kind: BlobKind::Root, size: 0 });
        self.events.emit(Event::Finished { digest: name.clone(), outcome: Outcome::Stored });
        let top = &plan.top().descriptor;
        let size = added.values().map(|added| added.size).sum();
        let note = Note::new(Shape::Layout, &top.media_type, top.digest.clone(), size, plan.platforms().0);
        Ok(Image { name, root, members: Vec::new(), incomplete: false, note: Some(note) })
    }

    /// Makes `blobs/` and the folders in it.
    async fn blobs_folder(&self, added: &BTreeMap<Digest, Added>) -> Result<Entry, PushError> {
        let mut folders: BTreeMap<&str, Vec<Entry>> = BTreeMap::from([("sha256", Vec::new())]);
        for (digest, added) in added {
            folders.entry(digest.algorithm()).or_default().push(file(&digest.hex(), added));
        }
        let mut entries = Vec::new();
        for (name, files) in folders {
            let folder = self.blobs.add_directory(files).await.map_err(PushError::Directory)?;
            entries.push(Entry { name: name.to_owned(), cid: folder.cid, size: folder.cumulative });
        }
        let folder = self.blobs.add_directory(entries).await.map_err(PushError::Directory)?;
        Ok(Entry { name: "blobs".to_owned(), cid: folder.cid, size: folder.cumulative })
    }
}

fn is_copied(layout: &WholeLayout, plan: &Plan, platforms: &Platforms) -> bool {
    !matches!(platforms, Platforms::Only(_)) && !plan.is_partial() && layout.blobs.len() <= MAX_COPIED_BLOBS
}

/// Every blob of the layout: as the image describes it, or by digest and size where it does not.
fn everything(layout: &WholeLayout, plan: &Plan) -> Vec<Descriptor> {
    let mut known: BTreeMap<&Digest, &Descriptor> = BTreeMap::new();
    for part in &plan.parts {
        known.entry(&part.descriptor.digest).or_insert(&part.descriptor);
    }
    let describe = |(digest, size): &(Digest, u64)| match known.get(digest) {
        Some(descriptor) => (*descriptor).clone(),
        None => Descriptor::new("", digest.clone(), *size),
    };
    let mut all: Vec<Descriptor> = layout.blobs.iter().map(describe).collect();
    // A blob that the image refers to but the layout lacks must be told, not passed over.
    let listed: std::collections::BTreeSet<&Digest> = layout.blobs.iter().map(|(digest, _)| digest).collect();
    all.extend(known.into_iter().filter(|(digest, _)| !listed.contains(digest)).map(|(_, blob)| blob.clone()));
    all
}

fn file(name: &str, added: &Added) -> Entry {
    Entry { name: name.to_owned(), cid: added.cid, size: added.cumulative }
}
