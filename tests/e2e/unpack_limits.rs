//! Threats A10, A11, A12 and A15: layers that are too much, not what they should be, or have no room.

use flate2::{Compression, write::GzEncoder};
use shipfs_image::layer::{ApplyError, HeaderProblem, Limit, Options, unpack_layer};
use shipfs_image::oci::Digest;
use shipfs_tests::archives::{archive, directory, file, hard_link, symlink, unended};
use shipfs_tests::image::Noise;
use shipfs_tests::program::{self, privileged};
use shipfs_tests::unpacking::{Ground, LAYER, diff_id, options, told};
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The same bytes again and again.
struct Again {
    bytes: Vec<u8>,
    at: usize,
    times: u64,
}

impl Again {
    fn new(bytes: Vec<u8>, times: u64) -> Self {
        Self { bytes, at: 0, times }
    }
}

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.times == 0 {
            return Ok(0);
        }
        let length = buffer.len().min(self.bytes.len() - self.at);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        if self.at == self.bytes.len() {
            (self.at, self.times) = (0, self.times - 1);
        }
        Ok(length)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn limit_of(error: &ApplyError) -> Limit {
    let ApplyError::Limit { what, .. } = error else { panic!("{error:?}") };
    *what
}

fn unpack(ground: &Ground, blob: impl Read + Send, options: &Options) -> Result<(), ApplyError> {
    let result = unpack_layer(blob, LAYER, None, &ground.layers(), "layer", options).map(|_| ());
    ground.check();
    result
}

#[test]
fn a10_entries_are_counted() {
    let ground = Ground::new();
    // The cheapest entry there is, ten million times.
    let blob = Again::new(unended(&[file(".wh..wh.x", "")]), 10_000_000);
    let error = unpack(&ground, blob, &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Limit { what: Limit::Entries, limit: 1_000_000 }), "{error:?}");
    assert_eq!(error.to_string(), "the layer exceeds the limit of 1000000 entries");
    // Headers that describe an entry count as bytes of that entry.
    let blob = Again::new(unended(&[file("x", "").patch(156, "g")]), 10_000_000);
    assert_eq!(limit_of(&unpack(&ground, blob, &options()).expect_err("refused")), Limit::HeaderBytes);
    // And one header may say any size.
    for kind in ["x", "g", "L", "K"] {
        let blob = unended(&[file("x", "").patch(156, kind).size(8 << 30)]);
        assert_eq!(limit_of(&unpack(&ground, &blob[..], &options()).expect_err("refused")), Limit::HeaderBytes);
    }
    // Long names of directories are remembered until the end.
    let mut small = options();
    small.limits.directory_name_bytes = 100_000;
    let names: Vec<_> = (0..1000).map(|number| directory("x").pax("path", format!("{number:0200}"))).collect();
    assert_eq!(limit_of(&unpack(&ground, &archive(&names)[..], &small).expect_err("refused")), Limit::DirectoryNames);
}

#[test]
fn a10_depth_is_bounded_and_needs_no_stack() {
    let ground = Ground::new();
    let deep = |part: &str, times: usize| file("x", "").pax("path", part.repeat(times) + "x");
    assert_eq!(
        limit_of(&unpack(&ground, &archive(&[deep("d/", 100_000)])[..], &options()).expect_err("refused")),
        Limit::PathBytes
    );
    let mut long = options();
    long.limits.path_bytes = 1 << 20;
    assert_eq!(
        limit_of(&unpack(&ground, &archive(&[deep("d/", 100_000)])[..], &long).expect_err("refused")),
        Limit::PathDepth
    );
    // Deeper by links: each goes on where the last one ended. It fails in the end, and all of it is removed again.
    let mut items = vec![directory("x").pax("path", "d/".repeat(1000))];
    for step in 0..8 {
        let from = if step == 0 { String::new() } else { format!("l{}/", step - 1) };
        items.push(symlink(format!("l{step}"), format!("{from}{}", "d/".repeat(1000))));
        items.push(directory("x").pax("path", format!("l{step}/{}", "d/".repeat(1000))));
    }
    items.push(hard_link("never", "there"));
    let error = unpack(&ground, &archive(&items)[..], &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Write { .. } | ApplyError::HardLink { .. }), "{error:?}");
    assert_eq!(fs::read_dir(ground.layers()).expect("a directory").count(), 0);
}

/// A gzip of zeros that has no end: one file, then members of 1 MiB each.
fn endless() -> impl Read + Send {
    let head = gzip(&unended(&[file("zeros", "").size(10 << 30)]));
    io::Cursor::new(head).chain(Again::new(gzip(&vec![0; 1 << 20]), u64::MAX))
}

