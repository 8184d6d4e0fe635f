//! The images of containerd, for `ctr run`, nerdctl and whatever else uses them.
//!
//! Imports its parent and [`containerd`](crate::containerd). A lease keeps what was written until the image has its name;
//! with the lease goes whatever a write that was given up left behind.

use tokio::runtime::Handle;

use super::{Image, Sink, SinkError};
use crate::{
    blobs::Body,
    containerd::Containerd,
    event::BlobKind,
    oci::{Descriptor, media},
    services::Services,
};

/// An image that is being written to containerd.
pub(super) struct ContainerdSink {
    client: Containerd,
    name: String,
    runtime: Handle,
    is_released: bool,
}

impl ContainerdSink {
    /// Connects, and makes a lease. `name` is what containerd will call the image.
    pub(super) fn open(name: String, services: &Services, runtime: &Handle) -> Result<Self, SinkError> {
        let connecting = async {
            let client = Containerd::connect(&services.containerd, &services.containerd_namespace).await?;
            client.leased().await
        };
        let client = runtime.block_on(connecting).map_err(Box::new)?;
        Ok(Self { client, name, runtime: runtime.clone(), is_released: false })
    }
}

impl Sink for ContainerdSink {
    fn accepts(&self, _: &Image<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> bool {
        // Documents are written again, for their labels.
        if matches!(media::kind(&blob.media_type), BlobKind::Index | BlobKind::Manifest) {
            return false;
        }
        self.runtime.block_on(async {
            // Held before it is looked for: what is seen first may be collected before it is held, and containerd takes a
            // lease on what is gone.
            self.client.hold(&blob.digest).await.is_ok()
                && self.client.size(&blob.digest).await.is_ok_and(|size| size == Some(blob.size))
        })
    }

    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError> {
        self.runtime.block_on(self.client.write(blob, body)).map_err(|error| Box::new(error).into())
    }

    fn finish(mut self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
        let top = image.top();
        self.runtime.block_on(self.client.show(&self.name, &top)).map_err(Box::new)?;
        self.is_released = self.runtime.block_on(self.client.release()).is_ok();
        Ok(top)
    }
}

impl Drop for ContainerdSink {
    /// Ends the lease, whether the image has its name by then or not.
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        let client = self.client.clone();
        // It may be dropped on a thread that must not wait.
        self.runtime.spawn(async move {
            if let Err(error) = client.release().await {
                tracing::warn!(%error, "a lease of containerd is left, for a day at most");
            }
        });
    }
}
