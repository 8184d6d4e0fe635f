//! Takes manifests in: each becomes an image whose root is a layout, with what refers to it inside.
//!
//! Imports the seam to storage, the plan of an image and [`names`]. The sentence to keep in mind: a manifest is checked,
//! everything it names must be here, its bytes are stored as they came, directories are made over all of it, and the
//! record is written last. One change at a time; nothing half-made is ever named.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shipfs_node::{Cid, dag::MAX_NAME_BYTES};

use super::{
    error::{Code, Refusal},
    image::{media_type, referrer},
    repository::{Member, Repositories},
    route::{Repository, Wanted},
    upload::wrong,
};
use crate::{
    blobs::{Added, Blobs, Content, Directory, Entry, Expected, Want},
    link::{LAYOUT_MARKER, index_json},
    names::{self, Image, Note, Shape},
    oci::{Descriptor, Digest, MAX_DESCRIPTORS, Platforms, media},
    plan::{Plan, PlanError},
};

const _: () = assert!(MAX_NAME_BYTES >= 128, "a digest of 64 bytes in hexadecimal is a name");

/// A manifest that was taken in.
pub(super) struct Published {
    pub(super) digest: Digest,
    /// The root of its image.
    pub(super) root: Cid,
    /// What it is about.
    pub(super) subject: Option<Digest>,
    /// Every image that is new or has another root now.
    pub(super) images: Vec<Image>,
}

/// All that goes into a layout.
struct Gathered {
    parts: BTreeMap<Digest, Added>,
    platforms: Vec<String>,
    /// The documents of the image itself.
    documents: BTreeSet<Digest>,
    /// Whether something is left out that nobody may hand on.
    incomplete: bool,
}

impl Repositories {
    /// Takes a manifest in, under the tags and the digest it was sent to.
    pub(super) async fn publish(
        &self,
        repository: &Repository,
        wanted: Vec<Wanted>,
        content_type: &str,
        bytes: Bytes,
    ) -> Result<Published, Refusal> {
        let digest = wanted.iter().find_map(|wanted| match wanted {
            Wanted::Digest(digest) => Some(digest.clone()),
            Wanted::Tag(_) => None,
        });
        if let Some(digest) = digest.as_ref().filter(|digest| !digest.matches(&bytes)) {
            return Err(wrong(digest));
        }
        let digest = digest.unwrap_or_else(|| Digest::of(&bytes));
        let top = Descriptor::new(&checked_type(content_type, &bytes)?, digest.clone(), bytes.len() as u64);
        let subject = referrer(digest.clone(), &bytes).map(|referrer| referrer.subject);
        let _one_at_a_time = self.writing.lock().await;
        let members = self.members(repository).await?;
        let blobs = (self.storage)();
        let gathered = self.gather(&*blobs, repository, &members, &top, Some(bytes), None).await;
        // It was among the blobs that wait, so that it could be found.
        self.take_loose(repository, &digest);
        let gathered = gathered?;
        let image = layout(&*blobs, &top, &gathered).await?;
        let mut images = Vec::new();
        let has_tag = wanted.iter().any(|wanted| matches!(wanted, Wanted::Tag(_)));
        for wanted in wanted.iter().filter(|wanted| !has_tag || matches!(wanted, Wanted::Tag(_))) {
            let name = repository.name(wanted);
            let earlier = members.iter().find(|member| member.name == name && member.digest() != Some(&digest));
            if let Some(earlier) = earlier {
                self.keep_untagged(&*blobs, repository, &members, earlier).await?;
            }
            let image = Image { name: name.to_string(), ..image.clone() };
            names::save(blobs.records(), &image).await.map_err(|error| Refusal::failed(&error))?;
            images.push(image);
        }
        self.tidy(&*blobs, repository, &gathered, has_tag.then_some(&digest)).await?;
        if subject.is_some() {
            // It travels inside what it is about from now on.
            images.extend(self.renew(&*blobs, repository, subject.as_ref(), None).await?.0);
        }
        Ok(Published { digest, root: image.root, subject, images })
    }

