//! What containerd has of an image, and having it unpack that.
//!
//! Imports [`source`](crate::source), which reads and checks documents, and the client of containerd.

use std::{path::PathBuf, sync::Arc};

use crate::{
    bring::blocking,
    containerd::Containerd,
    location::{Format, Location},
    oci::{Digest, Platforms},
    plan::{Plan, PlanError},
    run::{
        RunError,
        runnable::{Layer, Parts, Runnable, RunnableError},
    },
    services::Services,
    source::{self, Aside, Source, SourceError},
};

/// One platform's image, as containerd has it.
pub(super) struct Kept {
    pub(super) runnable: Runnable,
    config: Digest,
}

/// Reads what containerd has of the image that it calls `name`.
pub(super) async fn read(services: &Services, name: &str, wanted: &Platforms) -> Result<Kept, RunError> {
    let (place, services) = (Location::of_service(Format::Containerd, name), services.clone());
    // An image of containerd is no archive whose files would be kept somewhere.
    let opening = blocking(move || source::open_with(&place, None, &Aside::Folder(PathBuf::new()), &services));
    let source: Arc<dyn Source> = Arc::from(opening.await.map_err(Box::new)?);
    let top = source::select(&*source, None).map_err(Box::new)?.descriptor.clone();
    let read = |blob| {
        let source = Arc::clone(&source);
        blocking(move || source::read_document(&*source, &blob))
    };
    let plan = Plan::make(top, &wanted.for_pull(), read).await.map_err(|error| match error {
        PlanError::Read(error) => RunError::from(Box::new(error)),
        other => RunError::Documents(Box::new(other)),
    })?;
    let parts = Parts::of(&plan)?;
    let bytes = read(parts.config.clone()).await.map_err(Box::new)?;
    Ok(Kept { runnable: Runnable::new(&bytes, &parts, wanted)?, config: parts.config.digest.clone() })
}

/// Whether an error says that something of the image is not with containerd.
pub(super) fn is_missing(error: &RunError) -> bool {
    match error {
        RunError::Source(error) => matches!(**error, SourceError::NotThere { .. } | SourceError::Missing { .. }),
        RunError::Runnable(error) => matches!(error, RunnableError::NotThere),
        _ => false,
    }
}

impl Kept {
    /// What containerd calls the snapshot of all layers; nothing where there are none.
    pub(super) fn top(&self) -> String {
        self.runnable.layers.last().map(snapshot).unwrap_or_default()
    }

    /// Whether containerd has all that is needed to run it, unpacked or not.
    pub(super) async fn is_whole(&self, client: &Containerd, snapshotter: &str) -> Result<bool, RunError> {
        let top = self.top();
        if top.is_empty() || client.has_snapshot(snapshotter, &top).await.map_err(Box::new)? {
            return Ok(true);
        }
        for Layer { blob, .. } in &self.runnable.layers {
            if client.size(&blob.digest).await.map_err(Box::new)? != Some(blob.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has containerd unpack what it has not unpacked. The client needs a lease.
    pub(super) async fn unpack(&self, client: &Containerd, snapshotter: &str) -> Result<(), RunError> {
        let top = self.top();
        if top.is_empty() || client.has_snapshot(snapshotter, &top).await.map_err(Box::new)? {
            return Ok(());
        }
        let mut below = String::new();
        for layer in &self.runnable.layers {
            let chain = snapshot(layer);
            if !client.has_snapshot(snapshotter, &chain).await.map_err(Box::new)? {
                let unpacking = client.unpack(snapshotter, &layer.blob, &layer.diff, &below, &chain);
                unpacking.await.map_err(Box::new)?;
            }
            below = chain;
        }
        client.keep_snapshot(snapshotter, &self.config, &top).await.map_err(Box::new)?;
        Ok(())
    }
}

/// What containerd calls the snapshot of a layer and all that lie below it.
fn snapshot(layer: &Layer) -> String {
    format!("sha256:{}", layer.chain)
}
