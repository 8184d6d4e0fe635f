//! The registry over HTTP, with real nodes behind it, all on loopback.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response, StatusCode};
use shipfs_node::{
    config::{Config, NetworkConfig},
    node::Node,
};

use super::{Options, Parts, Registry, Token};
use crate::{
    blobs::{Blobs as _, Content, embedded::EmbeddedBlobs},
    names::{self, Image, Shape},
    oci::{Descriptor, Digest, Manifest, Platforms, media},
    push::{self, PushFrom, PushOptions},
    source,
};

/// A registry that is being served.
struct Served {
    address: SocketAddr,
    node: Node,
    published: Arc<Mutex<Vec<Image>>>,
    client: Client,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn start(node: Node, wait: Duration, token: Option<&str>) -> Self {
        let (published, storage) = (Arc::new(Mutex::new(Vec::new())), node.clone());
        let told = published.clone();
        let parts = Parts {
            asks: node.config().network.network != shipfs_node::config::Network::Offline,
            storage: Arc::new(move || Box::new(EmbeddedBlobs::new(storage.clone()))),
            published: Arc::new(move |images| told.lock().expect("not poisoned").extend(images)),
            uploads: node.config().repository.join("uploads"),
            node: node.clone(),
        };
        let token = token.map(|token| Token::new(token).expect("long enough"));
        let options = Options { listen: "127.0.0.1:0".into(), wait: Some(wait), retries: 0, token };
        let registry = Registry::start(options, parts).await.expect("starts");
        let address = registry.addresses()[0];
        let task = tokio::task::spawn(async move { registry.run(&()).await });
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { address, node, published, client, task }
    }

    async fn offline(folder: &Path) -> Self {
        let node = Node::start(Config::offline(folder.join("repository"))).await.expect("starts");
        Self::start(node, Duration::from_secs(5), None).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[]).await
    }

    /// Status and code of a refusal.
    async fn refused(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        refusal(self.ask(method, path, headers).await).await
    }

    async fn upload(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let url = format!("http://{}/v2/{repository}/blobs/uploads/?digest={digest}", self.address);
        let answer = self.client.post(url).body(bytes.to_vec()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    async fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.put(url).header("content-type", media_type).body(bytes).send().await.expect("an answer")
    }

    async fn names(&self) -> Vec<String> {
        let blobs = EmbeddedBlobs::new(self.node.clone());
        names::list(blobs.records()).await.expect("lists").into_iter().map(|image| image.name).collect()
    }
}

async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: serde_json::Value = answer.json().await.expect("JSON");
    assert!(body["errors"][0]["message"].is_string(), "{body}");
    (status, body["errors"][0]["code"].as_str().expect("a code").to_owned())
}

