//! A repository of a registry.
//!
//! Imports its parent and [`registry_client`](crate::registry_client). Blobs that the repository has are not sent; documents
//! are sent last, each after what it refers to, and the tag with the top one: nobody sees half an image by its name.

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Image, Sink, SinkError, documents};
use crate::{
    blobs::Body,
    event::BlobKind,
    oci::{Descriptor, media},
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
    pub(super) fn open(name: Name, services: &Services, known: &[Name], runtime: &Handle) -> Result<Self, SinkError> {
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

impl RegistrySink {
    /// Sends documents, the last of them under the tag; says what that one is.
    async fn send(&self, documents: Vec<(Descriptor, Bytes)>) -> Result<Option<Descriptor>, RegistryError> {
        let mut left = documents.len();
        let mut top = None;
        for (descriptor, bytes) in documents {
            left -= 1;
            let tag = self.name.tag.clone().filter(|_| left == 0);
            let reference = tag.unwrap_or_else(|| descriptor.digest.to_string());
            self.client.send_document(&reference, &descriptor.media_type, bytes).await?;
            top = Some(descriptor);
        }
        Ok(top)
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

    fn finish(self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
        let sent = self.runtime.block_on(async {
            match (self.send(documents::chosen(image.plan)).await, documents::without_ipfs(image.plan)) {
                // Old registries take addresses on the web alone.
                (Err(RegistryError::Status { .. }), Some(stripped)) => self.send(stripped).await,
                (sent, _) => sent,
            }
        });
        let top = sent.map_err(Box::new)?;
        Ok(top.unwrap_or_else(|| image.top()))
    }
}
