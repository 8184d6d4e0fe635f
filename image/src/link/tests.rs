//! The CIDs that nerdctl and Kubo give to the same images.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    blobs::Content,
    oci::{Platforms, Selector},
    source::{self, Source},
};

fn data(path: &str) -> PathBuf {
    PathBuf::from(format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR")))
}

/// Links one image of a source as a push would; gives every CID, the root's last.
struct Pushed {
    linked: Linked,
    cids: BTreeSet<String>,
}

async fn push(source: &dyn Source, wanted: Option<&str>, selector: &Selector, generated: &Generated) -> Pushed {
    let top = source::select(source, wanted).expect("an image").descriptor.clone();
    let read = |blob: Descriptor| async move { source::read_document(source, &blob) };
    let plan = Plan::make(top, selector, read).await.unwrap_or_else(|error| panic!("{error}"));
    let mut known = BTreeMap::new();
    for blob in plan.blobs() {
        let bytes = match (generated.get(&blob.digest), blob.inlined()) {
            (Some(size), _) => (0..*size).map(|at| at as u8).collect(),
            (None, Some(inlined)) => inlined.to_vec(),
            (None, None) => match source.open(blob).unwrap_or_else(|error| panic!("{error}")) {
                Content::File(path) => std::fs::read(path).expect("reads"),
                Content::Bytes(bytes) => bytes.to_vec(),
                Content::Reader(mut reader) => {
                    let mut bytes = Vec::new();
                    reader.read_to_end(&mut bytes).expect("reads");
                    bytes
                }
            },
        };
        assert!(blob.digest.matches(&bytes), "{}", blob.digest);
        known.insert(blob.digest.clone(), cid_of_file(&bytes));
    }
    let linked = link(&plan, &|digest| known.get(digest).copied()).expect("links");
    let documents = linked.documents.iter().map(|document| {
        assert_eq!(document.cid, cid_of_file(&document.bytes));
        document.cid
    });
    let cids = known.values().copied().chain(documents).map(|cid| cid.to_string()).collect();
    Pushed { linked, cids }
}

/// Blobs that a fixture leaves out, since byte `i` is `i` modulo 256: their sizes.
type Generated = BTreeMap<Digest, u64>;

async fn push_layout(path: &Path, selector: &Selector) -> Pushed {
    let text = std::fs::read_to_string(path.join("generated")).unwrap_or_default();
    let generated = text.lines().map(|line| {
        let (hex, size) = line.split_once(' ').expect("hash and size");
        (format!("sha256:{hex}").parse().expect("digest"), size.parse().expect("size"))
    });
    let location = format!("oci:{}", path.display()).parse().expect("location");
    let source = source::open(&location, None, Path::new("/nonexistent")).expect("opens");
    push(&*source, None, selector, &generated.collect()).await
}

/// A copy of the fixture whose index.json names the image `name`, or not at all.
fn renamed(name: Option<&str>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temporary directory");
    let from = data("source-layout");
    std::fs::create_dir_all(copy.path().join("blobs")).expect("creates");
    std::os::unix::fs::symlink(from.join("blobs/sha256"), copy.path().join("blobs/sha256")).expect("links");
    std::fs::copy(from.join("oci-layout"), copy.path().join("oci-layout")).expect("copies");
    let index = std::fs::read_to_string(from.join("index.json")).expect("reads");
    let annotation = r#","annotations":{"org.opencontainers.image.ref.name":"latest"}"#;
    assert!(index.contains(annotation));
    let new = name.map_or(String::new(), |name| annotation.replace("latest", name));
    std::fs::write(copy.path().join("index.json"), index.replace(annotation, &new)).expect("writes");
    copy
}

#[tokio::test]
async fn the_fixture_gives_the_cids_that_were_recorded() {
    let selector = Platforms::All.for_push();
    let as_it_is = push_layout(&data("source-layout"), &selector).await;
    assert_eq!(as_it_is.linked.cid.to_string(), "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4");
    for (name, root) in [
        (Some("localhost/esz:plain"), "bafkreid6bknctgrnd43qc2dajqb6hmjfkxqgrxueh6gt7332rcsdr232ja"),
        (None, "bafkreigwjirfr4zeu2p4esf7iivrmldgsyliqtnrln4yv2xdapmrkm2vyq"),
    ] {
        let pushed = push_layout(renamed(name).path(), &selector).await;
        assert_eq!(pushed.linked.cid.to_string(), root, "{name:?}");
        assert_eq!(pushed.cids, as_it_is.cids);
    }
    let sums = std::fs::read_to_string(data("ipfs-push/plain/SHA256SUMS")).expect("reads");
    let root = std::fs::read_to_string(data("ipfs-push/plain/ROOT")).expect("reads");
    let recorded: BTreeSet<String> =
        sums.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect();
    assert_eq!(recorded.len(), 5);
    let mut ours = as_it_is.cids.clone();
    ours.insert(root.trim().to_owned());
    assert_eq!(ours, recorded);
    for document in &as_it_is.linked.documents {
        let bytes = std::fs::read(data(&format!("ipfs-push/plain/{}", document.cid))).expect("reads");
        assert_eq!(String::from_utf8_lossy(&document.bytes), String::from_utf8_lossy(&bytes));
    }
}

/// Checks one fixture of tests/data/parity against every push that was recorded of it.
async fn check_parity(case: &str) {
    let mut checked = 0;
    for file in std::fs::read_dir(data(&format!("parity/{case}/expected"))).expect("lists") {
        let path = file.expect("lists").path();
        let text = std::fs::read_to_string(&path).expect("reads");
        let mut lines = text.lines();
        let flags = lines.next().and_then(|line| line.strip_prefix("flags ")).expect("flags");
        let platforms = match flags {
            "" => Platforms::parse(&["linux/amd64"]).expect("platform"),
            "--all-platforms" => Platforms::All,
            _ => Platforms::parse(&[flags.strip_prefix("--platform ").expect("flag")]).expect("platforms"),
        };
        let root = lines.next().and_then(|line| line.strip_prefix("root ")).expect("root");
        let blobs: BTreeSet<String> = lines.map(|line| line.strip_prefix("blob ").expect("blob").to_owned()).collect();
        let pushed = push_layout(&data(&format!("parity/{case}")), &platforms.for_push()).await;
        assert_eq!(pushed.cids, blobs, "{}", path.display());
        assert_eq!(pushed.linked.cid.to_string(), root, "{}", path.display());
        checked += 1;
    }
    assert!(checked > 0);
}

#[tokio::test]
async fn a_docker_list_gives_the_cids_of_nerdctl() {
    check_parity("docker-list").await;
}

#[tokio::test]
async fn zstd_layers_give_the_cids_of_nerdctl() {
    check_parity("zstd").await;
}

#[tokio::test]
async fn attestations_and_artifacts_give_the_cids_of_nerdctl() {
    check_parity("attestation").await;
}

/// Forty layers; annotations with every character that Go escapes; unknown fields, other cases, earlier URLs.
#[tokio::test]
async fn odd_documents_give_the_cids_of_nerdctl() {
    check_parity("forty").await;
}

/// Blobs of 0, 1, 262144 - 1, + 0, + 1, twice that, 174 times that and one byte more.
#[tokio::test]
async fn blobs_of_every_shape_give_the_cids_of_kubo() {
    check_parity("sizes").await;
}

/// A manifest that is itself more than one block.
#[tokio::test]
async fn large_documents_give_the_cids_of_nerdctl() {
    check_parity("large-documents").await;
}

#[tokio::test]
async fn empty_lists_give_the_cids_of_nerdctl() {
    check_parity("empty-index").await;
    check_parity("no-match").await;
}

/// What containerd made of these archives, before nerdctl pushed it.
#[tokio::test]
async fn docker_archives_give_the_cids_of_nerdctl() {
    const PLAIN: &str = "bafkreifdry56n7k2zkwi7stxwbs336exndmiymqek4sknmc47nsh5lg3ma";
    for (name, image, root) in [
        ("docker20-three", "localhost/esz:plain", PLAIN),
        ("docker20-three", "localhost/twice:1", "bafkreihyzbm2r7ubmcxdgw5xtqq2duzm3bmejvwqjxjooijcdxc3g5ggu4"),
        ("docker20-three", "twice:2", "bafkreibrwaxotl3dhnkwtzrjrrndbytr3bcrojkzpw74xzm4tpezwn2zha"),
        ("skopeo-docker", "localhost/esz:plain", PLAIN),
        ("ctr", "localhost/esz:plain", PLAIN),
        ("docker26-three", "three/one:1", "bafkreibgp77qxewro6h43k4nyriwngdznpnio7xbn4ja22iczvxlmzt2eu"),
        ("docker26-three", "three/one:latest", "bafkreic2fcxmmnuxqjoiyxhjfnjo2wbijfkzk3rdgozeky7df27tnx67b4"),
        ("docker26-three", "localhost:5000/three/two:x", "bafkreiaqvpswez3qhz7mxbobjvhk2w3eoiiwraly5paiybklorivzfypba"),
    ] {
        let spool = tempfile::tempdir().expect("temporary directory");
        let location = format!("docker-archive:{}", data(&format!("archives/{name}.tar.gz")).display());
        let source = source::open(&location.parse().expect("location"), None, spool.path()).expect("opens");
        let pushed = push(&*source, Some(image), &Platforms::All.for_push(), &Generated::new()).await;
        assert_eq!(pushed.linked.cid.to_string(), root, "{name} {image}");
    }
}

/// The vectors of upstream's documentation.
#[test]
fn roots_and_indexes_of_the_documentation_have_their_cids() {
    let root = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:80d6aec48c0a74635a5f3dc106328c1673afaa21ed6e1270a9a44de66e8ffa55","size":314,"urls":["ipfs://bafkreiea22xmjdakorrvuxz5yeddfdawoox2uipnnyjhbknejxtg5d72ku"]}"#;
    let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:f6eed19a2880f1000be1d46fb5d114d094a59e350f9d025580f7297c8d9527d5","size":506,"urls":["ipfs://bafkreihw53izukea6eaaxyoun625cfgqsssz4niptubflahxff6i3fjh2u"],"platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let second_root = format!(
        r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{}","size":{},"urls":["ipfs://{}"]}}"#,
        Digest::of(index.as_bytes()),
        index.len(),
        cid_of_file(index.as_bytes())
    );
    for (text, cid) in [
        (root, "bafkreie7754qk7fl56ebauawdgfuqqa3kdd7sotvuhsm6wbz3qin6ssw3a"),
        (index, "bafkreibix6q7y3kjdu565en2wri4vmu4or7hfel67lfqvxcoop5p7ypvdq"),
        (&second_root, "bafkreicq4dg6nkef5ju422ptedcwfz6kcvpvvhuqeykfrwq5krazf3muze"),
    ] {
        assert_eq!(cid_of_file(text.as_bytes()).to_string(), cid);
    }
    let written = |text: &str| Descriptor::parse(text.as_bytes()).expect("parses").to_json();
    assert_eq!(written(root), root.as_bytes());
    assert_eq!(Index::parse(index.as_bytes()).expect("parses").to_json(), index.as_bytes());
    // Of the third vector only digests are published; its root is what our writer makes of them.
    let digest =
        "sha256:73334fee83139d1d8dbf488b28ad100767c38428b2a62504c758905c475c1d6c".parse::<Digest>().expect("digest");
    let cid = shipfs_node::block::cid_from_sha256(CODEC_RAW, &digest.sha256().expect("sha256"));
    let top = Descriptor { urls: vec![url(&cid)], ..Descriptor::new(media::INDEX, digest, 314) };
    let root = cid_of_file(&top.to_json());
    assert_eq!(root.to_string(), "bafkreifajsysbvhtgd7fdgrfesszexdq6v5zbj5y2jnjfwxdjyqws2s3s4");
}

#[test]
fn an_index_that_is_written_has_fixed_bytes() {
    let top = Descriptor::new(media::MANIFEST, Digest::of(b"x"), 1);
    let expected = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{}","size":1}}]}}"#,
        media::INDEX,
        media::MANIFEST,
        top.digest
    );
    assert_eq!(index_json(&top), expected);
}

#[tokio::test]
async fn a_blob_without_a_cid_is_told() {
    let location = format!("oci:{}", data("source-layout").display()).parse().expect("location");
    let source = source::open(&location, None, Path::new("/nonexistent")).expect("opens");
    let top = source.images()[0].descriptor.clone();
    let read = |blob: Descriptor| {
        let bytes = source::read_document(&*source, &blob);
        async move { bytes }
    };
    let plan = Plan::make(top, &Platforms::All.for_push(), read).await.expect("plans");
    assert!(link(&plan, &|_| None).is_err());
}
