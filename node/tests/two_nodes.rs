//! Whole nodes on loopback: what one has, another gets, checked and once.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shipfs_node::Cid;
use shipfs_node::add::Content;
use shipfs_node::block::{Block, MAX_DIGEST_BYTES, Multihash};
use shipfs_node::config::{Config, NetworkConfig};
use shipfs_node::dag::{Kind, Link, UnixFs, WalkError, encode_node, encode_unixfs};
use shipfs_node::fetch::{Expected, FetchError};
use shipfs_node::node::Node;
use shipfs_node::store::Blockstore as _;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

fn silent(_: u64) {}

/// Bytes that repeat nowhere, the same at every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Sha256::digest(bytes).into(), size: bytes.len() as u64 }
}

fn loopback() -> NetworkConfig {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    NetworkConfig { listen, mdns: false, ..NetworkConfig::lan() }
}

async fn serving(directory: &TempDir) -> (Node, String) {
    let config = Config { network: loopback(), ..Config::offline(directory.path()) };
    let node = Node::start(config).await.expect("starts");
    node.serve(true).await.expect("serves");
    let net = node.net().await.expect("online");
    let address = net.listeners().await.expect("listens").remove(0);
    let address = format!("{address}/p2p/{}", net.peer());
    (node, address)
}

async fn fetching(directory: &TempDir, peers: &[&str]) -> Node {
    let peers = peers.iter().map(|peer| peer.parse().expect("an address")).collect();
    let network = NetworkConfig { peers, ..loopback() };
    let config = Config { network, patience: Duration::from_secs(5), ..Config::offline(directory.path()) };
    Node::start(config).await.expect("starts")
}

async fn add(node: &Node, bytes: &[u8]) -> Cid {
    let lease = node.lease();
    let content = Content::Bytes(Bytes::copy_from_slice(bytes));
    let added = node.add(content, Some(expected(bytes)), &lease, &silent).await.expect("added");
    node.pin(&added.cid, "test").await.expect("pinned");
    added.cid
}

fn directories() -> (TempDir, TempDir) {
    (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"))
}

/// Sizes: empty; one byte; one chunk and its neighbours; one full node of links and one past it (a level more).
#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_shape_arrive_bit_for_bit() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    let node = fetching(&there, &[&address]).await;
    for size in [0, 1, 262_143, 262_144, 262_145, 3_000_000, 174 * 262_144, 174 * 262_144 + 1] {
        let bytes = noise(size, size as u64);
        let cid = add(&source, &bytes).await;
        let lease = node.lease();
        let got = node.get(&cid, Some(expected(&bytes)), 0, &lease, &silent).await.expect("fetched");
        assert!(std::fs::read(&got.path).expect("there") == bytes, "{size} bytes differ");
        assert_eq!(node.store().file(&cid).expect("linked").size, size as u64);
    }
    node.commit().await.expect("durable");
    node.shutdown().await.expect("shuts down");
    source.shutdown().await.expect("shuts down");
}

