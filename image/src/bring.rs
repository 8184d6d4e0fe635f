//! Makes one blob of an image lie here, checked against its descriptor.
//!
//! Imports [`blobs`](crate::blobs), [`crypt`](crate::crypt), [`oci`](crate::oci), [`root`](crate::root) and [`event`](crate::event). Whatever comes
//! out was hashed to the digest it is known by; inlined data is used only when it is what the descriptor names.

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use shipfs_node::Cid;

use crate::{
    blobs::{BlobFile, Blobs, BlobsError, Body, Content, Expected, Want},
    crypt::{Changed, CryptError},
    event::{BlobKind, Event, EventSink, Outcome},
    oci::{Descriptor, Digest, MAX_DOCUMENT_BYTES, media},
    root::{Root, RootError},
};

/// Brings the blobs of one image here, and remembers what it brought.
pub(crate) struct Bringer<'b> {
    blobs: &'b dyn Blobs,
    root: &'b Root,
    events: &'b dyn EventSink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: BTreeSet<Digest>,
    members: BTreeSet<Cid>,
}

impl<'b> Bringer<'b> {
    pub(crate) fn new(blobs: &'b dyn Blobs, root: &'b Root, events: &'b dyn EventSink) -> Self {
        Self { blobs, root, events, state: Mutex::default() }
    }

    /// The CIDs of everything that was brought.
    pub(crate) fn members(&self) -> Vec<Cid> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).members.iter().copied().collect()
    }

    /// Brings a document and reads it.
    pub(crate) async fn document(&self, blob: &Descriptor) -> Result<Bytes, BringError> {
        let body = self.blob(blob).await?.body;
        let read = blocking(move || body.read(MAX_DOCUMENT_BYTES)).await;
        read.map_err(|source| BringError::Read { digest: blob.digest.clone(), source })
    }

    /// Brings a blob.
    pub(crate) async fn blob(&self, blob: &Descriptor) -> Result<BlobFile, BringError> {
        let digest = &blob.digest;
        // One blob may be referred to from many places, but is told of once.
        let is_first = self.state.lock().unwrap_or_else(PoisonError::into_inner).started.insert(digest.clone());
        let emit = |event| {
            if is_first {
                self.events.emit(event);
            }
        };
        let name = digest.to_string();
        emit(Event::Started { digest: name.clone(), kind: media::kind(&blob.media_type), size: blob.size });
        let progress = |bytes| emit(Event::Progress { digest: name.clone(), bytes });
        let file = self.checked(blob, &progress).await?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).members.insert(file.cid);
        let outcome = if file.existed { Outcome::Present } else { Outcome::Fetched };
        emit(Event::Finished { digest: digest.to_string(), outcome });
        Ok(file)
    }

    /// Brings a blob of the image, or of what `changed` makes of it. A layer that is opened was authenticated.
    pub(crate) async fn body(&self, blob: &Descriptor, changed: Option<&Changed>) -> Result<Body, BringError> {
        if let Some(bytes) = changed.and_then(|changed| changed.document(&blob.digest)) {
            return Ok(Body::Bytes(bytes));
        }
        match changed.and_then(|changed| Some((changed, changed.sealed(&blob.digest)?))) {
            Some((changed, sealed)) => Ok(changed.opened(&blob.digest, self.blob(sealed).await?.body).await?),
            None => Ok(self.blob(blob).await?.body),
        }
    }

    /// Brings a file of a layout of which nothing is known but its digest, and a bound of its size.
    pub(crate) async fn extra(&self, digest: &Digest, cid: &Cid, limit: u64) -> Result<(), BringError> {
        let name = digest.to_string();
        self.events.emit(Event::Started { digest: name.clone(), kind: BlobKind::Other, size: 0 });
        let progress = |bytes| self.events.emit(Event::Progress { digest: name.clone(), bytes });
        let fetched = self.blobs.fetch(cid, Want::AtMost(limit), &progress).await;
        let file = fetched.map_err(|source| BringError::Blob { digest: digest.clone(), source: Box::new(source) })?;
        self.check(digest, &file).await?;
        let outcome = if file.existed { Outcome::Present } else { Outcome::Fetched };
        self.events.emit(Event::Finished { digest: name.clone(), outcome });
        Ok(())
    }

    async fn checked(&self, blob: &Descriptor, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<BlobFile, BringError> {
        let failed = |source| BringError::Blob { digest: blob.digest.clone(), source: Box::new(source) };
        if let Some(inlined) = blob.inlined() {
            let bytes = Bytes::copy_from_slice(inlined);
            let added = self.blobs.add(Content::Bytes(bytes.clone()), None, progress).await.map_err(failed)?;
            let (cid, digest, size) = (added.cid, added.digest, added.size);
            return Ok(BlobFile { cid, digest, size, existed: added.existed, body: Body::Bytes(bytes) });
        }
        let cid = self.root.cid_of(blob)?;
        let want = match blob.digest.sha256() {
            Some(digest) => Want::Exactly(Expected { digest, size: blob.size }),
            None => Want::AtMost(blob.size),
        };
        let file = self.blobs.fetch(&cid, want, progress).await.map_err(failed)?;
        if file.size != blob.size {
            return Err(BringError::Size { digest: blob.digest.clone(), expected: blob.size, got: file.size });
        }
        if blob.digest.sha256() != Some(file.digest) {
            self.check(&blob.digest, &file).await?;
        }
        Ok(file)
    }

    /// Checks a digest that the store did not check.
    async fn check(&self, digest: &Digest, file: &BlobFile) -> Result<(), BringError> {
        let wrong = || BringError::Digest { digest: digest.clone(), cid: file.cid };
        if let Some(sha256) = digest.sha256() {
            return if sha256 == file.digest { Ok(()) } else { Err(wrong()) };
        }
        let (expected, body) = (digest.clone(), file.body.clone());
        let matches = blocking(move || expected.matches_reader(&mut body.open()?)).await;
        match matches.map_err(|source| BringError::Read { digest: digest.clone(), source })? {
            true => Ok(()),
            false => Err(wrong()),
        }
    }
}

/// Runs blocking work off the async threads. A panic there goes on here; work that a runtime drops as it ends is never
/// done, and nor is whoever waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BringError {
    /// The image does not say where it is.
    #[error(transparent)]
    Root(#[from] RootError),
    /// It could not be fetched, or is something else than its descriptor says.
    #[error("blob `{digest}` cannot be had")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<BlobsError>,
    },
    /// Its layers cannot be opened.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// It has another size than its descriptor says.
    #[error("blob `{digest}` has {got} bytes, its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What its descriptor says.
        expected: u64,
        /// What it has.
        got: u64,
    },
    /// It hashes to something else.
    #[error("what `{cid}` names does not hash to `{digest}`")]
    Digest {
        /// What it should hash to.
        digest: Digest,
        /// The file.
        cid: Cid,
    },
    /// It is here, but cannot be read.
    #[error("cannot read blob `{digest}`")]
    Read {
        /// The blob.
        digest: Digest,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
