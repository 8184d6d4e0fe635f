//! Looks at an image without moving its layers.
//!
//! Imports [`blobs`](crate::blobs), [`bring`](crate::bring), [`plan`](crate::plan) and [`root`](crate::root). Documents that
//! are not here are fetched, and stay; a configuration is read, a layer never.

use bytes::Bytes;
use shipfs_node::Cid;

use crate::{
    blobs::Blobs,
    bring::{BringError, Bringer},
    oci::{ImageConfig, Platforms, Selector},
    plan::{Body, Plan, PlanError},
    root::{Root, RootError},
};

/// What is to be seen of an image.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its root.
    pub root: Root,
    /// Its blobs.
    pub plan: Plan,
    /// The configurations of its manifests that are container images, in the plan's order.
    pub configs: Vec<Config>,
}

/// A configuration, as it is and as it was understood.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its bytes.
    pub bytes: Bytes,
    /// What moving images needs of it.
    pub parsed: ImageConfig,
}

/// Reads the documents of the image with the root `cid`.
///
/// # Errors
/// [`InspectError`] when it is no image, or something of it cannot be had.
pub async fn inspect(blobs: &dyn Blobs, cid: &Cid, platforms: &Platforms) -> Result<Inspected, InspectError> {
    let root = Root::open(blobs, cid).await?;
    let bringer = Bringer::new(blobs, &root, &());
    let plan = plan(&bringer, &root, &platforms.for_pull()).await?;
    let mut configs = Vec::new();
    for part in plan.documents() {
        let Some(Body::Manifest { config, .. }) = part.document.as_ref().map(|document| &document.body) else {
            continue;
        };
        let config = &plan.parts[*config].descriptor;
        if crate::oci::media::is_config(&config.media_type) {
            let bytes = bringer.document(config).await?;
            if let Ok(parsed) = ImageConfig::parse(&bytes) {
                configs.push(Config { bytes, parsed });
            }
        }
    }
    Ok(Inspected { plan, configs, root })
}

/// Plans an image whose documents `bringer` brings.
pub(crate) async fn plan(
    bringer: &Bringer<'_>,
    root: &Root,
    selector: &Selector,
) -> Result<Plan, PlanError<BringError>> {
    Plan::make(root.top.clone(), selector, |blob| async move { bringer.document(&blob).await }).await
}

/// Why an image cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The root is not that of an image, or could not be had.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its documents break a rule, or could not be had.
    #[error(transparent)]
    Plan(#[from] PlanError<BringError>),
    /// A configuration could not be had.
    #[error(transparent)]
    Bring(#[from] BringError),
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        blobs::memory::MemoryBlobs,
        push::{PushFrom, PushOptions, push},
        source,
    };

    #[tokio::test]
    async fn an_image_is_seen_without_its_layers() {
        let seeder = Arc::new(MemoryBlobs::default());
        let path = format!("oci:{}/../tests/data/parity/docker-list", env!("CARGO_MANIFEST_DIR"));
        let source = source::open(&path.parse().expect("location"), None, Path::new("/nonexistent")).expect("opens");
        let options = PushOptions { platforms: Platforms::All, ..PushOptions::default() };
        let image = push(&*seeder, &PushFrom::Source(source.into(), None), &options, &()).await.expect("pushes");
        let other = MemoryBlobs::with_peers(vec![Arc::clone(&seeder)]);
        let seen = inspect(&other, &image.root, &image.platforms()).await.expect("inspects");
        let platforms: Vec<_> = seen.configs.iter().map(|config| config.parsed.platform.to_string()).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64", "linux/arm"]);
        assert_eq!(seen.plan.size(), image.note.expect("a note").size);
        assert_eq!(other.files(), 1 + 4 + 3, "root, documents and configurations");
    }
}
