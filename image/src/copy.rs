//! Copies an image from one place to another, through the store.
//!
//! Imports [`push`](crate::push)'s origin, [`plan`](crate::plan), [`sink`](crate::sink) and [`blobs`](crate::blobs). What the
//! sink has is not read; what the store has is not read again; everything else lies in the store when it is sent, checked,
//! and may be freed by the next collection. Digests stay as they are, and no name is recorded.

use crate::{
    blobs::{BlobFile, Blobs, BlobsError, Expected, Want},
    bring::blocking,
    event::{Event, EventSink},
    oci::{Descriptor, Digest, Platforms},
    plan::Plan,
    push::{Origin, PushError, PushFrom},
    reference::Name,
    save::{accepted, told_if_other, wanted_config, write_blobs},
    sink::{Image, Sink, SinkError},
};

/// Blobs that are read ahead while one is written.
const READ_AHEAD: usize = 2;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Digest of its top document where it is now.
    pub digest: Digest,
    /// Bytes of all its parts.
    pub size: u64,
}

/// Copies an image to `sink`, called `name` there unless its source or the sink knows better.
///
/// Dropping the future leaves nothing behind at the sink.
///
/// # Errors
/// [`CopyError`]; nothing is shown then.
pub async fn copy(
    blobs: &dyn Blobs,
    from: &PushFrom,
    platforms: &Platforms,
    name: Option<&Name>,
    sink: Box<dyn Sink>,
    events: &dyn EventSink,
) -> Result<Copied, CopyError> {
    let origin = Origin::open(blobs, from).await?;
    let selector = platforms.for_push();
    let plan = Plan::make(origin.top(), &selector, |blob| {
        let origin = &origin;
        async move { origin.document(&blob).await }
    })
    .await
    .map_err(PushError::from)?;
    if plan.selects_nothing() {
        let have = plan.platforms().1.join(", ");
        return Err(PushError::NoPlatform { wanted: selector.to_string(), have }.into());
    }
    let name = origin.name().or_else(|| name.cloned());
    let config = match wanted_config(&*sink, &plan) {
        Some(config) => Some(origin.document(&config).await?),
        None => None,
    };
    let (sink, plan, name) = accepted(sink, plan, name, config).await?;
    let origin = &origin;
    let read = |blob: Descriptor| async move { Ok::<_, CopyError>(bring(blobs, origin, &blob, events).await?.body) };
    let sink = write_blobs(sink, &plan, read, READ_AHEAD, events).await?;
    let (wanted, size, is_partial) = (plan.top().descriptor.digest.clone(), plan.size(), plan.is_partial());
    let top = blocking(move || sink.finish(&Image { plan: &plan, name: name.as_ref(), config: None })).await?;
    // Of a part it is expected.
    if !is_partial {
        told_if_other(&wanted, &top, events);
    }
    Ok(Copied { digest: top.digest, size })
}

/// Brings a blob into the store.
async fn bring(
    blobs: &dyn Blobs,
    origin: &Origin<'_>,
    blob: &Descriptor,
    events: &dyn EventSink,
) -> Result<BlobFile, CopyError> {
    let digest = blob.digest.to_string();
    let progress = |bytes| events.emit(Event::Progress { digest: digest.clone(), bytes });
    let added = origin.add(blob, &progress).await?;
    let want = Want::Exactly(Expected { digest: added.digest, size: added.size });
    Ok(blobs.fetch(&added.cid, want, &|_| {}).await?)
}

/// Why an image could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// It cannot be read.
    #[error(transparent)]
    Push(#[from] PushError),
    /// It cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] BlobsError),
}
