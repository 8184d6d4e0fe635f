//! Where the blobs of a push come from: a place outside the store, or the store itself.
//!
//! Imports its parent's errors, [`source`](crate::source), [`root`](crate::root) and [`bring`](crate::bring). A blob that the
//! store has already is not read again; every other is checked while it is added.

use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha512};

use super::{PushError, PushFrom};
use crate::{
    blobs::{Added, Blobs, BlobsError, Body, Content, Expected, Progress, Want},
    bring::{Bringer, blocking},
    crypt::Changed,
    oci::{Descriptor, Digest, MAX_DOCUMENT_BYTES},
    reference::Name,
    root::Root,
    source::{self, Listed, Source, SourceError},
};

/// An image to be pushed.
pub(crate) struct Origin<'b> {
    blobs: &'b dyn Blobs,
    place: Place,
    /// What became of the image, if not all of it is as it lies there.
    changed: Option<Changed>,
}

enum Place {
    Source { source: Arc<dyn Source>, image: Listed },
    Stored(Root),
}

/// A blob that was opened.
enum Opened {
    /// Unchecked.
    Content(Content),
    /// Checked on its way.
    Checked(Body),
}

impl Opened {
    fn into_content(self, blob: &Descriptor) -> Result<Content, PushError> {
        match self {
            Self::Content(content) => Ok(content),
            Self::Checked(body) => body.into_content().map_err(|source| unreadable(blob, source)),
        }
    }
}

impl<'b> Origin<'b> {
    /// Finds the image.
    pub(crate) async fn open(blobs: &'b dyn Blobs, from: &PushFrom) -> Result<Self, PushError> {
        let place = match from {
            PushFrom::Source(source, wanted) => {
                let image = source::select(&**source, wanted.as_deref())?.clone();
                Place::Source { source: Arc::clone(source), image }
            }
            PushFrom::Stored(cid) => Place::Stored(Root::open(blobs, cid).await?),
        };
        Ok(Self { blobs, place, changed: None })
    }

    /// The same place, whose image has other layers from now on.
    pub(super) fn with(self, changed: Changed) -> Self {
        Self { changed: Some(changed), ..self }
    }

    /// Whether the image is another one than lies there.
    pub(super) fn is_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// Its top document.
    pub(crate) fn top(&self) -> Descriptor {
        match &self.place {
            Place::Source { image, .. } => image.descriptor.clone(),
            Place::Stored(root) => root.top.clone(),
        }
    }

    /// The name that its place gives it.
    pub(crate) fn name(&self) -> Option<Name> {
        match &self.place {
            Place::Source { image, .. } => image.name(),
            Place::Stored(root) => Listed::from(root.top.clone()).name(),
        }
    }

    /// The place, if it is outside the store.
    pub(crate) fn source(&self) -> Option<&Arc<dyn Source>> {
        match &self.place {
            Place::Source { source, .. } => Some(source),
            Place::Stored(_) => None,
        }
    }

    /// Reads a document, checked.
    pub(crate) async fn document(&self, blob: &Descriptor) -> Result<Bytes, PushError> {
        match &self.place {
            Place::Stored(root) => Ok(Bringer::new(self.blobs, root, &()).document(blob).await?),
            Place::Source { source, .. } => {
                let (reading, wanted) = (Arc::clone(source), blob.clone());
                let read = blocking(move || source::read_document(&*reading, &wanted)).await;
                if let Err(SourceError::Missing { .. }) = read
                    && let Some(found) = self.find(blob).await?
                {
                    return Ok(self.blobs.read(&found.cid, MAX_DOCUMENT_BYTES).await?);
                }
                Ok(read?)
            }
        }
    }

    /// Adds a blob to the store, unless it is there.
    pub(crate) async fn add(&self, blob: &Descriptor, progress: Progress<'_>) -> Result<Added, PushError> {
        if let Some(added) = self.source().and_then(|source| source.added(blob)) {
            progress(added.size);
            return Ok(added);
        }
        if let Some(found) = self.find(blob).await? {
            progress(found.size);
            return Ok(found);
        }
        let opened = self.open_blob(blob).await?;
        let was_checked = matches!(opened, Opened::Checked(_));
        if was_checked && let Some(found) = self.find(blob).await? {
            progress(found.size);
            return Ok(found);
        }
        // What was checked is here now, under the CID of whoever pushed it, or laid aside.
        let content = opened.into_content(blob)?;
        let failed = |source| PushError::Blob { digest: blob.digest.clone(), source: Box::new(source) };
        match blob.digest.sha256() {
            Some(digest) => {
                let expected = Expected { digest, size: blob.size };
                self.blobs.add(content, Some(expected), progress).await.map_err(failed)
            }
            None => {
                let checked = blocking({
                    let blob = blob.clone();
                    move || Checked::new(content, &blob)
                })
                .await;
                let content = Content::Reader(Box::new(checked.map_err(|source| unreadable(blob, source))?));
                self.blobs.add(content, None, progress).await.map_err(failed)
            }
        }
    }

