//! Makes an image lie here whole: found by its root, checked blob by blob, named at the end.
//!
//! Imports [`blobs`](crate::blobs), [`bring`](crate::bring), [`plan`](crate::plan), [`root`](crate::root),
//! [`names`], [`sink`](crate::sink) and [`save`]. What a pull fetched before it was stopped is
//! kept aside, and not fetched again; a name appears only when everything it stands for is here and durable.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use shipfs_node::Cid;

use crate::{
    blobs::{Blobs, BlobsError},
    bring::{BringError, Bringer},
    crypt::{Changed, CryptError, KeyFile, Selection, any_encrypted, warn_of_open},
    event::{BlobKind, Event, EventSink, Outcome},
    inspect,
    names::{self, Image, NamesError, Note, Shape},
    oci::{MAX_DOCUMENT_BYTES, Platforms},
    plan::{Plan, PlanError},
    reference::Name,
    root::{Root, RootError},
    save::{self, SaveError},
    sink::Sink,
};

/// Blobs that are fetched at a time. Within each, many blocks are; more files at once only spread the same bandwidth.
const CONCURRENT_BLOBS: usize = 4;

/// Most files of a layout that are brought along though its image does not refer to them: as many as a push copies.
const MAX_EXTRAS: usize = 2048;
/// Most bytes that those may have together: room for the signatures and bills of materials of every platform.
const MAX_EXTRAS_BYTES: u64 = 1 << 30;

/// What is pulled, and what it is called afterwards.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Which platforms.
    pub platforms: Platforms,
    /// A name beside its CID.
    pub name: Option<Name>,
    /// The record that is written, when it is another than that of its CID: the image was named, and is brought up to
    /// date, not listed once more.
    pub record: Option<String>,
    /// What opens its layers for the sink; the store keeps them as they are.
    pub keys: Vec<KeyFile>,
}

/// Pulls the image with the root `cid`, and writes it to `sink` if there is one.
///
/// Dropping the future stops it; what was fetched is used by the next try.
///
/// # Errors
/// [`PullError`]; no name is recorded then.
pub async fn pull(
    blobs: &dyn Blobs,
    cid: &Cid,
    options: &PullOptions,
    sink: Option<Box<dyn Sink>>,
    events: &dyn EventSink,
) -> Result<Image, PullError> {
    events.emit(Event::Started { digest: cid.to_string(), kind: BlobKind::Root, size: 0 });
    let root = Root::open(blobs, cid).await?;
    events.emit(Event::Finished { digest: cid.to_string(), outcome: Outcome::Fetched });
    let bringer = Bringer::new(blobs, &root, events);
    let selector = options.platforms.for_pull();
    let plan = inspect::plan(&bringer, &root, &selector).await?;
    if plan.selects_nothing() {
        return Err(PullError::NoPlatform { wanted: selector.to_string(), have: plan.platforms().1.join(", ") });
    }
    let changed = decrypted(&plan, &options.keys, events).await?;
    // A list, not a lazy map: with the latter, the compiler cannot tell that this future is one for any thread.
    let bringing: Vec<_> = plan.blobs().into_iter().map(|blob| bringer.blob(blob)).collect();
    stream::iter(bringing).buffer_unordered(CONCURRENT_BLOBS).try_for_each(|_| async { Ok(()) }).await?;
    let mut incomplete = root.shape() == Shape::Layout && plan.is_partial();
    if !incomplete {
        incomplete = !bring_extras(blobs, &root, &plan, &bringer, events).await?;
    }
    let mut image = record(&root, &plan, bringer.members(), incomplete);
    if let Some(record) = &options.record {
        image.name.clone_from(record);
    }
    names::save(blobs.records(), &image).await?;
    if let Some(name) = &options.name {
        let named = Image { name: name.without_digest().to_string(), ..image.clone() };
        names::save(blobs.records(), &named).await?;
    }
    if let Some(sink) = sink {
        let quiet = Bringer::new(blobs, &root, &());
        let plan = changed.as_ref().map_or(plan, |changed| changed.plan.clone());
        save::write(&quiet, plan, changed.as_ref(), options.name.as_ref(), sink, events).await?;
    }
    Ok(image)
}

