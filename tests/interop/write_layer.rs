//! A layer that was written out of an overlay's upper directory: GNU tar, umoci and containerd read it as we do, and as it
//! was before.

use super::unpack::{INSIDE, containerd, differences, gnu_tar, ordinary, ours, umoci, without_times};
use shipfs_image::layer::write::Owners;
use shipfs_image::layer::{Changes, Devices, Limits, Options, apply, write_layer};
use shipfs_tests::archives::{Item, archive, directory, file};
use shipfs_tests::program::{privileged, tool};
use shipfs_tests::tree::{Tree, look};
use shipfs_tests::unpacking::{LAYER, told};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use tempfile::TempDir;

/// What a layer above [`ordinary`] may do.
fn above() -> Vec<Item> {
    vec![
        directory("bin").time(5),
        file("bin/.wh.sh", ""),
        file("bin/new", "n").time(5),
        directory("tmp").mode(0o700).time(5),
        file("tmp/.wh..wh..opq", ""),
        file("tmp/kept", "").time(5),
        file(".wh.empty", ""),
        file("closed", "a file now").time(5),
        directory("big owner").time(5),
        file("big owner/f", "a directory now").time(5),
    ]
}

/// The layer as an upper directory in `folder`, and written out of that.
fn rewritten(folder: &Path, items: &[Item]) -> (Tree, Vec<u8>) {
    let upper = folder.join("upper");
    let _ = fs::remove_dir_all(&upper);
    fs::create_dir(&upper).expect("a directory");
    let open = fs::File::open(&upper).expect("a directory");
    let mut options = Options::root();
    options.devices = Devices::Create;
    apply(&archive(items)[..], LAYER, None, open.as_fd(), &options).map_err(|error| told(&error)).expect("unpacks");
    let before = without_times_of_whiteouts(look(&upper, INSIDE).expect("a tree"));
    let changes = Changes {
        upper: open.as_fd(),
        lowers: &[],
        mounts: &BTreeSet::new(),
        owners: &Owners::default(),
        limits: &Limits::default(),
    };
    let mut written = Vec::new();
    write_layer(&changes, &mut written).map_err(|error| told(&error)).expect("written");
    // Unpacked once more, it is the same upper directory: devices for whiteouts, opaque directories and all.
    fs::remove_dir_all(&upper).expect("removed");
    fs::create_dir(&upper).expect("a directory");
    let open = fs::File::open(&upper).expect("a directory");
    apply(&written[..], LAYER, None, open.as_fd(), &options).map_err(|error| told(&error)).expect("unpacks");
    let after = without_times_of_whiteouts(look(&upper, INSIDE).expect("a tree"));
    assert_eq!(differences(&before, &after), Vec::<String>::new());
    (before, written)
}

/// When something was hidden, no layer says.
fn without_times_of_whiteouts(mut tree: Tree) -> Tree {
    tree.values_mut()
        .filter(|line| line.starts_with("character 0:0 "))
        .for_each(|line| *line = "a whiteout".to_owned());
    tree
}

#[test]
fn interop_gnu_tar_reads_what_was_written() {
    let test = "interop_gnu_tar_reads_what_was_written";
    if !privileged(test) || !tool(test, "tar") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let (before, layer) = rewritten(folder.path(), &ordinary());
    let theirs = gnu_tar(folder.path(), &layer).expect("GNU tar takes it");
    assert_eq!(differences(&without_times(before), &theirs), Vec::<String>::new());
}

/// Both layers, written anew.
fn layers(folder: &Path) -> Vec<Vec<u8>> {
    let layers = [ordinary(), above()].map(|items| rewritten(folder, &items).1);
    let from = |layers: &[Vec<u8>]| ours(folder, layers).expect("unpacks");
    let written = from(&layers);
    let original = from(&[archive(&ordinary()), archive(&above())]);
    assert_eq!(differences(&original, &written), Vec::<String>::new());
    layers.into()
}

#[test]
fn interop_umoci_reads_what_was_written() {
    let test = "interop_umoci_reads_what_was_written";
    if !privileged(test) || !tool(test, "umoci") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let layers = layers(folder.path());
    let theirs = umoci(folder.path(), &layers).expect("umoci takes it");
    assert_eq!(differences(&ours(folder.path(), &layers).expect("unpacks"), &theirs), Vec::<String>::new());
}

#[test]
fn interop_containerd_reads_what_was_written() {
    let test = "interop_containerd_reads_what_was_written";
    if !privileged(test) || !tool(test, "containerd") || !tool(test, "ctr") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let layers = layers(folder.path());
    let ours = ours(folder.path(), &layers).expect("unpacks");
    for (snapshotter, theirs) in containerd(folder.path(), &layers) {
        assert_eq!(differences(&ours, &theirs), Vec::<String>::new(), "{snapshotter}");
    }
}
