//! Repositories: the images here that have a name in common, and blobs that were uploaded and are in no image yet.
//!
//! Imports [`names`] and the look-up beside it. What is in a repository is what the records of the store say at that
//! moment, so an image that was pushed, tagged or removed by any other way is seen here, too. A manifest that was pushed
//! without a tag is recorded by its name and digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    error::{Code, Refusal},
    image::{Found, Images, Referrer, Storage, is_document},
    route::{Repository, Wanted},
};
use crate::{
    blobs::{Added, Blobs},
    names::{self, Image},
    oci::Digest,
    reference::Name,
};

/// How long an uploaded blob waits for a manifest that names it.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Blobs that wait at once; past it, those that waited longest are forgotten.
const MAX_LOOSE: usize = 4096;

/// All repositories.
pub(super) struct Repositories {
    pub(super) storage: Storage,
    pub(super) images: Images,
    /// One change at a time.
    pub(super) writing: tokio::sync::Mutex<()>,
    loose: Mutex<BTreeMap<(Repository, Digest), Loose>>,
}

/// A blob that is in no image yet.
#[derive(Clone)]
struct Loose {
    added: Added,
    since: Instant,
    /// Keeps it from being collected.
    _lease: Arc<dyn Blobs>,
}

/// An image of a repository.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) name: Name,
    pub(super) image: Image,
}

impl Repositories {
    pub(super) fn new(storage: Storage, images: Images) -> Self {
        Self { storage, images, writing: tokio::sync::Mutex::default(), loose: Mutex::default() }
    }

    /// The images of all repositories that have names.
    async fn all(&self) -> Result<Vec<Member>, Refusal> {
        let blobs = (self.storage)();
        let images = names::list(blobs.records()).await.map_err(|error| Refusal::failed(&error))?;
        Ok(images.into_iter().filter_map(|image| Some(Member { name: image.own_name()?, image })).collect())
    }

    /// The images of a repository.
    pub(super) async fn members(&self, repository: &Repository) -> Result<Vec<Member>, Refusal> {
        let mut all = self.all().await?;
        all.retain(|member| repository.has(&member.name));
        Ok(all)
    }

    /// A manifest.
    pub(super) async fn manifest(&self, repository: &Repository, wanted: &Wanted) -> Result<Found, Refusal> {
        let members = self.members(repository).await?;
        let unknown = |code, what: &str| Refusal::new(code, format!("{what} is not in `{}`", repository.text));
        let digest = match wanted {
            Wanted::Tag(tag) => {
                let name = repository.name(wanted);
                let Some(member) = members.iter().find(|member| member.name == name) else {
                    let code = if members.is_empty() { Code::NameUnknown } else { Code::ManifestUnknown };
                    return Err(unknown(code, &format!("tag `{tag}`")));
                };
                let image = self.images.open(&member.image.root).await?;
                let top = image.root.top.digest.clone();
                let found = self.images.find(&image, &top).await?;
                return found.ok_or_else(|| unknown(Code::ManifestUnknown, &format!("tag `{tag}`")));
            }
            Wanted::Digest(digest) => digest,
        };
        let found = self.search(&members, digest).await?;
        found.ok_or_else(|| unknown(Code::ManifestUnknown, &format!("`{digest}`")))
    }

    /// A blob.
    pub(super) async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Found>, Refusal> {
        if let Some(added) = self.loose(repository, digest) {
            let (cid, size) = (added.cid, added.size);
            return Ok(Some(Found { root: cid, cid, digest: digest.clone(), size, media_type: String::new() }));
        }
        let members = self.members(repository).await?;
        self.search(&members, digest).await
    }