#[test]
fn a11_small_bombs_are_small_files() {
    let ground = Ground::new();
    // 64 MiB out of 65 KiB.
    let mut blob = archive(&[file("zeros", "").size(64 << 20)]);
    blob.truncate(512);
    blob.resize((64 << 20) + 1536, 0);
    let blob = gzip(&blob);
    assert!(blob.len() < 70_000);
    unpack(&ground, &blob[..], &options()).expect("unpacks");
    assert_eq!(fs::metadata(ground.layers().join("layer/zeros")).expect("a file").len(), 64 << 20);
}

/// Runs in a process of its own, so that its memory can be measured.
#[test]
#[ignore = "run by a11_bombs_take_neither_disk_nor_memory"]
fn bomb() {
    let ground = Ground::new();
    let full = |path: &Path| -> u64 {
        let mut bytes = 0;
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let meta = entry.metadata().expect("there");
            bytes += if meta.is_dir() { 0 } else { meta.len() };
        }
        bytes
    };
    let seen = std::sync::atomic::AtomicU64::new(0);
    let layers = ground.layers();
    // Looks at the disk each time that more is wanted.
    struct Watched<R, F>(R, F);
    impl<R: Read, F: FnMut()> Read for Watched<R, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            (self.1)();
            self.0.read(buffer)
        }
    }
    let watch = || {
        for entry in fs::read_dir(&layers).into_iter().flatten().flatten() {
            seen.fetch_max(full(&entry.path()), std::sync::atomic::Ordering::Relaxed);
        }
    };
    let error = unpack(&ground, Watched(endless(), watch), &options()).expect_err("refused");
    assert_eq!(limit_of(&error), Limit::Ratio);
    let seen = seen.into_inner();
    assert!(seen > 100 << 20 && seen <= 260 << 20, "{seen} bytes on the disk");
    // An absolute budget, however well it compresses.
    let mut small = options();
    small.limits.bytes = 100 << 20;
    small.limits.ratio = u64::MAX;
    assert_eq!(limit_of(&unpack(&ground, endless(), &small).expect_err("refused")), Limit::FileBytes);
    // Zeros after the end are no way around it.
    let after = io::Cursor::new(gzip(&archive(&[]))).chain(Again::new(gzip(&vec![0; 1 << 20]), u64::MAX));
    assert_eq!(limit_of(&unpack(&ground, after, &small).expect_err("refused")), Limit::Bytes);
    // Nor is zstd, whose ratio has no end.
    let zeros = zstd::encode_all(&vec![0; 64 << 20][..], 3).expect("compressed");
    let head = zstd::encode_all(&unended(&[file("zeros", "").size(10 << 30)])[..], 3).expect("compressed");
    let blob = io::Cursor::new(head).chain(Again::new(zeros, u64::MAX));
    assert_eq!(limit_of(&unpack(&ground, blob, &options()).expect_err("refused")), Limit::Ratio);
    // A window of 2 GiB, as the header of a frame asks for it: 10 bits of mantissa less, exponent 21.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let error = unpack(&ground, &window[..], &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Decompress(_)), "{error:?}");
    let peak = program::memory_kib(std::process::id(), "VmHWM:").expect("memory");
    // Two of zstd's 64 MiB inputs of this test, and what the harness takes.
    assert!(peak < 64 * 1024 + 80 * 1024, "{peak} KiB at the peak");
    io::stdout().write_all(format!("peak {peak} KiB, {seen} bytes of disk\n").as_bytes()).expect("told");
}

#[test]
fn a11_bombs_take_neither_disk_nor_memory() {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let told = program::run(child.args(["--exact", "unpack_limits::bomb", "--ignored", "--nocapture"]));
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
fn a11_members_frames_and_nests() {
    let ground = Ground::new();
    let blob = archive(&[file("x", Noise::new(1).bytes(100_000)), file("y", "")]);
    // Cut anywhere, each part a member of its own.
    let members: Vec<u8> = blob.chunks(7001).flat_map(gzip).collect();
    let frames: Vec<u8> = blob.chunks(7001).flat_map(|part| zstd::encode_all(part, 1).expect("compressed")).collect();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frames].concat();
    for (number, whole) in [&members, &frames, &skippable, &blob].into_iter().enumerate() {
        let name = format!("layer{number}");
        let applied = unpack_layer(&whole[..], LAYER, Some(&Digest::of(&blob)), &ground.layers(), &name, &options());
        let applied = applied.unwrap_or_else(|error| panic!("{number}: {}", told(&error)));
        assert_eq!((applied.diff_id, applied.entries, applied.bytes), (Digest::of(&blob), 2, blob.len() as u64));
    }
    for (what, bad) in [
        ("gzip in gzip", gzip(&gzip(&blob))),
        ("zstd in gzip", gzip(&frames)),
        ("garbage after gzip", [&members[..], b"garbage"].concat()),
        ("zeros after gzip", [&members[..], &[0; 512]].concat()),
        ("garbage after zstd", [&frames[..], b"garbage"].concat()),
        ("garbage after the archive", [&blob[..], b"garbage"].concat()),
        ("another archive after it", [&blob[..], &blob].concat()),
        ("another member after it", [&members[..], &members].concat()),
        ("not an archive", b"not an archive".repeat(100)),
        ("a short one", b"x".to_vec()),
    ] {
        let error = unpack(&ground, &bad[..], &options()).expect_err(what);
        let typed = matches!(
            error,
            ApplyError::Header { .. }
                | ApplyError::Decompress(_)
                | ApplyError::TrailingBytes
                | ApplyError::Truncated { .. }
        );
        assert!(typed, "{what}: {error:?}");
    }
}

