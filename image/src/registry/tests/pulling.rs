//! What is here is pulled, in whole and in parts; what is not done is said.

use super::*;

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
