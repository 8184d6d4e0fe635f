//! Pushes into memory, and what they must refuse.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::*;
use crate::{
    blobs::memory::MemoryBlobs,
    oci::{MAX_DESCRIPTORS, Manifest},
    source,
};

fn data(path: &str) -> PathBuf {
    PathBuf::from(format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR")))
}

fn from_path(path: &Path) -> PushFrom {
    let location = format!("oci:{}", path.display()).parse().expect("location");
    PushFrom::Source(source::open(&location, None, Path::new("/nonexistent")).expect("opens").into(), None)
}

fn options(shape: Shape) -> PushOptions {
    PushOptions { platforms: Platforms::All, shape, ..PushOptions::default() }
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl EventSink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().expect("lock").push(event);
    }
}

/// A layout in a temporary directory that tests write as they like.
struct Layout {
    folder: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).expect("creates");
        std::fs::write(folder.path().join("oci-layout"), LAYOUT).expect("writes");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        std::fs::write(self.path_of(&digest), bytes).expect("writes");
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        let folder = self.path().join("blobs").join(digest.algorithm());
        std::fs::create_dir_all(&folder).expect("creates");
        folder.join(digest.hex())
    }

    fn manifest(&self, config: Descriptor, layers: Vec<Descriptor>) -> Descriptor {
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.into(),
            artifact_type: String::new(),
            config,
            layers: Some(layers),
            subject: None,
            annotations: BTreeMap::new(),
        };
        self.blob(media::MANIFEST, &manifest.to_json())
    }

    fn list(&self, top: &Descriptor) {
        std::fs::write(self.path().join("index.json"), link::index_json(top)).expect("writes");
    }
}

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

#[tokio::test]
async fn the_fixture_is_pushed_with_the_cids_that_were_recorded() {
    let store = MemoryBlobs::default();
    let events = Events::default();
    let image =
        push(&store, &from_path(&data("source-layout")), &options(Shape::Descriptor), &events).await.expect("pushes");
    assert_eq!(image.root.to_string(), "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4");
    assert_eq!((image.name.clone(), image.members.len(), image.incomplete), (image.root.to_string(), 4, false));
    let note = image.note.clone().expect("a note");
    assert_eq!((note.size, note.media_type.as_str()), (31153 + 257 + 494 + 976, media::MANIFEST));
    assert_eq!(names::list(&store).await.expect("lists"), [image]);
    let events = events.0.into_inner().expect("lock");
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Started { .. })), 5, "two layers, configuration, manifest, root");
    assert_eq!(count(|event| matches!(event, Event::Finished { outcome: Outcome::Stored, .. })), 5);
}

#[tokio::test]
async fn a_layout_that_is_copied_has_the_cid_of_its_folder() {
    let store = MemoryBlobs::default();
    let path = data("source-layout");
    for platforms in [Platforms::Host, Platforms::All] {
        let options = PushOptions { platforms, ..options(Shape::Layout) };
        let image = push(&store, &from_path(&path), &options, &()).await.expect("pushes");
        assert_eq!(image.root.to_string(), "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze");
        assert_eq!((image.members.len(), image.incomplete), (0, false));
    }
    // Written anew, since a platform was asked for: other lists, so another CID, but always the same one.
    let only =
        PushOptions { platforms: Platforms::parse(&["linux/amd64"]).expect("platform"), ..options(Shape::Layout) };
    let image = push(&store, &from_path(&path), &only, &()).await.expect("pushes");
    assert_eq!(image.root.to_string(), "bafybeiaqjodbol7qapoah5nx2skaqxtcgxxfvqm5v2lww6sdu7xksmmewq");
}

