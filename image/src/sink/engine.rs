//! Docker, and podman: whatever takes the archive that `docker load` takes.
//!
//! Imports its parent and [`engine`](crate::engine). The archive is written while it is sent, so nothing of it lies
//! anywhere. An image that is there already is not sent, only named; layers that Docker has, in the same order from the
//! lowest up, are left out of the archive, which it takes all the same.

use std::{collections::BTreeSet, sync::OnceLock};

use super::{Image, Sink, SinkError, archive::ArchiveSink};
use crate::{
    blobs::Body,
    engine::{Engine, EngineError},
    location::Format,
    oci::{Descriptor, Digest, ImageConfig},
    reference::Name,
};

/// An image that is being handed to an engine.
pub(super) struct EngineSink {
    // First: it is given up before its archive ends, so that half an archive never looks whole.
    verdict: Option<Box<dyn FnOnce() -> Result<(), EngineError> + Send>>,
    archive: Option<Box<ArchiveSink>>,
    engine: Engine,
    name: Name,
    /// The ID of the image, if the engine has it already.
    present: OnceLock<Option<Digest>>,
    /// Layers that the engine has already.
    held: OnceLock<BTreeSet<Digest>>,
}

impl EngineSink {
    pub(super) fn new(engine: Engine, name: Name) -> Self {
        let (present, held) = (OnceLock::new(), OnceLock::new());
        Self { verdict: None, archive: None, engine, name: name.without_digest(), present, held }
    }

    fn begin(&mut self) -> Result<&mut ArchiveSink, SinkError> {
        if self.archive.is_none() {
            let loading = self.engine.load().map_err(Box::new)?;
            self.verdict = Some(loading.verdict);
            let name = Some(self.name.to_string());
            self.archive = Some(Box::new(ArchiveSink::stream(loading.archive, Format::DockerArchive, name)));
        }
        self.archive.as_deref_mut().ok_or(SinkError::NoStream)
    }

    /// What the engine itself says is wrong, rather than that it stopped reading.
    fn reason(&mut self, error: SinkError) -> SinkError {
        let SinkError::Write { .. } = &error else { return error };
        drop(self.archive.take());
        match self.verdict.take().map(|verdict| verdict()) {
            Some(Err(verdict)) => Box::new(verdict).into(),
            _ => error,
        }
    }
}

impl Sink for EngineSink {
    fn wants_config(&self) -> bool {
        self.engine.reuses_layers()
    }

    fn accepts(&self, image: &Image<'_>) -> Result<(), SinkError> {
        // An engine's ID of an image is the digest of its configuration.
        let (config, layers) = image.only_manifest()?;
        let is_there = self.engine.has(&config.digest.to_string()).map_err(Box::new)?;
        self.present.get_or_init(|| is_there.then(|| config.digest.clone()));
        // A configuration that cannot be read is the engine's to refuse.
        let parsed = image.config.filter(|_| !is_there).and_then(|config| ImageConfig::parse(config).ok());
        if let Some(diff_ids) = parsed.and_then(|config| config.diff_ids().ok())
            && diff_ids.len() == layers.len()
        {
            let count = self.engine.count_held(&diff_ids).map_err(Box::new)?;
            let (held, sent) = layers.split_at(count);
            // One that comes again on top of what is not there is read again, too.
            let is_sent = |layer: &Descriptor| sent.iter().any(|other| other.digest == layer.digest);
            let held = held.iter().filter(|layer| !is_sent(layer)).map(|layer| layer.digest.clone()).collect();
            self.held.get_or_init(|| held);
        }
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> bool {
        matches!(self.present.get(), Some(Some(_)))
            || self.held.get().is_some_and(|held| held.contains(&blob.digest))
            || self.archive.as_ref().is_some_and(|archive| archive.has(blob))
    }

    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError> {
        let written = self.begin()?.write(blob, body);
        written.map_err(|error| self.reason(error))
    }

    fn finish(mut self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
        if let Some(Some(id)) = self.present.get() {
            self.engine.tag(id, &self.name).map_err(Box::new)?;
            return Ok(image.top());
        }
        self.begin()?;
        let finished = self.archive.take().map_or(Err(SinkError::NoStream), |archive| archive.finish(image));
        finished.map_err(|error| self.reason(error))?;
        self.verdict.take().map_or(Ok(()), |verdict| verdict()).map_err(Box::new)?;
        Ok(image.top())
    }
}