    /// Looks through images: those first that are the thing itself.
    pub(super) async fn search(&self, members: &[Member], digest: &Digest) -> Result<Option<Found>, Refusal> {
        let mut roots = BTreeSet::new();
        let mut failed = None;
        let (first, others): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.digest() == Some(digest));
        for member in first.into_iter().chain(others).filter(|member| roots.insert(member.image.root)) {
            let found = async { self.images.find(&*self.images.open(&member.image.root).await?, digest).await };
            match found.await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(refusal) => failed = Some(refusal),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The manifests of a repository that are about others.
    pub(super) async fn referrers(&self, members: &[Member]) -> Result<BTreeMap<Digest, Referrer>, Refusal> {
        let mut roots = BTreeSet::new();
        let mut found = BTreeMap::new();
        for member in members.iter().filter(|member| roots.insert(member.image.root)) {
            let image = self.images.open(&member.image.root).await?;
            for referrer in self.images.referrers(&image).await?.iter() {
                found.entry(referrer.descriptor.digest.clone()).or_insert_with(|| referrer.clone());
            }
        }
        Ok(found)
    }

    /// The tags of a repository, sorted.
    pub(super) async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Refusal> {
        let members = self.members(repository).await?;
        if members.is_empty() {
            return Err(Refusal::new(Code::NameUnknown, format!("there is no repository `{}`", repository.text)));
        }
        let tags: BTreeSet<_> = members.into_iter().filter_map(|member| member.name.tag).collect();
        Ok(tags.into_iter().collect())
    }

    /// The repositories, sorted, as they can be asked for.
    pub(super) async fn catalog(&self) -> Result<Vec<String>, Refusal> {
        let all = self.all().await?;
        let names: BTreeSet<_> = all.into_iter().map(|member| shortest(&member.name)).collect();
        Ok(names.into_iter().collect())
    }

    /// Puts an uploaded blob into a repository, where it waits for a manifest.
    pub(super) fn put_loose(&self, repository: &Repository, digest: Digest, added: Added, lease: Arc<dyn Blobs>) {
        let mut loose = self.loose.lock().unwrap_or_else(PoisonError::into_inner);
        loose.retain(|_, blob| blob.since.elapsed() < MAX_WAIT);
        if loose.len() >= MAX_LOOSE
            && let Some(oldest) = loose.iter().min_by_key(|(_, blob)| blob.since).map(|(key, _)| key.clone())
        {
            loose.remove(&oldest);
        }
        loose.insert((canonical(repository), digest), Loose { added, since: Instant::now(), _lease: lease });
    }

    pub(super) fn loose(&self, repository: &Repository, digest: &Digest) -> Option<Added> {
        let loose = self.loose.lock().unwrap_or_else(PoisonError::into_inner);
        loose.get(&(canonical(repository), digest.clone())).map(|blob| blob.added)
    }

    /// An uploaded blob of any repository.
    pub(super) fn loose_anywhere(&self, digest: &Digest) -> Option<Added> {
        let loose = self.loose.lock().unwrap_or_else(PoisonError::into_inner);
        loose.iter().find(|((_, known), _)| known == digest).map(|(_, blob)| blob.added)
    }

    pub(super) fn take_loose(&self, repository: &Repository, digest: &Digest) -> bool {
        let mut loose = self.loose.lock().unwrap_or_else(PoisonError::into_inner);
        loose.remove(&(canonical(repository), digest.clone())).is_some()
    }
}

impl Member {
    /// What its top document hashes to.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.image.note.as_ref().map(|note| &note.digest)
    }
}

/// A repository whichever way it is written.
fn canonical(repository: &Repository) -> Repository {
    Repository { text: String::new(), ..repository.clone() }
}

/// The shortest way to write a repository.
fn shortest(name: &Name) -> String {
    let full = format!("{}/{}", name.domain, name.path);
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let shortest = short.strip_prefix("library/").unwrap_or(short);
    let is_same = |text: &&str| Repository::parse(text).is_some_and(|parsed| parsed.has(name));
    [shortest, short].into_iter().find(is_same).unwrap_or(&full).to_owned()
}

/// Whether something that was found may be sent as a manifest.
pub(super) fn is_manifest(found: &Found) -> bool {
    // Of what has no descriptor, the bytes will tell.
    found.media_type.is_empty() || is_document(&found.media_type)
}