/// A file of one block was taken to have its digest in its CID. Kubo's `--inline` makes CIDs that hold the file itself, and
/// other hashes say nothing of its SHA2-256 either: such files counted as wrong, since nothing was hashed.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_one_block_may_have_any_hash() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Node::start(Config::offline(directory.path())).await.expect("starts");
    let lease = node.lease();
    let bytes = Bytes::from_static(b"small enough to lie in its name");
    let inline = Cid::new_v1(0x55, Multihash::wrap(0, &bytes).expect("fits"));
    let digest = sha2::Sha512::digest(&bytes);
    let longer = Cid::new_v1(0x55, Multihash::wrap(0x13, &digest).expect("fits"));
    node.store().put(&Block::verify(longer, bytes.clone()).expect("sound")).expect("put");
    // The longest that there may be.
    let long = Bytes::from(noise(MAX_DIGEST_BYTES, 7));
    let longest = Cid::new_v1(0x55, Multihash::wrap(0, &long).expect("fits"));
    for (cid, bytes) in [(inline, &bytes), (longer, &bytes), (longest, &long)] {
        let got = node.get(&cid, Some(expected(bytes)), 0, &lease, &silent).await.expect("is at hand");
        assert_eq!(std::fs::read(&got.path).expect("there"), *bytes);
        let free = node.get(&cid, None, 200, &lease, &silent).await.expect("is at hand");
        assert_eq!(free.digest, expected(bytes).digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cid_is_fetched_once_however_many_ask() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    let node = fetching(&there, &[&address]).await;
    let bytes = noise(8 << 20, 3);
    let cid = add(&source, &bytes).await;
    let lease = node.lease();
    let gets = (0..4).map(|_| node.get(&cid, Some(expected(&bytes)), 0, &lease, &silent));
    for got in futures::future::join_all(gets).await {
        assert_eq!(got.expect("fetched").size, 8 << 20);
    }
    let peer = node.peers().await.into_iter().next().expect("one peer");
    assert_eq!((peer.traffic.received / bytes.len() as u64, peer.traffic.wasted), (1, 0));
}

/// Files that were whole when their process died used to be forgotten, since nothing was committed before the last of an
/// image had come: a pull that was killed after most of its layers fetched them all anew.
#[tokio::test(flavor = "multi_thread")]
async fn d1_whole_files_outlive_a_crash_before_the_commit() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    let node = fetching(&there, &[&address]).await;
    let files = [noise(2 << 20, 11), noise(300_000, 12), noise(900_000, 13)];
    let lease = node.lease();
    let mut cids = Vec::new();
    for bytes in &files {
        let cid = add(&source, bytes).await;
        node.get(&cid, Some(expected(bytes)), 0, &lease, &silent).await.expect("fetched");
        cids.push(cid);
    }
    // What a crash leaves: the files as they are now.
    let crashed = tempfile::tempdir().expect("a directory");
    let copy = Command::new("cp").arg("-a").arg(there.path().join(".")).arg(crashed.path()).status();
    assert!(copy.expect("cp starts").success());
    let after = Node::start(Config::offline(crashed.path())).await.expect("starts");
    for (cid, bytes) in cids.iter().zip(&files) {
        let lease = after.lease();
        let got = after.get(cid, Some(expected(bytes)), 0, &lease, &silent).await.expect("is there");
        assert!(std::fs::read(&got.path).expect("there") == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_another_digest_or_size_is_refused_and_leaves_nothing() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    let node = fetching(&there, &[&address]).await;
    let bytes = noise(1 << 20, 5);
    let cid = add(&source, &bytes).await;
    let lease = node.lease();
    let wrong = Expected { digest: [7; 32], ..expected(&bytes) };
    let error = node.get(&cid, Some(wrong), 0, &lease, &silent).await.expect_err("refused");
    assert!(matches!(error, FetchError::Digest { expected: [7, ..], .. }), "{error}");
    for size in [bytes.len() as u64 - 1, bytes.len() as u64 + 1] {
        let wrong = Expected { size, ..expected(&bytes) };
        assert!(node.get(&cid, Some(wrong), 0, &lease, &silent).await.is_err());
    }
    let error = node.get(&cid, None, 1000, &lease, &silent).await.expect_err("refused");
    assert!(matches!(error, FetchError::TooLong { limit: 1000, .. }), "{error}");
    assert!(node.store().file(&cid).is_none());
    let partial = std::fs::read_dir(there.path().join("partial")).expect("a directory").count();
    assert_eq!(partial, 0, "a partial file is left");
    node.get(&cid, Some(expected(&bytes)), 0, &lease, &silent).await.expect("still to be had");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_block_is_an_error_that_says_who_was_asked() {
    let (here, there) = directories();
    let (_source, address) = serving(&here).await;
    let mut config = Config { network: loopback(), ..Config::offline(there.path()) };
    config.network.peers = vec![address.parse().expect("an address")];
    config.patience = Duration::from_millis(700);
    let node = Node::start(config).await.expect("starts");
    let absent = shipfs_node::block::cid_of(0x55, b"nobody has this");
    let error = node.get(&absent, None, 1000, &node.lease(), &silent).await.expect_err("absent");
    assert!(matches!(&error, FetchError::Unavailable { asked: 1, holders, .. } if holders.is_empty()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offline_node_says_so_at_once() {
    let (here, _) = directories();
    let node = Node::start(Config::offline(here.path())).await.expect("starts");
    let absent = shipfs_node::block::cid_of(0x55, b"nobody has this");
    let error = node.get(&absent, None, 1000, &node.lease(), &silent).await.expect_err("absent");
    assert!(matches!(error, FetchError::Offline { .. }), "{error}");
}

/// A node that was not told to serve gives nothing away, not even that it has something.
#[tokio::test(flavor = "multi_thread")]
async fn c14_nothing_is_served_before_the_user_asks() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    source.serve(false).await.expect("stops serving");
    let mut config = Config { network: loopback(), ..Config::offline(there.path()) };
    config.network.peers = vec![address.parse().expect("an address")];
    config.patience = Duration::from_millis(700);
    let node = Node::start(config).await.expect("starts");
    let cid = add(&source, b"private").await;
    let error = node.get(&cid, None, 1000, &node.lease(), &silent).await.expect_err("denied");
    assert!(matches!(&error, FetchError::Unavailable { holders, .. } if holders.is_empty()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_stops_everything() {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    drop(source);
    // The repository can be opened again, and nobody listens any more.
    let again = loop {
        match Node::start(Config::offline(here.path())).await {
            Ok(node) => break node,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let node = fetching(&there, &[]).await;
    node.go_online().await.expect("online");
    assert!(node.connect(address.parse().expect("an address")).await.is_err());
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_fetched_it_serves_to_the_next() {
    let (here, there) = directories();
    let last = tempfile::tempdir().expect("a directory");
    let (source, address) = serving(&here).await;
    let bytes = noise(5_000_000, 11);
    let cid = add(&source, &bytes).await;
    let (middle, second) = serving(&there).await;
    middle.connect(address.parse().expect("an address")).await.expect("connects");
    middle.get(&cid, Some(expected(&bytes)), 0, &middle.lease(), &silent).await.expect("fetched");
    source.shutdown().await.expect("shuts down");
    let third = fetching(&last, &[&second]).await;
    let got = third.get(&cid, Some(expected(&bytes)), 0, &third.lease(), &silent).await.expect("fetched");
    assert!(std::fs::read(got.path).expect("there") == bytes);
}

/// Three nodes in a row: the first knows only the second, and finds what the third has by the second's table.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_found_through_a_third_node() {
    let (here, there) = directories();
    let last = tempfile::tempdir().expect("a directory");
    let (middle, address) = serving(&here).await;
    let (holder, _) = serving(&there).await;
    let bytes = noise(700_000, 23);
    let cid = add(&holder, &bytes).await;
    holder.provide(&cid).await.expect("queued");
    // Announced to nobody so far; the middle one is the first newcomer.
    holder.connect(address.parse().expect("an address")).await.expect("connects");
    let node = fetching(&last, &[&address]).await;
    let got = node.get(&cid, Some(expected(&bytes)), 0, &node.lease(), &silent).await.expect("fetched");
    assert!(std::fs::read(got.path).expect("there") == bytes);
    let providers = node.find_providers(&cid).await.expect("asked");
    assert_eq!(providers, [holder.net().await.expect("online").peer()]);
    drop(middle);
}

/// A file node over children of which each is said to stand for so many bytes.
fn file_node(children: &[(Cid, u64)]) -> Block {
    let unixfs = UnixFs {
        kind: Kind::File,
        data: Bytes::new(),
        file_size: Some(children.iter().fold(0, |sum: u64, (_, size)| sum.wrapping_add(*size))),
        block_sizes: children.iter().map(|(_, size)| *size).collect(),
        hash_type: None,
        fanout: None,
    };
    let links: Vec<_> =
        children.iter().map(|(cid, size)| Link { cid: *cid, name: Bytes::new(), size: *size }).collect();
    Block::dag_pb(encode_node(&links, &encode_unixfs(&unixfs)))
}

/// Fetches `root` from a node that holds these blocks; it must be refused, and leave nothing but what was here before.
async fn refused(blocks: &[Block], root: &Block, expected: Expected) -> FetchError {
    let (here, there) = directories();
    let (source, address) = serving(&here).await;
    for block in blocks.iter().chain([root]) {
        source.store().put(block).expect("kept");
    }
    let node = fetching(&there, &[&address]).await;
    let error = node.get(root.cid(), Some(expected), 0, &node.lease(), &silent).await.expect_err("refused");
    node.commit().await.expect("durable");
    assert!(node.store().file(root.cid()).is_none());
    let blobs = std::fs::read_dir(there.path().join("blobs/sha256")).expect("a directory").count();
    assert_eq!(blobs, 0, "something was published");
    error
}

/// Bytes that cost a block each: the budget holds, but nobody cuts a file like that.
#[tokio::test(flavor = "multi_thread")]
async fn c2_a_file_of_one_byte_leaves_is_refused() {
    let leaf = Block::raw(Bytes::from_static(b"x"));
    let middle = file_node(&[(*leaf.cid(), 1); 100]);
    let root = file_node(&[(*middle.cid(), 100); 100]);
    let error = refused(&[leaf, middle], &root, expected(&[b'x'; 10_000])).await;
    assert!(matches!(error, FetchError::TooFine { size: 10_000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_dag_that_is_too_deep_is_refused() {
    let leaf = Block::raw(Bytes::from_static(b"deep"));
    let mut chain = vec![leaf];
    for _ in 0..200 {
        let below = chain.last().expect("not empty");
        chain.push(file_node(&[(*below.cid(), 4)]));
    }
    let root = chain.pop().expect("not empty");
    let error = refused(&chain, &root, expected(b"deep")).await;
    assert!(matches!(&error, FetchError::Dag { source: WalkError::TooDeep { .. }, .. }), "{error}");
}

/// The billion laughs: a few blocks that stand for more bytes than any disk has.
#[tokio::test(flavor = "multi_thread")]
async fn c2_shared_subtrees_do_not_get_past_the_budget() {
    let (mut blocks, mut size) = (vec![Block::raw(Bytes::from(vec![0; 1000]))], 1000u64);
    for _ in 0..6 {
        let below = *blocks.last().expect("not empty").cid();
        blocks.push(file_node(&vec![(below, size); 174]));
        size *= 174;
    }
    let root = blocks.pop().expect("not empty");
    let error = refused(&blocks, &root, expected(&noise(1 << 20, 1))).await;
    assert!(matches!(&error, FetchError::Dag { source: WalkError::Size { .. }, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_sizes_that_lie_are_refused() {
    let (short, long) = (Block::raw(Bytes::from_static(b"ab")), Block::raw(Bytes::from_static(b"abcdefgh")));
    // The descriptor and the root agree on five bytes; the leaves are others.
    for leaf in [short, long] {
        let root = file_node(&[(*leaf.cid(), 5)]);
        let error = refused(&[leaf], &root, expected(b"abcde")).await;
        assert!(matches!(&error, FetchError::Dag { source: WalkError::Size { .. }, .. }), "{error}");
    }
    let root = file_node(&[(*Block::raw(Bytes::new()).cid(), u64::MAX), (*Block::raw(Bytes::new()).cid(), 2)]);
    assert!(matches!(refused(&[], &root, expected(b"x")).await, FetchError::Dag { .. }));
}
