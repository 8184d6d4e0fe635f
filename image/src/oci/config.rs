//! The part of an image's configuration that moving images needs: what it runs on, and what its layers unpack to.
//!
//! Imports its siblings. Everything else in it is carried as bytes and never rewritten.

use super::{
    Digest, DigestError, DocumentError, MAX_DOCUMENT_BYTES, Platform,
    json::{Fields, JsonError, Reader, field},
};

/// An image's configuration, read only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// When it was made, as it says.
    pub created: String,
    /// `layers`, in every image that can be unpacked.
    pub rootfs_type: String,
    /// Digests of the uncompressed layers, lowest first, as they are written.
    pub diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`DocumentError`] when it is too large, or not JSON of the right types.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge { size: bytes.len() as u64 });
        }
        Ok(Reader::document(bytes)?)
    }

    /// The digests of the uncompressed layers.
    ///
    /// # Errors
    /// [`DigestError`] when one is malformed.
    pub fn diff_ids(&self) -> Result<Vec<Digest>, DigestError> {
        self.diff_ids.iter().map(|text| text.parse()).collect()
    }
}

impl Fields for ImageConfig {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        match field(key, &["created", "rootfs"]) {
            Some("created") => reader.string(&mut self.created),
            Some("rootfs") => {
                let mut rootfs = RootFs {
                    kind: std::mem::take(&mut self.rootfs_type),
                    diff_ids: std::mem::take(&mut self.diff_ids),
                };
                reader.fields(&mut rootfs)?;
                (self.rootfs_type, self.diff_ids) = (rootfs.kind, rootfs.diff_ids);
                Ok(())
            }
            _ => self.platform.fill(key, reader),
        }
    }
}

#[derive(Default)]
struct RootFs {
    kind: String,
    diff_ids: Vec<String>,
}

impl Fields for RootFs {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        match field(key, &["type", "diff_ids"]) {
            Some("type") => reader.string(&mut self.kind),
            Some("diff_ids") => reader.strings(&mut self.diff_ids),
            _ => reader.skip(),
        }
    }
}