    /// Keeps what a tag stood for, by its digest, unless another tag does.
    async fn keep_untagged(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        members: &[Member],
        earlier: &Member,
    ) -> Result<(), Refusal> {
        let Some(digest) = earlier.digest() else { return Ok(()) };
        let is_kept = members.iter().any(|other| other.name != earlier.name && other.digest() == Some(digest));
        if !is_kept {
            let name = repository.name(&Wanted::Digest(digest.clone())).to_string();
            let kept = Image { name, ..earlier.image.clone() };
            names::save(blobs.records(), &kept).await.map_err(|error| Refusal::failed(&error))?;
        }
        Ok(())
    }

    /// Forgets what waited for this image: its blobs, and the parts that were pushed by their digests alone.
    async fn tidy(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        gathered: &Gathered,
        tagged: Option<&Digest>,
    ) -> Result<(), Refusal> {
        for digest in gathered.parts.keys() {
            self.take_loose(repository, digest);
        }
        let top = tagged.map_or(&[][..], std::slice::from_ref);
        for digest in gathered.documents.iter().chain(top) {
            let name = repository.name(&Wanted::Digest(digest.clone())).to_string();
            blobs.records().release(&name).await.map_err(|error| Refusal::failed(&error))?;
        }
        Ok(())
    }

    /// Everything that belongs into the layout of an image, `without` one that goes away.
    async fn gather(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        members: &[Member],
        top: &Descriptor,
        bytes: Option<Bytes>,
        without: Option<&Digest>,
    ) -> Result<Gathered, Refusal> {
        let plan = self.plan(blobs, repository, members, top, bytes).await?;
        let mut gathered = Gathered {
            parts: BTreeMap::new(),
            platforms: plan.platforms().0,
            documents: plan.documents().iter().skip(1).map(|part| part.descriptor.digest.clone()).collect(),
            incomplete: false,
        };
        for part in &plan.parts {
            let descriptor = &part.descriptor;
            if gathered.parts.contains_key(&descriptor.digest) {
                continue;
            }
            match self.part(blobs, repository, members, descriptor).await? {
                Some(added) => drop(gathered.parts.insert(descriptor.digest.clone(), added)),
                // Licences forbid to hand such layers on; they come from where they say.
                None if is_foreign(descriptor) => gathered.incomplete = true,
                None => return Err(absent(descriptor)),
            }
        }
        let referrers = self.referrers(members).await?;
        loop {
            let is_due = |digest: &Digest, subject: &Digest| {
                !gathered.parts.contains_key(digest) && gathered.parts.contains_key(subject) && Some(digest) != without
            };
            let due = referrers.iter().find(|(digest, referrer)| is_due(digest, &referrer.subject));
            let Some((digest, referrer)) = due.filter(|_| gathered.parts.len() < MAX_DESCRIPTORS) else { break };
            let plan = self.plan(blobs, repository, members, &referrer.descriptor, None).await?;
            for part in &plan.parts {
                if let Some(added) = self.part(blobs, repository, members, &part.descriptor).await? {
                    gathered.parts.insert(part.descriptor.digest.clone(), added);
                }
            }
            if !gathered.parts.contains_key(digest) {
                return Err(absent(&referrer.descriptor));
            }
        }
        Ok(gathered)
    }

    /// The documents of an image, each checked.
    async fn plan(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        members: &[Member],
        top: &Descriptor,
        bytes: Option<Bytes>,
    ) -> Result<Plan, Refusal> {
        if let Some(bytes) = bytes {
            let digest = Digest::of(&bytes).sha256().unwrap_or_default();
            let expected = Expected { digest, size: bytes.len() as u64 };
            let added = blobs.add(Content::Bytes(bytes), Some(expected), &|_| {}).await;
            let added = added.map_err(|error| Refusal::failed(&error))?;
            // From here on it is found as everything else is.
            self.put_loose(repository, top.digest.clone(), added, std::sync::Arc::from((self.storage)()));
        }
        let read = |descriptor: Descriptor| async move {
            let part = self.part(blobs, repository, members, &descriptor).await?;
            let part = part.ok_or_else(|| absent(&descriptor))?;
            self.images.bytes(&part.cid, &descriptor.digest, Some(descriptor.size)).await
        };
        Plan::make(top.clone(), &Platforms::All.for_push(), read).await.map_err(|error| match error {
            PlanError::Read(refusal) => refusal,
            error => Refusal { message: Refusal::failed(&error).message, ..Refusal::new(Code::ManifestInvalid, "") },
        })
    }

