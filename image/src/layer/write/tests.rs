//! What is written, read by us and by another implementation; and what is refused.

use std::{
    fs as files,
    io::Read as _,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{PermissionsExt as _, symlink},
            net::UnixListener,
        },
    },
    path::Path,
    thread,
};

use rustix::fs::{CWD, XattrFlags, mknodat, setxattr};
use tempfile::TempDir;

use super::*;
use crate::{
    layer::{Options, apply::apply},
    oci::{Digest, media, media::Compression},
};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn hide(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).expect("a whiteout");
}

/// The archive of `upper` above `lowers`, with mounts there.
fn layer(upper: &Path, lowers: &[&Path], mounts: &[&str], limits: &Limits) -> Result<(Vec<u8>, Written), WriteError> {
    let open = |path: &Path| OwnedFd::from(files::File::open(path).expect("a directory"));
    let lowers: Vec<_> = lowers.iter().map(|path| open(path)).collect();
    let mounts = mounts.iter().map(|path| path.as_bytes().to_vec()).collect();
    let (upper, owners) = (open(upper), Owners::default());
    let changes = Changes { upper: upper.as_fd(), lowers: &lowers, mounts: &mounts, owners: &owners, limits };
    let mut archive = Vec::new();
    let written = write_layer(&changes, &mut archive)?;
    assert_eq!(written.bytes, archive.len() as u64);
    Ok((archive, written))
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("an archive");
    entries.map(|entry| String::from_utf8(entry.expect("an entry").path_bytes().to_vec()).expect("text")).collect()
}

fn listed(upper: &Path, lowers: &[&Path], mounts: &[&str]) -> Vec<String> {
    names(&layer(upper, lowers, mounts, &Limits::default()).expect("written").0)
}

#[test]
fn entries_are_sorted_and_the_same_at_every_run() {
    let folder = folder();
    let upper = folder.path();
    for directory in ["b/x", "a", "b.d"] {
        files::create_dir_all(upper.join(directory)).expect("made");
    }
    for file in ["b/x/2", "b/x/1", "b/x.y", "c", "a/0"] {
        files::write(upper.join(file), file).expect("written");
    }
    hide(&upper.join("b/gone"));
    files::hard_link(upper.join("c"), upper.join("d")).expect("linked");
    symlink("/nowhere", upper.join("e")).expect("linked");
    let _socket = UnixListener::bind(upper.join("socket")).expect("a socket");
    let (archive, written) = layer(upper, &[], &[], &Limits::default()).expect("written");
    let expected =
        ["a/", "a/0", "b/", "b/.wh.gone", "b/x/", "b/x/1", "b/x/2", "b/x.y", "b.d/", "c", "d", "e"].map(str::to_owned);
    assert_eq!(names(&archive), expected);
    assert_eq!((written.entries, written.sockets), (12, 1));
    assert_eq!(layer(upper, &[], &[], &Limits::default()).expect("written").0, archive);
}

