//! One platform's image as it is run: its configuration, and the layers that are its root.
//!
//! Imports [`plan`](crate::plan), [`oci`](crate::oci) and what names unpacked layers. Pure: whoever has the documents hands
//! them in.

use bytes::Bytes;

use super::layers::chain_ids;
use crate::{
    oci::{Descriptor, Digest, DigestError, DocumentError, ImageConfig, Platforms, media},
    plan::{Body, Plan},
};

/// One platform's image.
#[derive(Clone, Debug)]
pub(crate) struct Runnable {
    /// Its configuration, as text.
    pub(crate) config: String,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Names it and all that lie below it; in hexadecimal.
    pub(crate) chain: String,
    /// What it unpacks to.
    pub(crate) diff: Digest,
    /// What it is packed in.
    pub(crate) blob: Descriptor,
}

/// The parts of the first manifest that is a container image's.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'p> {
    /// Its configuration.
    pub(crate) config: &'p Descriptor,
    layers: Vec<&'p Descriptor>,
    /// Whether it was chosen for its platform.
    is_chosen: bool,
}

impl<'p> Parts<'p> {
    /// Finds them.
    ///
    /// # Errors
    /// [`RunnableError::NotThere`] when there is no such manifest.
    pub(crate) fn of(plan: &'p Plan) -> Result<Self, RunnableError> {
        let found = plan.documents().into_iter().find_map(|part| {
            let Body::Manifest { config, layers, .. } = &part.document.as_ref()?.body else { return None };
            let config = &plan.parts[*config].descriptor;
            let layers = layers.iter().map(|at| &plan.parts[*at].descriptor).collect();
            let is_chosen = part.descriptor.platform.is_some();
            media::is_config(&config.media_type).then_some(Self { config, layers, is_chosen })
        });
        found.ok_or(RunnableError::NotThere)
    }
}

impl Runnable {
    /// Puts the `parts` together; `config` are the bytes of the configuration.
    ///
    /// # Errors
    /// [`RunnableError`] when it is for none of the `wanted` platforms, or contradicts its manifest.
    pub(crate) fn new(config: &Bytes, parts: &Parts<'_>, wanted: &Platforms) -> Result<Self, RunnableError> {
        let parsed = ImageConfig::parse(config)?;
        // A manifest that stands alone says nothing of its platform, and an old configuration may not either.
        let is_known = !parts.is_chosen && !parsed.platform.architecture.is_empty();
        let selector = wanted.for_pull();
        if is_known && !selector.matches(Some(&parsed.platform)) {
            let (platform, wanted) = (parsed.platform.to_string(), selector.to_string());
            return Err(RunnableError::Foreign { platform, wanted });
        }
        let diff_ids = parsed.diff_ids()?;
        if diff_ids.len() != parts.layers.len() {
            return Err(RunnableError::Layers);
        }
        let config = String::from_utf8(config.to_vec()).map_err(|_| RunnableError::Text)?;
        let chains = chain_ids(&diff_ids).into_iter().zip(diff_ids).zip(&parts.layers);
        let layers = chains.map(|((chain, diff), blob)| Layer { chain, diff, blob: (*blob).clone() }).collect();
        Ok(Self { config, layers })
    }
}

/// Why an image is none that can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnableError {
    /// Nothing in it is for the platform.
    #[error("the image is not there for this platform")]
    NotThere,
    /// It is for another platform.
    #[error("the image is for `{platform}`, and cannot be run where `{wanted}` is wanted")]
    Foreign {
        /// The image's platform.
        platform: String,
        /// Those that can be.
        wanted: String,
    },
    /// Its configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] DocumentError),
    /// Its configuration names a layer by no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Its documents contradict each other.
    #[error("the image's configuration lists another number of layers than its manifest")]
    Layers,
    /// Its configuration is not even text.
    #[error("the image's configuration is not text")]
    Text,
}
