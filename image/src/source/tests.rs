//! Places that hold images, whole, torn and hostile.

use std::{
    io::{Cursor, Write as _},
    path::PathBuf,
    sync::Arc,
};

use super::*;

use crate::{
    blobs::{Blobs, memory::MemoryBlobs},
    event::BlobKind,
    oci::{Manifest, media},
};

fn data(path: &str) -> PathBuf {
    PathBuf::from(format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR")))
}

fn spool_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn open_text(text: &str) -> Result<Box<dyn Source>, SourceError> {
    open(&text.parse().expect("location"), None, spool_dir().path())
}

fn open_bytes(bytes: Vec<u8>) -> Result<Box<dyn Source>, SourceError> {
    let spool = spool_dir();
    open(&"docker-archive:-".parse().expect("location"), Some(Box::new(Cursor::new(bytes))), spool.path())
}

fn archive(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(data(&format!("archives/{name}.tar.gz"))).expect(name);
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect(name);
    bytes
}

fn read(source: &dyn Source, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    match source.open(blob).expect("opens") {
        Content::Bytes(whole) => bytes.extend_from_slice(&whole),
        Content::Reader(mut reader) => drop(reader.read_to_end(&mut bytes).expect("reads")),
        Content::File(path) => bytes = std::fs::read(path).expect("reads"),
    }
    bytes
}

/// Reads an image whole, every blob checked; gives its manifest.
fn check_whole(source: &dyn Source, wanted: Option<&str>) -> Manifest {
    let image = select(source, wanted).unwrap_or_else(|error| panic!("{error}"));
    let manifest = read_document(source, &image.descriptor).expect("manifest");
    let manifest = Manifest::parse(&manifest).expect("manifest");
    for blob in manifest.layers().iter().chain([&manifest.config]) {
        let bytes = read(source, blob);
        assert_eq!(bytes.len() as u64, blob.size, "{}", blob.digest);
        assert!(blob.digest.matches(&bytes), "{}", blob.digest);
    }
    manifest
}

const DIFF_ID: &str = "sha256:3af8db84ac5de645d0f6bfae576514d3d2fa9e59d64773fdd282e777667667bc";
const DOCKER26_LAYER: &str = "sha256:9a2073dfeb7572c256a03ea7592408ed6b2b34d5a4f654b47c5bbb49d3d16f45";
const GZIPPED: &str = "sha256:ed9b6ce5a4dfd0b136bbbb6c9d3f3b7da899be1dc0640b46e3e11c0bf38273f2";

#[test]
fn a_layout_is_read_from_a_directory() {
    let source = open_text(&format!("oci:{}", data("source-layout").display())).expect("opens");
    let manifest = check_whole(&*source, Some("latest"));
    assert_eq!(manifest.layers()[0].digest.to_string(), GZIPPED);
    assert!(source.layout().is_some_and(|layout| layout.blobs.len() == 4));
    let Err(error) = select(&*source, Some("other")) else { panic!("not refused") };
    assert_eq!(error.to_string(), "image `other` is not in the source, which has: latest");
}

#[test]
fn what_other_tools_write_is_read() {
    for (name, wanted, first_layer, media_type) in [
        ("skopeo-docker", None, DIFF_ID, media::LAYER),
        ("skopeo-docker", Some("localhost/esz:plain"), DIFF_ID, media::LAYER),
        ("skopeo-oci", Some("plain"), GZIPPED, media::LAYER_GZIP),
        ("podman-oci", Some("localhost/esz:plain"), GZIPPED, media::LAYER_GZIP),
        ("docker20-three", Some("localhost/esz:plain"), DIFF_ID, media::LAYER),
        ("docker26-three", Some("three/one:1"), DOCKER26_LAYER, media::LAYER),
        ("docker26-three", Some("localhost:5000/three/two:x"), DOCKER26_LAYER, media::LAYER),
        ("ctr", Some("localhost/esz:plain"), DIFF_ID, "application/vnd.docker.image.rootfs.diff.tar"),
        ("ctr", Some("plain"), DIFF_ID, "application/vnd.docker.image.rootfs.diff.tar"),
    ] {
        let source = open_bytes(archive(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let manifest = check_whole(&*source, wanted);
        assert_eq!(manifest.layers()[0].digest.to_string(), first_layer, "{name}");
        assert_eq!(manifest.layers()[0].media_type, media_type, "{name}");
        assert_eq!(media::kind(&manifest.config.media_type), BlobKind::Config);
    }
}

#[test]
fn archives_on_disk_are_read_compressed_or_not() {
    let folder = spool_dir();
    let plain = archive("docker20-three");
    let zstd = zstd::encode_all(&plain[..], 1).expect("compresses");
    let gzip = std::fs::read(data("archives/docker20-three.tar.gz")).expect("reads");
    for (name, bytes) in [("a.tar", &plain), ("a.zst", &zstd), ("a.gz", &gzip)] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        let location = format!("docker-archive:{}:twice:2", path.display()).parse().expect("location");
        let source = open(&location, None, &folder.path().join("spool")).expect("opens");
        let manifest = check_whole(&*source, location.image.as_deref());
        assert_eq!(manifest.layers().len(), 3);
        assert!(manifest.layers().iter().all(|layer| layer == &manifest.layers()[0]), "links are followed");
    }
    assert!(!folder.path().join("spool").exists(), "what is small is held in memory");
    let big = big_archive();
    let spool = folder.path().join("spool");
    let location = "docker-archive:-".parse().expect("location");
    let source = open(&location, Some(Box::new(Cursor::new(big))), &spool).expect("opens");
    assert_eq!(check_whole(&*source, None).layers().len(), 2);
    assert_eq!(std::fs::read_dir(&spool).expect("lists").count(), 0, "what is spooled has no name");
}

#[test]
fn images_are_picked_by_any_of_their_names() {
    let source = open_bytes(archive("docker20-three")).expect("opens");
    for name in ["twice:2", "docker.io/library/twice:2", "localhost/twice:1", "1", "localhost/esz:plain"] {
        assert!(select(&*source, Some(name)).is_ok(), "{name}");
    }
    let names: Vec<_> = source.images().iter().map(|image| image.name().expect("a name").to_string()).collect();
    assert_eq!(names, ["localhost/esz:plain", "localhost/twice:1", "docker.io/library/twice:2"]);
    assert!(
        matches!(select(&*source, None), Err(SourceError::Ambiguous { have }) if have.contains("localhost/twice:1"))
    );
    assert!(matches!(select(&*source, Some("twice")), Err(SourceError::NoSuchImage { .. })), "latest is meant");
}

/// A tar entry: name, bytes, or where a link points.
enum Part<'p> {
    File(&'p str, &'p [u8]),
    Symlink(&'p str, &'p str),
    Hardlink(&'p str, &'p str),
}

fn tar_of(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, bytes, kind, target) = match part {
            Part::File(name, bytes) => (name, *bytes, tar::EntryType::Regular, None),
            Part::Symlink(name, target) => (name, &b""[..], tar::EntryType::Symlink, Some(target)),
            Part::Hardlink(name, target) => (name, &b""[..], tar::EntryType::Link, Some(target)),
        };
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        // Written past the checks of the tar crate, which would not let these names through.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(target) = target {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, bytes).expect("appends");
    }
    builder.into_inner().expect("finishes")
}

