//! What a peer has: served while it arrives, fetched once, and never for longer than was said.

use super::*;

/// Two nodes on loopback; the second knows the first.
async fn two(folder: &Path) -> (Node, Node) {
    let listen = NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
        mdns: false,
        ..NetworkConfig::lan()
    };
    let config = |name: &str, network| Config {
        network,
        patience: Duration::from_secs(3),
        ..Config::offline(folder.join(name))
    };
    let first = Node::start(config("first", listen.clone())).await.expect("starts");
    first.serve(true).await.expect("serves");
    let addresses = first.net().await.expect("is online").listeners().await.expect("listens");
    let second = NetworkConfig { peers: addresses, ..listen };
    let second = Node::start(config("second", second)).await.expect("starts");
    (first, second)
}

/// An image of one layer at another node, whose digest is as `lie` makes it.
async fn image_at(node: &Node, layer: &[u8], lie: impl Fn(Digest) -> Digest) -> (shipfs_node::Cid, Digest) {
    let blobs = EmbeddedBlobs::new(node.clone());
    let add = async |bytes: Vec<u8>| blobs.add(Content::Bytes(bytes.into()), None, &|_| {}).await.expect("adds").cid;
    let url = |cid: shipfs_node::Cid| vec![format!("ipfs://{cid}")];
    let config =
        Descriptor { urls: url(add(b"{}".to_vec()).await), ..Descriptor::new(media::CONFIG, Digest::of(b"{}"), 2) };
    let digest = lie(Digest::of(layer));
    let blob = Descriptor::new(media::LAYER, digest.clone(), layer.len() as u64);
    let blob = Descriptor { urls: url(add(layer.to_vec()).await), ..blob };
    let manifest =
        Manifest { config, layers: Some(vec![blob]), ..Manifest::parse(&manifest(b"{}", &[], None)).expect("one") };
    let bytes = manifest.to_json();
    let top = Descriptor::new(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    let top = Descriptor { urls: url(add(bytes).await), ..top };
    (add(top.to_json()).await, digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_has_is_served_and_fetched_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = two(folder.path()).await;
    let layer: Vec<u8> = (0..9_000_000_u32).map(|at| (at / 3 * 7) as u8).collect();
    let (root, digest) = image_at(&first, &layer, |digest| digest).await;
    let served = Served::start(second, Duration::from_secs(5), None).await;
    let path = format!("/v2/ipfs/{root}/blobs/{digest}");
    let end = served.ask(Method::GET, &path, &[("range", "bytes=-1000")]).await;
    assert_eq!(end.bytes().await.expect("a body")[..], layer[8_999_000..], "a part far from the start");
    let asking = (0..8).map(|_| async { served.get(&path).await.bytes().await.expect("a body") });
    for body in futures::future::join_all(asking).await {
        assert!(body[..] == layer[..]);
    }
    let received: u64 = served.node.peers().await.iter().map(|peer| peer.traffic.received).sum();
    assert!(received < 10_000_000, "{received} bytes for 9 MB that eight asked for");
    first.serve(false).await.expect("stops");
    let again = served.get(&path).await.bytes().await.expect("it is here now");
    assert!(again[..] == layer[..]);
    let hex = digest.hex();
    assert!(folder.path().join("second/blobs/sha256").join(hex).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_with_a_wrong_digest_are_never_a_whole_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = two(folder.path()).await;
    let served = Served::start(second, Duration::from_secs(5), None).await;
    for size in [600, 2_000_000] {
        let layer = vec![size as u8; size];
        let (root, digest) = image_at(&first, &layer, |_| Digest::of(&size.to_le_bytes())).await;
        let path = format!("/v2/ipfs/{root}/blobs/{digest}");
        for _ in 0..2 {
            let answer = served.get(&path).await;
            if answer.status() == StatusCode::OK {
                assert!(answer.bytes().await.is_err(), "{size}");
            } else {
                assert_eq!(refusal(answer).await, (502, "DIGEST_INVALID".to_owned()), "{size}");
            }
        }
        // The same with a digest that the store does not know.
        let mut hash = Box::new([0; 64]);
        hash[0] = 1;
        let (root, digest) = image_at(&first, &layer, |_| Digest::Sha512(hash.clone())).await;
        let answer = served.get(&format!("/v2/ipfs/{root}/blobs/{digest}")).await;
        if answer.status() == StatusCode::OK {
            assert!(answer.bytes().await.is_err(), "{size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = two(folder.path()).await;
    let layer = vec![3; 2_000_000];
    let (root, digest) = image_at(&first, &layer, |digest| digest).await;
    let served = Served::start(second, Duration::from_millis(500), None).await;
    assert_eq!(served.get(&format!("/v2/ipfs/{root}/manifests/latest")).await.status(), StatusCode::OK);
    let head = served.ask(Method::HEAD, &format!("/v2/ipfs/{root}/blobs/{digest}"), &[]).await;
    assert_eq!(head.status(), StatusCode::OK);
    first.shutdown().await.expect("shuts down");
    let began = Instant::now();
    let late = (504, "UNAVAILABLE".to_owned());
    assert_eq!(served.refused(Method::GET, &format!("/v2/ipfs/{root}/blobs/{digest}"), &[]).await, late);
    let far = [("range", "bytes=-5")];
    assert_eq!(served.refused(Method::GET, &format!("/v2/ipfs/{root}/blobs/{digest}"), &far).await, late);
    let absent = crate::link::cid_of_file(b"nobody has this");
    assert_eq!(served.refused(Method::GET, &format!("/v2/ipfs/{absent}/manifests/latest"), &[]).await, late);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
