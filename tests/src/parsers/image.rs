//! What images are made of, and what users type to mean them.

use std::env::temp_dir;
use std::io::{Cursor, Read as _};

use shipfs_image::blobs::Content;
use shipfs_image::location::Location;
use shipfs_image::oci::{Descriptor, ImageConfig, Index, MAX_DOCUMENT_BYTES, Manifest};
use shipfs_image::reference::{Name, Reference};
use shipfs_image::source;

/// Bytes of one blob that are read; what it says of its size is not believed.
const BLOB_BYTES: u64 = 1 << 20;

/// A document, taken for each kind that there is. What is accepted is written again and means the same.
pub(super) fn document(input: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(descriptor) = Descriptor::parse(input) {
        accepted = true;
        let _ = (descriptor.inlined(), descriptor.ipfs_cid());
        assert_eq!(Descriptor::parse(&descriptor.to_json()).as_ref(), Ok(&descriptor));
    }
    let manifest = Manifest::parse(input);
    if let Ok(manifest) = &manifest {
        accepted = true;
        assert_eq!(Manifest::parse(&manifest.to_json()).as_ref(), Ok(manifest));
    }
    if let Ok(index) = Index::parse(input) {
        assert!(index.manifests().is_empty() || manifest.is_err(), "a document is one thing only");
        assert_eq!(Index::parse(&index.to_json()).as_ref(), Ok(&index));
    }
    if let Ok(config) = ImageConfig::parse(input) {
        let _ = config.diff_ids();
        accepted = true;
    }
    accepted
}

/// An archive from a stream, in any of the compressions, as Docker or as OCI.
pub(super) fn archive(input: &[u8]) -> bool {
    let location: Location = "docker-archive:-".parse().expect("a location");
    let stream = Box::new(Cursor::new(input.to_vec()));
    let Ok(source) = source::open(&location, Some(stream), &temp_dir()) else { return false };
    let _ = (source::select(&*source, None).is_ok(), source.layout().is_some());
    for image in source.images() {
        let _ = image.name();
        if let Ok(bytes) = source::read_document(&*source, &image.descriptor) {
            assert!(bytes.len() as u64 <= MAX_DOCUMENT_BYTES && image.descriptor.digest.matches(&bytes));
            let Ok(manifest) = Manifest::parse(&bytes) else { continue };
            for blob in manifest.layers().iter().chain([&manifest.config]) {
                if let Ok(Content::Reader(reader)) = source.open(blob) {
                    let _ = reader.take(BLOB_BYTES).read_to_end(&mut Vec::new());
                }
            }
        }
    }
    true
}

/// What a user types. What is accepted is said again in other words and means the same.
pub(super) fn reference(input: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(input) else { return false };
    let mut accepted = false;
    if let Ok(reference) = text.parse::<Reference>() {
        accepted = true;
        let said = reference.to_string();
        assert!(!said.contains(char::is_control), "a terminal shows it as it is");
        assert_eq!(said.parse().as_ref(), Ok(&reference), "`{said}` means the same");
    }
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
        assert_eq!(name.familiar().parse().as_ref(), Ok(&name), "`{}` means the same", name.familiar());
    }
    if let Ok(location) = text.parse::<Location>() {
        assert_eq!(location.to_string().parse().as_ref(), Ok(&location));
        accepted = true;
    }
    accepted
}
