//! GNU tar, umoci and containerd: what they make of a layer, we make of it, or we refuse it.
//!
//! umoci and containerd read archives with Go's `archive/tar`, so two readers of their own stand behind this.

use shipfs_image::layer::{Devices, Options, Whiteouts, apply};
use shipfs_tests::archives::{Item, archive, checksum, directory, file, hard_link, item, record, symlink};
use shipfs_tests::crafted::Layout;
use shipfs_tests::engines::Containerd;
use shipfs_tests::image::Noise;
use shipfs_tests::program::{privileged, run, tool};
use shipfs_tests::tree::{Look, Tree, look, shown};
use shipfs_tests::unpacking::{LAYER, told};
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// All but the root, which each tool treats in its own way.
pub(super) const INSIDE: Look = Look { owners: true, times: true, xattrs: true, root: false };

/// Our tree of layers, one above the other.
pub(super) fn ours(folder: &Path, layers: &[Vec<u8>]) -> Result<Tree, String> {
    let path = folder.join("ours");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a directory");
    let open = fs::File::open(&path).expect("a directory");
    let mut options = Options::root();
    options.whiteouts = Whiteouts::Apply;
    options.devices = Devices::Create;
    for layer in layers {
        apply(&layer[..], LAYER, None, open.as_fd(), &options).map_err(|error| told(&error))?;
    }
    Ok(look(&path, INSIDE).expect("a tree"))
}

/// GNU tar's tree of one archive; `None` when it complains.
pub(super) fn gnu_tar(folder: &Path, layer: &[u8]) -> Option<Tree> {
    let (path, blob) = (folder.join("theirs"), folder.join("layer.tar"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a directory");
    fs::write(&blob, layer).expect("written");
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--same-permissions", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*"]);
    let output = tar.arg("-C").arg(&path).arg("-f").arg(&blob).output().expect("tar");
    output.status.success().then(|| without_times(look(&path, INSIDE).expect("a tree")))
}

/// Without the times of directories: GNU tar sets them when it has left a directory, and again changes it by what comes later.
pub(super) fn without_times(mut tree: Tree) -> Tree {
    for line in tree.values_mut().filter(|line| line.starts_with("directory")) {
        let words: Vec<_> = line.split(' ').enumerate().filter(|(at, _)| *at != 3).map(|(_, word)| word).collect();
        *line = words.join(" ");
    }
    tree
}

/// An image of these layers, called `image`.
fn image(folder: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("image");
    let _ = fs::remove_dir_all(&path);
    let layout = Layout::new(&path);
    let layers: Vec<&[u8]> = layers.iter().map(|layer| &layer[..]).collect();
    let mut manifest = layout.image(&layers);
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "image", "io.containerd.image.name": "registry.example/image:1" });
    layout.finish(&[manifest]);
    path
}

/// umoci's tree of an image; `None` when it complains.
pub(super) fn umoci(folder: &Path, layers: &[Vec<u8>]) -> Option<Tree> {
    let (image, path) = (image(folder, layers), folder.join("theirs"));
    let _ = fs::remove_dir_all(&path);
    let mut umoci = Command::new("umoci");
    umoci.args(["raw", "unpack", "--image"]).arg(format!("{}:image", image.display())).arg(&path);
    umoci.output().expect("umoci").status.success().then(|| look(&path, INSIDE).expect("a tree"))
}

/// containerd's trees of an image, by the snapshotter that it was unpacked with.
pub(super) fn containerd(folder: &Path, layers: &[Vec<u8>]) -> [(&'static str, Tree); 2] {
    let containerd = Containerd::start(&folder.join("containerd"));
    let image = image(folder, layers);
    let packed = folder.join("image.tar");
    run(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&packed).arg("."));
    containerd.ctr(&["images", "import", "--no-unpack", &packed.display().to_string()]);
    ["native", "overlayfs"].map(|snapshotter| {
        let target = folder.join(snapshotter);
        fs::create_dir(&target).expect("a directory");
        let target_text = target.display().to_string();
        containerd.ctr(&["images", "mount", "--snapshotter", snapshotter, "registry.example/image:1", &target_text]);
        let theirs = look(&target, INSIDE);
        run(Command::new("umount").arg(&target));
        (snapshotter, theirs.expect("a tree"))
    })
}

/// Differences, a line each.
pub(super) fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).filter(|name| *name != ".").collect();
    let differing = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differing.map(|name| format!("{name}: ours {:?}, theirs {:?}", ours.get(name), theirs.get(name))).collect()
}

