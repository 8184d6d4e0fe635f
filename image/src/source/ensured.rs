//! An image some of whose blobs are not where the image is: what is missing comes from the registry of its name.
//!
//! Imports its parent and [`registry_client`](crate::registry_client). The registry is reached when the first blob is missing
//! and not before. It is asked by digest, so it cannot give another image's blob for one of this.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::{Listed, Source, SourceError, WholeLayout, registry};
use crate::{
    blobs::{Added, Content},
    oci::Descriptor,
    reference::Name,
    registry_client::{Access, RegistryClient},
    services::Services,
};

/// A source, and the registry that its image is from.
pub(crate) struct Ensured {
    inner: Box<dyn Source>,
    name: Name,
    services: Services,
    runtime: Handle,
    client: Mutex<Option<Arc<RegistryClient>>>,
}

impl Ensured {
    /// `inner` holds the image called `name`.
    pub(crate) fn new(inner: Box<dyn Source>, name: Name, services: Services, runtime: Handle) -> Self {
        Self { inner, name, services, runtime, client: Mutex::default() }
    }

    fn client(&self) -> Result<Arc<RegistryClient>, SourceError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let (registries, programs) = (&self.services.registries, &self.services.programs);
        let connecting = RegistryClient::connect(&self.name, registries, programs, Access::Pull);
        let connected = Arc::new(self.runtime.block_on(connecting).map_err(Box::new)?);
        *client = Some(Arc::clone(&connected));
        Ok(connected)
    }
}

impl Source for Ensured {
    fn images(&self) -> &[Listed] {
        self.inner.images()
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        match self.inner.open(blob) {
            Err(SourceError::Missing { .. }) => registry::fetch(&self.client()?, &self.runtime, blob),
            opened => opened,
        }
    }

    fn added(&self, blob: &Descriptor) -> Option<Added> {
        self.inner.added(blob)
    }

    fn layout(&self) -> Option<&WholeLayout> {
        None
    }
}
