//! Threats B1, B2 and B5: documents that are confused, that lie, and that are too much.

use super::{Bad, Desk, Maker, refuse_all};
use serde_json::{Value, json};
use shipfs_tests::crafted::{CONFIG, INDEX, LAYER, MANIFEST, config, manifest};

const LAYER_BYTES: &[u8] = b"a layer of the size that it should have";
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// An image whose manifest has this layer.
fn image_of(maker: &dyn Maker, layer: Value) -> Value {
    let config = maker.document(CONFIG, &config(&[]));
    maker.document(MANIFEST, &manifest(&config, &[layer]))
}

/// An image whose layer is right but for what `change` makes of its descriptor.
fn changed(maker: &dyn Maker, key: &str, value: Value) -> Value {
    let mut layer = maker.blob(LAYER, LAYER_BYTES);
    layer[key] = value;
    image_of(maker, layer)
}

fn right(maker: &dyn Maker) -> Value {
    let layer = maker.blob(LAYER, LAYER_BYTES);
    image_of(maker, layer)
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

#[test]
fn b1_confused_documents_are_refused() {
    let images: [Bad; 7] = [
        ("a manifest with `manifests`", |maker| {
            let config = maker.document(CONFIG, &config(&[]));
            let mut both = manifest(&config, &[maker.blob(LAYER, LAYER_BYTES)]);
            both["manifests"] = json!([]);
            maker.document(MANIFEST, &both)
        }),
        ("an index with `layers`", |maker| {
            let mut both = index(&[right(maker)]);
            both["layers"] = json!([maker.blob(LAYER, LAYER_BYTES)]);
            maker.document(INDEX, &both)
        }),
        ("an index with `config`", |maker| {
            let mut both = index(&[right(maker)]);
            both["config"] = maker.document(CONFIG, &config(&[]));
            maker.document(INDEX, &both)
        }),
        ("a manifest that calls itself an index", |maker| {
            let config = maker.document(CONFIG, &config(&[]));
            let mut wrong = manifest(&config, &[]);
            wrong["mediaType"] = json!(INDEX);
            maker.document(MANIFEST, &wrong)
        }),
        ("an index that is a manifest", |maker| {
            let mut wrong = right(maker);
            wrong["mediaType"] = json!(INDEX);
            wrong
        }),
        ("a manifest of schema 1", |maker| {
            maker.document(MANIFEST, &json!({ "schemaVersion": 1, "mediaType": DOCKER_SCHEMA_1, "fsLayers": [] }))
        }),
        ("a manifest that is no JSON", |maker| maker.blob(MANIFEST, b"{\"schemaVersion\": 2, \x1b[2J")),
    ];
    let mut desk = Desk::new();
    refuse_all(&mut desk, &images);
    desk.expect(
        r#"
- a manifest with `manifests`: 1
error: document `sha256:HASH` is not valid
  because: expected a manifest, but it has `manifests` too
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- an index with `layers`: 1
error: document `sha256:HASH` is not valid
  because: expected an index, but it has `layers` too
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- an index with `config`: 1
error: document `sha256:HASH` is not valid
  because: expected an index, but it has `config` too
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a manifest that calls itself an index: 1
error: document `sha256:HASH` is not valid
  because: expected a manifest, but it calls itself `application/vnd.oci.image.index.v1+json`
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- an index that is a manifest: 1
error: document `sha256:HASH` is not valid
  because: expected an index, but it has `config` too
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a manifest of schema 1: 1
error: document `sha256:HASH` is not valid
  because: manifests of schema 1 are not supported
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a manifest that is no JSON: 1
error: document `sha256:HASH` is not valid
  because: malformed JSON at byte 21
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
"#,
    );
}

#[test]
fn b2_descriptors_that_lie_or_are_malformed_are_refused() {
    let images: [Bad; 15] = [
        ("a layer that is longer", |maker| changed(maker, "size", json!(LAYER_BYTES.len() - 1))),
        ("a layer that is shorter", |maker| changed(maker, "size", json!(LAYER_BYTES.len() + 1))),
        ("a layer of no bytes", |maker| changed(maker, "size", json!(0))),
        ("a layer of all bytes there are", |maker| changed(maker, "size", json!(i64::MAX))),
        ("a layer of more bytes than a number holds", |maker| changed(maker, "size", json!(u64::MAX))),
        ("a layer of less than no bytes", |maker| changed(maker, "size", json!(-1))),
        ("a layer of another digest", |maker| {
            let layer = maker.lie(LAYER, LAYER_BYTES, b"a layer of the size that it should hav!");
            image_of(maker, layer)
        }),
        ("a manifest of another digest", |maker| {
            let config = maker.document(CONFIG, &config(&[]));
            let bytes = manifest(&config, &[]).to_string();
            maker.lie(MANIFEST, bytes.as_bytes(), b"another manifest")
        }),
        ("a manifest that is longer", |maker| {
            let mut wrong = right(maker);
            wrong["size"] = json!(10);
            wrong
        }),
        ("a digest that is a path", |maker| changed(maker, "digest", json!("sha256:../../../version"))),
        ("a digest in capitals", |maker| {
            let digest = maker.blob(LAYER, LAYER_BYTES)["digest"].as_str().expect("text").to_uppercase();
            changed(maker, "digest", json!(digest.replace("SHA256", "sha256")))
        }),
        ("a digest that is short", |maker| changed(maker, "digest", json!("sha256:abcd"))),
        ("a digest of a hash that nobody uses", |maker| {
            changed(maker, "digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e"))
        }),
        ("a digest that speaks to the terminal", |maker| changed(maker, "digest", json!("sha256:\u{1b}[2J\u{0}"))),
        ("no digest", |maker| changed(maker, "digest", json!(""))),
    ];
    let mut desk = Desk::new();
    refuse_all(&mut desk, &images);
    desk.expect(
        r#"
- push, a layer that is longer: 1
error: blob `sha256:HASH` should have 38 bytes, but the source has 39 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer that is longer: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 39 bytes, expected `sha256:HASH` and 38 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a layer that is shorter: 1
error: blob `sha256:HASH` should have 40 bytes, but the source has 39 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer that is shorter: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 39 bytes, expected `sha256:HASH` and 40 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a layer of no bytes: 1
error: blob `sha256:HASH` should have 0 bytes, but the source has 39 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer of no bytes: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 39 bytes, expected `sha256:HASH` and 0 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a layer of all bytes there are: 1
error: blob `sha256:HASH` should have 9223372036854775807 bytes, but the source has 39 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer of all bytes there are: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 39 bytes, expected `sha256:HASH` and 9223372036854775807 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a layer of more bytes than a number holds: 1
error: document `sha256:HASH` is not valid
  because: a value that is not a 64-bit integer at byte 314
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer of more bytes than a number holds: 1
error: document `sha256:HASH` is not valid
  because: a value that is not a 64-bit integer at byte 392
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layer of less than no bytes: 1
error: document `sha256:HASH` is not valid
  because: a descriptor says its blob has -1 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a layer of another digest: 1
error: blob `sha256:HASH` cannot be stored
  because: blob has `sha256:HASH` and 39 bytes, expected `sha256:HASH` and 39 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a layer of another digest: 1
error: blob `sha256:HASH` cannot be had
  because: blob has `sha256:HASH` and 39 bytes, expected `sha256:HASH` and 39 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a manifest of another digest: 1
error: blob `sha256:HASH` should have 247 bytes, but the source has 247 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a manifest of another digest: 1
error: blob `sha256:HASH` cannot be had
  because: blob has `sha256:HASH` and 325 bytes, expected `sha256:HASH` and 325 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, a manifest that is longer: 1
error: blob `sha256:HASH` should have 10 bytes, but the source has 394 bytes that do not match it
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a manifest that is longer: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 550 bytes, expected `sha256:HASH` and 10 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a digest that is a path: 1
error: document `sha256:HASH` is not valid
  because: `sha256:../../../version` is not a digest: expected 64 lower-case hexadecimal digits
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a digest in capitals: 1
error: document `sha256:HASH` is not valid
  because: `sha256:3788852840B70817CA58C522C34CC4DF407CB9CF5E91B71A92CF19881189E877` is not a digest: expected 64 lower-case hexadecimal digits
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a digest that is short: 1
error: document `sha256:HASH` is not valid
  because: `sha256:abcd` is not a digest: expected 64 lower-case hexadecimal digits
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a digest of a hash that nobody uses: 1
error: document `sha256:HASH` is not valid
  because: `md5:d41d8cd98f00b204e9800998ecf8427e` is not a digest: only sha256 and sha512 are known
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a digest that speaks to the terminal: 1
error: document `sha256:HASH` is not valid
  because: `sha256:\u{1b}[2J\0` is not a digest: expected 64 lower-case hexadecimal digits
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- no digest: 1
error: document `sha256:HASH` is not valid
  because: `` is not a digest: expected an algorithm, a colon and a hash
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
"#,
    );
}