    /// One blob, which is here, or at a peer and is brought here.
    async fn part(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        members: &[Member],
        descriptor: &Descriptor,
    ) -> Result<Option<Added>, Refusal> {
        let Descriptor { digest, size, .. } = descriptor;
        let expected = digest.sha256().map(|digest| Expected { digest, size: *size });
        let added = match (self.loose(repository, digest), expected) {
            (Some(added), _) => Some(added),
            (None, Some(expected)) => {
                blobs.find(&expected.digest, Some(expected.size)).await.map_err(|error| Refusal::failed(&error))?
            }
            (None, None) => None,
        };
        let added = match added {
            Some(added) => added,
            None => {
                let Some(found) = self.search(members, digest).await? else { return Ok(None) };
                let want = expected.map_or(Want::AtMost(*size), Want::Exactly);
                let file = blobs.fetch(&found.cid, want, &|_| {}).await.map_err(|error| Refusal::failed(&error))?;
                let expected = Expected { digest: file.digest, size: file.size };
                let found =
                    blobs.find(&expected.digest, Some(expected.size)).await.map_err(|error| Refusal::failed(&error))?;
                found.ok_or_else(|| absent(descriptor))?
            }
        };
        if added.size != *size {
            let message = format!("blob `{digest}` has {} bytes, its descriptor says {size}", added.size);
            return Err(Refusal::new(Code::SizeInvalid, message));
        }
        Ok(Some(added))
    }

    /// Makes the roots anew of images that hold this subject, or this manifest that goes away. Gives them, and the name of
    /// one that cannot be without it.
    async fn renew(
        &self,
        blobs: &dyn Blobs,
        repository: &Repository,
        subject: Option<&Digest>,
        without: Option<&Digest>,
    ) -> Result<(Vec<Image>, Option<String>), Refusal> {
        let members = self.members(repository).await?;
        let (mut renewed, mut needed) = (Vec::new(), None);
        for member in &members {
            let image = self.images.open(&member.image.root).await?;
            let is_layout = image.root.shape() == Shape::Layout;
            if !is_layout || !image.files().any(|(digest, ..)| Some(digest) == subject.or(without)) {
                continue;
            }
            let top = Descriptor { urls: Vec::new(), ..image.root.top.clone() };
            let gathered = self.gather(blobs, repository, &members, &top, None, without).await?;
            if without.is_some_and(|without| gathered.parts.contains_key(without)) {
                needed = Some(member.name.familiar());
                continue;
            }
            let image = Image { name: member.image.name.clone(), ..layout(blobs, &top, &gathered).await? };
            if image.root != member.image.root {
                names::save(blobs.records(), &image).await.map_err(|error| Refusal::failed(&error))?;
                renewed.push(image);
            }
        }
        Ok((renewed, needed))
    }

    /// Takes a tag, or a manifest with all its tags, out of a repository.
    pub(super) async fn remove(&self, repository: &Repository, wanted: &Wanted) -> Result<Vec<Image>, Refusal> {
        let _one_at_a_time = self.writing.lock().await;
        let members = self.members(repository).await?;
        let blobs = (self.storage)();
        let unknown =
            |what: String| Refusal::new(Code::ManifestUnknown, format!("{what} is not in `{}`", repository.text));
        match wanted {
            Wanted::Tag(tag) => {
                let name = repository.name(wanted);
                let member = members.iter().find(|member| member.name == name);
                let member = member.ok_or_else(|| unknown(format!("tag `{tag}`")))?;
                self.keep_untagged(&*blobs, repository, &members, member).await?;
                blobs.records().release(&member.image.name).await.map_err(|error| Refusal::failed(&error))?;
                Ok(Vec::new())
            }
            Wanted::Digest(digest) => {
                let gone: Vec<_> = members.iter().filter(|member| member.digest() == Some(digest)).collect();
                for member in &gone {
                    blobs.records().release(&member.image.name).await.map_err(|error| Refusal::failed(&error))?;
                }
                self.take_loose(repository, digest);
                match self.renew(&*blobs, repository, None, Some(digest)).await? {
                    (_, Some(name)) if gone.is_empty() => Err(in_use(digest, &name)),
                    (renewed, _) if gone.is_empty() && renewed.is_empty() => Err(unknown(format!("`{digest}`"))),
                    (renewed, _) => Ok(renewed),
                }
            }
        }
    }

