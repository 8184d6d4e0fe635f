//! `push --estargz`: what it makes of images, what it keeps, and what it refuses.

use serde_json::{Value, json};
use shipfs_tests::archives::{archive, file};
use shipfs_tests::crafted::{CONFIG, INDEX, LAYER_GZIP, Layout, MANIFEST, descriptor, manifest};
use shipfs_tests::program::{said, shipfs};
use shipfs_tests::repository::Repository;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const ENCRYPTED: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
/// The annotation without which no snapshotter mounts a layer.
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

fn data(path: &str) -> String {
    format!("oci:{}/data/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// An image in an empty repository.
struct Pushed {
    folder: TempDir,
    repository: Repository,
}

impl Pushed {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let repository = Repository::new(folder.path().join("repository"));
        Self { folder, repository }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What a push that is not asked to be quiet gives and says.
    fn push(&self, arguments: &[&str]) -> Output {
        let mut command = shipfs(self.repository.path());
        command.args(["--offline", "push", "--estargz"]).args(arguments).output().expect("it starts")
    }

    fn inspect(&self, cid: &str) -> Value {
        serde_json::from_str(&self.repository.run(&["inspect", cid])).expect("JSON")
    }
}

/// One image has one CID wherever it is converted: on any machine, from any place, by any number of threads. It changes
/// only with the compressor.
#[test]
fn an_image_is_converted_to_the_same_everywhere() {
    const CID: &str = "bafkreihtewjyzuhh6ztfwg3u4t2wbn3akxd26ql4q73xrngmn7n3t7s7hu";
    const LAYOUT_CID: &str = "bafybeihxx3oa2eaaprjwdtzavw33x4t6abho3qs76hak7rujswnfnl6b44";
    let lab = Pushed::new();
    let source = data("source-layout");
    let output = lab.push(&[&source]);
    let told = said(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{CID}\n"), "{told}");
    let line = "converted \"application/vnd.oci.image.layer.v1.tar+gzip\" to sha256:";
    assert_eq!(told.matches(line).count(), 2, "{told}");
    let push = |arguments: &[&str]| lab.repository.run(&[&["push", "--estargz"], arguments].concat());
    assert_eq!(push(&["--layout", &source]), LAYOUT_CID);
    // What is here already, by its CID, and what comes out of a stream.
    let plain = lab.repository.run(&["push", &source]);
    assert_eq!(push(&[&plain]), CID);
    let tarred = lab.at("image.tar");
    fs::write(&tarred, lab.repository.saved(&plain)).expect("written");
    let other = Repository::new(lab.at("other"));
    let archived = other.run(&["push", "--estargz", "--layout", &format!("oci-archive:{}", tarred.display())]);
    let [here, there] =
        [lab.inspect(LAYOUT_CID), serde_json::from_str(&other.run(&["inspect", &archived])).expect("JSON")];
    let digests = |seen: &Value| {
        let blobs = seen["blobs"].as_array().expect("blobs").iter().map(|blob| blob["digest"].clone());
        blobs.collect::<Vec<_>>()
    };
    assert_eq!(digests(&here), digests(&there));
    // Smaller chunks are another image, and a chunk has bounds.
    assert_ne!(push(&["--estargz-chunk-size", "4096", &source]), CID);
    let refused = lab.push(&["--estargz-chunk-size", "1", &source]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("chunks of 1 bytes: expected 1024 to 67108864"), "{}", said(&refused));
    let images = lab.repository.run(&["images"]);
    assert!(images.contains(CID) && images.contains(LAYOUT_CID), "{images}");
    assert!(lab.repository.run(&["verify"]).is_empty());
}

#[test]
fn layers_that_are_estargz_already_are_kept() {
    for layout in ["estargz/upstream", "estargz/upstream-4k", "estargz/zstdchunked"] {
        let lab = Pushed::new();
        let output = lab.push(&[&data(layout)]);
        assert_eq!(said(&output).matches("reusing eStargz layer sha256:").count(), 2, "{}", said(&output));
        let cid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(lab.repository.run(&["push", &data(layout)]), cid);
        // So is what we made.
        let ours = lab.repository.run(&["push", "--estargz", &data("source-layout")]);
        assert_eq!(lab.repository.run(&["push", "--estargz", &ours]), ours);
    }
}

/// A layout of an image for two platforms, in Docker's types or OCI's.
fn two_platforms(folder: &Path, types: [&str; 3]) -> String {
    let [manifest_type, config_type, layer_type] = types;
    let layout = Layout::new(folder);
    let manifests = ["amd64", "arm64"].map(|architecture| {
        let (mut layer, inside) = layout.packed_layer(&archive(&[file("name", architecture)]));
        layer["mediaType"] = json!(layer_type);
        let rootfs = json!({ "type": "layers", "diff_ids": [inside] });
        let config = json!({ "os": "linux", "architecture": architecture, "rootfs": rootfs });
        let config = layout.document(config_type, &config);
        let mut document = manifest(&config, &[layer]);
        document["mediaType"] = json!(manifest_type);
        let mut manifest = layout.document(manifest_type, &document);
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifest
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.finish(&[layout.document(INDEX, &index)])
}

#[test]
fn every_platform_is_converted_and_docker_types_become_ocis() {
    let lab = Pushed::new();
    let oci = two_platforms(&lab.at("oci"), [MANIFEST, CONFIG, LAYER_GZIP]);
    let docker = two_platforms(&lab.at("docker"), [DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER]);
    for shape in [&[][..], &["--layout"]] {
        let push = |more: &[&str]| lab.repository.run(&[&["push", "--estargz"], shape, more].concat());
        let cid = push(&["--all-platforms", &oci]);
        assert_eq!(push(&["--all-platforms", &docker]), cid);
        let seen = lab.inspect(&cid);
        assert_eq!(seen["platforms"], json!(["linux/amd64", "linux/arm64"]));
        let layers = seen["blobs"].as_array().expect("blobs").iter().filter(|blob| blob["mediaType"] == LAYER_GZIP);
        assert_eq!(layers.filter(|layer| layer["annotations"][TOC_DIGEST].is_string()).count(), 2, "{seen}");
        let one = lab.inspect(&push(&["--platform", "linux/arm64", &oci]));
        assert_eq!(one["platforms"], json!(["linux/arm64"]));
        assert_eq!(one["documents"][0]["body"]["manifests"].as_array().map(Vec::len), Some(1), "{one}");
    }
}

#[test]
fn what_cannot_be_converted_is_refused_and_leaves_no_image() {
    let lab = Pushed::new();
    let tar = archive(&[file("name", "bytes")]);
    let wrong_name = archive(&[file(b"\xff", "bytes")]);
    let image = |name: &str, change: &dyn Fn(&Layout, &mut Value)| {
        let layout = Layout::new(&lab.at(name));
        let (mut layer, inside) = layout.packed_layer(&tar);
        change(&layout, &mut layer);
        let rootfs = json!({ "type": "layers", "diff_ids": [inside] });
        let config = layout.document(CONFIG, &json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }));
        layout.finish(&[layout.document(MANIFEST, &manifest(&config, &[layer]))])
    };
    let encrypted = image("encrypted", &|_, layer| layer["mediaType"] = json!(ENCRYPTED));
    let no_text = image("no-text", &|layout, layer| *layer = layout.packed_layer(&wrong_name).0);
    let no_tar = image("no-tar", &|layout, layer| *layer = layout.blob(LAYER_GZIP, b"neither gzip nor an archive"));
    let other = image("other", &|layout, layer| {
        let wrong = descriptor(LAYER_GZIP, b"what was promised");
        let digest = wrong["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
        *layer = layout.blob_named(LAYER_GZIP, b"other bytes there", digest);
    });
    for (source, told) in [
        (&encrypted, "cannot be unpacked"),
        (&no_text, "its name is not UTF-8"),
        (&no_tar, "the layer ends in the middle of a header"),
        (&other, "17 bytes that do not match"),
    ] {
        let output = lab.push(&[source]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(told) && said(&output).contains("hint: "), "{told}: {}", said(&output));
        assert!(output.stdout.is_empty());
    }
    assert_eq!(lab.repository.run(&["images", "--quiet"]), "");
    // A layer that says it is eStargz and is not is none.
    let lies = image("lies", &|_, layer| layer["annotations"] = json!({ TOC_DIGEST: layer["digest"] }));
    let output = lab.push(&[&lies]);
    assert!(said(&output).contains("converted \""), "{}", said(&output));
}
