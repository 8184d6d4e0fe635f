//! A repository of a registry.
//!
//! Imports its parent and [`registry_client`](crate::registry_client). Blobs that the repository has are not sent; documents
//! are sent last, each after what it refers to, and the tag with the top one: nobody sees half an image by its name.

use tokio::runtime::Handle;

use super::{Image, Sink, SinkError};
use crate::{
    blobs::Body,
    event::BlobKind,
    oci::{Descriptor, media},
    plan::Document,
    reference::Name,
    registry_client::{Access, RegistryClient, RegistryError},
    services::Services,
};

/// Most other repositories that a registry is asked to take a blob over from.
const MAX_SIBLINGS: usize = 3;

/// A repository that is being written to.
pub(super) struct RegistrySink {
    client: RegistryClient,
    name: Name,
    runtime: Handle,
}

impl RegistrySink {
    /// Reaches the registry.
    pub(super) fn open(
        name: Name,
        services: &Services,
        known: &[Name],
        runtime: &Handle,
    ) -> Result<Self, SinkError> {
        let connecting = RegistryClient::connect(&name, &services.registries, &services.programs, Access::Push);
        let client = runtime.block_on(connecting).map_err(Box::new)?;
        let mut siblings: Vec<String> = Vec::new();
        for known in known.iter().filter(|known| known.domain == name.domain && known.path != name.path) {
            if siblings.len() < MAX_SIBLINGS && !siblings.contains(&known.path) {
                siblings.push(known.path.clone());
            }
        }
        Ok(Self { client: client.with_siblings(siblings), name, runtime: runtime.clone() })
    }
}

fn is_document(blob: &Descriptor) -> bool {
    matches!(media::kind(&blob.media_type), BlobKind::Index | BlobKind::Manifest)
}

impl Sink for RegistrySink {
    fn accepts(&self, _: &Image<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> bool {
        // What it does not say it is sent, and then says what is wrong.
        !is_document(blob) && self.runtime.block_on(self.client.has(blob)).unwrap_or(false)
    }

    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError> {
        if is_document(blob) {
            return Ok(());
        }
        self.runtime.block_on(self.client.send_blob(blob, body)).map_err(|error| Box::new(error).into())
    }

    fn finish(self: Box<Self>, image: &Image<'_>) -> Result<(), SinkError> {
        let documents = image.plan.documents();
        self.runtime.block_on(async {
            for (at, part) in documents.iter().enumerate().rev() {
                let Some(Document { bytes, .. }) = &part.document else { continue };
                let tag = self.name.tag.as_ref().filter(|_| at == 0);
                let reference = tag.cloned().unwrap_or_else(|| part.descriptor.digest.to_string());
                self.client.send_document(&reference, &part.descriptor.media_type, bytes.clone()).await?;
            }
            Ok(())
        })
        .map_err(|error: RegistryError| Box::new(error).into())
    }
}