/// Writes the image with the root `cid` to `sink`, and nothing of it anywhere else: a daemon holds it, so that this host
/// need not. Nothing is named.
///
/// Dropping the future leaves nothing behind.
///
/// # Errors
/// [`PullError`]; nothing is shown then.
pub async fn through(
    blobs: &dyn Blobs,
    cid: &Cid,
    options: &PullOptions,
    sink: Box<dyn Sink>,
    events: &dyn EventSink,
) -> Result<Image, PullError> {
    events.emit(Event::Started { digest: cid.to_string(), kind: BlobKind::Root, size: 0 });
    let root = Root::open(blobs, cid).await?;
    events.emit(Event::Finished { digest: cid.to_string(), outcome: Outcome::Fetched });
    // What is written is told by whoever writes it; only how far it came is not.
    let progress = OnlyProgress(events);
    let bringer = Bringer::new(blobs, &root, &progress);
    let selector = options.platforms.for_pull();
    let plan = inspect::plan(&bringer, &root, &selector).await?;
    if plan.selects_nothing() {
        return Err(PullError::NoPlatform { wanted: selector.to_string(), have: plan.platforms().1.join(", ") });
    }
    let image = record(&root, &plan, Vec::new(), plan.is_partial());
    let changed = decrypted(&plan, &options.keys, events).await?;
    let plan = changed.as_ref().map_or(plan, |changed| changed.plan.clone());
    save::write(&bringer, plan, changed.as_ref(), options.name.as_ref(), sink, events).await?;
    Ok(image)
}

/// The image with its layers open, if there are keys, and layers that need them.
async fn decrypted(plan: &Plan, keys: &[KeyFile], events: &dyn EventSink) -> Result<Option<Changed>, PullError> {
    if keys.is_empty() || !any_encrypted(plan) {
        return Ok(None);
    }
    warn_of_open(keys, events);
    Ok(Some(Changed::decrypted(plan, keys, &Selection::default()).await?))
}

/// Passes on how far blobs came, and nothing else.
struct OnlyProgress<'e>(&'e dyn EventSink);

impl EventSink for OnlyProgress<'_> {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Progress { .. }) {
            self.0.emit(event);
        }
    }
}

/// A layout that is taken whole brings its other files along: signatures, attestations, whatever refers to the image.
/// Says whether it did. Nothing but a directory says how large those are, so they have bounds of their own.
async fn bring_extras(
    blobs: &dyn Blobs,
    root: &Root,
    plan: &Plan,
    bringer: &Bringer<'_>,
    events: &dyn EventSink,
) -> Result<bool, PullError> {
    let known: BTreeSet<_> = plan.parts.iter().map(|part| part.descriptor.digest.clone()).collect();
    let (marker, extras) = root.extras(&known);
    if let Some(marker) = marker {
        blobs.read(&marker, MAX_DOCUMENT_BYTES).await?;
    }
    let total = extras.iter().fold(0_u64, |total, (_, _, size)| total.saturating_add(*size));
    if extras.len() > MAX_EXTRAS || total > MAX_EXTRAS_BYTES {
        let count = extras.len();
        events.emit(Event::Warning(format!("{count} files of the layout that the image does not need are left out")));
        return Ok(false);
    }
    for (digest, cid, limit) in extras {
        bringer.extra(&digest, &cid, limit).await?;
    }
    Ok(true)
}

/// What is written down about the image.
fn record(root: &Root, plan: &Plan, mut members: Vec<Cid>, incomplete: bool) -> Image {
    if root.shape() == Shape::Layout && !incomplete {
        // The root holds them all.
        members.clear();
    }
    let top = &root.top;
    let note = Note::new(root.shape(), &top.media_type, top.digest.clone(), plan.size(), plan.platforms().0);
    Image { name: root.cid.to_string(), root: root.cid, members, incomplete, note: Some(note) }
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The root is not that of an image, or could not be had.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its documents break a rule, or could not be had.
    #[error(transparent)]
    Plan(#[from] PlanError<BringError>),
    /// A blob could not be had, or is not what its descriptor says.
    #[error(transparent)]
    Bring(#[from] BringError),
    /// Its layers cannot be opened.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// The store failed.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
    /// Its name could not be recorded.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// It is here and named, but could not be written to the place asked for.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// It is not there for the platforms asked for.
    #[error("the image is not there for {wanted}, only for: {have}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
}

#[cfg(test)]
mod tests;
