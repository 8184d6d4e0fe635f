//! An OCI image layout, wherever its files lie.
//!
//! Imports its parent and [`oci`](crate::oci). [`Files`] is what a directory and a tar have in common.

use std::path::Path;

use bytes::Bytes;

use super::{Listed, Source, SourceError, WholeLayout};
use crate::{
    blobs::{Added, Content},
    oci::{Descriptor, Digest, DocumentError, Index, MAX_DOCUMENT_BYTES},
};

/// The file that makes a directory a layout.
const MARKER: &str = "oci-layout";
/// The file that lists a layout's images.
const INDEX: &str = "index.json";

/// Named bytes, read only.
pub(super) trait Files: Send + Sync {
    /// What to call the whole in a message.
    fn place(&self) -> &Path;

    /// Reads a file, up to one byte past `limit`; `None` when there is none.
    fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>, SourceError>;

    /// Opens a file and says how long it is; `None` when there is none.
    fn open(&self, name: &str) -> Result<Option<(Content, u64)>, SourceError>;

    /// What the store made of a file while the whole was read; `None` when it is yet to be read.
    fn added(&self, name: &str) -> Option<Added>;

    /// The files right inside a folder, with their sizes.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, SourceError>;
}

/// A layout that was opened.
pub(super) struct Layout<F> {
    files: F,
    images: Vec<Listed>,
    whole: WholeLayout,
}

impl<F: Files> Layout<F> {
    /// Reads what the layout lists.
    pub(super) fn open(files: F) -> Result<Self, SourceError> {
        let read = |name: &str| {
            let missing = || SourceError::NotAnImage { what: files.place().join(name).display().to_string() };
            let bytes = files.read(name, MAX_DOCUMENT_BYTES)?.ok_or_else(missing)?;
            if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
                let source = DocumentError::TooLarge { size: bytes.len() as u64 };
                return Err(SourceError::Document { what: name.to_owned(), source });
            }
            Ok(bytes)
        };
        let marker = read(MARKER)?;
        check_marker(&marker)?;
        let index_bytes = read(INDEX)?;
        let index =
            Index::parse(&index_bytes).map_err(|source| SourceError::Document { what: INDEX.to_owned(), source })?;
        let images = index.manifests().iter().map(|descriptor| Listed::from(descriptor.clone())).collect();
        let mut blobs = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            for (name, size) in files.list(&format!("blobs/{algorithm}"))? {
                // Whatever has another name is not a blob: a writer's temporary file, for instance.
                blobs.extend(format!("{algorithm}:{name}").parse::<Digest>().ok().map(|digest| (digest, size)));
            }
        }
        blobs.sort();
        Ok(Self { files, images, whole: WholeLayout { marker, index: index_bytes, blobs } })
    }
}

impl<F: Files> Source for Layout<F> {
    fn images(&self) -> &[Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        let name = path_of(&blob.digest);
        let missing = || SourceError::Missing { what: blob.digest.to_string() };
        let (content, size) = self.files.open(&name)?.ok_or_else(missing)?;
        if size != blob.size {
            let expected = blob.digest.clone();
            return Err(SourceError::Mismatch { expected, size: blob.size, got_size: size });
        }
        Ok(content)
    }

    fn added(&self, blob: &Descriptor) -> Option<Added> {
        let added = self.files.added(&path_of(&blob.digest))?;
        (blob.digest.sha256() == Some(added.digest) && blob.size == added.size).then_some(added)
    }

    fn layout(&self) -> Option<&WholeLayout> {
        (self.images.len() == 1).then_some(&self.whole)
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Checks the version in a layout's marker file.
fn check_marker(marker: &[u8]) -> Result<(), SourceError> {
    #[derive(serde::Deserialize)]
    struct Marker {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let parsed: Marker =
        serde_json::from_slice(marker).map_err(|source| SourceError::Json { what: MARKER.to_owned(), source })?;
    if parsed.version == "1.0.0" { Ok(()) } else { Err(SourceError::LayoutVersion { version: parsed.version }) }
}
