//! Whether other programs take what the sinks write, and whether the sources take what they write.
//!
//! Each test needs a program. Where it is missing, a test says that it was skipped, and fails if `CI` is set.

use std::{path::Path, process::Command};

use super::tests::{Fixture, fixture};
use crate::{
    oci::{Descriptor, Digest},
    source,
};

/// Digest of the fixture's configuration, which is what docker and podman call the image.
const IMAGE_ID: &str = "cfcff87b3c45bf7e8d09f338cd63d9b7922bc88f0e0b56583f081ae6a5f5673f";

/// Whether `program` is here. Says so loudly when it is not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let message = format!("SKIPPED: `{program}` is not installed, so nothing was checked against it");
    assert!(found || std::env::var_os("CI").is_none(), "{message}");
    if !found {
        // Past the test harness, which would keep it back.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{message}\n").as_bytes());
    }
    found
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn save_all(fixture: &Fixture, folder: &Path) -> [String; 4] {
    let places = ["oci:DIR/layout", "oci:DIR/tagged:tag", "oci-archive:DIR/oci.tar", "docker-archive:DIR/docker.tar"];
    let places = places.map(|text| text.replace("DIR", &folder.display().to_string()));
    for place in &places {
        fixture.save(place, Some("localhost/esz:plain"));
    }
    places
}

#[tokio::test]
async fn interop_skopeo_reads_what_is_written() {
    if !has("skopeo") {
        return;
    }
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    for (at, place) in save_all(&fixture, folder.path()).iter().enumerate() {
        let copy = folder.path().join(format!("copy{at}"));
        run("skopeo", &["copy", "--quiet", place, &format!("dir:{}", copy.display())]);
        let config = std::fs::read(copy.join(IMAGE_ID)).expect("the configuration");
        assert_eq!(Digest::of(&config).hex(), IMAGE_ID);
        if !place.starts_with("docker") {
            let manifest = std::fs::read(copy.join("manifest.json")).expect("the manifest");
            assert_eq!(Digest::of(&manifest), fixture.plan.top().descriptor.digest, "{place}");
        }
    }
}

#[tokio::test]
async fn interop_podman_loads_what_is_written() {
    if !has("podman") {
        return;
    }
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    save_all(&fixture, folder.path());
    for (at, archive) in ["oci.tar", "docker.tar"].iter().enumerate() {
        let (root, state) = (folder.path().join(format!("root{at}")), folder.path().join(format!("state{at}")));
        let (root, state) = (root.display().to_string(), state.display().to_string());
        let podman = |rest: &[&str]| {
            let mut arguments =
                vec!["--root", &root, "--runroot", &state, "--storage-driver", "vfs", "--events-backend", "none"];
            arguments.extend(rest);
            run("podman", &arguments)
        };
        podman(&["load", "--quiet", "--input", &folder.path().join(archive).display().to_string()]);
        let listed = podman(&["images", "--no-trunc", "--format", "{{.Id}} {{.Repository}}:{{.Tag}}"]);
        assert!(listed.contains(IMAGE_ID), "{archive}: {listed}");
        if *archive == "docker.tar" {
            assert!(listed.contains("localhost/esz:plain"), "{listed}");
        }
    }
}

#[tokio::test]
async fn interop_what_skopeo_writes_is_read() {
    if !has("skopeo") {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary directory");
    let from = format!("oci:{}/../tests/data/source-layout", env!("CARGO_MANIFEST_DIR"));
    for (place, location) in [
        ("oci:DIR/layout:tag", "oci:DIR/layout:tag"),
        ("oci-archive:DIR/oci.tar:tag", "oci-archive:DIR/oci.tar"),
        ("docker-archive:DIR/docker.tar:localhost/esz:plain", "docker-archive:DIR/docker.tar:localhost/esz:plain"),
    ] {
        let [place, location] = [place, location].map(|text| text.replace("DIR", &folder.path().display().to_string()));
        run("skopeo", &["copy", "--quiet", &from, &place]);
        let location = location.parse::<crate::location::Location>().expect("location");
        let source = source::open(&location, None, folder.path()).expect("opens");
        let image = source::select(&*source, location.image.as_deref()).expect("is there");
        let bytes = source::read_document(&*source, &image.descriptor).expect("reads");
        let manifest = crate::oci::Manifest::parse(&bytes).expect("parses");
        let blobs: Vec<&Descriptor> = manifest.layers().iter().chain([&manifest.config]).collect();
        assert_eq!(manifest.config.digest.hex(), IMAGE_ID);
        for blob in blobs {
            source::read_document(&*source, blob).expect("reads");
        }
    }
}
