//! Layers: the archive and whatever compresses it, unpacked into a temporary folder that has a neighbour.
//!
//! Checksums keep a fuzzer's changes out, so each input is also taken with those of its headers put right.

use crate::archives::checksum;
use crate::tree::{Look, look};
use crate::unpacking::LAYER;
use shipfs_image::layer::{Devices, Options, Ownership, Whiteouts, apply};
use std::fs;
use std::os::fd::AsFd as _;

/// One layer, in the ways it can be applied.
pub(super) fn layer(input: &[u8]) -> bool {
    let mut right = input.to_vec();
    for block in right.chunks_exact_mut(512) {
        if block[257..].starts_with(b"ustar") {
            checksum(block);
        }
    }
    unpacked(input) | (right != input && unpacked(&right))
}

fn unpacked(input: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a directory");
    let (outside, target) = (folder.path().join("outside"), folder.path().join("target"));
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("file"), "outside").expect("written");
    fs::create_dir(&target).expect("a directory");
    let before = look(&outside, Look::ALL).expect("a tree");
    let open = fs::File::open(&target).expect("a directory");
    let mut options = Options::root();
    options.ownership = Ownership::Squash;
    options.devices = Devices::Skip;
    options.whiteouts = if input.len().is_multiple_of(2) { Whiteouts::Apply } else { Whiteouts::OverlayUser };
    options.component_wise = input.len().is_multiple_of(3);
    options.limits.entries = 1000;
    options.limits.bytes = 4 << 20;
    let result = apply(input, LAYER, None, open.as_fd(), &options);
    assert_eq!(look(&outside, Look::ALL).expect("a tree"), before, "the outside");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "beside the target");
    if let Ok(applied) = &result {
        assert!(applied.entries <= 1000 && applied.bytes <= 4 << 20);
    }
    result.is_ok()
}