#[tokio::test]
async fn an_archive_of_a_layout_is_copied_like_the_layout() {
    let store = MemoryBlobs::default();
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("x.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&path).expect("creates"));
    builder.append_dir_all(".", data("source-layout")).expect("appends");
    builder.into_inner().expect("finishes").flush().expect("flushes");
    let location = format!("oci-archive:{}", path.display()).parse().expect("location");
    let from = PushFrom::Source(source::open(&location, None, folder.path()).expect("opens").into(), None);
    let image = push(&store, &from, &options(Shape::Layout), &()).await.expect("pushes");
    assert_eq!(image.root.to_string(), "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze");
    let image = push(&store, &from, &options(Shape::Descriptor), &()).await.expect("pushes");
    assert_eq!(image.root.to_string(), "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4");
}

#[tokio::test]
async fn what_the_store_has_is_not_read_again() {
    let store = MemoryBlobs::default();
    let from = from_path(&data("source-layout"));
    let first = push(&store, &from, &options(Shape::Descriptor), &()).await.expect("pushes");
    let added = store.added();
    let events = Events::default();
    let second = push(&store, &from, &options(Shape::Descriptor), &events).await.expect("pushes");
    assert_eq!(first, second);
    // Only documents, which are made anew each time, are handed over.
    assert_eq!(store.added() - added, 2);
    let events = events.0.into_inner().expect("lock");
    assert!(
        events.iter().all(|event| !matches!(event, Event::Finished { outcome: Outcome::Stored, .. })),
        "{events:?}"
    );
}

#[tokio::test]
async fn an_image_of_the_store_is_pushed_again() {
    let store = MemoryBlobs::default();
    let first =
        push(&store, &from_path(&data("source-layout")), &options(Shape::Descriptor), &()).await.expect("pushes");
    for shape in [Shape::Descriptor, Shape::Layout] {
        let again = push(&store, &PushFrom::Stored(first.root), &options(shape), &()).await.expect("pushes");
        let back = push(&store, &PushFrom::Stored(again.root), &options(Shape::Descriptor), &()).await.expect("pushes");
        assert_eq!(back.root, first.root, "{shape:?}");
    }
}

#[tokio::test]
async fn images_are_named_as_they_are_told() {
    let store = MemoryBlobs::default();
    let spool = tempfile::tempdir().expect("temporary directory");
    let location =
        format!("docker-archive:{}", data("archives/skopeo-docker.tar.gz").display()).parse().expect("location");
    let from = PushFrom::Source(source::open(&location, None, spool.path()).expect("opens").into(), None);
    for (naming, name) in [
        (Naming::Source, "localhost/esz:plain"),
        (
            Naming::As(
                "a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().expect("name"),
            ),
            "docker.io/library/a",
        ),
        (Naming::As("a".parse().expect("name")), "docker.io/library/a:latest"),
    ] {
        let options = PushOptions { naming, ..options(Shape::Descriptor) };
        assert_eq!(push(&store, &from, &options, &()).await.expect("pushes").name, name);
    }
    // The fixture's tag is no full name.
    let options = PushOptions { naming: Naming::Source, ..options(Shape::Descriptor) };
    let image = push(&store, &from_path(&data("source-layout")), &options, &()).await.expect("pushes");
    assert_eq!(image.name, image.root.to_string());
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_told() {
    let store = MemoryBlobs::default();
    let options =
        PushOptions { platforms: Platforms::parse(&["linux/riscv64"]).expect("platform"), ..PushOptions::default() };
    let error = push(&store, &from_path(&data("parity/docker-list")), &options, &()).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the image is not there for linux/riscv64, only for: linux/amd64, linux/arm64/v8, linux/arm/v7"
    );
    assert_eq!(store.files(), 0);
}

#[tokio::test]
async fn a_layout_of_one_platform_is_written_anew() {
    let store = MemoryBlobs::default();
    let options =
        PushOptions { platforms: Platforms::parse(&["linux/arm64"]).expect("platform"), ..options(Shape::Layout) };
    let image = push(&store, &from_path(&data("parity/docker-list")), &options, &()).await.expect("pushes");
    let root = crate::root::Root::open(&store, &image.root).await.expect("opens");
    assert_eq!(root.top.media_type, media::DOCKER_INDEX, "digests stay as they were, so types do too");
    assert_eq!(image.note.expect("a note").platforms, ["linux/arm64/v8"]);
}

#[tokio::test]
async fn b2_nothing_is_named_when_a_blob_is_wrong() {
    for damage in ["longer", "shorter", "other", "absent", "document"] {
        let layout = Layout::new();
        let layer = layout.blob(media::LAYER, b"12345");
        let config = layout.blob(media::CONFIG, b"{}");
        let top = layout.manifest(config, vec![layer.clone()]);
        layout.list(&top);
        let path = layout.path_of(&layer.digest);
        match damage {
            "longer" => std::fs::write(path, "123456").expect("writes"),
            "shorter" => std::fs::write(path, "1234").expect("writes"),
            "other" => std::fs::write(path, "54321").expect("writes"),
            "absent" => std::fs::remove_file(path).expect("removes"),
            _ => std::fs::write(layout.path_of(&top.digest), vec![b' '; top.size as usize]).expect("writes"),
        }
        for shape in [Shape::Descriptor, Shape::Layout] {
            let store = MemoryBlobs::default();
            let refused = push(&store, &from_path(layout.path()), &options(shape), &()).await;
            match damage {
                "other" => assert!(
                    matches!(&refused, Err(PushError::Blob { source, .. }) if matches!(**source, BlobsError::Mismatch { .. }))
                ),
                "absent" => assert!(matches!(refused, Err(PushError::Source(SourceError::Missing { .. })))),
                _ => assert!(matches!(refused, Err(PushError::Source(SourceError::Mismatch { .. }))), "{refused:?}"),
            }
            assert_eq!(names::list(&store).await.expect("lists"), []);
        }
    }
}

#[tokio::test]
async fn blobs_named_by_sha512_are_checked_too() {
    let layout = Layout::new();
    let bytes = b"a layer";
    let digest = Digest::Sha512(Box::new(
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha512 as sha2::Digest>::new(), bytes)).into(),
    ));
    let layer = Descriptor::new(media::LAYER, digest.clone(), bytes.len() as u64);
    let config = layout.blob(media::CONFIG, b"{}");
    layout.list(&layout.manifest(config, vec![layer]));
    std::fs::write(layout.path_of(&digest), bytes).expect("writes");
    let store = MemoryBlobs::default();
    let image = push(&store, &from_path(layout.path()), &options(Shape::Descriptor), &()).await.expect("pushes");
    assert!(image.members.contains(&link::cid_of_file(bytes)));
    let copied = push(&store, &from_path(layout.path()), &options(Shape::Layout), &()).await.expect("pushes");
    assert!(crate::root::Root::open(&store, &copied.root).await.is_ok());
    std::fs::write(layout.path_of(&digest), b"b layer").expect("writes");
    let store = MemoryBlobs::default();
    let refused = push(&store, &from_path(layout.path()), &options(Shape::Descriptor), &()).await;
    assert!(
        matches!(&refused, Err(PushError::Blob { source, .. }) if matches!(**source, BlobsError::Content(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_blob_that_is_inlined_need_not_lie_in_the_source() {
    let layout = Layout::new();
    let config = Descriptor { data: b"{}".to_vec(), ..Descriptor::new(media::CONFIG, Digest::of(b"{}"), 2) };
    layout.list(&layout.manifest(config, Vec::new()));
    let store = MemoryBlobs::default();
    let image = push(&store, &from_path(layout.path()), &options(Shape::Descriptor), &()).await.expect("pushes");
    assert!(image.members.contains(&link::cid_of_file(b"{}")));
}

#[tokio::test]
async fn b5_an_image_of_too_many_blobs_is_refused() {
    let layout = Layout::new();
    let config = layout.blob(media::CONFIG, b"{}");
    let manifest = layout.manifest(config, vec![layout.blob(media::LAYER, b"x"); MAX_DESCRIPTORS - 1]);
    layout.list(&manifest);
    let store = MemoryBlobs::default();
    let refused = push(&store, &from_path(layout.path()), &options(Shape::Descriptor), &()).await;
    assert!(matches!(refused, Err(PushError::Plan(error)) if matches!(*error, PlanError::TooMany)));
}

/// Lists an image and has nothing of it but its documents, as containerd does after a lazy pull.
struct Documents {
    images: Vec<source::Listed>,
    blobs: BTreeMap<Digest, bytes::Bytes>,
}

impl Source for Documents {
    fn images(&self) -> &[source::Listed] {
        &self.images
    }

    fn open(&self, blob: &Descriptor) -> Result<Content, SourceError> {
        let found = self.blobs.get(&blob.digest).map(|bytes| Content::Bytes(bytes.clone()));
        found.ok_or_else(|| SourceError::Missing { what: blob.digest.to_string() })
    }

    fn added(&self, _: &Descriptor) -> Option<Added> {
        None
    }

    fn layout(&self) -> Option<&source::WholeLayout> {
        None
    }
}

#[tokio::test]
async fn what_a_source_lacks_comes_from_where_the_image_says_it_is() {
    let peer = Arc::new(MemoryBlobs::default());
    let first = push(&*peer, &from_path(&data("hello")), &options(Shape::Descriptor), &()).await.expect("pushes");
    let root = crate::root::Root::open(&*peer, &first.root).await.expect("opens");
    let manifest = peer.bytes(&root.cid_of(&root.top).expect("a CID")).expect("the manifest");
    let only_documents = |top: Descriptor, manifest: bytes::Bytes| {
        let blobs = BTreeMap::from([(Digest::of(&manifest), manifest)]);
        PushFrom::Source(Arc::new(Documents { images: vec![top.into()], blobs }), None)
    };
    let here = MemoryBlobs::with_peers(vec![Arc::clone(&peer)]);
    let from = only_documents(root.top.clone(), manifest.clone());
    let again = push(&here, &from, &options(Shape::Descriptor), &()).await.expect("pushes");
    assert_eq!(again.root, first.root);
    assert!(!here.fetched().is_empty());
    // With nobody who has it, and with nothing that says where it is.
    let alone = push(&MemoryBlobs::default(), &from, &options(Shape::Descriptor), &()).await;
    assert!(matches!(alone, Err(PushError::Bring(_))), "{alone:?}");
    let mut plain = Manifest::parse(&manifest).expect("a manifest");
    plain.layers.iter_mut().flatten().chain([&mut plain.config]).for_each(|blob| blob.urls.clear());
    let bytes: bytes::Bytes = plain.to_json().into();
    let top = Descriptor::new(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    let error = push(&MemoryBlobs::default(), &only_documents(top, bytes), &options(Shape::Descriptor), &()).await;
    let told = error.expect_err("refuses").to_string();
    assert!(plain.layers().iter().all(|layer| told.contains(&layer.digest.to_string())), "{told}");
}