#[test]
fn a12_changed_layers_never_appear() {
    let ground = Ground::new();
    let plain =
        archive(&[directory("d"), file("d/x", Noise::new(2).bytes(5000)).pax("mtime", "1.5"), symlink("l", "d")]);
    let id = Digest::of(&plain);
    let packed = [plain.clone(), gzip(&plain), zstd::encode_all(&plain[..], 3).expect("compressed")];
    let mut refused = 0;
    for (kind, whole) in packed.iter().enumerate() {
        let unpack = |bytes: &[u8]| {
            let result = unpack_layer(bytes, LAYER, Some(&id), &ground.layers(), "layer", &options());
            assert_eq!(result.is_ok(), ground.layers().join("layer").exists());
            let _ = fs::remove_dir_all(ground.layers().join("layer"));
            result
        };
        unpack(whole).expect("unpacks");
        let step = whole.len() / 150 + 1;
        for at in (0..whole.len()).step_by(step) {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            match unpack(&changed) {
                // Bytes of a gzip header that mean nothing to the contents.
                Ok(_) => assert!(kind == 1 && (4..10).contains(&at), "byte {at} of kind {kind}"),
                Err(_) => refused += 1,
            }
            let error = unpack(&whole[..at]).expect_err("cut");
            // A plain archive that ends between two entries is whole but for its digest.
            let typed =
                matches!(error, ApplyError::Truncated { .. } | ApplyError::DiffId { .. } | ApplyError::Header { .. });
            assert!(typed, "cut at {at} of kind {kind}: {error:?}");
        }
        let error = unpack(&[&whole[..], &[0; 512]].concat()).expect_err("longer");
        assert!(matches!(error, ApplyError::DiffId { .. } | ApplyError::Decompress(_)), "{error:?}");
    }
    ground.check();
    assert!(refused > 300, "{refused}");
    let other = diff_id(b"other");
    let error =
        unpack_layer(&plain[..], LAYER, Some(&other), &ground.layers(), "layer", &options()).expect_err("refused");
    assert_eq!(error.to_string(), format!("the layer unpacks to `{id}`, expected `{other}`"));
    // SHA-512 is one as well.
    let long: Digest = {
        use sha2::Digest as _;
        Digest::Sha512(Box::new(sha2::Sha512::digest(&plain).into()))
    };
    let applied = unpack_layer(&plain[..], LAYER, Some(&long), &ground.layers(), "layer", &options()).expect("unpacks");
    assert_eq!(applied.diff_id, long);
    // Without a digest, an archive needs an end.
    let cut = unended(&[file("x", "")]);
    let error = unpack(&ground, &cut[..], &options()).expect_err("refused");
    assert!(matches!(error, ApplyError::Truncated { what: "its archive" }), "{error:?}");
    // A source that fails is told from one that lies.
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the wire was cut"))
        }
    }
    let error =
        unpack(&ground, io::Cursor::new(gzip(&plain)[..100].to_vec()).chain(Fails), &options()).expect_err("refused");
    assert_eq!(told(&error), "reading the layer: the wire was cut");
    assert!(!matches!(error, ApplyError::Header { problem: HeaderProblem::Checksum, .. }));
}

/// A small disk, mounted until this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).expect("a directory");
        program::run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path));
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn privileged_a15_a_full_disk_is_left_as_it_was() {
    if !privileged("privileged_a15_a_full_disk_is_left_as_it_was") {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let many: Vec<_> = (0..300).map(|number| file(format!("d{number}/f"), "")).collect();
    let large = archive(&[file("first", ""), file("large", Noise::new(3).bytes(6 << 20))]);
    let small = archive(&[file("small", Noise::new(4).bytes(1 << 20))]);
    for (disk, blob) in [("size=4m", &large), ("size=4m,nr_inodes=200", &archive(&many))] {
        let disk = Disk::mount(folder.path().join("disk"), disk);
        let layers = disk.0.join("layers");
        let unpack = |blob: &[u8]| unpack_layer(blob, LAYER, Some(&diff_id(blob)), &layers, "layer", &Options::root());
        let error = unpack(blob).expect_err("no room");
        assert!(told(&error).contains("No space left"), "{}", told(&error));
        assert_eq!(fs::read_dir(&layers).expect("a directory").count(), 0);
        // Nothing is held back: what fits, fits.
        unpack(&small).expect("unpacks");
        assert_eq!(fs::metadata(layers.join("layer/small")).expect("a file").len(), 1 << 20);
    }
}