fn header<'r>(answer: &'r Response, name: &str) -> &'r str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn push(node: &Node, shape: Shape) -> Image {
    let data = format!("{}/../tests/data/parity/docker-list", env!("CARGO_MANIFEST_DIR"));
    let source = source::open(&format!("oci:{data}").parse().expect("location"), None, Path::new("/nonexistent"));
    let options = PushOptions { shape, platforms: Platforms::All, ..PushOptions::default() };
    let from = PushFrom::Source(source.expect("opens").into(), None);
    push::push(&EmbeddedBlobs::new(node.clone()), &from, &options, &()).await.expect("pushes")
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_both_shapes_are_pulled_by_their_cids() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    for shape in [Shape::Descriptor, Shape::Layout] {
        let image = push(&served.node, shape).await;
        let upper = multibase::encode(multibase::Base::Base32Upper, image.root.to_bytes());
        for cid in [image.root.to_string(), upper] {
            let base = format!("/v2/ipfs/{cid}");
            let answer = served.get(&format!("{base}/manifests/latest")).await;
            let top = image.note.as_ref().expect("noted");
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
            assert_eq!(header(&answer, "docker-content-digest"), top.digest.to_string());
            assert_eq!(header(&answer, "content-type"), top.media_type);
            assert_eq!(header(&answer, "x-ipfs-path"), format!("/ipfs/{}", image.root));
            let index = answer.bytes().await.expect("a body");
            assert!(top.digest.matches(&index));
            let index = crate::oci::Index::parse(&index).expect("an index");
            let mut layers = 0;
            for entry in index.manifests() {
                let answer = served.get(&format!("{base}/manifests/{}", entry.digest)).await;
                assert_eq!(header(&answer, "content-type"), entry.media_type);
                let bytes = answer.bytes().await.expect("a body");
                assert!(entry.digest.matches(&bytes));
                let manifest = Manifest::parse(&bytes).expect("a manifest");
                for blob in manifest.layers().iter().chain([&manifest.config]) {
                    layers += 1;
                    let path = format!("{base}/blobs/{}", blob.digest);
                    let head = served.ask(Method::HEAD, &path, &[]).await;
                    assert_eq!(header(&head, "content-length"), blob.size.to_string());
                    let bytes = served.get(&path).await.bytes().await.expect("a body");
                    assert!(blob.digest.matches(&bytes));
                    assert_eq!(served.refused(Method::GET, &path.replace("/blobs/", "/manifests/"), &[]).await.0, 404);
                }
            }
            assert!(layers > 1);
            let tags: serde_json::Value = served.get(&format!("{base}/tags/list")).await.json().await.expect("JSON");
            assert_eq!(tags, serde_json::json!({ "name": format!("ipfs/{cid}"), "tags": ["latest"] }));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_is_told_by_status_and_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    let image = push(&served.node, Shape::Descriptor).await;
    let (cid, digest, nowhere) = (image.root.to_string(), Digest::of(b"nothing"), Digest::of(b"x"));
    let not_an_image = EmbeddedBlobs::new(served.node.clone());
    let other = not_an_image.add(Content::Bytes("{}".into()), None, &|_| {}).await.expect("adds").cid;
    let absent = crate::link::cid_of_file(b"nobody has this");
    for (method, path, status, code) in [
        (Method::GET, format!("/v2/ipfs/{cid}/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        (Method::GET, format!("/v2/ipfs/{cid}/manifests/other"), 404, "MANIFEST_UNKNOWN"),
        (Method::GET, format!("/v2/ipfs/{cid}/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        (Method::GET, format!("/v2/ipfs/{other}/manifests/latest"), 404, "NAME_UNKNOWN"),
        (Method::GET, format!("/v2/ipfs/{absent}/manifests/latest"), 503, "UNAVAILABLE"),
        (Method::GET, "/v2/ipfs/xyz/manifests/latest".into(), 400, "NAME_INVALID"),
        (Method::GET, "/v2/no/such/manifests/latest".into(), 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/no/such/tags/list".into(), 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/UPPER/manifests/latest".into(), 400, "NAME_INVALID"),
        (Method::GET, "/v2/a/blobs/sha256:12".into(), 400, "DIGEST_INVALID"),
        (Method::GET, format!("/v2/a/blobs/uploads/{}", "0".repeat(32)), 404, "BLOB_UPLOAD_UNKNOWN"),
        (Method::GET, "/v2/_catalog?n=x".into(), 400, "PAGINATION_NUMBER_INVALID"),
        (Method::PUT, format!("/v2/ipfs/{cid}/manifests/latest"), 405, "UNSUPPORTED"),
        (Method::POST, format!("/v2/ipfs/{cid}/blobs/uploads/"), 405, "UNSUPPORTED"),
        (Method::DELETE, format!("/v2/ipfs/{cid}/manifests/latest"), 405, "UNSUPPORTED"),
        (Method::POST, "/v2/".into(), 405, "UNSUPPORTED"),
        (Method::DELETE, "/v2/a/manifests/b".into(), 404, "MANIFEST_UNKNOWN"),
        (Method::DELETE, format!("/v2/a/blobs/{nowhere}"), 404, "BLOB_UNKNOWN"),
        (Method::GET, "/".into(), 404, "NAME_UNKNOWN"),
    ] {
        assert_eq!(served.refused(method, &path, &[]).await, (status, code.to_owned()), "{path}");
    }
    let head = served.ask(Method::HEAD, &format!("/v2/ipfs/{cid}/blobs/{digest}"), &[]).await;
    assert_eq!((head.status(), head.bytes().await.expect("a body").len()), (StatusCode::NOT_FOUND, 0));
    // Neither the referrers of an image that has none, nor those in a repository that is not there, are an error.
    for path in [format!("/v2/ipfs/{cid}/referrers/{digest}"), format!("/v2/no/such/referrers/{digest}")] {
        let answer = served.get(&path).await;
        assert_eq!(header(&answer, "content-type"), media::INDEX);
        let index = crate::oci::Index::parse(&answer.bytes().await.expect("a body")).expect("an index");
        assert!(index.manifests.is_some_and(|manifests| manifests.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_and_conditions_are_those_of_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 7 / 3) as u8).collect();
    let digest = served.upload("a/b", &bytes).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let ranged = async |range: &str| served.ask(Method::GET, &path, &[("range", range)]).await;
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=500-1499", 500..1500),
        ("bytes=-5", 2_999_995..3_000_000),
        ("bytes=600000-", 600_000..3_000_000),
    ] {
        let answer = ranged(range).await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(header(&answer, "content-range"), format!("bytes {}-{}/3000000", expected.start, expected.end - 1));
        assert_eq!(answer.bytes().await.expect("a body")[..], bytes[expected]);
    }
    let answer = ranged("bytes=10-19,1000000-1999999,-1").await;
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    let boundary =
        header(&answer, "content-type").strip_prefix("multipart/byteranges; boundary=").expect("parts").to_owned();
    let body = answer.bytes().await.expect("as many bytes as were announced");
    let mut expected = Vec::new();
    for part in [10..20, 1_000_000..2_000_000, 2_999_999..3_000_000_usize] {
        let range = format!("bytes {}-{}/3000000", part.start, part.end - 1);
        let head =
            format!("\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {range}\r\n\r\n");
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&bytes[part]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(body[..] == expected[..]);
    for range in ["bytes=3000000-", "bytes=9-1", "bytes=0-1,1-2"] {
        let answer = ranged(range).await;
        assert_eq!(header(&answer, "content-range"), "bytes */3000000");
        assert_eq!(refusal(answer).await.0, 416, "{range}");
    }
    let tag = format!("\"{digest}\"");
    for (name, value, status) in
        [("if-none-match", tag.as_str(), 304), ("if-none-match", "*", 304), ("if-none-match", "\"other\"", 200)]
    {
        let answer = served.ask(Method::GET, &path, &[(name, value)]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "etag")), (status, tag.as_str()));
    }
    let whole = served.ask(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.bytes().await.expect("a body")[..] == bytes[..]);
    let part = served.ask(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", &tag)]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
}

fn manifest(config: &[u8], layers: &[&[u8]], subject: Option<Descriptor>) -> Vec<u8> {
    let descriptor = |media_type, bytes: &[u8]| Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.into(),
        artifact_type: if subject.is_some() { "application/x-signature".into() } else { String::new() },
        config: descriptor(media::CONFIG, config),
        layers: Some(layers.iter().map(|layer| descriptor(media::LAYER, layer)).collect()),
        subject,
        annotations: std::collections::BTreeMap::new(),
    };
    // A blank at the end is part of the digest, too.
    [manifest.to_json(), b"\n".to_vec()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_an_image_with_its_signatures() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    let layer = vec![7; 600_000];
    served.upload("a/b", b"{}").await;
    served.upload("a/b", &layer).await;
    let bytes = manifest(b"{}", &[&layer], None);
    let digest = Digest::of(&bytes);
    let answer = served.put("/v2/a/b/manifests/one", media::MANIFEST, bytes.clone()).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let first = header(&answer, "x-ipfs-path").to_owned();
    assert_eq!(served.names().await, ["docker.io/a/b:one"]);
    assert_eq!(served.get("/v2/a/b/manifests/one").await.bytes().await.expect("a body")[..], bytes[..]);
    // By its CID it is the same, and survives what is collected.
    served.node.gc().await.expect("collects");
    assert_eq!(
        served.get(&format!("/v2{first}/manifests/{digest}")).await.bytes().await.expect("a body")[..],
        bytes[..]
    );
    assert_eq!(
        served.get(&format!("/v2{first}/blobs/{}", Digest::of(&layer))).await.bytes().await.expect("a body")[..],
        layer[..]
    );
    // A signature makes another root, and travels inside.
    served.upload("a/b", b"signed").await;
    let subject = Descriptor::new(media::MANIFEST, digest.clone(), bytes.len() as u64);
    let signature = manifest(b"{}", &[b"signed"], Some(subject));
    let signed_by = Digest::of(&signature);
    let answer = served.put(&format!("/v2/a/b/manifests/{signed_by}"), media::MANIFEST, signature.clone()).await;
    assert_eq!((answer.status(), header(&answer, "oci-subject")), (StatusCode::CREATED, digest.to_string().as_str()));
    let image = served.published.lock().expect("not poisoned").last().cloned().expect("published");
    assert_eq!(image.name, "docker.io/a/b:one");
    assert_ne!(format!("/ipfs/{}", image.root), first);
    let refers = async |base: &str, filter: &str| {
        let answer = served.get(&format!("{base}/referrers/{digest}{filter}")).await;
        let index = crate::oci::Index::parse(&answer.bytes().await.expect("a body")).expect("an index");
        index
            .manifests
            .unwrap_or_default()
            .into_iter()
            .map(|entry| (entry.digest, entry.artifact_type))
            .collect::<Vec<_>>()
    };
    let expected = [(signed_by.clone(), "application/x-signature".to_owned())];
    for base in ["/v2/a/b".to_owned(), format!("/v2/ipfs/{}", image.root)] {
        assert_eq!(refers(&base, "").await, expected, "{base}");
        assert_eq!(refers(&base, "?artifactType=application/x-signature").await, expected, "{base}");
        assert_eq!(refers(&base, "?artifactType=other").await, [], "{base}");
        let got = served.get(&format!("{base}/manifests/{signed_by}")).await.bytes().await.expect("a body");
        assert_eq!(got[..], signature[..]);
    }
    assert_eq!(refers(&format!("/v2{first}"), "").await, [], "a root never changes");
    // What an image needs is not taken from it; without the signature it is what it was.
    let layer_path = format!("/v2/a/b/blobs/{}", Digest::of(&layer));
    assert_eq!(served.refused(Method::DELETE, &layer_path, &[]).await, (403, "DENIED".to_owned()));
    assert_eq!(
        served.ask(Method::DELETE, &format!("/v2/a/b/manifests/{signed_by}"), &[]).await.status(),
        StatusCode::ACCEPTED
    );
    let image = served.published.lock().expect("not poisoned").last().cloned().expect("published");
    assert_eq!(format!("/ipfs/{}", image.root), first);
    // A tag goes, what it stood for stays; that goes, and nothing is left.
    assert_eq!(served.ask(Method::DELETE, "/v2/a/b/manifests/one", &[]).await.status(), StatusCode::ACCEPTED);
    assert_eq!(served.refused(Method::GET, "/v2/a/b/manifests/one", &[]).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(served.names().await, [format!("docker.io/a/b@{digest}")]);
    assert_eq!(
        served.ask(Method::DELETE, &format!("/v2/a/b/manifests/{digest}"), &[]).await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(served.names().await, Vec::<String>::new());
    served.node.gc().await.expect("collects");
    assert_eq!(std::fs::read_dir(folder.path().join("repository/blobs/sha256")).expect("lists").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_leaves_what_it_stood_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    let mut digests = Vec::new();
    for config in [&b"{}"[..], b"{ }"] {
        served.upload("a", config).await;
        let bytes = manifest(config, &[], None);
        digests.push(Digest::of(&bytes));
        assert_eq!(served.put("/v2/a/manifests/x", media::MANIFEST, bytes).await.status(), StatusCode::CREATED);
    }
    let earlier = format!("docker.io/library/a@{}", digests[0]);
    assert_eq!(served.names().await, ["docker.io/library/a:x".to_owned(), earlier]);
    for digest in &digests {
        assert_eq!(served.get(&format!("/v2/a/manifests/{digest}")).await.status(), StatusCode::OK);
    }
    // However the repository is written, it is one.
    for name in ["library/a", "docker.io/a", "docker.io/library/a"] {
        assert_eq!(served.get(&format!("/v2/{name}/manifests/x")).await.status(), StatusCode::OK, "{name}");
    }
    let list: serde_json::Value = served.get("/v2/_catalog").await.json().await.expect("JSON");
    assert_eq!(list, serde_json::json!({ "repositories": ["a"] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_b2_b5_manifests_that_lie_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::offline(folder.path()).await;
    served.upload("a", b"{}").await;
    let good = String::from_utf8(manifest(b"{}", &[], None)).expect("text");
    let config = Digest::of(b"{}").to_string();
    let put = async |media_type: &str, text: String| {
        refusal(served.put("/v2/a/manifests/x", media_type, text.into()).await).await
    };
    let invalid = (400, "MANIFEST_INVALID".to_owned());
    for text in [
        good.replace("\"layers\"", "\"manifests\":[],\"layers\""),
        good.replace(media::MANIFEST, media::INDEX),
        good.replace(&config, "sha256:../x"),
        good.replace("\"size\":2", "\"size\":-2"),
        good.replace("\"schemaVersion\":2", "\"schemaVersion\":1,\"fsLayers\":[]"),
        good[..good.len() / 2].to_owned(),
        String::new(),
    ] {
        assert_eq!(put(media::MANIFEST, text.clone()).await, invalid, "{text}");
    }
    assert_eq!(put(media::INDEX, good.clone()).await, invalid);
    assert_eq!(put("text/html", good.clone()).await, invalid);
    assert_eq!(put(media::MANIFEST, good.replace("\"size\":2", "\"size\":3")).await.1, "SIZE_INVALID");
    let absent = good.replace(&config, &Digest::of(b"absent").to_string());
    assert_eq!(put(media::MANIFEST, absent).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let large = format!("{}{}", good, " ".repeat(4 << 20));
    assert_eq!(put(media::MANIFEST, large).await, (413, "MANIFEST_INVALID".to_owned()));
    let wrong =
        served.put(&format!("/v2/a/manifests/{}", Digest::of(b"x")), media::MANIFEST, good.clone().into()).await;
    assert_eq!(refusal(wrong).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(served.names().await, Vec::<String>::new(), "nothing half-made");
    assert_eq!(served.put("/v2/a/manifests/x", media::MANIFEST, good.into()).await.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_pushing_needs_the_token_where_one_is_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(Config::offline(folder.path().join("repository"))).await.expect("starts");
    let served = Served::start(node, Duration::from_secs(5), Some("0123456789abcdef")).await;
    let uploads = "/v2/a/blobs/uploads/";
    assert_eq!(served.refused(Method::POST, uploads, &[]).await, (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(served.refused(Method::GET, "/v2/", &[]).await, (401, "UNAUTHORIZED".to_owned()));
    let bearer = [("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(served.ask(Method::POST, uploads, &bearer).await.status(), StatusCode::ACCEPTED);
    assert_eq!(served.ask(Method::GET, "/v2/", &bearer).await.status(), StatusCode::OK);
    assert_eq!(served.refused(Method::GET, "/v2/a/tags/list", &[]).await.0, 404, "reading is free");
    let host = [("host", "attacker.example")];
    assert_eq!(served.refused(Method::GET, "/v2/a/tags/list", &host).await, (421, "DENIED".to_owned()));
    let page = [("origin", "https://attacker.example"), bearer[0]];
    assert_eq!(served.refused(Method::POST, uploads, &page).await, (403, "DENIED".to_owned()));
}

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
async fn image_at(node: &Node, layer: &[u8], lie: impl Fn(Digest) -> Digest) -> (cid::Cid, Digest) {
    let blobs = EmbeddedBlobs::new(node.clone());
    let add = async |bytes: Vec<u8>| blobs.add(Content::Bytes(bytes.into()), None, &|_| {}).await.expect("adds").cid;
    let url = |cid: cid::Cid| vec![format!("ipfs://{cid}")];
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
