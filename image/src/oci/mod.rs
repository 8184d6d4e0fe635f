//! OCI's documents as plain values, with the bytes Go's tools give them.
//!
//! Reading order: [`Digest`], [`media`], [`Platform`], [`Descriptor`], [`Manifest`] and [`Index`], [`ImageConfig`].
//! Parsers take bytes and return checked values within the bounds below; writers give exactly the bytes that
//! `json.Marshal` of image-spec 1.1.1 gives. Imports of this crate only [`event`](crate::event). Never does I/O.

pub mod config;
pub mod descriptor;
pub mod digest;
pub(crate) mod json;
pub mod manifest;
pub mod media;
pub mod platform;
pub mod select;

pub use self::{
    config::ImageConfig,
    descriptor::{Descriptor, DescriptorError},
    digest::{Digest, DigestError},
    json::{JsonError, JsonProblem},
    manifest::{Index, Manifest},
    platform::{Platform, PlatformError},
    select::{Platforms, Selector},
};

/// Largest document that is read, in bytes: what registries accept for a manifest.
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most blobs that one image may have, over all its platforms.
pub const MAX_DESCRIPTORS: usize = 1024;
/// How many documents may lie between the top of an image and its layers, both ends counted: an index of indexes of
/// indexes of manifests. Nobody is known to go past an index of indexes.
pub const MAX_DEPTH: usize = 4;

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is not JSON, or a field has another type than it should.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// One of its descriptors is malformed.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// It is longer than a document may be.
    #[error("a document of {size} bytes, at most {MAX_DOCUMENT_BYTES} are accepted")]
    TooLarge {
        /// Bytes.
        size: u64,
    },
    /// It could be taken for the other kind.
    #[error("expected {expected}, but it has {found} too")]
    Confused {
        /// What it was read as.
        expected: &'static str,
        /// What does not belong there.
        found: &'static str,
    },
    /// It says it is something else.
    #[error("expected {expected}, but it calls itself `{}`", found.escape_debug())]
    MediaType {
        /// What it was read as.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// Docker's first schema, which has no digests of its own.
    #[error("manifests of schema 1 are not supported")]
    Schema1,
}

#[cfg(test)]
mod tests;