/// Everything that layers of real images have.
pub(super) fn ordinary() -> Vec<Item> {
    let long = format!("{}end", "long/".repeat(30));
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let longs: Vec<_> = long.match_indices('/').map(|(at, _)| directory("x").pax("path", &long[..at])).collect();
    [
        vec![
            directory("bin").mode(0o755),
            file("bin/su", Noise::new(1).bytes(70_000)).mode(0o4755).owner(0, 42).pax("mtime", "1500000000.123456789"),
            hard_link("bin/su2", "bin/su").mode(0o4755).owner(0, 42).pax("mtime", "1500000000.123456789"),
            file("bin/ping", "ping").mode(0o755).xattr("security.capability", capability),
            symlink("bin/sh", "/bin/su").owner(3, 4).time(7),
            hard_link("bin/sh2", "bin/sh").owner(3, 4).time(7),
            directory("tmp").mode(0o1777).owner(1, 2).time(1),
            directory("closed").mode(0o000),
            file("closed/file", "").mode(0o000),
            item(b'6', "tmp/pipe").mode(0o622).owner(9, 9),
            item(b'3', "tmp/null").device(1, 3).mode(0o666),
            item(b'4', "tmp/sda").device(8, 1).mode(0o660).owner(0, 6),
            file("big owner", "").owner(3_000_000, 4_000_000),
            file("pax owner", "").pax("uid", "3000001").pax("gid", "4000001"),
            file("empty", "").xattr("user.key", "value").xattr("user.empty", "").xattr("user.lines", "a\nb"),
            file(b"\xff\xfebytes", "x"),
        ],
        longs,
        vec![file("x", "far").pax("path", &long), symlink("far", "").pax("linkpath", &long)],
    ]
    .concat()
}

#[test]
fn interop_a5_gnu_tar_makes_the_same_tree() {
    let test = "interop_a5_gnu_tar_makes_the_same_tree";
    if !privileged(test) || !tool(test, "tar") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let blob = archive(&ordinary());
    let ours = without_times(ours(folder.path(), std::slice::from_ref(&blob)).expect("unpacks"));
    let theirs = gnu_tar(folder.path(), &blob).expect("GNU tar takes it");
    assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
    assert!(ours.len() > 40, "{}", shown(&ours));
}

