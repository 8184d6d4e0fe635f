//! Writes an image of the store to a place outside it.
//!
//! Imports [`blobs`](crate::blobs), [`bring`](crate::bring), [`plan`](crate::plan), [`root`](crate::root) and
//! [`sink`](crate::sink). Blobs are written one after another in a fixed order, so that one image makes one archive;
//! what is missing here is fetched on the way. Nothing is shown before all of it is written.

use cid::Cid;

use crate::{
    blobs::Blobs,
    bring::{BringError, Bringer, blocking},
    event::{Event, EventSink, Outcome},
    inspect,
    oci::{Descriptor, Digest, Platforms, media},
    plan::{Plan, PlanError},
    reference::Name,
    root::{Root, RootError},
    sink::{Image, Sink, SinkError},
};

/// Writes the image with the root `cid` to `sink`, called `name` there unless the sink knows better.
///
/// Dropping the future leaves nothing behind.
///
/// # Errors
/// [`SaveError`]; nothing is shown then.
pub async fn save(
    blobs: &dyn Blobs,
    cid: &Cid,
    platforms: &Platforms,
    name: Option<&Name>,
    sink: Box<dyn Sink>,
    events: &dyn EventSink,
) -> Result<(), SaveError> {
    let root = Root::open(blobs, cid).await?;
    let bringer = Bringer::new(blobs, &root, &());
    let selector = platforms.for_pull();
    let plan = inspect::plan(&bringer, &root, &selector).await?;
    if plan.selects_nothing() {
        return Err(SaveError::NoPlatform { wanted: selector.to_string(), have: plan.platforms().1.join(", ") });
    }
    write(&bringer, plan, name, sink, events).await
}

/// Writes a planned image, whose blobs `bringer` brings.
pub(crate) async fn write(
    bringer: &Bringer<'_>,
    plan: Plan,
    name: Option<&Name>,
    sink: Box<dyn Sink>,
    events: &dyn EventSink,
) -> Result<(), SaveError> {
    let (mut sink, plan, name) = accepted(sink, plan, name.cloned()).await?;
    let documents = plan.documents().into_iter().map(|part| &part.descriptor);
    let wanted: Vec<Descriptor> = documents.chain(plan.blobs()).cloned().collect();
    for blob in wanted {
        let digest = blob.digest.to_string();
        events.emit(Event::Started { digest: digest.clone(), kind: media::kind(&blob.media_type), size: blob.size });
        let body = bringer.blob(&blob).await?.body;
        let (back, outcome) = blocking(move || {
            let outcome = if sink.has(&blob) {
                Ok(Outcome::Present)
            } else {
                sink.write(&blob, &body).map(|()| Outcome::Written)
            };
            (sink, outcome)
        })
        .await;
        sink = back;
        events.emit(Event::Finished { digest, outcome: outcome? });
    }
    let wanted = plan.top().descriptor.digest.clone();
    let top = blocking(move || sink.finish(&Image { plan: &plan, name: name.as_ref() })).await?;
    told_if_other(&wanted, &top, events);
    Ok(())
}

/// Asks a sink whether it takes an image, where it may block, and gives everything back if it does.
pub(crate) async fn accepted(
    sink: Box<dyn Sink>,
    plan: Plan,
    name: Option<Name>,
) -> Result<(Box<dyn Sink>, Plan, Option<Name>), SinkError> {
    blocking(move || {
        sink.accepts(&Image { plan: &plan, name: name.as_ref() })?;
        Ok((sink, plan, name))
    })
    .await
}

/// Says so when a place has another top document than the image.
pub(crate) fn told_if_other(wanted: &Digest, top: &Descriptor, events: &dyn EventSink) {
    if top.digest != *wanted {
        let told = format!("the image is there as `{}`: the place does not take it as it is", top.digest);
        events.emit(Event::Warning(told));
    }
}

/// Why an image could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The root is not that of an image.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its documents break a rule, or cannot be had.
    #[error(transparent)]
    Plan(#[from] PlanError<BringError>),
    /// A blob is missing.
    #[error(transparent)]
    Bring(#[from] BringError),
    /// The place does not take it.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// It is not there for the platforms asked for.
    #[error("the image is not there for {wanted}, only for: {have}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        have: String,
    },
}
