//! Threat A5: archives that two readers could understand in two ways, and those of every kind that all understand.

use shipfs_image::layer::{ApplyError, HeaderProblem, Limit};
use shipfs_tests::archives::{Item, archive, directory, file, hard_link, item, record, symlink, unended};
use shipfs_tests::tree::{Look, look};
use shipfs_tests::unpacking::{Ground, options};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Whether an error is the right one.
type Check<'c> = &'c dyn Fn(&ApplyError) -> bool;

/// Names below the root after unpacking one layer.
fn names(ground: &Ground, items: &[Item]) -> Result<Vec<String>, String> {
    let tree = ground.tree(&archive(items))?;
    Ok(tree.into_keys().filter(|name| name != ".").collect())
}

fn refused(ground: &Ground, items: &[Item]) -> ApplyError {
    ground.unpack(&archive(items), &options()).expect_err("refused")
}

#[test]
fn a5_what_pax_says_wins() {
    let ground = Ground::new();
    // A header inside the bytes of a file: whoever believes the ustar size sees another entry.
    let smuggled = archive(&[file("smuggled", "evil")]);
    let host = |pax: u64, ustar: u64| item(b'0', "host").pax("size", pax.to_string()).size(ustar).data(&smuggled);
    let size = smuggled.len() as u64;
    assert_eq!(names(&ground, &[host(size, 0), file("next", "")]).expect("unpacks"), ["host", "next"]);
    assert_eq!(names(&ground, &[host(size, 512), file("next", "")]).expect("unpacks"), ["host", "next"]);
    // A header beyond the file by PAX, inside it by ustar: then it is an entry.
    let error = refused(&ground, &[host(0, size), file("next", "")]);
    assert!(matches!(error, ApplyError::TrailingBytes), "{error:?}");
    // The rest of what PAX may say.
    let tree = ground.tree(&archive(&[
        item(b'0', "wrong").pax("path", "right").pax("mtime", "1.5").mode(0o600),
        symlink("l", "x").pax("linkpath", "y"),
    ]));
    let tree = tree.expect("unpacks");
    assert_eq!(tree["l"], "link to y");
    assert!(tree.contains_key("right") && !tree.contains_key("wrong"));
}

