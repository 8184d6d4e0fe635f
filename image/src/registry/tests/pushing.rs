//! What is pushed becomes an image, or is refused.

use super::*;

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
