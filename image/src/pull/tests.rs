//! Pulls out of memory and out of peers that lie.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    blobs::{Content, Entry, memory::MemoryBlobs},
    link::cid_of_file,
    oci::{Descriptor, Digest, media},
    push::{self, PushFrom, PushOptions},
    sink, source,
};

fn data(path: &str) -> String {
    format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A store that holds an image, and one that may ask it.
struct Two {
    seeder: Arc<MemoryBlobs>,
    puller: MemoryBlobs,
    image: Image,
}

async fn two(path: &str, shape: Shape) -> Two {
    let seeder = Arc::new(MemoryBlobs::default());
    let location = format!("oci:{}", data(path)).parse().expect("location");
    let source = source::open(&location, None, Path::new("/nonexistent")).expect("opens");
    let options = PushOptions { platforms: Platforms::All, shape, ..PushOptions::default() };
    let from = PushFrom::Source(source.into(), None);
    let image = push::push(&*seeder, &from, &options, &()).await.expect("pushes");
    let puller = MemoryBlobs::with_peers(vec![Arc::clone(&seeder)]);
    Two { seeder, puller, image }
}

impl Two {
    async fn pull(&self, platforms: Platforms) -> Result<Image, PullError> {
        let options = PullOptions { platforms, ..PullOptions::default() };
        pull(&self.puller, &self.image.root, &options, None, &()).await
    }
}

fn only(platform: &str) -> Platforms {
    Platforms::parse(&[platform]).expect("platform")
}

#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl EventSink for Events {
    fn emit(&self, event: Event) {
        self.0.lock().expect("lock").push(event);
    }
}

#[tokio::test]
async fn both_shapes_arrive_whole() {
    for shape in [Shape::Descriptor, Shape::Layout] {
        let two = two("source-layout", shape).await;
        let pulled = two.pull(Platforms::Host).await.expect("pulls");
        assert_eq!((pulled.root, &pulled.members, &pulled.note), (two.image.root, &two.image.members, &two.image.note));
        assert_eq!(two.puller.files(), two.seeder.files());
        assert_eq!(names::list(&two.puller).await.expect("lists"), [pulled]);
    }
}

#[tokio::test]
async fn every_blob_is_told_of_once() {
    let two = two("source-layout", Shape::Descriptor).await;
    for outcome in [Outcome::Fetched, Outcome::Present] {
        let events = Events::default();
        pull(&two.puller, &two.image.root, &PullOptions::default(), None, &events).await.expect("pulls");
        let events = events.0.into_inner().expect("lock");
        let kinds: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Started { kind, .. } => Some(*kind),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [BlobKind::Root, BlobKind::Manifest, BlobKind::Layer, BlobKind::Layer, BlobKind::Config]);
        let finished = |event: &&Event| matches!(event, Event::Finished { outcome: got, .. } if *got == outcome);
        assert!(events.iter().filter(finished).count() >= 4, "{events:?}");
    }
}

#[tokio::test]
async fn only_what_the_platform_needs_is_fetched() {
    for (shape, incomplete) in [(Shape::Descriptor, false), (Shape::Layout, true)] {
        let two = two("parity/docker-list", shape).await;
        let pulled = two.pull(only("linux/arm64")).await.expect("pulls");
        assert_eq!(pulled.incomplete, incomplete);
        assert_eq!(pulled.note.clone().expect("a note").platforms, ["linux/arm64/v8"]);
        assert!(two.puller.files() < two.seeder.files());
        // A further platform adds what is missing, and fetches nothing twice.
        let before = two.puller.fetched();
        two.pull(Platforms::All).await.expect("pulls");
        let after = two.puller.fetched();
        let unique: BTreeSet<_> = after.iter().collect();
        assert_eq!(unique.len(), after.len());
        assert!(after.len() > before.len());
        assert_eq!(two.puller.files(), two.seeder.files());
        let error = two.pull(only("linux/riscv64")).await.expect_err("refused");
        assert!(matches!(error, PullError::NoPlatform { .. }), "{error}");
    }
}

#[tokio::test]
async fn attestations_come_only_with_everything() {
    let two = two("parity/attestation", Shape::Descriptor).await;
    two.pull(only("linux/amd64")).await.expect("pulls");
    let some = two.puller.files();
    two.pull(Platforms::All).await.expect("pulls");
    assert!(two.puller.files() > some);
}