fn config_of(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
    .into_bytes()
}

/// A layer too big to be held in memory.
fn big_layer() -> Vec<u8> {
    tar_of(&[Part::File("etc/x", &vec![b'x'; 100_000])])
}

/// As old Docker writes it: the lists last, and of two equal layers one as a link, which comes before what it is a link to.
fn big_archive() -> Vec<u8> {
    let layer = big_layer();
    let config = config_of(&[&layer, &layer]);
    tar_of(&[
        Part::Symlink("a/layer.tar", "../b/layer.tar"),
        Part::File("b/layer.tar", &layer),
        Part::File("c.json", &config),
        Part::File("junk", &vec![7; 70_000]),
        Part::File(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#,
        ),
    ])
}

fn into(store: &Arc<MemoryBlobs>, runtime: &tokio::runtime::Runtime) -> Aside {
    let blobs: Arc<dyn Blobs> = store.clone();
    Aside::Store(IntoStore { blobs, runtime: runtime.handle().clone(), wants_layouts: false })
}

fn take_in(bytes: &[u8], aside: &Aside) -> Result<Box<dyn Source>, SourceError> {
    let stream = Box::new(Cursor::new(bytes.to_vec()));
    open_with(&"docker-archive:-".parse().expect("location"), Some(stream), aside, &Services::default())
}

