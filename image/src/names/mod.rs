//! The images of a store, by name.
//!
//! An image is a [`Record`]: what it is called, its root, everything that is kept with it, and a small note about it,
//! drawn below. One image may have several names; one that was given none is called by its CID. Imports
//! [`blobs`](crate::blobs), [`oci`](crate::oci) and [`reference`](crate::reference). Never touches a blob.
//!
//! The note is JSON: `{"version":1,"shape":"descriptor"|"layout","media_type":…,"digest":…,"size":…,"platforms":[…]}`.
//! A note of another version is not understood, but its image is still listed, kept and removed.

use serde::{Deserialize, Serialize};
use shipfs_node::Cid;

use crate::{
    blobs::{BlobsError, Record, Records},
    oci::{Digest, Platforms},
    reference::{Name, Reference},
};

/// Version of the note that is written.
const NOTE_VERSION: u32 = 1;

/// How an image lies on IPFS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The root is the JSON of the top descriptor, and CIDs are URLs in the documents.
    #[default]
    Descriptor,
    /// The root is a directory that is an OCI layout.
    Layout,
}

/// What is noted about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    version: u32,
    /// How it lies on IPFS.
    pub shape: Shape,
    /// Media type of its top document.
    pub media_type: String,
    /// Digest of its top document.
    pub digest: Digest,
    /// Bytes of its blobs and documents here, each counted once.
    pub size: u64,
    /// The platforms that are here, if its index says so.
    pub platforms: Vec<String>,
}

impl Note {
    /// Notes what is known about an image.
    pub fn new(shape: Shape, media_type: &str, digest: Digest, size: u64, platforms: Vec<String>) -> Self {
        Self { version: NOTE_VERSION, shape, media_type: media_type.to_owned(), digest, size, platforms }
    }
}

/// An image of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is called: a normalised [`Name`], or its CID.
    pub name: String,
    /// Its root.
    pub root: Cid,
    /// The other CIDs that are kept with it.
    pub members: Vec<Cid>,
    /// Whether not all that its root refers to is here.
    pub incomplete: bool,
    /// What is known about it, unless another version noted that.
    pub note: Option<Note>,
}

impl Image {
    /// The record of it.
    fn to_record(&self) -> Result<Record, NamesError> {
        let note = self.note.as_ref().map_or(Ok(Vec::new()), serde_json::to_vec).map_err(NamesError::Note)?;
        Ok(Record {
            name: self.name.clone(),
            root: self.root,
            members: self.members.clone(),
            note,
            incomplete: self.incomplete,
        })
    }

    /// The image that a record is of.
    fn from_record(record: Record) -> Self {
        let note = serde_json::from_slice::<Note>(&record.note).ok().filter(|note| note.version == NOTE_VERSION);
        Self { name: record.name, root: record.root, members: record.members, incomplete: record.incomplete, note }
    }

    /// The platforms of it that are here: what can be had of it without asking anybody.
    pub fn platforms(&self) -> Platforms {
        let listed = self.note.as_ref().map_or(&[][..], |note| &note.platforms);
        let parsed: Vec<_> = listed.iter().filter_map(|text| text.parse().ok()).collect();
        if parsed.is_empty() { Platforms::All } else { Platforms::Only(parsed) }
    }

    /// Its name, unless it is called by its CID.
    pub fn own_name(&self) -> Option<Name> {
        if self.name == self.root.to_string() { None } else { self.name.parse().ok() }
    }
}

/// All images, sorted by name.
///
/// # Errors
/// When the store fails.
pub async fn list(records: &dyn Records) -> Result<Vec<Image>, NamesError> {
    Ok(records.kept().await?.into_iter().map(Image::from_record).collect())
}

/// The image that a user means.
///
/// # Errors
/// [`NamesError::Unknown`] when there is none, [`NamesError::OtherDigest`] when the name stands for something else than
/// the digest that was given with it.
pub async fn resolve(records: &dyn Records, reference: &Reference) -> Result<Image, NamesError> {
    let images = list(records).await?;
    let found = match reference {
        Reference::Name(name) => {
            let text = name.without_digest().to_string();
            let wanted = |image: &&Image| match (&name.tag, &name.digest) {
                // Without a tag, the digest alone decides which image of that repository is meant.
                (None, Some(digest)) => {
                    let is_same = |own: Name| (&own.domain, &own.path) == (&name.domain, &name.path);
                    image.own_name().is_some_and(is_same)
                        && image.note.as_ref().is_some_and(|note| note.digest == *digest)
                }
                _ => image.name == text,
            };
            let found = images.iter().find(wanted);
            if let (Some(image), Some(digest)) = (found, &name.digest)
                && image.note.as_ref().is_none_or(|note| note.digest != *digest)
            {
                return Err(NamesError::OtherDigest { name: text, digest: digest.clone() });
            }
            found
        }
        Reference::Cid(cid) => {
            let same = |other: &Cid| (other.codec(), other.hash()) == (cid.codec(), cid.hash());
            let exactly = images.iter().find(|image| image.name == cid.to_string());
            exactly.or_else(|| images.iter().find(|image| same(&image.root)))
        }
        Reference::Digest(digest) => {
            images.iter().find(|image| image.note.as_ref().is_some_and(|note| note.digest == *digest))
        }
    };
    found.cloned().ok_or_else(|| NamesError::Unknown { reference: reference.to_string() })
}

