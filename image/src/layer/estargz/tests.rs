//! What upstream made of a layer, and what we make of it.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::PathBuf,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::{tar::Head, *};

fn data(path: &str) -> PathBuf {
    PathBuf::from(format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR")))
}

fn blob(layout: &str, digest: &str) -> Vec<u8> {
    fs::read(data(layout).join("blobs/sha256").join(digest)).expect("a blob")
}

/// The two layers of the image that all of them began with.
const PLAIN: [&str; 2] = [
    "ed9b6ce5a4dfd0b136bbbb6c9d3f3b7da899be1dc0640b46e3e11c0bf38273f2",
    "493a346fee210b0659b7a0bc99c358273049f0f7dba15912c69f182661413849",
];

fn made(layer: &[u8], chunk_bytes: u64) -> Result<(Vec<u8>, Converted), ConvertError> {
    made_with(layer, |options| options.chunk_bytes = chunk_bytes)
}

fn made_with(layer: &[u8], set: impl FnOnce(&mut ConvertOptions)) -> Result<(Vec<u8>, Converted), ConvertError> {
    let folder = tempfile::tempdir().expect("a directory");
    let mut options = ConvertOptions::new(folder.path().to_owned());
    options.threads = 3;
    set(&mut options);
    let mut out = Vec::new();
    let layer = layer.to_vec();
    let open = move || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(layer.clone()))) };
    let converted = convert(&open, &options, &mut out)?;
    Ok((out, converted))
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).expect("gzip");
    out
}

/// The archive without the table, and the table without what depends on compressed bytes.
fn parts(blob: &[u8]) -> (Vec<u8>, String) {
    let tar = inflated(blob);
    let name = TOC_NAME.as_bytes();
    let at = (0..tar.len()).step_by(512).rfind(|at| tar[*at..].starts_with(name)).expect("a table");
    let end = tar.len() - tar[at..].iter().rev().position(|byte| *byte != 0).expect("a table");
    let table = String::from_utf8(tar[at + 512..end].to_vec()).expect("text");
    let lines: Vec<&str> = table.lines().filter(|line| !line.trim_start().starts_with("\"offset\":")).collect();
    (tar[..at].to_vec(), lines.join("\n"))
}

#[test]
fn archive_and_table_are_those_of_upstream() {
    for (layout, layers, chunk_bytes) in [
        (
            "estargz/upstream",
            [
                "891407652ac9460600b7dcb9bc1886a45e4c853a7406e33a8e07710b709d0e45",
                "2e1354f854658ea61c78b3b996a57a60d8784094942ba449f577c68dfb1d1e16",
            ],
            CHUNK_BYTES,
        ),
        (
            "estargz/upstream-4k",
            [
                "b051a9a6973aece804c1d1c55a574385c8b6444ae1fbc071cafba17ddc89e6fc",
                "2e1354f854658ea61c78b3b996a57a60d8784094942ba449f577c68dfb1d1e16",
            ],
            4096,
        ),
    ] {
        for (plain, theirs) in PLAIN.iter().zip(layers) {
            let (ours, converted) = made(&blob("source-layout", plain), chunk_bytes).expect("converts");
            let (tar, table) = parts(&ours);
            let (their_tar, their_table) = parts(&blob(layout, theirs));
            assert_eq!(table, their_table);
            assert!(tar == their_tar);
            let whole = inflated(&ours);
            assert_eq!(converted.diff_id, Digest::of(&whole));
            assert_eq!(converted.uncompressed_size, whole.len() as u64);
        }
    }
}

fn header(kind: ::tar::EntryType, size: u64) -> ::tar::Header {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header
}

/// An archive of files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = header(::tar::EntryType::Regular, bytes.len() as u64);
        archive.append_data(&mut header, name, *bytes).expect("in memory");
    }
    archive.into_inner().expect("in memory")
}

fn open(blob: &[u8], toc: &Digest) -> Result<Estargz<Bytes>, ReadError> {
    Estargz::open(Bytes::copy_from_slice(blob), blob.len() as u64, toc)
}