#[test]
fn b5_documents_without_measure_are_refused() {
    let images: [Bad; 7] = [
        ("a manifest of more than 4 MiB", |maker| {
            let config = maker.document(CONFIG, &config(&[]));
            let mut long = manifest(&config, &[]);
            long["annotations"] = json!({ "long": "x".repeat(4 << 20) });
            maker.document(MANIFEST, &long)
        }),
        ("a manifest that says it has 5 MiB", |maker| {
            let mut wrong = right(maker);
            wrong["size"] = json!(5 << 20);
            wrong
        }),
        ("five manifests of 4 MB", |maker| {
            let long = |number: usize| {
                let config = maker.document(CONFIG, &config(&[]));
                let mut long = manifest(&config, &[]);
                long["annotations"] = json!({ "long": format!("{number}{}", "x".repeat(4_000_000)) });
                maker.document(MANIFEST, &long)
            };
            maker.document(INDEX, &index(&(0..5).map(long).collect::<Vec<_>>()))
        }),
        ("five levels of documents", |maker| {
            (0..4).fold(right(maker), |below, _| maker.document(INDEX, &index(&[below])))
        }),
        ("1025 layers", |maker| {
            let layer = |number: usize| maker.blob(LAYER, format!("layer {number}").as_bytes());
            let config = maker.document(CONFIG, &config(&[]));
            maker.document(MANIFEST, &manifest(&config, &(0..1025).map(layer).collect::<Vec<_>>()))
        }),
        ("two manifests of 600 layers", |maker| {
            let config = maker.document(CONFIG, &config(&[]));
            let half = |half: usize| {
                let layer = |number: usize| maker.blob(LAYER, format!("layer {half} {number}").as_bytes());
                maker.document(MANIFEST, &manifest(&config, &(0..600).map(layer).collect::<Vec<_>>()))
            };
            maker.document(INDEX, &index(&[half(0), half(1)]))
        }),
        ("lists in lists in lists", |maker| {
            let text = format!("{{\"unknown\": {}", "[".repeat(100_000));
            maker.blob(MANIFEST, text.as_bytes())
        }),
    ];
    let mut desk = Desk::new();
    refuse_all(&mut desk, &images);
    desk.expect(
        r#"
- push, a manifest of more than 4 MiB: 1
error: document `sha256:HASH` is not valid
  because: a document of 4194577 bytes, at most 4194304 are accepted
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, a manifest of more than 4 MiB: 1
error: document `sha256:HASH` is not valid
  because: a document of 4194655 bytes, at most 4194304 are accepted
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a manifest that says it has 5 MiB: 1
error: document `sha256:HASH` is not valid
  because: a document of 5242880 bytes, at most 4194304 are accepted
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- five manifests of 4 MB: 1
error: the documents of the image have more than 16777216 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- five levels of documents: 1
error: document `sha256:HASH` lies deeper than 4 documents
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- push, 1025 layers: 1
error: document `sha256:HASH` is not valid
  because: a list of more than 1024 elements at byte 150722
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- pull, 1025 layers: 1
error: document `sha256:HASH` is not valid
  because: a list of more than 1024 elements at byte 230672
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- two manifests of 600 layers: 1
error: the image has more than 1024 blobs
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- lists in lists in lists: 1
error: document `sha256:HASH` is not valid
  because: nesting deeper than 128 at byte 140
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
"#,
    );
}