#[test]
fn a_stream_goes_into_the_store_while_it_passes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Arc::new(MemoryBlobs::default());
    let source = take_in(&big_archive(), &into(&store, &runtime)).expect("opens");
    let manifest = check_whole(&*source, Some("a:1"));
    assert_eq!(manifest.layers()[0], manifest.layers()[1], "a link may come first");
    let layer = &manifest.layers()[0];
    let added = source.added(layer).expect("is in the store");
    assert!(!added.existed && layer.digest.sha256() == Some(added.digest));
    assert_eq!(source.added(&manifest.config), None, "documents are held in memory");
    // The same bytes whatever keeps them.
    let spooled = open_bytes(big_archive()).expect("opens");
    assert_eq!(spooled.images(), source.images());
    let gzip = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&big_archive()).expect("compresses");
        gzip.finish().expect("compresses")
    };
    assert_eq!(take_in(&gzip, &into(&store, &runtime)).expect("opens").images(), source.images());
    // Cut off in the layer, in what follows it, and where the lists should be.
    for (cut, is_told) in [
        (50_000, (|error: &SourceError| matches!(error, SourceError::Truncated { .. })) as fn(&SourceError) -> bool),
        (big_archive().len() - 2048, |error| matches!(error, SourceError::NotAnImage { .. })),
    ] {
        let Err(error) = take_in(&big_archive()[..cut], &into(&store, &runtime)) else { panic!("not refused") };
        assert!(is_told(&error), "{error:?}");
    }
    let Err(error) = take_in(&gzip[..gzip.len() / 2], &into(&store, &runtime)) else { panic!("not refused") };
    assert!(matches!(error, SourceError::Archive(_)), "{error:?}");
}

#[test]
fn b2_a_blob_of_a_stream_that_is_not_what_it_is_called_is_refused() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Arc::new(MemoryBlobs::default());
    let layer = big_layer();
    let name = format!("blobs/sha256/{}", Digest::of(b"another").hex());
    let Err(error) = take_in(&tar_of(&[Part::File(&name, &layer)]), &into(&store, &runtime)) else {
        panic!("not refused")
    };
    assert!(matches!(&error, SourceError::Store { what, .. } if *what == name), "{error:?}");
    let digest = Digest::of(&layer).sha256().expect("SHA-256");
    assert_eq!(runtime.block_on(store.find(&digest, None)).expect("finds"), None, "nothing of it was stored");
    // One that is here is passed over, and is cut off all the same where the stream is.
    let content = Content::Bytes(layer.clone().into());
    runtime.block_on(store.add(content, None, &|_| {})).expect("adds");
    let name = format!("blobs/sha256/{}", Digest::of(&layer).hex());
    let archive = tar_of(&[Part::File(&name, &layer)]);
    let whole = take_in(&archive, &into(&store, &runtime));
    assert!(matches!(whole, Err(SourceError::NotAnImage { .. })), "it is whole, and no image");
    let cut = take_in(&archive[..50_000], &into(&store, &runtime));
    assert!(matches!(cut, Err(SourceError::Truncated { .. })));
}

