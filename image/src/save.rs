//! Writes an image of the store to a place outside it.
//!
//! Imports [`blobs`](crate::blobs), [`bring`](crate::bring), [`plan`](crate::plan), [`root`](crate::root) and
//! [`sink`](crate::sink). Blobs are written one after another in a fixed order, so that one image makes one archive;
//! what is missing here is fetched on the way, some blobs ahead of the one that is written. Nothing is shown before all of
//! it is written.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use shipfs_node::Cid;

use crate::{
    blobs::{Blobs, Body},
    bring::{BringError, Bringer, blocking},
    crypt::Changed,
    event::{Event, EventSink, Outcome},
    inspect,
    oci::{Descriptor, Digest, Platforms, media},
    plan::{Plan, PlanError},
    reference::Name,
    root::{Root, RootError},
    sink::{Image, Sink, SinkError},
};

/// Blobs that are brought at a time: as many as a pull does. Those that come from a daemon of somebody else's take room on
/// the disk until they are written.
const READ_AHEAD: usize = 4;

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
    write(&bringer, plan, None, name, sink, events).await
}

/// Writes a planned image, whose blobs `bringer` brings, or what was `changed` in it.
pub(crate) async fn write(
    bringer: &Bringer<'_>,
    plan: Plan,
    changed: Option<&Changed>,
    name: Option<&Name>,
    sink: Box<dyn Sink>,
    events: &dyn EventSink,
) -> Result<(), SaveError> {
    let config = match wanted_config(&*sink, &plan) {
        Some(config) => Some(bringer.document(&config).await?),
        None => None,
    };
    let (sink, plan, name) = accepted(sink, plan, name.cloned(), config).await?;
    let read = |blob: Descriptor| async move { Ok::<_, SaveError>(bringer.body(&blob, changed).await?) };
    let sink = write_blobs(sink, &plan, read, READ_AHEAD, events).await?;
    let wanted = plan.top().descriptor.digest.clone();
    let top = blocking(move || sink.finish(&Image { plan: &plan, name: name.as_ref(), config: None })).await?;
    told_if_other(&wanted, &top, events);
    Ok(())
}

/// Writes the blobs of an image in their order, except those that the sink has; `ahead` of them are read at a time.
pub(crate) async fn write_blobs<E: From<SinkError>, F: Future<Output = Result<Body, E>> + Send>(
    mut sink: Box<dyn Sink>,
    plan: &Plan,
    read: impl Fn(Descriptor) -> F,
    ahead: usize,
    events: &dyn EventSink,
) -> Result<Box<dyn Sink>, E> {
    let documents = plan.documents().into_iter().map(|part| &part.descriptor);
    let all: Vec<Descriptor> = documents.chain(plan.blobs()).cloned().collect();
    let begin = |blob: &Descriptor| {
        let kind = media::kind(&blob.media_type);
        events.emit(Event::Started { digest: blob.digest.to_string(), kind, size: blob.size });
    };
    let end = |blob: &Descriptor, outcome| events.emit(Event::Finished { digest: blob.digest.to_string(), outcome });
    // What the sink has is asked before anything is read.
    let (back, wanted, present) = blocking(move || {
        let (present, wanted): (Vec<_>, Vec<_>) = all.into_iter().partition(|blob| sink.has(blob));
        (sink, wanted, present)
    })
    .await;
    sink = back;
    for blob in &present {
        begin(blob);
        end(blob, Outcome::Present);
    }
    // A list, not a lazy map: with the latter, the compiler cannot tell that this future is one for any thread.
    let reading: Vec<_> = wanted.iter().map(|blob| begun(blob, &begin, read(blob.clone()))).collect();
    let mut reading = stream::iter(reading).buffered(ahead);
    for blob in &wanted {
        let Some(body) = reading.next().await else { break };
        let (body, writing) = (body?, blob.clone());
        let (back, written) = blocking(move || {
            let written = sink.write(&writing, &body);
            (sink, written)
        })
        .await;
        sink = back;
        written?;
        end(blob, Outcome::Written);
    }
    Ok(sink)
}

/// Says that a blob is being read, once it is.
async fn begun<T>(blob: &Descriptor, begin: &(dyn Fn(&Descriptor) + Sync), reading: impl Future<Output = T>) -> T {
    begin(blob);
    reading.await
}

/// Which configuration a sink wants to know before it is asked what it takes.
pub(crate) fn wanted_config(sink: &dyn Sink, plan: &Plan) -> Option<Descriptor> {
    let image = Image { plan, name: None, config: None };
    let (config, _) = image.only_manifest().ok().filter(|_| sink.wants_config())?;
    Some(config.clone())
}

/// Asks a sink whether it takes an image, where it may block, and gives everything back if it does.
pub(crate) async fn accepted(
    sink: Box<dyn Sink>,
    plan: Plan,
    name: Option<Name>,
    config: Option<Bytes>,
) -> Result<(Box<dyn Sink>, Plan, Option<Name>), SinkError> {
    blocking(move || {
        sink.accepts(&Image { plan: &plan, name: name.as_ref(), config: config.as_ref() })?;
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;
    use crate::plan::Part;

    /// Has one blob, and writes down what else it gets.
    struct Noting {
        has: Digest,
        written: Arc<Mutex<Vec<Digest>>>,
    }

    impl Sink for Noting {
        fn accepts(&self, _: &Image<'_>) -> Result<(), SinkError> {
            Ok(())
        }

        fn has(&self, blob: &Descriptor) -> bool {
            blob.digest == self.has
        }

        fn write(&mut self, blob: &Descriptor, _: &Body) -> Result<(), SinkError> {
            self.written.lock().expect("nobody panics").push(blob.digest.clone());
            Ok(())
        }

        fn finish(self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
            Ok(image.plan.top().descriptor.clone())
        }
    }

    #[tokio::test]
    async fn blobs_are_read_ahead_and_written_in_their_order() {
        let descriptor = |text: &str| Descriptor::new(media::LAYER, Digest::of(text.as_bytes()), text.len() as u64);
        let blobs = ["top", "has", "one", "two"].map(descriptor);
        let part = |descriptor: &Descriptor| Part { descriptor: descriptor.clone(), document: None };
        let plan = Plan { parts: blobs.iter().map(part).collect() };
        let written = Arc::default();
        let sink = Noting { has: blobs[1].digest.clone(), written: Arc::clone(&written) };
        let (read, last) = (Mutex::new(Vec::new()), Notify::new());
        let reading = |blob: Descriptor| {
            let (read, last, blobs) = (&read, &last, &blobs);
            async move {
                read.lock().expect("nobody panics").push(blob.digest.clone());
                // The first comes after the last: with one at a time, it never would.
                if blob == blobs[0] {
                    last.notified().await;
                } else if blob == blobs[3] {
                    last.notify_one();
                }
                Ok::<_, SaveError>(Body::Bytes(Bytes::new()))
            }
        };
        write_blobs(Box::new(sink), &plan, reading, READ_AHEAD, &()).await.expect("written");
        let wanted = [&blobs[0], &blobs[2], &blobs[3]].map(|blob| blob.digest.clone());
        assert_eq!(*read.lock().expect("nobody panics"), wanted, "what the sink has is not read");
        assert_eq!(*written.lock().expect("nobody panics"), wanted);
    }
}