#[test]
fn a5_what_can_be_read_in_two_ways_is_refused() {
    let ground = Ground::new();
    let header = |check: fn(&HeaderProblem) -> bool| move |error: &ApplyError| matches!(error, ApplyError::Header { problem, .. } if check(problem));
    let pax = header(|problem| matches!(problem, HeaderProblem::Pax));
    let number = header(|problem| matches!(problem, HeaderProblem::Number(_)));
    let twice = header(|problem| matches!(problem, HeaderProblem::Twice(_)));
    let bytes = header(|problem| matches!(problem, HeaderProblem::Bytes(_)));
    let kind = header(|problem| matches!(problem, HeaderProblem::Type(_)));
    let global = header(|problem| matches!(problem, HeaderProblem::Global(_)));
    let checksum = header(|problem| matches!(problem, HeaderProblem::Checksum));
    let form = header(|problem| matches!(problem, HeaderProblem::SparseFormat));
    let x = || file("x", "data");
    let globally = |key: &str, value: &str| item(b'g', "global").data(record(key.as_bytes(), value.as_bytes()));
    let checks: Vec<(&str, Vec<Item>, Check<'_>)> = vec![
        ("length too long", vec![x().raw_pax("99 path=y\n")], &pax),
        ("length too short", vec![x().raw_pax("5 path=y\n")], &pax),
        ("no length", vec![x().raw_pax("path=y\n")], &pax),
        ("negative length", vec![x().raw_pax("-10 path=y\n")], &pax),
        ("length with a sign", vec![x().raw_pax("+10 path=y\n")], &pax),
        ("no equals sign", vec![x().raw_pax("9 pathxy\n")], &pax),
        ("no line break", vec![x().raw_pax("10 path=yz")], &pax),
        ("no key", vec![x().raw_pax("5 =y\n")], &pax),
        ("zero bytes", vec![x().raw_pax("\0\0\0\0")], &pax),
        ("size is no number", vec![x().pax("size", "four")], &number),
        ("size is negative", vec![x().pax("size", "-4")], &number),
        ("size has a sign", vec![x().pax("size", "+4")], &number),
        ("size is hexadecimal", vec![x().pax("size", "0x4")], &number),
        ("size overflows", vec![x().pax("size", "18446744073709551616")], &number),
        ("size is as large as can be", vec![x().pax("size", "18446744073709551615")], &number),
        ("size with a space", vec![x().pax("size", " 4")], &number),
        ("time is no number", vec![x().pax("mtime", "now")], &number),
        ("two sizes", vec![x().pax("size", "4").pax("size", "0")], &twice),
        ("two paths", vec![x().pax("path", "a").pax("path", "b")], &twice),
        ("two PAX headers", vec![item(b'x', "p").data(record(b"path", b"a")), x().pax("path", "b")], &twice),
        ("two long names", vec![x().long(b'L', "a").long(b'L', "b")], &twice),
        ("two long targets", vec![symlink("x", "y").long(b'K', "a").long(b'K', "b")], &twice),
        ("a long name and a path", vec![x().pax("path", "a").long(b'L', "b")], &twice),
        ("a long target and a linkpath", vec![symlink("x", "y").pax("linkpath", "a").long(b'K', "b")], &twice),
        ("a global path", vec![globally("path", "a"), x()], &global),
        ("a global size", vec![globally("size", "0"), x()], &global),
        ("a global owner", vec![globally("uid", "0"), x()], &global),
        ("a directory with bytes", vec![directory("d").data("data")], &bytes),
        ("a link with bytes", vec![symlink("l", "x").data("data")], &bytes),
        ("a hard link with bytes", vec![x(), hard_link("h", "x").data("data")], &bytes),
        ("a link with bytes by PAX", vec![symlink("l", "x").pax("size", "512")], &bytes),
        ("a pipe with bytes", vec![item(b'6', "p").data("data")], &bytes),
        ("a directory by its name, with bytes", vec![item(0, "d/").data("data")], &bytes),
        ("a volume's name", vec![item(b'V', "v").gnu()], &kind),
        ("a multi-volume file", vec![item(b'M', "m").gnu().data("data")], &kind),
        ("a directory's listing", vec![item(b'D', "d").gnu().data("data")], &kind),
        ("a type that is none", vec![item(b'\xff', "x")], &kind),
        ("Solaris's PAX", vec![item(b'X', "x").data(record(b"path", b"a"))], &kind),
        ("a checksum", vec![x().wrong_checksum()], &checksum),
        ("a checksum that is no number", vec![x().patch(148, "abcdefgh")], &number),
        ("a size that is no number", vec![x().patch(124, "00000000009 ")], &number),
        ("a size followed by something", vec![x().patch(124, "04\x00garbage ")], &number),
        ("a negative size", vec![x().patch(124, [0xff; 12])], &number),
        ("a huge size", vec![x().patch(124, b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")], &number),
        ("a mode that is no number", vec![x().patch(100, "rwxrwxrw")], &number),
        ("an empty size", vec![x().pax("size", "")], &number),
        ("a prefix in a GNU header", vec![x().gnu().patch(345, "a/prefix")], &number),
        ("sparse 0.0", vec![x().pax("GNU.sparse.size", "4").pax("GNU.sparse.numblocks", "0")], &form),
        ("sparse 0.1", vec![x().pax("GNU.sparse.map", "0,4").pax("GNU.sparse.size", "4")], &form),
        ("sparse 2.0", vec![x().pax("GNU.sparse.major", "2").pax("GNU.sparse.minor", "0")], &form),
        ("a sparse link", vec![symlink("x", "y").pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0")], &form),
    ];
    for (what, items, check) in checks {
        let error = refused(&ground, &[&[file("before", "")][..], &items].concat());
        assert!(check(&error), "{what}: {error:?}");
    }
    // What describes an entry that never comes.
    let dangling = unended(&[item(b'x', "p").data(record(b"path", b"a"))]);
    for end in [&[][..], &[0; 1024]] {
        let error = ground.unpack(&[&dangling, end].concat(), &options()).expect_err("refused");
        assert!(matches!(error, ApplyError::Header { problem: HeaderProblem::Dangling, .. }), "{error:?}");
    }
    // One empty block, and more after it.
    let lone = [unended(&[x()]), vec![0; 512], archive(&[file("hidden", "")])].concat();
    let error = ground.unpack(&lone, &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Header { problem: HeaderProblem::LoneEmptyBlock, .. }), "{error:?}");
    // A header that says nothing is fine, everywhere.
    let fine = [
        globally("comment", "made by git"),
        x().pax("comment", "x").pax("path", "").pax("VENDOR.key", "1"),
        globally("comment", ""),
    ];
    assert_eq!(names(&ground, &fine[..2]).expect("unpacks"), ["x"]);
}

/// Values may hold line breaks, as those of capabilities do; names may be in three places.
#[test]
fn a5_headers_of_every_kind_are_read() {
    let ground = Ground::new();
    let long = "directory/".repeat(20);
    let prefixed = file("name", "").patch(345, "some/prefix");
    let star = file("star", "").patch(345, "prefix").patch(508, "tar\0");
    let v7 = item(0, "old/").patch(257, [0; 8]);
    let gnu = file("gnu", "").gnu().patch(345, "00000000001\x0000000000002\0");
    let items = [
        prefixed,
        star,
        v7,
        gnu,
        file("short", "l").long(b'L', format!("{long}file")),
        symlink("l", "s").long(b'K', &long),
        item(b'7', "contiguous").data("c"),
        file("attribute", "").xattr("user.lines", "a\nb\n12 path=evil\n").pax("mtime", "-1.25"),
    ];
    let (path, _) = ground.unpack(&archive(&items), &options()).expect("unpacks");
    let tree = look(&path, Look { owners: false, root: false, ..Look::ALL }).expect("a tree");
    for name in ["some/prefix/name", "prefix/star", "old", "gnu", &format!("{long}file"), "contiguous"] {
        assert!(tree.contains_key(name), "{name}: {tree:?}");
    }
    assert_eq!(tree["l"].split(' ').nth(2), Some(&long[..]));
    assert!(tree["attribute"].ends_with(" -2.750000000 user.lines=a\\nb\\n12 path=evil\\n"), "{}", tree["attribute"]);
    assert!(!tree.contains_key("evil") && tree["old"].starts_with("directory 644"), "{tree:?}");
}

#[test]
fn a5_sparse_files_have_their_holes() {
    let ground = Ground::new();
    let field = |number: u64| format!("{number:011o}\0");
    let piece = |offset: u64, length: u64| field(offset) + &field(length);
    let gnu = |pieces: &str, real: u64, data: &str| {
        item(b'S', "sparse").gnu().patch(386, pieces).patch(483, field(real)).data(data)
    };
    let map = |text: &str, data: &str| {
        let mut body = text.as_bytes().to_vec();
        body.resize(body.len().next_multiple_of(512), 0);
        let all = item(b'0', "GNUSparseFile.0/x").data([&body, data.as_bytes()].concat());
        all.pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.realsize", "100000")
    };
    let data = format!("{}de", "a".repeat(512));
    let mut expected = vec![0; 100_000];
    expected[4096..4608].fill(b'a');
    expected[50_000..50_002].copy_from_slice(b"de");
    let more = [piece(50_000, 2), piece(100_000, 0)].concat();
    let mut extension = vec![0; 512];
    extension[..more.len()].copy_from_slice(more.as_bytes());
    let extended = {
        // A block of pieces stands between header and bytes, and its size is not counted.
        let header = unended(&[gnu(&piece(4096, 512), 100_000, "").size(514).patch(482, [1])]);
        [header, extension, data.clone().into_bytes(), vec![0; 510], archive(&[])].concat()
    };
    for blob in [
        archive(&[gnu(&[piece(4096, 512), piece(50_000, 2), piece(100_000, 0)].concat(), 100_000, &data)]),
        archive(&[map("3\n4096\n512\n50000\n2\n100000\n0\n", &data)]),
        extended,
    ] {
        let (path, _) = ground.unpack(&blob, &options()).expect("unpacks");
        assert_eq!(fs::read(path.join("sparse")).expect("a file"), expected);
        assert!(fs::metadata(path.join("sparse")).expect("a file").blocks() <= 40, "it has holes");
    }
    for (what, bad) in [
        ("out of order", gnu(&[piece(50_000, 2), piece(4096, 3)].concat(), 100_000, "abcde")),
        ("not at a block", gnu(&[piece(0, 3), piece(10, 2)].concat(), 100_000, "abcde")),
        ("overlapping", gnu(&[piece(0, 3), piece(2, 2)].concat(), 100_000, "abcde")),
        ("past the end", gnu(&piece(99_999, 5), 100_000, "abcde")),
        ("too few bytes", gnu(&piece(0, 6), 100_000, "abcde")),
        ("too many bytes", gnu(&piece(0, 4), 100_000, "abcde")),
        ("endless", gnu(&piece(0o77_777_777_777, 5), 0o77_777_777_777, "abcde")),
        ("no count", map("x\n", "")),
        ("too many pieces", map("9999999999999999999\n", "")),
        ("a long number", map("000000000000000000000000000001\n", "")),
        ("unfinished", map("1\n0\n", "")),
        ("a negative number", map("1\n-1\n5\n", "abcde")),
        ("overflow", map("2\n1\n18446744073709551615\n2\n3\n", "abcde")),
    ] {
        let error = refused(&ground, &[bad]);
        let sparse = matches!(error, ApplyError::Header { problem: HeaderProblem::Sparse, .. });
        assert!(sparse, "{what}: {error:?}");
    }
    // Holes cost nothing on the disk, but others will read them.
    let mut options = options();
    options.limits.bytes = 1 << 20;
    let holes = archive(&[gnu(&piece(1 << 21, 0), 1 << 21, "")]);
    let error = ground.unpack(&holes, &options).expect_err("refused");
    assert!(matches!(error, ApplyError::Limit { what: Limit::FileBytes, .. }), "{error:?}");
}
