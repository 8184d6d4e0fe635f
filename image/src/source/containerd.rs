//! An image of containerd.
//!
//! Imports its parent and [`containerd`](crate::containerd). Where its files can be seen they are read in place, else its
//! content comes over the socket; either way a blob that is not there is told as missing.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::{Listed, Source, SourceError, WholeLayout};
use crate::{
    blobs::Content,
    containerd::{Containerd, ContainerdError, Reading, image_name},
    oci::Descriptor,
    reference::Reference,
    services::Services,
};

/// An image of containerd.
pub(super) struct ContainerdSource {
    client: Containerd,
    runtime: Handle,
    images: Vec<Listed>,
}

impl ContainerdSource {
    /// Finds the image that `reference` names.
    pub(super) fn open(reference: &Reference, services: &Services, runtime: &Handle) -> Result<Self, SourceError> {
        let name = match reference {
            // Kubernetes has them with their digests.
            Reference::Name(name) => name.to_string(),
            other => image_name(other).ok_or_else(|| SourceError::Name { name: other.to_string() })?,
        };
        let finding = async {
            let client = Containerd::connect(&services.containerd, &services.containerd_namespace).await?;
            let top = client.image(&name).await?;
            Ok((client, top))
        };
        let (client, top) = runtime.block_on(finding).map_err(Box::<ContainerdError>::new)?;
        let Some(descriptor) = top else {
            let place = format!("containerd, namespace `{}`", services.containerd_namespace.escape_debug());
            return Err(SourceError::NotThere { name, place });
        };
        let called = match reference {
            Reference::Name(name) if name.tag.is_some() => Some(name.without_digest()),
            _ => None,
        };
        Ok(Self { client, runtime: runtime.clone(), images: vec![Listed { descriptor, called }] })
    }
}

impl Source for ContainerdSource {
    fn images(&self) -> &[Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        // A file that is there need not be in this namespace, and may be about to be collected.
        if self.runtime.block_on(self.client.size(&blob.digest)).map_err(Box::new)?.is_none() {
            return Err(SourceError::Missing { what: blob.digest.to_string() });
        }
        if let Some(path) = self.client.file(blob) {
            return Ok(Content::File(path));
        }
        let reading = self.runtime.block_on(self.client.read(&blob.digest)).map_err(Box::new)?;
        Ok(Content::Reader(Box::new(Reader { reading, runtime: self.runtime.clone(), left: Bytes::new() })))
    }

    fn layout(&self) -> Option<&WholeLayout> {
        None
    }
}

struct Reader {
    reading: Reading,
    runtime: Handle,
    left: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            let next = self.runtime.block_on(self.reading.chunk());
            match next.map_err(|error: ContainerdError| io::Error::other(error))? {
                Some(chunk) => self.left = chunk,
                None => return Ok(0),
            }
        }
        let length = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
