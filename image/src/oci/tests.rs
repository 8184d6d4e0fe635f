//! Documents as Go writes and reads them, and documents that mean two things.

use super::*;

fn data(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(extra: &str) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":3{extra}}}"#)
}

fn manifest(extra: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[]{extra}}}"#, descriptor(""))
}

fn index(extra: &str) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[]{extra}}}"#)
}

/// Each vector is what Go made of a document; where Go refuses, so do we.
#[test]
fn documents_are_rewritten_as_go_rewrites_them() {
    let vectors = String::from_utf8(data("go-json/vectors.tsv")).expect("UTF-8");
    assert_eq!(vectors.lines().count(), 62);
    for line in vectors.lines() {
        let [kind, name, input, output] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let input = multibase::Base::Base64Pad.decode(input).expect("base64");
        let written = match kind {
            "manifest" => Manifest::parse(&input).map(|manifest| manifest.to_json()),
            _ => Index::parse(&input).map(|index| index.to_json()),
        };
        if output == "error" {
            assert!(written.is_err(), "{name}");
        } else {
            let expected = multibase::Base::Base64Pad.decode(output).expect("base64");
            let written = written.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&expected), "{name}");
        }
    }
}

#[test]
fn a_descriptor_is_the_first_value_of_a_root() {
    let root = data("ipfs-push/plain/bafkreid6bknctgrnd43qc2dajqb6hmjfkxqgrxueh6gt7332rcsdr232ja");
    let parsed = Descriptor::parse(&root).expect("parses");
    assert_eq!(parsed.to_json(), root);
    assert_eq!(parsed.ipfs_cid(), Some("bafkreif3wnjiehknffzmu2bjex7vh6i5j4ldzd77yj2t5yjtwzpnfj4l3y"));
    let spaced = [b"\n ", &root[..], b"\n{\"and\": more"].concat();
    assert_eq!(Descriptor::parse(&spaced).expect("parses"), parsed);
    let urls = descriptor(r#","urls":["https://x","ipns://y","ipfs://z/p","ipfs://w"]"#);
    assert_eq!(Descriptor::parse(urls.as_bytes()).expect("parses").ipfs_cid(), Some("z/p"), "the first, verbatim");
}

#[test]
fn inlined_bytes_count_only_when_they_are_the_blob() {
    let parse = |data: &str, size: u64| {
        let digest = Digest::of(b"{}");
        let text = format!(r#"{{"digest":"{digest}","size":{size},"data":"{data}"}}"#);
        Descriptor::parse(text.as_bytes()).expect("parses")
    };
    assert_eq!(parse("e30=", 2).inlined(), Some(&b"{}"[..]));
    assert_eq!(parse("e30=", 3).inlined(), None);
    assert_eq!(parse("e31+", 3).inlined(), None);
    assert_eq!(parse("", 0).inlined(), None);
}

#[test]
fn the_fixture_config_is_understood() {
    let config = data("source-layout/blobs/sha256/cfcff87b3c45bf7e8d09f338cd63d9b7922bc88f0e0b56583f081ae6a5f5673f");
    let config = ImageConfig::parse(&config).expect("parses");
    assert_eq!(config.platform.to_string(), "linux/amd64");
    assert_eq!((config.rootfs_type.as_str(), config.diff_ids().expect("digests").len()), ("layers", 2));
}

#[test]
fn b1_confused_documents_are_refused() {
    let manifests = [
        r#","manifests":[]"#,
        r#","manifests":null"#,
        r#","MANIFESTS":[]"#,
        r#","\u006danifests":[]"#,
        r#","mediaType":"application/vnd.oci.image.index.v1+json""#,
        r#","mediaType":"application/vnd.docker.distribution.manifest.list.v2+json""#,
        r#","mediaType":"application/vnd.oci.image.config.v1+json""#,
        r#","MediaType":"text/html""#,
        r#","fsLayers":[]"#,
        r#","fslayers":null"#,
    ];
    for extra in manifests {
        let error = Manifest::parse(manifest(extra).as_bytes()).expect_err(extra);
        assert!(!matches!(error, DocumentError::Json(_)), "{extra}: {error}");
    }
    let indexes = [
        r#","config":{}"#,
        r#","config":null"#,
        r#","layers":[]"#,
        r#","Layers":null"#,
        r#","mediaType":"application/vnd.oci.image.manifest.v1+json""#,
        r#","mediaType":"application/vnd.docker.distribution.manifest.v2+json""#,
        r#","fsLayers":[]"#,
    ];
    for extra in indexes {
        let error = Index::parse(index(extra).as_bytes()).expect_err(extra);
        assert!(!matches!(error, DocumentError::Json(_)), "{extra}: {error}");
    }
    assert!(Index::parse(manifest("").as_bytes()).is_err());
    assert!(Manifest::parse(index("").as_bytes()).is_err());
    for kept in [r#","mediaType":"application/vnd.docker.distribution.manifest.v2+json""#, r#","mediaType":"""#] {
        assert!(Manifest::parse(manifest(kept).as_bytes()).is_ok(), "{kept}");
    }
}

#[test]
fn b1_what_a_document_calls_itself_cannot_speak_to_the_terminal() {
    let error = Index::parse(index(r#","mediaType":"\u001b[2J""#).as_bytes()).expect_err("refused");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn b2_malformed_descriptors_are_refused() {
    let refused = |digest: &str, size: &str| {
        let text = format!(r#"{{"digest":"{digest}","size":{size}}}"#);
        Descriptor::parse(text.as_bytes()).expect_err(&text)
    };
    assert_eq!(refused(DIGEST, "-1"), DocumentError::Descriptor(DescriptorError::Size { size: -1 }));
    assert!(matches!(refused(DIGEST, "9223372036854775808"), DocumentError::Json(_)));
    for digest in ["", "sha256:", "sha256:../../etc/passwd", "SHA256:00", &DIGEST.to_uppercase(), "md5:00", "blake3:00"]
    {
        assert!(matches!(refused(digest, "1"), DocumentError::Descriptor(DescriptorError::Digest(_))), "{digest}");
    }
    assert!(Descriptor::parse(b"null").is_err());
    assert!(Manifest::parse(br#"{"schemaVersion":2,"layers":[]}"#).is_err(), "no config");
    assert!(Manifest::parse(manifest(r#","subject":{}"#).as_bytes()).is_err());
    assert!(Index::parse(br#"{"manifests":[null]}"#).is_err());
}

#[test]
fn b5_documents_are_bounded() {
    let padded = |size: usize| {
        let text = manifest("");
        text.clone() + &" ".repeat(size - text.len())
    };
    assert!(Manifest::parse(padded(4 << 20).as_bytes()).is_ok());
    let size = (4 << 20) + 1;
    assert_eq!(Manifest::parse(padded(size).as_bytes()), Err(DocumentError::TooLarge { size: size as u64 }));
    let list = |count: usize| format!(r#"{{"manifests":[{}]}}"#, vec![descriptor(""); count].join(","));
    assert_eq!(Index::parse(list(1024).as_bytes()).expect("parses").manifests().len(), 1024);
    for text in [list(1025), format!(r#"{{"layers":[{}]}}"#, vec!["{}"; 1 << 20].join(","))] {
        let Err(DocumentError::Json(error)) = Index::parse(text.as_bytes()) else { panic!("not refused") };
        assert_eq!(error.problem, JsonProblem::List);
    }
    let many: Vec<_> = (0..5000).map(|at| format!("\"{at}\":\"\"")).collect();
    let Err(DocumentError::Json(error)) =
        Index::parse(index(&format!(r#","annotations":{{{}}}"#, many.join(","))).as_bytes())
    else {
        panic!("not refused")
    };
    assert_eq!(error.problem, JsonProblem::Entries);
}

proptest::proptest! {
    /// A document we wrote is one we read, and reading it changes nothing.
    #[test]
    fn writing_is_stable(
        media_type in ".*", urls in proptest::collection::vec(".*", 0..3), size in 0..i64::MAX as u64,
        annotations in proptest::collection::btree_map(".*", ".*", 0..4), data in proptest::collection::vec(0..255_u8, 0..9),
        os in ".*", features in proptest::collection::vec(".*", 0..3), has_layers: bool,
    ) {
        let platform = Platform { os, os_features: features, ..Platform::default() };
        let own = Descriptor {
            urls, annotations: annotations.clone(), data, platform: Some(platform),
            ..Descriptor::new(&media_type, Digest::of(b"x"), size)
        };
        let manifest = Manifest {
            schema_version: 2, media_type: media::MANIFEST.into(), artifact_type: media_type, config: own.clone(),
            layers: has_layers.then(|| vec![own.clone()]), subject: Some(own), annotations,
        };
        let written = manifest.to_json();
        proptest::prop_assert_eq!(&Manifest::parse(&written).expect("parses"), &manifest);
        // serde_json agrees that it is JSON.
        serde_json::from_slice::<serde_json::Value>(&written).expect("JSON");
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = (Manifest::parse(&bytes), Index::parse(&bytes), Descriptor::parse(&bytes), ImageConfig::parse(&bytes));
    }
}