#[tokio::test]
async fn a_pull_that_was_stopped_fetches_the_rest() {
    let two = two("source-layout", Shape::Descriptor).await;
    let layer = cid_of_file(
        &std::fs::read(data(
            "source-layout/blobs/sha256/493a346fee210b0659b7a0bc99c358273049f0f7dba15912c69f182661413849",
        ))
        .expect("reads"),
    );
    let bytes = two.seeder.bytes(&layer).expect("is there");
    two.seeder.forget(&layer);
    assert!(matches!(two.pull(Platforms::Host).await, Err(PullError::Bring(BringError::Blob { .. }))));
    assert_eq!(names::list(&two.puller).await.expect("lists"), [], "no name before all of it is here");
    let before = two.puller.fetched();
    two.seeder.falsify(layer, bytes);
    two.pull(Platforms::Host).await.expect("pulls");
    let after = two.puller.fetched();
    assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), after.len(), "nothing is fetched twice");
    assert!(after.len() > before.len());
}

#[tokio::test]
async fn names_and_sinks_are_served_after_the_record() {
    let two = two("source-layout", Shape::Descriptor).await;
    let folder = tempfile::tempdir().expect("temporary directory");
    let location = format!("oci:{}/out:tag", folder.path().display()).parse().expect("location");
    let options = PullOptions { name: Some("a/b:c".parse().expect("name")), ..PullOptions::default() };
    let sink = sink::open(&location, None).expect("opens");
    pull(&two.puller, &two.image.root, &options, Some(sink), &()).await.expect("pulls");
    let names: Vec<_> = names::list(&two.puller).await.expect("lists").into_iter().map(|image| image.name).collect();
    assert_eq!(names, [two.image.root.to_string(), "docker.io/a/b:c".into()]);
    // What was written has the same root when it is pushed again, but for its tag.
    let out = format!("oci:{}/out", folder.path().display()).parse().expect("location");
    let source = source::open(&out, None, Path::new("/nonexistent")).expect("opens");
    assert_eq!(source.images()[0].descriptor.annotations["org.opencontainers.image.ref.name"], "tag");
    assert_eq!(source.images()[0].descriptor.urls, [""; 0]);
    let again = PushFrom::Source(source.into(), None);
    let pushed = push::push(&two.puller, &again, &PushOptions::default(), &()).await.expect("pushes");
    assert_eq!(pushed.members, two.image.members);

    let location = format!("docker-archive:{}/out.tar", folder.path().display()).parse().expect("location");
    let sink = sink::open(&location, None).expect("opens");
    save::save(&two.puller, &two.image.root, &Platforms::Host, None, sink, &()).await.expect("saves");
    assert!(source::open(&location, None, folder.path()).is_ok());
}

/// Stores documents of a hostile image, and gives the root.
struct Forge {
    store: Arc<MemoryBlobs>,
}

impl Forge {
    fn new() -> Self {
        Self { store: Arc::default() }
    }

    async fn put(&self, bytes: &[u8]) -> Cid {
        self.store.add(Content::Bytes(bytes.to_vec().into()), None, &|_| {}).await.expect("adds").cid
    }

    async fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let cid = self.put(bytes).await;
        Descriptor {
            urls: vec![format!("ipfs://{cid}")],
            ..Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
        }
    }

    async fn manifest(&self, layers: &[Descriptor]) -> Descriptor {
        let config = self.blob(media::CONFIG, b"{}").await;
        let json = |descriptor: &Descriptor| String::from_utf8(descriptor.to_json()).expect("UTF-8");
        let layers: Vec<_> = layers.iter().map(json).collect();
        let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, json(&config), layers.join(","));
        self.blob(media::MANIFEST, text.as_bytes()).await
    }

    async fn pull(&self, top: &Descriptor) -> Result<Image, PullError> {
        let root = self.put(&top.to_json()).await;
        self.pull_root(&root).await
    }

    async fn pull_root(&self, root: &Cid) -> Result<Image, PullError> {
        let puller = MemoryBlobs::with_peers(vec![Arc::clone(&self.store)]);
        let pulled = pull(&puller, root, &PullOptions::default(), None, &()).await;
        let named = names::list(&puller).await.expect("lists").len();
        assert_eq!(named, usize::from(pulled.is_ok()), "nothing is named unless all of it is here");
        pulled
    }
}

