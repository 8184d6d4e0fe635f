//! Storage by a daemon: the suite that every storage passes, and what only a daemon can get wrong.

use std::{path::Path, sync::Arc, time::Duration};

use shipfs_node::{
    config::Config,
    rpc::Place,
    testing::kubo::{Blocks, FakeKubo, Fault, PEER},
};

use super::*;
use crate::{
    blobs::{embedded::EmbeddedBlobs, import::ImportingBlobs, suite},
    names::{self, Image, Shape},
    oci::Platforms,
    pull::{self, PullOptions},
    push::{self, Naming, PushError, PushFrom, PushOptions},
    reference::Reference,
    source,
};

const ROOT: &str = "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4";

async fn node(folder: &Path, name: &str) -> Node {
    Node::start(Config::offline(folder.join(name))).await.expect("starts")
}

fn client(fake: &FakeKubo) -> Kubo {
    let address = fake.multiaddress().parse().expect("an address");
    Kubo::new(Place::At(address), None, Duration::from_secs(4))
}

fn blobs(fake: &FakeKubo, node: &Node) -> ForeignBlobs {
    ForeignBlobs::new(client(fake), PEER, node.clone(), node.config().repository.clone())
}

fn own_files(node: &Node) -> usize {
    std::fs::read_dir(node.config().repository.join("blobs/sha256")).map_or(0, Iterator::count)
}

fn source(path: &str) -> PushFrom {
    let location = format!("oci:{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR")).parse().expect("location");
    PushFrom::Source(source::open(&location, None, Path::new("/nonexistent")).expect("opens").into(), None)
}

fn named(name: &str, shape: Shape) -> PushOptions {
    let naming = Naming::As(name.parse().expect("a name"));
    PushOptions { naming, shape, platforms: Platforms::All, ..PushOptions::default() }
}