    /// Takes a blob out of a repository, unless an image needs it.
    pub(super) async fn remove_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Refusal> {
        let _one_at_a_time = self.writing.lock().await;
        let members = self.members(repository).await?;
        if let Some(name) = self.holder(&members, digest).await? {
            return Err(in_use(digest, &name));
        }
        if self.take_loose(repository, digest) {
            return Ok(());
        }
        Err(Refusal::new(Code::BlobUnknown, format!("`{digest}` is not in `{}`", repository.text)))
    }

    /// The image that a blob belongs to.
    async fn holder(&self, members: &[Member], digest: &Digest) -> Result<Option<String>, Refusal> {
        let Some(found) = self.search(members, digest).await? else { return Ok(None) };
        let member = members.iter().find(|member| member.image.root == found.root);
        Ok(member.map(|member| member.name.familiar()))
    }
}

fn in_use(digest: &Digest, name: &str) -> Refusal {
    Refusal::new(Code::Denied, format!("`{digest}` is part of `{name}`; delete that first"))
}

fn absent(descriptor: &Descriptor) -> Refusal {
    Refusal::new(Code::ManifestBlobUnknown, format!("the manifest names `{}`, which is not here", descriptor.digest))
}

/// Whether nobody but a layer's maker may hand it on.
fn is_foreign(descriptor: &Descriptor) -> bool {
    let media_type = &descriptor.media_type;
    media_type.contains(".nondistributable.") || media_type.contains(".rootfs.foreign.")
}

/// What a manifest is, when what its sender says and what it says itself agree.
fn checked_type(content_type: &str, bytes: &Bytes) -> Result<String, Refusal> {
    let said = content_type.split(';').next().unwrap_or_default().trim();
    let invalid = |text: String| Refusal::new(Code::ManifestInvalid, text);
    let parsed = if media::is_index(said) {
        crate::oci::Index::parse(bytes).map(|index| index.media_type)
    } else if media::is_manifest(said) {
        crate::oci::Manifest::parse(bytes).map(|manifest| manifest.media_type)
    } else {
        return media_type(bytes)
            .filter(|_| matches!(said, "" | "application/json" | "application/octet-stream"))
            .ok_or_else(|| invalid(format!("manifests of the type `{}` are not taken", said.escape_debug())));
    };
    let own = parsed.map_err(|error| invalid(Refusal::failed(&error).message))?;
    if own.is_empty() || own == said {
        return Ok(said.to_owned());
    }
    Err(invalid(format!("the manifest calls itself `{}`, but was sent as `{said}`", own.escape_debug())))
}

/// Stores the directories of a layout.
async fn layout(blobs: &dyn Blobs, top: &Descriptor, gathered: &Gathered) -> Result<Image, Refusal> {
    let failed = |error| Refusal::failed(&error);
    let mut folders: BTreeMap<&str, Vec<Entry>> = BTreeMap::from([("sha256", Vec::new())]);
    for (digest, added) in &gathered.parts {
        folders.entry(digest.algorithm()).or_default().push(file(&digest.hex(), added));
    }
    let mut entries = Vec::new();
    for (name, files) in folders {
        entries.push(folder(name, blobs.add_directory(files).await.map_err(failed)?));
    }
    let marker = Content::Bytes(Bytes::from_static(LAYOUT_MARKER));
    let index = Content::Bytes(index_json(top));
    let entries = vec![
        file("oci-layout", &blobs.add(marker, None, &|_| {}).await.map_err(failed)?),
        file("index.json", &blobs.add(index, None, &|_| {}).await.map_err(failed)?),
        folder("blobs", blobs.add_directory(entries).await.map_err(failed)?),
    ];
    let root = blobs.add_directory(entries).await.map_err(failed)?.cid;
    let size = gathered.parts.values().map(|added| added.size).sum();
    let platforms = gathered.platforms.clone();
    let note = Note::new(Shape::Layout, &top.media_type, top.digest.clone(), size, platforms);
    let incomplete = gathered.incomplete;
    Ok(Image { name: root.to_string(), root, members: Vec::new(), incomplete, note: Some(note) })
}

fn file(name: &str, added: &Added) -> Entry {
    Entry { name: name.to_owned(), cid: added.cid, size: added.cumulative }
}

fn folder(name: &str, directory: Directory) -> Entry {
    Entry { name: name.to_owned(), cid: directory.cid, size: directory.cumulative }
}