#[tokio::test]
async fn b2_a_blob_that_is_not_what_its_descriptor_says_is_refused() {
    let forge = Forge::new();
    let right = forge.blob(media::LAYER, b"12345").await;
    assert!(forge.pull(&forge.manifest(std::slice::from_ref(&right)).await).await.is_ok());
    for wrong in [
        Descriptor { size: 4, ..right.clone() },
        Descriptor { size: 6, ..right.clone() },
        Descriptor { size: u64::from(u32::MAX), ..right.clone() },
        Descriptor { digest: Digest::of(b"other"), ..right.clone() },
        Descriptor { digest: Digest::Sha512(Box::new([7; 64])), ..right.clone() },
        Descriptor { digest: Digest::Sha512(Box::new([7; 64])), size: 4, ..right.clone() },
        Descriptor { urls: vec![format!("ipfs://{}", forge.put(b"54321").await)], ..right.clone() },
    ] {
        let refused = forge.pull(&forge.manifest(std::slice::from_ref(&wrong)).await).await;
        assert!(matches!(refused, Err(PullError::Bring(_))), "{wrong:?} {refused:?}");
        let wrong_top = Descriptor { media_type: media::MANIFEST.into(), ..wrong };
        assert!(matches!(forge.pull(&wrong_top).await, Err(PullError::Plan(_))));
    }
}

#[tokio::test]
async fn b2_a_descriptor_without_a_cid_that_can_be_checked_is_refused() {
    let forge = Forge::new();
    let right = forge.blob(media::LAYER, b"12345").await;
    for urls in [vec![], vec!["https://example.com/x"], vec!["ipns://example.com"]] {
        let wrong = Descriptor { urls: urls.into_iter().map(str::to_owned).collect(), ..right.clone() };
        let refused = forge.pull(&forge.manifest(std::slice::from_ref(&wrong)).await).await;
        let Err(PullError::Bring(BringError::Root(error @ RootError::NoCid { .. }))) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(error.to_string(), format!("no CID is recorded in `{}`", right.digest));
        let top = Descriptor { media_type: media::MANIFEST.into(), ..wrong };
        assert!(matches!(forge.pull(&top).await, Err(PullError::Root(RootError::NoCid { .. }))));
    }
    let cid = right.ipfs_cid().expect("a CID").to_owned();
    for text in [
        "",
        "x",
        &format!("{cid}/x"),
        &format!("/ipfs/{cid}"),
        "\u{1b}[2J",
        "bafkr4icquuumcyc6ggpnmaag6pbcqvpxuwbuyp6tbcb4yanavsfqmmxdce",
    ] {
        let wrong = Descriptor { urls: vec![format!("ipfs://{text}")], ..right.clone() };
        let refused = forge.pull(&forge.manifest(&[wrong]).await).await.expect_err(text);
        assert!(matches!(refused, PullError::Bring(BringError::Root(RootError::BadCid { .. }))), "{text} {refused:?}");
        assert!(!refused.to_string().contains('\u{1b}'));
    }
}

