//! Layers that can be mounted before they are there: read at random as they come, and made of any layer.
//!
//! The digest of a table stands beside the layer, so an input is taken with the one that it has: a fuzzer cannot hash.

use bytes::Bytes;
use shipfs_image::layer::estargz::{ConvertOptions, Estargz, Footer, convert};
use shipfs_image::oci::Digest;
use std::env::temp_dir;
use std::io::{self, Cursor, Read};

/// Bytes of a table that are looked at.
const TABLE_BYTES: u64 = 1 << 20;

/// A layer, opened and verified as it is; then converted, which gives one that verifies.
pub(super) fn layer(input: &[u8]) -> bool {
    let blob = Bytes::copy_from_slice(input);
    let opened = table(input).map(|table| Estargz::open(blob, input.len() as u64, &Digest::of(&table)));
    let mut accepted = false;
    if let Some(Ok(layer)) = opened {
        accepted = true;
        let verified = layer.verify().is_ok();
        for at in 0..layer.entries().len().min(100) {
            let read = layer.read(at);
            assert!(read.is_ok() || !verified, "what verifies can be read");
        }
    }
    let mut options = ConvertOptions::new(temp_dir());
    (options.threads, options.chunk_bytes) = (1, 1024);
    (options.limits.entries, options.limits.bytes) = (1000, 4 << 20);
    let mut out = Vec::new();
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(input.to_vec()))) };
    if let Ok(converted) = convert(&open, &options, &mut out) {
        accepted = true;
        let size = out.len() as u64;
        let layer = Estargz::open(Bytes::from(out), size, &converted.toc_digest).expect("what we make can be opened");
        layer.verify().expect("and verified");
    }
    accepted
}

/// The table of contents that the end of a layer names, if it is one of gzip.
fn table(input: &[u8]) -> Option<Vec<u8>> {
    let Footer::Gzip { toc, .. } = Footer::parse(&input[input.len().saturating_sub(51)..])? else { return None };
    let member = input.get(usize::try_from(toc).ok()?..)?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(member).take(TABLE_BYTES).read_to_end(&mut bytes).ok()?;
    let digits = str::from_utf8(bytes.get(124..135)?).ok()?;
    let length = usize::from_str_radix(digits, 8).ok()?;
    Some(bytes.get(512..)?.get(..length)?.to_vec())
}
