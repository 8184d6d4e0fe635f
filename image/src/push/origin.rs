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
use sha2::{Digest as _, Sha512};

use super::{PushError, PushFrom};
use crate::{
    blobs::{Added, Blobs, BlobsError, Body, Content, Expected, Progress, Want},
    bring::{Bringer, blocking},
    oci::{Descriptor, Digest, MAX_DOCUMENT_BYTES},
    reference::Name,
    root::Root,
    source::{self, Listed, Source, SourceError},
};

/// An image to be pushed.
pub(crate) struct Origin<'b> {
    blobs: &'b dyn Blobs,
    place: Place,
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
        Ok(Self { blobs, place })
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
        let content = match self.open_blob(blob).await? {
            Opened::Content(content) => content,
            Opened::Checked(body) => {
                if let Some(found) = self.find(blob).await? {
                    progress(found.size);
                    return Ok(found);
                }
                // Here now, under the CID of whoever pushed it, or laid aside.
                body.into_content().map_err(|source| unreadable(blob, source))?
            }
        };
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
        if let Some(found) = self.find(blob).await? {
            let want = Want::Exactly(Expected { digest: found.digest, size: found.size });
            let failed = |source| PushError::Blob { digest: blob.digest.clone(), source: Box::new(source) };
            return Ok(self.blobs.fetch(&found.cid, want, &|_| {}).await.map_err(failed)?.body);
        }
        let content = match self.open_blob(blob).await? {
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

    /// Opens a blob where the image is, or where the image says it is.
    async fn open_blob(&self, blob: &Descriptor) -> Result<Opened, PushError> {
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
        let inner: Box<dyn Read + Send> = match content {
            Content::Reader(reader) => reader,
            Content::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::File(path) => Box::new(std::fs::File::open(path)?),
        };
        Ok(Self { inner, hasher: Sha512::new(), digest: blob.digest.clone(), left: blob.size })
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