#[test]
fn what_is_written_unpacks_to_the_same_upper_directory() {
    let folder = folder();
    let upper = folder.path().join("upper");
    let deep = "directory with a name/".repeat(12);
    files::create_dir_all(upper.join(&deep)).expect("made");
    files::write(upper.join(&deep).join("file"), vec![7; 1_000_001]).expect("written");
    files::set_permissions(upper.join(&deep), files::Permissions::from_mode(0o1750)).expect("set");
    files::write(upper.join("empty"), "").expect("written");
    symlink("x".repeat(300), upper.join("far")).expect("linked");
    hide(&upper.join("gone"));
    files::create_dir(upper.join("opaque")).expect("made");
    let flags = XattrFlags::empty();
    setxattr(upper.join("empty"), c"user.key", b"a\n\0b", flags).expect("set");
    setxattr(upper.join("empty"), c"user.overlay.origin", b"its own book", flags).expect("set");
    setxattr(upper.join("opaque"), c"user.overlay.opaque", b"y", flags).expect("set");
    let (archive, _) = layer(&upper, &[], &[], &Limits::default()).expect("written");
    assert!(names(&archive).contains(&"opaque/.wh..wh..opq".to_owned()));
    let target = folder.path().join("target");
    files::create_dir(&target).expect("made");
    let open = files::File::open(&target).expect("opens");
    let options = Options { sync: false, ..Options::rootless() };
    apply(&archive[..], media::LAYER, Some(&Digest::of(&archive)), open.as_fd(), &options).expect("unpacks");
    assert_eq!(files::read(target.join(&deep).join("file")).expect("there").len(), 1_000_001);
    assert_eq!(files::metadata(target.join(&deep)).expect("there").permissions().mode() & 0o7777, 0o1750);
    let mut again = Vec::new();
    for _ in 0..2 {
        let (copy, _) = layer(&target, &[], &[], &Limits::default()).expect("written");
        again = copy;
    }
    assert_eq!(again, archive, "times, attributes, whiteouts and all");
}

#[test]
fn what_was_made_for_mounts_is_left_out() {
    let folder = folder();
    let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
    files::create_dir_all(lower.join("etc")).expect("made");
    for directory in ["proc", "etc", "data/deep", "work", "changed"] {
        files::create_dir_all(upper.join(directory)).expect("made");
    }
    files::create_dir(lower.join("changed")).expect("made");
    files::set_permissions(upper.join("changed"), files::Permissions::from_mode(0o700)).expect("set");
    for file in ["etc/hosts", "changed/file"] {
        files::write(upper.join(file), "").expect("written");
    }
    let mounts = ["/proc", "/etc/hosts", "/data/deep", "/work", "/changed/file"];
    let lowers = [&lower as &Path];
    assert_eq!(listed(&upper, &lowers, &mounts), ["changed/"], "its mode is another");
    assert_eq!(listed(&upper, &lowers, &[]).len(), 8);
    // Beside such a place, somebody worked.
    files::write(upper.join("data/mine"), "").expect("written");
    files::write(upper.join("work/mine"), "").expect("written");
    files::write(upper.join("etc/hosts"), "mine").expect("written");
    let expected = ["changed/", "data/", "data/mine", "etc/", "etc/hosts", "work/", "work/mine"];
    assert_eq!(listed(&upper, &lowers, &mounts), expected);
    // A file that is hidden below was there.
    files::write(lower.join("etc/hosts"), "").expect("written");
    files::write(upper.join("etc/hosts"), "").expect("written");
    assert!(listed(&upper, &lowers, &mounts).contains(&"etc/hosts".to_owned()));
}

#[test]
fn the_root_is_written_when_it_is_another() {
    let folder = folder();
    let (upper, lower) = (folder.path().join("upper"), folder.path().join("lower"));
    files::create_dir(&upper).expect("made");
    files::create_dir(&lower).expect("made");
    assert_eq!(listed(&upper, &[&lower], &[]), [""; 0]);
    files::set_permissions(&upper, files::Permissions::from_mode(0o711)).expect("set");
    assert_eq!(listed(&upper, &[&lower], &[]), ["./"]);
}

#[test]
fn what_no_layer_can_say_is_refused() {
    let refused = |make: &dyn Fn(&Path)| {
        let folder = folder();
        make(folder.path());
        layer(folder.path(), &[], &[], &Limits::default()).expect_err("refused").to_string()
    };
    let reserved = refused(&|upper| files::write(upper.join(".wh.x"), "").expect("written"));
    assert_eq!(reserved, "entry `.wh.x`: names that begin with `.wh.` are reserved for whiteouts");
    for attribute in ["redirect", "metacopy"] {
        let said = refused(&|upper| {
            files::create_dir(upper.join("moved")).expect("made");
            setxattr(upper.join("moved"), format!("user.overlay.{attribute}"), b"x", XattrFlags::empty()).expect("set");
        });
        assert!(said.contains(attribute) && said.contains("`moved`"), "{said}");
    }
}