#[test]
fn what_the_store_has_of_an_engines_image_is_not_asked_for() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Arc::new(MemoryBlobs::default());
    let Aside::Store(into) = into(&store, &runtime) else { panic!("a store") };
    let layer = big_layer();
    let config = config_of(&[&layer, &layer]);
    let held = crate::engine::Held { id: Some(Digest::of(&config)), layers: vec![Digest::of(&layer); 2] };
    let known = |held: &crate::engine::Held| {
        docker::DockerArchive::known(held, Some("docker.io/library/a:1".to_owned()), &into)
    };
    assert!(known(&held).is_none(), "nothing of it is here");
    for bytes in [&layer, &config] {
        let content = Content::Bytes(bytes.clone().into());
        runtime.block_on(store.add(content, None, &|_| {})).expect("adds");
    }
    let source = known(&held).expect("all of it is here");
    assert_eq!(source.images(), take_in(&big_archive(), &Aside::Store(into.clone())).expect("opens").images());
    check_whole(&source, Some("a:1"));
    // Another image of the same configuration's name, and an ID that is none of a configuration.
    let other = crate::engine::Held { layers: vec![Digest::of(&layer)], ..held };
    assert!(known(&other).is_none());
    let other = crate::engine::Held { id: Some(Digest::of(&layer)), layers: vec![Digest::of(&layer); 2] };
    assert!(known(&other).is_none());
}