#[test]
fn layers_of_upstream_are_read_and_verified() {
    for (layout, layer, toc) in [
        (
            "estargz/upstream",
            "891407652ac9460600b7dcb9bc1886a45e4c853a7406e33a8e07710b709d0e45",
            "a540ec2dcb96684d72a580be49ba5cf3130fe469bc812728e3834767e75578bf",
        ),
        (
            "estargz/upstream-4k",
            "b051a9a6973aece804c1d1c55a574385c8b6444ae1fbc071cafba17ddc89e6fc",
            "1de5221d555726158eb8a061abd4505d3bf19824df1299fd8fe1e15a36da5caa",
        ),
        (
            "estargz/zstdchunked",
            "08895f253610c37b451dfcf7fcfdfdc3b0dbfabb885b687b9e2de1aa23a17535",
            "974700f0aeb3cbb47ee72067a3ac12c6dd65e46070c5db607c0f76c04facd10a",
        ),
    ] {
        let toc = format!("sha256:{toc}").parse().expect("a digest");
        let opened = open(&blob(layout, layer), &toc).expect(layout);
        opened.verify().expect(layout);
        let at = opened.entries().iter().position(|entry| entry.name == "etc/hardlink").expect("a file");
        assert_eq!(opened.read(at).expect("its bytes"), b"hello\n");
        let xattrs = &opened.entries()[at].xattrs;
        assert_eq!(xattrs.get("user.foo").map(Vec::as_slice), Some(&b"bar"[..]), "{layout}");
    }
}