#[tokio::test]
async fn b1_what_is_no_image_is_refused() {
    let forge = Forge::new();
    for text in ["", "{", "[]", "null", "{}", "hello", r#"{"mediaType":"x","digest":"sha256:00","size":1}"#] {
        let root = forge.put(text.as_bytes()).await;
        assert!(matches!(forge.pull_root(&root).await, Err(PullError::Root(_))), "{text}");
    }
    let huge = forge.put(&vec![b' '; (4 << 20) + 1]).await;
    assert!(matches!(
        forge.pull_root(&huge).await,
        Err(PullError::Root(RootError::Blobs(BlobsError::TooLarge { .. })))
    ));
    let both = forge.blob(media::MANIFEST, br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#).await;
    assert!(matches!(forge.pull(&both).await, Err(PullError::Plan(PlanError::Document { .. }))));
    let empty = forge.store.add_directory(Vec::new()).await.expect("adds").cid;
    assert!(matches!(forge.pull_root(&empty).await, Err(PullError::Root(RootError::NotALayout { .. }))));
    let absent = cid_of_file(b"absent");
    assert!(matches!(
        forge.pull_root(&absent).await,
        Err(PullError::Root(RootError::Blobs(BlobsError::NotFound { .. })))
    ));
}

#[tokio::test]
async fn b5_documents_of_documents_end() {
    let forge = Forge::new();
    let mut top = forge.manifest(&[]).await;
    for depth in 2..=5 {
        let entry = String::from_utf8(top.to_json()).expect("UTF-8");
        top = forge.blob(media::INDEX, format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#).as_bytes()).await;
        assert_eq!(forge.pull(&top).await.is_ok(), depth <= 4, "{depth}");
    }
}

#[tokio::test]
async fn inlined_data_is_used_only_when_it_is_the_blob() {
    let forge = Forge::new();
    let inlined = Descriptor { data: b"abc".to_vec(), ..Descriptor::new(media::LAYER, Digest::of(b"abc"), 3) };
    assert!(forge.pull(&forge.manifest(std::slice::from_ref(&inlined)).await).await.is_ok(), "no CID is needed");
    // Stale data, as a rewritten document leaves it behind, is passed over.
    let stale = Descriptor { data: b"old".to_vec(), ..forge.blob(media::LAYER, b"new").await };
    assert!(forge.pull(&forge.manifest(&[stale]).await).await.is_ok());
    let stale = Descriptor { data: b"old".to_vec(), ..inlined };
    assert!(forge.pull(&forge.manifest(&[stale]).await).await.is_err());
}

/// Signatures and attestations that refer to the image lie in its layout, and travel with it.
#[tokio::test]
async fn a_layout_brings_its_other_blobs_along_and_checks_them() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let target = folder.path().join("copy");
    let copy =
        |name: &str| std::fs::copy(format!("{}/{name}", data("source-layout")), target.join(name)).expect("copies");
    std::fs::create_dir_all(target.join("blobs/sha256")).expect("creates");
    for name in ["oci-layout", "index.json"] {
        copy(name);
    }
    for entry in std::fs::read_dir(data("source-layout/blobs/sha256")).expect("lists") {
        copy(&format!("blobs/sha256/{}", entry.expect("lists").file_name().to_string_lossy()));
    }
    let digest = Digest::of(b"a signature");
    std::fs::write(target.join("blobs/sha256").join(digest.hex()), "a signature").expect("writes");
    let seeder = Arc::new(MemoryBlobs::default());
    let location = format!("oci:{}", target.display()).parse().expect("location");
    let from = PushFrom::Source(source::open(&location, None, folder.path()).expect("opens").into(), None);
    let options = PushOptions { shape: Shape::Layout, ..PushOptions::default() };
    let image = push::push(&*seeder, &from, &options, &()).await.expect("pushes");
    let puller = MemoryBlobs::with_peers(vec![Arc::clone(&seeder)]);
    pull(&puller, &image.root, &PullOptions::default(), None, &()).await.expect("pulls");
    assert_eq!(puller.files(), 7);
    seeder.falsify(cid_of_file(b"a signature"), "another one");
    let puller = MemoryBlobs::with_peers(vec![seeder]);
    let refused = pull(&puller, &image.root, &PullOptions::default(), None, &()).await;
    assert!(matches!(refused, Err(PullError::Bring(BringError::Digest { .. }))), "{refused:?}");
}

#[tokio::test]
async fn c2_files_of_a_layout_that_nothing_describes_are_bounded() {
    let two = two("source-layout", Shape::Layout).await;
    // The same layout, with a signature that its folder says has 2 GiB.
    let list = async |cid: &Cid| two.seeder.list(cid).await.expect("lists");
    let mut files = list(&two.image.root).await;
    let folder = files.iter_mut().find(|entry| entry.name == "blobs").expect("blobs");
    let mut algorithms = list(&folder.cid).await;
    let mut hashes = list(&algorithms[0].cid).await;
    let signature = two.seeder.add(Content::Bytes("signature".into()), None, &|_| {}).await.expect("adds").cid;
    hashes.push(Entry { name: Digest::of(b"signature").hex(), cid: signature, size: 2 << 30 });
    algorithms[0].cid = two.seeder.add_directory(hashes).await.expect("adds").cid;
    folder.cid = two.seeder.add_directory(algorithms).await.expect("adds").cid;
    let root = two.seeder.add_directory(files).await.expect("adds").cid;
    let events = Events::default();
    let image = pull(&two.puller, &root, &PullOptions::default(), None, &events).await.expect("pulls");
    assert!(image.incomplete && two.puller.bytes(&signature).is_none());
    let events = events.0.into_inner().expect("lock");
    assert!(events.iter().any(|event| matches!(event, Event::Warning(_))));
}