    /// The bytes of a blob, checked, as something that can be read more than once: what is a stream is laid aside in `spool`,
    /// in a file without a name.
    pub(super) async fn body(&self, blob: &Descriptor, spool: &Path) -> Result<Body, PushError> {
        let content = match self.open_anywhere(blob).await? {
            Opened::Content(content) => content,
            Opened::Checked(body) => return Ok(body),
        };
        let (wanted, spool) = (blob.clone(), spool.to_owned());
        let laid = blocking(move || -> Result<Body, SourceError> {
            let failed = |source| SourceError::Read { what: wanted.digest.to_string(), source };
            let body = match content {
                Content::File(path) => Body::File(path),
                Content::Bytes(bytes) => Body::Bytes(bytes),
                Content::Reader(reader) => {
                    let spooling = |source| SourceError::Spool { path: spool.clone(), source };
                    let mut file = source::nameless(&spool).map_err(spooling)?;
                    io::copy(&mut reader.take(wanted.size + 1), &mut file).map_err(failed)?;
                    Body::Spooled(Arc::new(file))
                }
            };
            let mut counted = body.open().map_err(failed)?.take(wanted.size + 1);
            let matches = wanted.digest.matches_reader(&mut counted).map_err(failed)?;
            let got_size = wanted.size + 1 - counted.limit();
            if !matches || got_size != wanted.size {
                return Err(SourceError::Mismatch { expected: wanted.digest.clone(), size: wanted.size, got_size });
            }
            Ok(body)
        });
        Ok(laid.await?)
    }

    /// The bytes of a blob, unchecked, to be added under another digest.
    pub(super) async fn content(&self, blob: &Descriptor) -> Result<Content, PushError> {
        self.open_anywhere(blob).await?.into_content(blob)
    }

    /// Opens a blob that the store may have.
    async fn open_anywhere(&self, blob: &Descriptor) -> Result<Opened, PushError> {
        match self.find(blob).await? {
            Some(found) => Ok(Opened::Checked(self.stored(blob, &found).await?)),
            None => self.open_blob(blob).await,
        }
    }

    /// The bytes of a blob that the store has.
    async fn stored(&self, blob: &Descriptor, found: &Added) -> Result<Body, PushError> {
        let want = Want::Exactly(Expected { digest: found.digest, size: found.size });
        let failed = |source| PushError::Blob { digest: blob.digest.clone(), source: Box::new(source) };
        Ok(self.blobs.fetch(&found.cid, want, &|_| {}).await.map_err(failed)?.body)
    }

    /// Adds a blob, and gives its bytes. Boxed, since this is on the way to the blobs that are made of it.
    fn added_body<'o>(&'o self, blob: &'o Descriptor) -> BoxFuture<'o, Result<Body, PushError>> {
        Box::pin(async move { self.stored(blob, &self.add(blob, &|_| {}).await?).await })
    }

    /// Opens a blob where the image is, or where the image says it is, or out of what it is made of.
    async fn open_blob(&self, blob: &Descriptor) -> Result<Opened, PushError> {
        if let Some(changed) = &self.changed {
            if let Some(bytes) = changed.document(&blob.digest) {
                return Ok(Opened::Content(Content::Bytes(bytes)));
            }
            if let Some(sealed) = changed.sealed(&blob.digest) {
                let body = self.added_body(sealed).await?;
                return Ok(Opened::Checked(changed.opened(&blob.digest, body).await?));
            }
        }
        let source = match &self.place {
            Place::Source { source, .. } => source,
            Place::Stored(root) => {
                // Here under another CID, or not here any more: either way it comes with its own check.
                let file = Bringer::new(self.blobs, root, &()).blob(blob).await?;
                return Ok(Opened::Checked(file.body));
            }
        };
        let (opening, wanted) = (Arc::clone(source), blob.clone());
        match (blocking(move || opening.open(&wanted)).await, blob.inlined()) {
            (Err(SourceError::Missing { .. }), Some(inlined)) => {
                Ok(Opened::Content(Content::Bytes(Bytes::copy_from_slice(inlined))))
            }
            (Err(SourceError::Missing { .. } | SourceError::Registry(_)), None) if blob.ipfs_cid().is_some() => {
                let root = Root::of_urls(blob.clone());
                let file = Bringer::new(self.blobs, &root, &()).blob(blob).await?;
                Ok(Opened::Checked(file.body))
            }
            (opened, _) => Ok(Opened::Content(opened?)),
        }
    }

    async fn find(&self, blob: &Descriptor) -> Result<Option<Added>, PushError> {
        match blob.digest.sha256() {
            Some(digest) => Ok(self.blobs.find(&digest, Some(blob.size)).await?),
            None => Ok(None),
        }
    }
}

fn unreadable(blob: &Descriptor, source: io::Error) -> PushError {
    PushError::Blob { digest: blob.digest.clone(), source: Box::new(BlobsError::Content(source)) }
}

/// A reader that fails at its end, or past it, when the bytes are not those of a descriptor with SHA-512.
struct Checked {
    inner: Box<dyn Read + Send>,
    hasher: Sha512,
    digest: Digest,
    left: u64,
}

impl Checked {
    fn new(content: Content, blob: &Descriptor) -> io::Result<Self> {
        Ok(Self { inner: content.into_reader()?, hasher: Sha512::new(), digest: blob.digest.clone(), left: blob.size })
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the bytes are not those of the descriptor");
        let length = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(wrong)?;
        self.hasher.update(&buffer[..length]);
        if length == 0 && !buffer.is_empty() {
            let got = Digest::Sha512(Box::new(self.hasher.clone().finalize().into()));
            if self.left > 0 || got != self.digest {
                return Err(wrong());
            }
        }
        Ok(length)
    }
}