#[test]
fn a_layer_keeps_the_bytes_it_has() {
    let plain = tar_of(&[Part::File("etc/x", b"1")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("compresses");
    let gzip = gzip.finish().expect("compresses");
    let zstd = zstd::encode_all(&plain[..], 1).expect("compresses");
    let config = config_of(&[&plain, &plain, &plain]);
    let source = open_bytes(tar_of(&[
        Part::File("./c.json", &config),
        Part::File("a/layer.tar", &plain),
        Part::File("b/layer.tar", &gzip),
        Part::File("c/layer.tar", &zstd),
        Part::File(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":null,"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]"#,
        ),
    ]))
    .expect("opens");
    let manifest = check_whole(&*source, None);
    let types: Vec<_> = manifest.layers().iter().map(|layer| layer.media_type.as_str()).collect();
    assert_eq!(types, [media::LAYER, media::LAYER_GZIP, media::LAYER_ZSTD]);
    assert_eq!(read(&*source, &manifest.layers()[1]), gzip);
}

/// Docker 25 and later: a layout whose lists name the blobs, and tell where layers came from.
#[test]
fn a_docker_archive_with_a_layout_inside_is_read_as_the_layout() {
    let layer = tar_of(&[Part::File("x", b"1")]);
    let config = config_of(&[&layer]);
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let describe = |media_type: &str, bytes: &[u8]| {
        String::from_utf8(Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64).to_json()).expect("UTF-8")
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media::MANIFEST,
        describe(media::CONFIG, &config),
        describe(media::LAYER, &layer)
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{}","size":{},"annotations":{{"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}}}}]}}"#,
        media::INDEX,
        media::MANIFEST,
        Digest::of(manifest.as_bytes()),
        manifest.len()
    );
    let list = format!(
        r#"[{{"Config":"{}","RepoTags":["a:1"],"Layers":["{}"],"LayerSources":{{"{}":{}}}}}]"#,
        name(&config),
        name(&layer),
        Digest::of(&layer),
        describe(media::LAYER, &layer)
    );
    let source = open_bytes(tar_of(&[
        Part::File(&name(&config), &config),
        Part::File(&name(&layer), &layer),
        Part::File(&name(manifest.as_bytes()), manifest.as_bytes()),
        Part::File("index.json", index.as_bytes()),
        Part::File("manifest.json", list.as_bytes()),
        Part::File("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#),
        Part::File("repositories", br#"{"a":{"1":"00"}}"#),
    ]))
    .expect("opens");
    assert_eq!(check_whole(&*source, Some("a:1")).to_json(), manifest.as_bytes());
}

#[test]
fn a_truncated_archive_is_told() {
    let whole = archive("docker20-three");
    // Cut inside a layer; inside a header; and where the lists at the end are missing.
    assert!(matches!(open_bytes(whole[..40_000].to_vec()), Err(SourceError::Truncated { .. })));
    assert!(matches!(open_bytes(whole[..100].to_vec()), Err(SourceError::Archive(_))));
    let lists = whole.windows(13).position(|window| window == b"manifest.json").expect("lists");
    assert!(matches!(open_bytes(whole[..lists].to_vec()), Err(SourceError::NotAnImage { .. })));
    let gzip = std::fs::read(data("archives/docker20-three.tar.gz")).expect("reads");
    assert!(matches!(open_bytes(gzip[..gzip.len() / 2].to_vec()), Err(SourceError::Archive(_))));
    let zstd = zstd::encode_all(&whole[..], 1).expect("compresses");
    assert!(matches!(open_bytes(zstd[..zstd.len() / 2].to_vec()), Err(SourceError::Archive(_))));
}

#[test]
fn what_is_no_image_is_told() {
    assert!(matches!(open_bytes(Vec::new()), Err(SourceError::NotAnImage { .. })));
    assert!(matches!(open_bytes(tar_of(&[Part::File("x", b"")])), Err(SourceError::NotAnImage { .. })));
    assert!(matches!(open_bytes(vec![7; 10_000]), Err(SourceError::Archive(_))));
    let marker = Part::File("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(matches!(open_bytes(tar_of(&[marker])), Err(SourceError::LayoutVersion { .. })));
    let empty = spool_dir();
    assert!(matches!(open_text(&format!("oci:{}", empty.path().display())), Err(SourceError::NotAnImage { .. })));
    assert!(matches!(open_text("oci-archive:/nonexistent/x.tar"), Err(SourceError::Open { .. })));
    assert!(matches!(open_text("oci-archive:-"), Err(SourceError::NoStream)));
}

#[test]
fn b2_names_and_links_stay_inside_the_archive() {
    let list = |layer: &str| format!(r#"[{{"Config":"c.json","Layers":["{layer}"]}}]"#);
    let config = config_of(&[b"layer"]);
    let opened = |parts: &[Part<'_>], layer: &str| {
        let list = list(layer);
        let mut all = vec![Part::File("c.json", &config), Part::File("manifest.json", list.as_bytes())];
        all.extend(parts.iter().map(|part| match part {
            Part::File(name, bytes) => Part::File(name, bytes),
            Part::Symlink(name, target) => Part::Symlink(name, target),
            Part::Hardlink(name, target) => Part::Hardlink(name, target),
        }));
        open_bytes(tar_of(&all)).map(drop)
    };
    assert!(
        opened(&[Part::File("l/layer.tar", b"layer"), Part::Symlink("m/layer.tar", "../l/layer.tar")], "m/layer.tar")
            .is_ok()
    );
    assert!(opened(&[Part::File("l", b"layer"), Part::Hardlink("m/layer.tar", "l")], "m/layer.tar").is_ok());
    for (target, layer) in [
        ("../../../../etc/passwd", "a/layer.tar"),
        ("/etc/passwd", "a/layer.tar"),
        ("layer.tar", "a/layer.tar"),
        ("b", "a/layer.tar"),
    ] {
        let refused = opened(&[Part::Symlink("a/layer.tar", target)], layer);
        assert!(matches!(refused, Err(SourceError::Link { .. })), "{target}: {refused:?}");
    }
    for name in ["../x", "a/../../x", "/../x"] {
        assert!(matches!(opened(&[Part::File(name, b"")], "x"), Err(SourceError::Escapes { .. })), "{name}");
    }
    for layer in ["../../etc/passwd", "/etc/passwd", "", "nothing"] {
        assert!(matches!(opened(&[], layer), Err(SourceError::Missing { .. })), "{layer}");
    }
}

#[test]
fn b2_a_layer_that_is_not_what_the_configuration_says_is_seen() {
    let config = config_of(&[b"right"]);
    let source = open_bytes(tar_of(&[
        Part::File("c.json", &config),
        Part::File("l.tar", b"wrong"),
        Part::File("manifest.json", br#"[{"Config":"c.json","Layers":["l.tar"]}]"#),
    ]))
    .expect("opens");
    let manifest = read_document(&*source, &source.images()[0].descriptor).expect("manifest");
    let layer = &Manifest::parse(&manifest).expect("manifest").layers()[0].clone();
    assert_eq!(layer.digest, Digest::of(b"right"), "so that whoever reads it sees that it is not");
    assert!(!layer.digest.matches(&read(&*source, layer)));
    let list = br#"[{"Config":"c.json","Layers":[]}]"#;
    let refused = open_bytes(tar_of(&[Part::File("c.json", &config), Part::File("manifest.json", list)]));
    assert!(matches!(refused, Err(SourceError::LayerCount { layers: 0, diff_ids: 1, .. })));
}

#[test]
fn b2_documents_are_checked_as_they_are_read() {
    let folder = spool_dir();
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("creates");
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writes");
    let entry = Descriptor::new(media::MANIFEST, Digest::of(b"12345"), 5);
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, String::from_utf8(entry.to_json()).expect("UTF-8"));
    std::fs::write(folder.path().join("index.json"), index).expect("writes");
    let source = open_text(&format!("oci:{}", folder.path().display())).expect("opens");
    assert!(matches!(read_document(&*source, &entry), Err(SourceError::Missing { .. })));
    for bytes in ["1234", "123456", "54321"] {
        std::fs::write(blobs.join(entry.digest.hex()), bytes).expect("writes");
        assert!(matches!(read_document(&*source, &entry), Err(SourceError::Mismatch { .. })), "{bytes}");
    }
    std::fs::write(blobs.join(entry.digest.hex()), "12345").expect("writes");
    assert_eq!(read_document(&*source, &entry).expect("reads"), "12345");
    let huge = Descriptor { size: u64::MAX, ..entry.clone() };
    assert!(matches!(read_document(&*source, &huge), Err(SourceError::Document { .. })));
}

#[test]
fn b5_archives_are_bounded() {
    let many: Vec<_> = (0..17_000).map(|at| format!("{at}")).collect();
    let parts: Vec<_> = many.iter().map(|name| Part::File(name, b"")).collect();
    assert!(matches!(open_bytes(tar_of(&parts)), Err(SourceError::TooManyEntries { .. })));
    // A long name of 4 MiB, which a reader might hold in memory.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(4 << 20);
    header.set_cksum();
    let long = [header.as_bytes(), &vec![b'x'; 4 << 20][..], &tar_of(&[Part::File("a", b"")])].concat();
    assert!(matches!(open_bytes(long), Err(SourceError::Archive(error)) if error.to_string().contains("headers")));
}

#[test]
fn d12_what_an_archive_names_cannot_speak_to_the_terminal() {
    let list = r#"[{"Config":"\u001b[2J","Layers":[]}]"#;
    let Err(error) = open_bytes(tar_of(&[Part::File("manifest.json", list.as_bytes())])) else { panic!("not refused") };
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

/// A pipe in a layout must not make a push wait for a writer.
#[test]
fn a_pipe_is_not_a_file() {
    let folder = spool_dir();
    let path = folder.path().join("oci-layout");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("pipe");
    assert!(matches!(open_text(&format!("oci:{}", folder.path().display())), Err(SourceError::NotAnImage { .. })));
}

proptest::proptest! {
    /// Bytes flipped anywhere in an archive give an error or an image, never a panic.
    #[test]
    fn damaged_archives_never_panic(at in 0..60_000_usize, byte: u8, cut in 0..90_000_usize) {
        let mut bytes = archive("docker20-three");
        let length = bytes.len();
        bytes[at % length] ^= byte;
        bytes.truncate(cut.max(1000));
        if let Ok(source) = open_bytes(bytes) {
            for image in source.images() {
                let _ = read_document(&*source, &image.descriptor);
            }
        }
    }
}
