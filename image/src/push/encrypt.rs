//! Seals the layers of an image while they are added.
//!
//! Imports its parent and [`crypt`](crate::crypt). A layer goes from its source through the cipher into the store, which
//! has nothing of it as it was, unless it had it before.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{CONCURRENT_BLOBS, Origin, PushError};
use crate::{
    blobs::Blobs,
    bring::blocking,
    crypt::{Changed, KeyFile, Recipient, Sealer, Sealing, Selection, Step, sealed},
    event::{BlobKind, Event, EventSink, Outcome},
    oci::{Descriptor, Digest},
    plan::Plan,
};

/// Seals the layers that are meant, and gives what the image is then.
pub(super) async fn encrypt(
    blobs: &dyn Blobs,
    origin: &Origin<'_>,
    plan: &Plan,
    (recipients, keys, layers): (&[Recipient], &[KeyFile], &Selection),
    events: &dyn EventSink,
) -> Result<Changed, PushError> {
    let sealer = Sealer::new(recipients, keys)?;
    let told = "the manifest and the configuration (environment, command, history) are not encrypted, layers alone are";
    events.emit(Event::Warning(told.to_owned()));
    let mut replaced = BTreeMap::new();
    let mut sealing = Vec::new();
    for (digest, step) in sealer.steps(plan, layers).await? {
        match step {
            Step::Seal(layer) => sealing.push(seal(blobs, origin, &sealer, *layer, events)),
            Step::Refer(layer) => drop(replaced.insert(digest, *layer)),
            Step::Pass(media_type) => {
                events.emit(Event::Warning(format!("`{digest}` is not encrypted: it is of the type `{media_type}`")));
            }
        }
    }
    let all: Vec<(Digest, Descriptor)> = stream::iter(sealing).buffer_unordered(CONCURRENT_BLOBS).try_collect().await?;
    replaced.extend(all);
    Ok(sealed(plan, &replaced))
}

/// Adds one layer, sealed.
async fn seal(
    blobs: &dyn Blobs,
    origin: &Origin<'_>,
    sealer: &Sealer,
    sealing: Sealing,
    events: &dyn EventSink,
) -> Result<(Digest, Descriptor), PushError> {
    let plain = sealing.plain().clone();
    let name = plain.digest.to_string();
    events.emit(Event::Started { digest: name.clone(), kind: BlobKind::Layer, size: plain.size });
    let content = origin.content(&plain).await?;
    let failed = |source| PushError::Blob { digest: plain.digest.clone(), source: Box::new(source) };
    let (sealing, content) = blocking(move || {
        let content = sealing.content(content);
        (sealing, content)
    })
    .await;
    let content = content.map_err(|source| failed(crate::blobs::BlobsError::Content(source)))?;
    let progress = |bytes| events.emit(Event::Progress { digest: name.clone(), bytes });
    let added = blobs.add(content, None, &progress).await.map_err(failed)?;
    let descriptor = sealer.finish(sealing, Digest::Sha256(added.digest)).await?;
    events.emit(Event::Finished { digest: name.clone(), outcome: Outcome::Stored });
    Ok((plain.digest, descriptor))
}