#[test]
fn a_layer_that_nobody_would_unpack_is_not_written() {
    let folder = folder();
    for file in ["a", "b", "c"] {
        files::write(folder.path().join(file), vec![0; 4096]).expect("written");
    }
    let with = |limits: Limits| layer(folder.path(), &[], &[], &limits).map(|(_, written)| written);
    let limited = |limits| match with(limits) {
        Err(WriteError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(with(Limits { entries: 3, ..Limits::default() }).expect("fits").entries, 3);
    assert_eq!(limited(Limits { entries: 2, ..Limits::default() }), Limit::Entries);
    assert_eq!(limited(Limits { bytes: 10_000, ..Limits::default() }), Limit::Bytes);
    assert_eq!(limited(Limits { path_bytes: 4, ..Limits::default() }), Limit::PathBytes);
    let header = with(Limits { header_bytes: 511, ..Limits::default() }).expect_err("too long");
    assert!(matches!(header, WriteError::Header { bytes: 1536, .. }), "{header:?}");
}

#[test]
fn owners_are_called_as_inside() {
    let range = |inside, outside, count| IdRange { inside, outside, count };
    let ranges = [range(0, 1000, 1), range(1, 100_000, 65_535)];
    for (outside, expected) in
        [(1000, Some(0)), (100_000, Some(1)), (165_534, Some(65_535)), (165_535, None), (0, None)]
    {
        assert_eq!(inside(&ranges, outside), expected, "{outside}");
    }
    assert_eq!(inside(&[], 7), Some(7));
    assert_eq!(inside(&[range(u32::MAX, 0, 9)], 5), None);
}

/// Packs these bytes on one thread and reads them on this one.
fn packed(compression: Compression, bytes: &[u8], limits: &Limits, end: bool) -> (io::Result<Vec<u8>>, Option<Digest>) {
    let (mut packing, mut reader) = packer(compression).expect("it is written");
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            packing.write_all(bytes).expect("somebody reads");
            end.then(|| packing.finish(limits).ok().map(|packed| packed.diff_id)).flatten()
        });
        let mut all = Vec::new();
        let read = reader.read_to_end(&mut all).map(|_| all);
        (read, writing.join().expect("it ends"))
    })
}

#[test]
fn what_is_packed_comes_out_whole_or_not_at_all() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let limits = Limits::default();
    let (plain, diff_id) = packed(Compression::None, &bytes, &limits, true);
    assert_eq!((plain.expect("whole"), diff_id), (bytes.clone(), Some(Digest::of(&bytes))));
    let (gzip, diff_id) = packed(Compression::Gzip, &bytes, &limits, true);
    let (again, _) = packed(Compression::Gzip, &bytes, &limits, true);
    let gzip = gzip.expect("whole");
    assert_eq!(gzip, again.expect("whole"), "the same at every run");
    assert!(gzip.len() < bytes.len() / 10);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!((unpacked, diff_id), (bytes.clone(), Some(Digest::of(&bytes))));
    for compression in [Compression::None, Compression::Gzip] {
        let (cut, _) = packed(compression, &bytes, &limits, false);
        assert_eq!(cut.expect_err("it has no end").kind(), io::ErrorKind::UnexpectedEof);
    }
    let bomb = Limits { ratio: 5, ratio_free_bytes: 0, ..Limits::default() };
    assert!(packed(Compression::Gzip, &bytes, &bomb, true).0.is_err(), "nobody would unpack it");
    assert!(packer(Compression::Zstd).is_none());
}

#[test]
fn a_writer_ends_when_nobody_reads() {
    let (mut packing, reader) = packer(Compression::None).expect("it is written");
    drop(reader);
    let error = std::iter::repeat_with(|| packing.write_all(&[0; 100_000])).find_map(Result::err).expect("it ends");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
