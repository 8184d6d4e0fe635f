//! An image of a registry.
//!
//! Imports its parent and [`registry_client`](crate::registry_client). Only the top document is read when it is opened, and
//! kept; everything else is fetched when it is asked for, so that what is here already never is.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Listed, Source, SourceError, WholeLayout};
use crate::{
    blobs::Content,
    event::BlobKind,
    oci::{Descriptor, Digest, media},
    reference::Name,
    registry_client::{Access, Download, RegistryClient, RegistryError},
    services::Services,
};

/// An image of a registry.
pub(super) struct RegistrySource {
    client: Arc<RegistryClient>,
    runtime: Handle,
    images: Vec<Listed>,
    top: (Digest, Bytes),
}

impl RegistrySource {
    /// Finds the image that `name` names.
    pub(super) fn open(name: &Name, services: &Services, runtime: &Handle) -> Result<Self, SourceError> {
        let (client, top) = runtime
            .block_on(async {
                let client =
                    RegistryClient::connect(name, &services.registries, &services.programs, Access::Pull).await?;
                let top = client.top(name).await?;
                Ok((client, top))
            })
            .map_err(Box::<RegistryError>::new)?;
        let called = name.tag.is_some().then(|| name.without_digest());
        let digest = top.descriptor.digest.clone();
        let images = vec![Listed { descriptor: top.descriptor, called }];
        Ok(Self { client: Arc::new(client), runtime: runtime.clone(), images, top: (digest, top.bytes) })
    }
}

impl Source for RegistrySource {
    fn images(&self) -> &[Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        if blob.digest == self.top.0 {
            return Ok(Content::Bytes(self.top.1.clone()));
        }
        fetch(&self.client, &self.runtime, blob)
    }

    fn layout(&self) -> Option<&WholeLayout> {
        None
    }
}

/// Begins to fetch a blob or a document of a repository.
pub(super) fn fetch(client: &Arc<RegistryClient>, runtime: &Handle, blob: &Descriptor) -> Result<Content, SourceError> {
    let missing = |error| match error {
        RegistryError::NotFound { .. } => SourceError::Missing { what: blob.digest.to_string() },
        error => SourceError::Registry(Box::new(error)),
    };
    if matches!(media::kind(&blob.media_type), BlobKind::Index | BlobKind::Manifest) {
        return runtime.block_on(client.document(blob)).map(Content::Bytes).map_err(missing);
    }
    let download = runtime.block_on(Download::begin(Arc::clone(client), blob)).map_err(missing)?;
    Ok(Content::Reader(Box::new(download.reader(runtime.clone()))))
}