async fn push(blobs: &ForeignBlobs, name: &str, shape: Shape) -> Image {
    push::push(blobs, &source("source-layout"), &named(name, shape), &()).await.expect("pushes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_does_what_storage_does() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let (one, other) = (node(folder.path(), "one").await, node(folder.path(), "other").await);
    let first = FakeKubo::start(Arc::default(), Vec::new());
    let second = FakeKubo::start(Arc::default(), vec![first.blocks()]);
    suite::run(&blobs(&first, &one), &blobs(&second, &other)).await;
    assert!(first.blocks().pins().is_empty(), "what was released is unpinned");
    assert_eq!((own_files(&one), own_files(&other)), (0, 0), "nothing lies twice");
    one.shutdown().await.expect("shuts down");
    other.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_store_fed_by_a_daemon_does_what_storage_does() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let (one, other) = (node(folder.path(), "one").await, node(folder.path(), "other").await);
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    // The suite's first storage is the daemon itself, its second what the daemon feeds.
    let importing = ImportingBlobs::new(EmbeddedBlobs::new(other.clone()), client(&fake));
    suite::run(&blobs(&fake, &one), &importing).await;
    one.shutdown().await.expect("shuts down");
    other.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_to_the_daemon_and_comes_back_in_both_shapes() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let (one, other) = (node(folder.path(), "one").await, node(folder.path(), "other").await);
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    for (shape, root) in
        [(Shape::Descriptor, ROOT), (Shape::Layout, "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze")]
    {
        let pushed = push(&blobs(&fake, &one), "a", shape).await;
        assert_eq!(pushed.root.to_string(), root);
        let importing = ImportingBlobs::new(EmbeddedBlobs::new(other.clone()), client(&fake));
        let options = PullOptions { platforms: Platforms::All, name: None, record: None, keys: Vec::new() };
        let pulled = pull::pull(&importing, &pushed.root, &options, None, &()).await.expect("pulls");
        assert_eq!((pulled.root, pulled.note.as_ref()), (pushed.root, pushed.note.as_ref()));
        drop(importing);
        // All of it is here and stays.
        other.gc().await.expect("collects");
        let own = EmbeddedBlobs::new(other.clone());
        pull::pull(&own, &pushed.root, &options, None, &()).await.expect("is here");
    }
    assert_eq!(own_files(&one), 0, "what the daemon holds does not lie here");
    assert!(own_files(&other) > 2);
    one.shutdown().await.expect("shuts down");
    other.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_an_image_leaves_the_pins_of_others_alone() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let one = node(folder.path(), "one").await;
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let blobs = blobs(&fake, &one);
    let first = push(&blobs, "a", Shape::Descriptor).await;
    let pins = fake.blocks().pins();
    assert_eq!(pins.len(), first.members.len() + 1);
    assert!(pins.values().all(|name| name.starts_with("shipfs-") && name.ends_with(":docker.io/library/a:latest")));
    // Another of our images shares the layers; somebody else pinned one blob before us, and one after.
    let second = push(&blobs, "b", Shape::Layout).await;
    let theirs = blobs.add(Content::Bytes("theirs".into()), None, &|_| {}).await.expect("adds").cid;
    fake.blocks().pin(theirs, "mine");
    let tagged: crate::reference::Name = "c".parse().expect("a name");
    names::tag(blobs.records(), &Reference::Cid(first.root), &tagged).await.expect("tags");
    assert_eq!(names::list(blobs.records()).await.expect("lists").len(), 3);
    let own = EmbeddedBlobs::new(one.clone());
    assert_eq!(names::list(own.records()).await.expect("lists").len(), 0, "they are not ours");

    names::remove(blobs.records(), &"a".parse().expect("a name")).await.expect("removes");
    let pins = fake.blocks().pins();
    assert_eq!(pins.len(), first.members.len() + 1 + 1 + 1);
    assert!(!pins.values().any(|name| name.contains("library/a")), "renamed after who holds them: {pins:?}");
    names::remove(blobs.records(), &"c".parse().expect("a name")).await.expect("removes");
    names::remove(blobs.records(), &Reference::Cid(second.root)).await.expect("removes");
    assert_eq!(fake.blocks().pins().into_iter().collect::<Vec<_>>(), [(theirs, "mine".to_owned())]);
    drop((blobs, own));
    one.gc().await.expect("collects");
    one.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_of_a_push_that_was_stopped_are_taken_back() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let one = node(folder.path(), "one").await;
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    // It pins, and says nothing more; whoever pushed is gone.
    fake.plan("pin/add", Fault::StallAfter(0));
    let stopped = blobs(&fake, &one);
    let pushing = push(&stopped, "a", Shape::Descriptor);
    assert!(tokio::time::timeout(Duration::from_secs(1), pushing).await.is_err());
    assert!(!fake.blocks().pins().is_empty());
    assert_eq!(names::list(stopped.records()).await.expect("lists").len(), 0);
    let other = blobs(&fake, &one);
    let root = other.add(Content::Bytes("another".into()), None, &|_| {}).await.expect("adds").cid;
    let image = Image { name: root.to_string(), root, members: Vec::new(), incomplete: false, note: None };
    names::save(other.records(), &image).await.expect("saves");
    assert_eq!(fake.blocks().pins().into_keys().collect::<Vec<_>>(), [root]);
    names::remove(other.records(), &Reference::Cid(root)).await.expect("removes");
    assert!(one.store().kept().is_empty(), "{:?}", one.store().kept());
    one.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_repeated_sends_what_the_daemon_lacks() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let one = node(folder.path(), "one").await;
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let uploads = || fake.asked().iter().filter(|asked| asked.command == "add").count();
    push(&blobs(&fake, &one), "a", Shape::Descriptor).await;
    let first = uploads();
    push(&blobs(&fake, &one), "b", Shape::Descriptor).await;
    assert_eq!(uploads(), first, "all of it is there");
    // What was collected before it was pinned is told, and nothing is named.
    let root = ROOT.parse().expect("a CID");
    names::remove(blobs(&fake, &one).records(), &Reference::Name("a".parse().expect("a name"))).await.expect("removes");
    names::remove(blobs(&fake, &one).records(), &Reference::Cid(root)).await.expect("removes");
    let fresh = blobs(&fake, &one);
    let absent = "could not find anything any more";
    let raw = format!(
        "HTTP/1.1 500 Error\r\nContent-Length: {}\r\n\r\n{{\"Message\":\"{absent}\",\"Code\":0}}",
        absent.len() + 23
    );
    fake.plan("pin/add", Fault::Raw(raw.into_bytes()));
    let refused = push::push(&fresh, &source("source-layout"), &named("a", Shape::Descriptor), &()).await;
    assert!(matches!(refused, Err(PushError::Names(_))), "{:?}", refused.err());
    assert_eq!(names::list(fresh.records()).await.expect("lists").len(), 0);
    drop(fresh);
    one.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_falsifies_is_refused() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let one = node(folder.path(), "one").await;
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let pushed = push(&blobs(&fake, &one), "a", Shape::Descriptor).await;
    for cid in std::iter::once(&pushed.root).chain(&pushed.members) {
        let honest = fake.blocks().get(cid).expect("is there");
        let mut falsified = honest.to_vec();
        falsified[0] ^= 1;
        fake.blocks().put(*cid, falsified.into());
        let other = node(folder.path(), &cid.to_string()).await;
        let importing = ImportingBlobs::new(EmbeddedBlobs::new(other.clone()), client(&fake));
        let options = PullOptions { platforms: Platforms::All, name: None, record: None, keys: Vec::new() };
        let refused = pull::pull(&importing, &pushed.root, &options, None, &()).await;
        assert!(refused.is_err(), "{cid}");
        drop(importing);
        other.shutdown().await.expect("shuts down");
        fake.blocks().put(*cid, honest);
    }
    one.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_store_has_is_given_to_the_daemon() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let one = node(folder.path(), "one").await;
    let own = EmbeddedBlobs::new(one.clone());
    let kept = push::push(&own, &source("source-layout"), &named("a", Shape::Descriptor), &()).await.expect("pushes");
    let fake = FakeKubo::start(Arc::new(Blocks::default()), Vec::new());
    let stored = PushFrom::Stored(kept.root);
    let blobs = blobs(&fake, &one);
    let pushed = push::push(&blobs, &stored, &named("a", Shape::Descriptor), &()).await.expect("pushes");
    assert_eq!((pushed.root, fake.blocks().pins().len()), (kept.root, kept.members.len() + 1));
    drop((own, blobs));
    one.shutdown().await.expect("shuts down");
}