/// Archives that readers have disagreed about.
fn disputed() -> Vec<(&'static str, Vec<u8>)> {
    let smuggled = archive(&[file("smuggled", "evil")]);
    let size = smuggled.len() as u64;
    let field = |number: u64| format!("{number:011o}\0");
    let sparse = |data: &str| {
        let pieces = [4096, 512, 50_000, 2, 100_000, 0].map(field).concat();
        item(b'S', "sparse").gnu().patch(386, pieces).patch(483, field(100_000)).data(data)
    };
    let data = format!("{}de", "a".repeat(512));
    let mut map = b"3\n4096\n512\n50000\n2\n100000\n0\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(data.as_bytes());
    let sparse_pax = file("GNUSparseFile.0/x", &map).pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0");
    let sparse_pax = sparse_pax.pax("GNU.sparse.name", "sparse").pax("GNU.sparse.realsize", "100000");
    let host = |pax: u64, ustar: u64| file("host", &smuggled).pax("size", pax.to_string()).size(ustar);
    let x = || file("x", "data");
    let global = |key: &str, value: &str| item(b'g', "global").data(record(key.as_bytes(), value.as_bytes()));
    let all: Vec<(&'static str, Vec<Item>)> = vec![
        ("PAX size over none", vec![host(size, 0), x()]),
        ("PAX size over a smaller one", vec![host(size, 512), x()]),
        ("PAX size under a larger one", vec![host(0, size), x()]),
        ("two PAX sizes", vec![host(size, size).pax("size", "0"), x()]),
        ("PAX size that is none", vec![file("host", &smuggled).pax("size", "x"), x()]),
        ("PAX size with a sign", vec![file("host", &smuggled).pax("size", format!("+{size}")), x()]),
        ("PAX size with a space", vec![file("host", &smuggled).pax("size", format!("{size} ")), x()]),
        ("PAX size, empty", vec![file("host", &smuggled).pax("size", ""), x()]),
        ("global size", vec![global("size", "0"), host(size, size), x()]),
        ("global path", vec![global("path", "other"), x()]),
        ("global comment", vec![global("comment", "git"), x()]),
        ("PAX and a long name", vec![x().pax("path", "p").long(b'L', "l")]),
        ("two long names", vec![x().long(b'L', "a").long(b'L', "b")]),
        ("long name of a PAX header", vec![item(b'x', "pax").long(b'L', "l").data(record(b"path", b"p")), x()]),
        ("long name with a zero byte", vec![x().long(b'L', "a\0b")]),
        ("two PAX headers", vec![item(b'x', "p").data(record(b"path", b"a")), x().pax("mtime", "5")]),
        ("PAX path with a zero byte", vec![x().pax("path", "a\0b")]),
        ("a directory with bytes", vec![directory("d").data(&smuggled), x()]),
        ("a hard link with bytes", vec![x(), hard_link("h", "x").data(&smuggled)]),
        ("a link with bytes", vec![symlink("l", "x").data(&smuggled), x()]),
        ("a pipe with bytes", vec![item(b'6', "p").data(&smuggled), x()]),
        ("a file that ends with a slash", vec![file("x/", "data")]),
        ("an old directory", vec![item(0, "old/").patch(257, [0; 8]).mode(0o755), x()]),
        (
            "ustar's prefix",
            vec![directory("some/prefix"), directory("some"), file("name", "n").patch(345, "some/prefix")],
        ),
        ("GNU with a prefix", vec![file("name", "n").gnu().patch(345, "no/prefix")]),
        ("star's prefix", vec![directory("star"), file("name", "n").patch(345, "star").patch(508, "tar\0")]),
        ("sparse, GNU", vec![sparse(&data), x()]),
        ("sparse, PAX 1.0", vec![sparse_pax, x()]),
        ("binary size", vec![file("x", "data").patch(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x04"), x()]),
        ("size with spaces", vec![file("x", "data").patch(124, "         4  "), file("y", "")]),
        ("mode with a type", vec![x().mode(0o100_644), file("y", "")]),
        ("a lone empty block", vec![x()]),
        ("dots", vec![directory("a"), file("./a/./x", "dots")]),
        ("a contiguous file", vec![item(b'7', "c").data("data")]),
        ("an unknown type", vec![item(b'Z', "z").data("data"), x()]),
        ("negative time", vec![x().time(-5)]),
        ("a fraction of a second before 1970", vec![x().pax("mtime", "-1.25")]),
        ("more digits than a nanosecond has", vec![x().pax("mtime", "1.1234567899")]),
        ("a unicode name", vec![x().pax("path", "Gr\u{fc}\u{df}e")]),
    ];
    let mut blobs: Vec<_> = all.into_iter().map(|(what, items)| (what, archive(&items))).collect();
    let lone = blobs.iter_mut().find(|(what, _)| *what == "a lone empty block").expect("there");
    lone.1.splice(1024..1024, [vec![0; 512], archive(&[file("hidden", "")])].concat());
    blobs
}

/// What we take, both of them take too, and make the same of it; but for what is named here.
#[test]
fn interop_a5_disputed_archives_are_refused_or_agreed_upon() {
    let test = "interop_a5_disputed_archives_are_refused_or_agreed_upon";
    if !privileged(test) || !tool(test, "tar") || !tool(test, "umoci") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let (mut agreed, mut refused, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (what, blob) in disputed() {
        let layers = [blob];
        let ours = match ours(folder.path(), &layers) {
            Ok(ours) => ours,
            Err(_) => {
                refused.push(what);
                continue;
            }
        };
        agreed.push(what);
        let timeless = without_times(ours.clone());
        let readers =
            [("tar", &timeless, gnu_tar(folder.path(), &layers[0])), ("umoci", &ours, umoci(folder.path(), &layers))];
        for (who, ours, theirs) in readers {
            match theirs {
                None => wrong.push(format!("{what}: {who} refuses it")),
                Some(theirs) => {
                    wrong.extend(differences(ours, &theirs).into_iter().map(|line| format!("{what}: {who}: {line}")));
                }
            }
        }
    }
    let known = |line: &String| KNOWN.iter().any(|known| line.starts_with(known));
    let (known, wrong): (Vec<_>, Vec<_>) = wrong.into_iter().partition(known);
    assert!(wrong.is_empty(), "{wrong:#?}\nknown: {known:#?}");
    assert!(agreed.len() >= 15 && refused.len() >= 15, "{agreed:?} {refused:?}");
}

/// Where the two disagree with each other, and we follow one.
const KNOWN: &[&str] = &[
    // containerd passes over it, and so does everything that reads what `git archive` writes.
    "global comment: umoci refuses",
    // Both stop at types that they have no code for.
    "a contiguous file: umoci refuses",
    "sparse, GNU: umoci refuses",
];

/// Bytes of headers changed at random, checksums put right: whatever of it we take, GNU tar reads the same.
#[test]
fn interop_a5_changed_headers_are_refused_or_agreed_upon() {
    let test = "interop_a5_changed_headers_are_refused_or_agreed_upon";
    if !privileged(test) || !tool(test, "tar") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let items = [
        directory("d"),
        file("d/x", "data of x").pax("mtime", "1500000000.5").pax("path", "d/y"),
        file("z", "zz").gnu().long(b'L', "d/long"),
        symlink("s", "d"),
        hard_link("h", "d/y"),
    ];
    let good = archive(&items);
    let headers: Vec<usize> =
        (0..good.len() / 512).map(|block| block * 512).filter(|at| good[at + 257..].starts_with(b"ustar")).collect();
    let mut noise = Noise::new(11);
    let mut number = |below: usize| usize::from_le_bytes(noise.bytes(8).try_into().expect("eight")) % below;
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    for round in 0..400 {
        let mut bad = good.clone();
        let header = headers[number(headers.len())];
        // Sizes, types, magic and checksums above all; and the records and names that follow a header.
        let at = match number(4) {
            0 => 124 + number(33),
            1 => 257 + number(8),
            2 => 512 + number(32),
            _ => number(512),
        };
        let byte = [b'0', b'1', b'7', b' ', 0, 0x80, 0xff, b'\n', b'=', b'/'][number(10)];
        let Some(place) = bad.get_mut(header + at) else { continue };
        *place = byte;
        checksum(&mut bad[header..header + 512]);
        match ours(folder.path(), std::slice::from_ref(&bad)) {
            Err(_) => refused += 1,
            Ok(ours) => {
                taken += 1;
                // What GNU tar complains about, it may make less of.
                let ours = without_times(ours);
                if let Some(theirs) = gnu_tar(folder.path(), &bad) {
                    wrong.extend(
                        differences(&ours, &theirs)
                            .into_iter()
                            .map(|line| format!("{round}: byte {at} of {header} is {byte:#x}: {line}")),
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(taken > 50 && refused > 50, "{taken} taken, {refused} refused");
}

/// Two layers above [`ordinary`]: replacements, whiteouts, duplicates, links to directories.
fn upper_layers() -> [Vec<Item>; 2] {
    [
        vec![
            directory("bin"),
            file("bin/.wh.sh", ""),
            file("bin/new", "n"),
            directory("tmp").mode(0o700),
            file("tmp/.wh..wh..opq", ""),
            file("tmp/kept", ""),
            file(".wh.empty", ""),
            file("closed", "a file now"),
            directory("big owner"),
            file("big owner/f", "a directory now"),
            symlink("lib", "usr/lib"),
            directory("usr"),
            directory("usr/lib"),
            file("lib/through", "a link to a directory"),
            directory("usr/lib").time(11),
        ],
        vec![
            directory("bin"),
            file("bin/su2", "no longer the same"),
            directory("usr"),
            directory("usr/lib"),
            file("usr/lib/.wh.through", ""),
            file("../up", "neutral"),
            file("/absolute", "neutral"),
            file("twice", "1"),
            file("twice", "22"),
            file("became", "a file"),
            directory("became"),
            directory("vanished"),
            file("vanished/inner", ""),
            symlink("vanished", "bin"),
        ],
    ]
}

fn layers() -> Vec<Vec<u8>> {
    let [second, third] = upper_layers();
    vec![archive(&ordinary()), archive(&second), archive(&third)]
}

#[test]
fn interop_a6_umoci_makes_the_same_tree() {
    let test = "interop_a6_umoci_makes_the_same_tree";
    if !privileged(test) || !tool(test, "umoci") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let ours = ours(folder.path(), &layers()).expect("unpacks");
    let theirs = umoci(folder.path(), &layers()).expect("umoci takes it");
    assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
}

#[test]
fn interop_a6_containerd_makes_the_same_tree() {
    let test = "interop_a6_containerd_makes_the_same_tree";
    if !privileged(test) || !tool(test, "containerd") || !tool(test, "ctr") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let ours = ours(folder.path(), &layers()).expect("unpacks");
    let mut wrong = Vec::new();
    for (snapshotter, theirs) in containerd(folder.path(), &layers()) {
        wrong.extend(differences(&ours, &theirs).into_iter().map(|line| format!("{snapshotter}: {line}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
}