/// Writes an image down, in place of one with the same name. Durable, with all its blobs, on return.
///
/// # Errors
/// When the store fails, or lacks a blob of an image that is said to be complete.
pub async fn save(records: &dyn Records, image: &Image) -> Result<(), NamesError> {
    Ok(records.keep(image.to_record()?).await?)
}

/// Gives an image another name.
///
/// # Errors
/// As [`resolve`] and [`save`].
pub async fn tag(records: &dyn Records, from: &Reference, to: &Name) -> Result<Image, NamesError> {
    let image = Image { name: to.without_digest().to_string(), ..resolve(records, from).await? };
    save(records, &image).await?;
    Ok(image)
}

/// Removes one name, and gives the image it stood for. What no other name keeps is freed by the next collection.
///
/// # Errors
/// As [`resolve`].
pub async fn remove(records: &dyn Records, reference: &Reference) -> Result<Image, NamesError> {
    let image = resolve(records, reference).await?;
    records.release(&image.name).await?;
    Ok(image)
}

/// Why a name could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// There is no such image.
    #[error("image `{}` is not here", reference.escape_debug())]
    Unknown {
        /// What was looked for.
        reference: String,
    },
    /// The name stands for another image now.
    #[error("image `{name}` is here, but it is not `{digest}`")]
    OtherDigest {
        /// The name.
        name: String,
        /// The digest given with it.
        digest: Digest,
    },
    /// The note could not be written.
    #[error("cannot note what the image is")]
    Note(#[source] serde_json::Error),
    /// The store failed.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{Blobs as _, Content, memory::MemoryBlobs};

    async fn image(store: &MemoryBlobs, name: &str, text: &str) -> Image {
        let root = store.add(Content::Bytes(text.to_owned().into()), None, &|_| {}).await.expect("adds").cid;
        let name = if name.is_empty() { root.to_string() } else { name.to_owned() };
        let note = Note::new(Shape::Descriptor, "a/b", Digest::of(text.as_bytes()), 3, vec!["linux/amd64".into()]);
        let image = Image { name, root, members: Vec::new(), incomplete: false, note: Some(note) };
        save(store, &image).await.expect("saves");
        image
    }

    fn reference(text: &str) -> Reference {
        text.parse().expect("reference")
    }

    #[tokio::test]
    async fn an_image_is_found_by_all_it_is_called() {
        let store = MemoryBlobs::default();
        let named = image(&store, "docker.io/library/a:latest", "one").await;
        let unnamed = image(&store, "", "two").await;
        let digest = Digest::of(b"one");
        for text in [
            "a".to_owned(),
            "docker.io/library/a:latest".into(),
            named.root.to_string(),
            digest.to_string(),
            format!("a@{digest}"),
        ] {
            assert_eq!(resolve(&store, &reference(&text)).await.expect(&text), named, "{text}");
        }
        assert_eq!(resolve(&store, &Reference::Cid(unnamed.root)).await.expect("found"), unnamed);
        assert_eq!((named.own_name().map(|name| name.familiar()), unnamed.own_name()), (Some("a:latest".into()), None));
        assert!(matches!(resolve(&store, &reference("a:b")).await, Err(NamesError::Unknown { .. })));
        assert_eq!(list(&store).await.expect("lists").len(), 2);
    }

    #[tokio::test]
    async fn b6_a_pinned_digest_wins_over_the_tag() {
        let store = MemoryBlobs::default();
        image(&store, "docker.io/library/a:latest", "one").await;
        let other = Digest::of(b"other");
        let refused = resolve(&store, &reference(&format!("a:latest@{other}"))).await;
        assert!(matches!(refused, Err(NamesError::OtherDigest { .. })));
        assert!(matches!(resolve(&store, &reference(&format!("a@{other}"))).await, Err(NamesError::Unknown { .. })));
    }

    #[tokio::test]
    async fn names_are_given_and_taken() {
        let store = MemoryBlobs::default();
        let first = image(&store, "", "one").await;
        let name: Name = "a:b".parse().expect("name");
        tag(&store, &Reference::Cid(first.root), &name).await.expect("tags");
        assert_eq!(remove(&store, &Reference::Cid(first.root)).await.expect("removes").name, first.root.to_string());
        assert_eq!(resolve(&store, &Reference::Cid(first.root)).await.expect("found").name, name.to_string());
        remove(&store, &reference("a:b")).await.expect("removes");
        assert!(matches!(remove(&store, &reference("a:b")).await, Err(NamesError::Unknown { .. })));
    }

    #[tokio::test]
    async fn an_image_that_another_version_noted_is_listed() {
        let store = MemoryBlobs::default();
        let first = image(&store, "x/y:z", "one").await;
        for note in [&br#"{"version":9,"shape":"cube"}"#[..], b"", b"\xff"] {
            let record = Record { note: note.to_vec(), ..first.to_record().expect("record") };
            store.keep(record).await.expect("keeps");
            assert_eq!(list(&store).await.expect("lists"), [Image { note: None, ..first.clone() }]);
        }
    }
}