#[test]
fn files_of_every_length_come_back() {
    let noise: Vec<u8> = (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let lengths = [0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 5000, 20_000];
    let names: Vec<String> = lengths.iter().map(|length| format!("file{length}")).collect();
    let files: Vec<_> = names.iter().zip(lengths).map(|(name, length)| (&**name, &noise[..length])).collect();
    let layer = archive(&files);
    let (blob, converted) = made(&layer, 1024).expect("converts");
    let opened = open(&blob, &converted.toc_digest).expect("opens");
    opened.verify().expect("verifies");
    for (name, bytes) in files {
        let of = |(_, entry): &(usize, &TocEntry)| entry.name == name;
        let chunks: Vec<_> = opened.entries().iter().enumerate().filter(of).map(|(at, _)| at).collect();
        assert_eq!(chunks.len(), bytes.len().div_ceil(1024).max(1), "{name}");
        let read: Vec<u8> = chunks.iter().flat_map(|at| opened.read(*at).expect("its bytes")).collect();
        assert_eq!(read, bytes);
        // Of a multiple of a chunk, even the last chunk says how long it is.
        let last = &opened.entries()[*chunks.last().expect("an entry")];
        assert_eq!(last.chunk_size, if bytes.len().is_multiple_of(1024) { bytes.len().min(1024) as u64 } else { 0 });
    }
}

#[test]
fn one_layer_becomes_one_layer_however_it_comes() {
    let plain = inflated(&blob("source-layout", PLAIN[0]));
    let (expected, _) = made(&plain, 4096).expect("converts");
    let zstd = zstd::encode_all(&*plain, 3).expect("compresses");
    let gzip = blob("source-layout", PLAIN[0]);
    for layer in [&plain, &zstd, &gzip] {
        for threads in [1, 2, 7] {
            let (blob, _) = made_with(layer, |options| {
                (options.chunk_bytes, options.threads) = (4096, threads);
            })
            .expect("converts");
            assert!(blob == expected);
        }
    }
    // What was converted once comes out the same again, but for the names that are the format's own.
    let (again, _) = made(&expected, 4096).expect("converts");
    assert!(again == expected);
}

#[test]
fn a_layer_of_nothing_but_directories_is_cut_as_well() {
    let mut archive = ::tar::Builder::new(Vec::new());
    for at in 0..5000 {
        let mut header = header(::tar::EntryType::Directory, 0);
        archive.append_data(&mut header, format!("directory{at}/"), &b""[..]).expect("in memory");
    }
    let (blob, converted) = made(&archive.into_inner().expect("in memory"), CHUNK_BYTES).expect("converts");
    let opened = open(&blob, &converted.toc_digest).expect("opens");
    assert_eq!(opened.entries().len(), 5001);
    let members = blob.windows(10).filter(|bytes| *bytes == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff").count();
    // The landmark's header, the rest in three, and the table.
    assert_eq!(members, 5);
}

#[test]
fn what_a_table_cannot_hold_is_refused() {
    let refused = |layer: &[u8]| made(layer, CHUNK_BYTES).expect_err("refused").to_string();
    let raw = |patch: &dyn Fn(&mut [u8])| {
        let mut bytes = archive(&[("name", b"x")]);
        patch(&mut bytes[..512]);
        let mut header = ::tar::Header::from_byte_slice(&bytes[..512]).clone();
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        bytes
    };
    assert!(refused(&raw(&|header| header[0] = 0xff)).contains("its name is not UTF-8"));
    let late = raw(&|header| header[136..148].copy_from_slice(b"\x80\0\0\0\0\0\x7f\xff\xff\xff\xff\xff"));
    assert_eq!(refused(&late), "entry `name`: its time lies outside the years 0 to 9999");
    assert!(refused(b"no archive").starts_with("the layer ends"));
    let few = made_with(&archive(&[("name", &[0; 3000])]), |options| {
        options.chunk_bytes = 1024;
        options.limits.entries = 2;
    });
    assert_eq!(few.expect_err("too many").to_string(), "the layer exceeds the limit of 2 entries");
}

#[test]
fn a_layer_that_changes_while_it_is_read_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let open = || -> io::Result<Box<dyn Read + Send>> {
        let first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Ok(Box::new(io::Cursor::new(archive(&[("name", if first { b"one" } else { b"two" })]))))
    };
    let changed = convert(&open, &ConvertOptions::new(folder.path().to_owned()), Vec::new());
    assert!(matches!(changed, Err(ConvertError::Changed)));
}

/// A layer whose table is another one, with the digest of that.
fn with_table(blob: &[u8], change: impl FnOnce(String) -> String) -> (Vec<u8>, Digest) {
    let Some(Footer::Gzip { toc, .. }) = Footer::parse(blob) else { panic!("a footer") };
    let (members, table) = blob.split_at(usize::try_from(toc).expect("it is in memory"));
    let table = inflated(table);
    let end = table.iter().rposition(|byte| *byte == b'}').expect("a table");
    let table = change(String::from_utf8(table[512..=end].to_vec()).expect("text")).into_bytes();
    let mut member = GzEncoder::new(members.to_vec(), Compression::fast());
    member.write_all(&Head::file(TOC_NAME, table.len() as u64).encode().expect("a header")).expect("in memory");
    member.write_all(&table).expect("in memory");
    let mut out = member.finish().expect("in memory");
    out.extend_from_slice(&Footer::bytes(toc));
    (out, Digest::of(&table))
}

#[test]
fn d9_tables_that_lie_are_refused() {
    let (blob, converted) = made(&archive(&[("one", &[1; 2500]), ("two", b"2")]), 1024).expect("converts");
    let opened = open(&blob, &converted.toc_digest).expect("opens");
    let offsets: Vec<u64> = opened.entries().iter().map(|entry| entry.offset).collect();
    let offset = |at: usize| format!("\"offset\": {}", offsets[at]);
    let [digest_of_two, other] = [b"2", b"3"].map(|bytes| Digest::of(bytes).to_string());
    let lies: Vec<(&str, String, String)> = vec![
        ("leave a gap, or overlap", "\"chunkOffset\": 1024".into(), "\"chunkOffset\": 1000".into()),
        ("leave a gap, or overlap", "\"chunkSize\": 1024".into(), "\"chunkSize\": 99999".into()),
        ("leave a gap, or overlap", "\"chunkSize\": 1024".into(), "\"chunkSize\": 18446744073709551615".into()),
        (
            "some of its chunks are missing",
            "\"chunkOffset\": 2048".into(),
            "\"chunkOffset\": 2048, \"chunkSize\": 100".into(),
        ),
        ("lie where they cannot", offset(2), offset(1)),
        ("lie where they cannot", offset(4), format!("\"offset\": {}", u64::MAX)),
        ("lie where they cannot", offset(4), "\"offset\": 0".into()),
        ("its chunks are too large", offset(4), offset(4) + ", \"innerOffset\": 99999999999"),
        ("its bytes have no digest", format!("\"chunkDigest\": \"{digest_of_two}\""), "\"chunkDigest\": \"x\"".into()),
        ("it is of no known type", "\"type\": \"reg\"".into(), "\"type\": \"socket\"".into()),
        (
            "it is a chunk of no file",
            "\"name\": \"one\",\n\t\t\t\"type\": \"chunk\"".into(),
            "\"name\": \"no\", \"type\": \"chunk\"".into(),
        ),
        ("its name is none", "\"name\": \"two\"".into(), "\"name\": \"\"".into()),
        ("malformed", "\"version\": 1".into(), "\"version\": 2".into()),
        ("malformed", "\"version\": 1".into(), "\"version\": 1, \"version\": 1".into()),
        ("malformed", "\"size\": 2500".into(), "\"size\": -1".into()),
    ];
    for (told, from, to) in lies {
        let (lying, toc) = with_table(&blob, |table| {
            assert!(table.contains(&from), "{from} is not in {table}");
            table.replacen(&from, &to, 1)
        });
        let error = open(&lying, &toc).err().unwrap_or_else(|| panic!("{from} for {to} is taken"));
        assert!(error.to_string().contains(told), "{told}: {error}");
    }
    // Digests are not believed until the bytes are there, and no byte comes out before.
    let (lying, toc) = with_table(&blob, |table| table.replace(&digest_of_two, &other));
    let opened = open(&lying, &toc).expect("opens");
    assert_eq!(opened.read(4).expect_err("a lie").to_string(), "entry `two`: its digest is not that of its bytes");
    assert!(opened.read(1).is_ok() && opened.verify().is_err());
    let file = Digest::of(&[1; 2500]).to_string();
    let (lying, toc) = with_table(&blob, |table| table.replace(&file, &other));
    assert!(open(&lying, &toc).expect("opens").verify().is_err(), "each chunk is right, the file is not");
    // Members that overlap: the second chunk is read out of the first one's.
    let inner = format!("{}, \"innerOffset\": 1024", offset(1));
    let (lying, toc) = with_table(&blob, |table| table.replacen(&offset(2), &inner, 1));
    assert!(open(&lying, &toc).expect("opens").read(2).is_err());
}

#[test]
fn d9_layers_whose_end_lies_are_refused() {
    let (blob, converted) = made(&archive(&[("one", b"1")]), CHUNK_BYTES).expect("converts");
    let toc = &converted.toc_digest;
    let end = blob.len() - 51;
    let told = |blob: &[u8]| open(blob, toc).expect_err("a lie").to_string();
    assert_eq!(told(&blob[..end]), "the layer has no table of contents");
    assert_eq!(told(b""), "the layer has no table of contents");
    for (toc, what) in
        [(u64::MAX, "begins after the end"), (end as u64, "begins after the end"), (0, "called otherwise")]
    {
        let forged = [&blob[..end], &Footer::bytes(toc)].concat();
        assert!(told(&forged).contains(what), "{toc}: {}", told(&forged));
    }
    let other = open(&blob, &Digest::of(b"")).expect_err("another table").to_string();
    assert!(other.contains("expected `sha256:e3b0"), "{other}");
    // A table without end is not unpacked: its header says how long it is.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&Head::file(TOC_NAME, 1 << 32).encode().expect("a header")).expect("in memory");
    let bomb = [bomb.finish().expect("in memory"), Footer::bytes(0).to_vec()].concat();
    assert!(told(&bomb).contains("too long"), "{}", told(&bomb));
}

#[test]
fn holes_become_zeros() {
    let sparse = fs::read(data("estargz/sparse.tar.gz")).expect("an archive");
    let (blob, converted) = made(&sparse, 4096).expect("converts");
    let opened = open(&blob, &converted.toc_digest).expect("opens");
    opened.verify().expect("verifies");
    let mut expected = vec![0; 30_000];
    expected[8192..8197].copy_from_slice(b"begin");
    expected[29_997..].copy_from_slice(b"end");
    for name in ["gnu", "pax"] {
        let of = |(_, entry): &(usize, &TocEntry)| entry.name == name;
        let chunks = opened.entries().iter().enumerate().filter(of);
        let read: Vec<u8> = chunks.flat_map(|(at, _)| opened.read(at).expect("its bytes")).collect();
        assert!(read == expected, "{name}");
    }
}
