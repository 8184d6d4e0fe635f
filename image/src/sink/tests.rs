//! Images written to places, and what is left when that fails.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    blobs::Content,
    oci::Platforms,
    source::{self, Source},
};

pub(super) struct Fixture {
    source: Box<dyn Source>,
    pub(super) plan: Plan,
}

pub(super) async fn fixture() -> Fixture {
    let path = format!("{}/../tests/data/source-layout", env!("CARGO_MANIFEST_DIR"));
    let location = format!("oci:{path}").parse().expect("location");
    let source = source::open(&location, None, Path::new("/nonexistent")).expect("opens");
    let read = |blob: Descriptor| {
        let bytes = source::read_document(&*source, &blob);
        async move { bytes }
    };
    let top = source.images()[0].descriptor.clone();
    let plan = Plan::make(top, &Platforms::All.for_push(), read).await.expect("plans");
    Fixture { source, plan }
}

impl Fixture {
    fn body(&self, blob: &Descriptor) -> Body {
        match self.source.open(blob).expect("opens") {
            Content::File(path) => Body::File(path),
            _ => panic!("a layout has files"),
        }
    }

    fn write(&self, sink: &mut dyn Sink) {
        let documents = self.plan.documents().into_iter().map(|part| &part.descriptor);
        for blob in documents.chain(self.plan.blobs()) {
            if !sink.has(blob) {
                sink.write(blob, &self.body(blob)).unwrap_or_else(|error| panic!("{error}"));
            }
            assert!(sink.has(blob));
        }
    }

    /// Writes the image to the place that `text` names.
    pub(super) fn save(&self, text: &str, name: Option<&str>) {
        let mut sink = open(&text.parse().expect("location"), None).unwrap_or_else(|error| panic!("{error}"));
        self.write(&mut *sink);
        let name = name.map(|name| name.parse::<Name>().expect("name"));
        sink.finish(&Image { plan: &self.plan, name: name.as_ref(), config: None })
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let listing = fs::read_dir(folder).expect("lists");
    let mut names: Vec<_> =
        listing.map(|entry| entry.expect("lists").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn images_in(location: &str) -> Vec<Descriptor> {
    let source = source::open(&location.parse().expect("location"), None, Path::new("/nonexistent")).expect("opens");
    for image in source.images() {
        let bytes = source::read_document(&*source, &image.descriptor).expect("reads");
        let manifest = crate::oci::Manifest::parse(&bytes).expect("parses");
        for blob in manifest.layers().iter().chain([&manifest.config]) {
            let whole = source::read_document(&*source, blob).expect("reads");
            assert_eq!(whole.len() as u64, blob.size);
        }
    }
    source.images().iter().map(|image| image.descriptor.clone()).collect()
}

#[tokio::test]
async fn a_layout_appears_whole() {
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    let target = folder.path().join("image");
    let text = format!("oci:{}", target.display());
    let mut sink = open(&text.parse().expect("location"), None).expect("opens");
    fixture.write(&mut *sink);
    assert!(!target.exists());
    sink.finish(&Image { plan: &fixture.plan, name: None, config: None }).expect("finishes");
    assert_eq!(names_in(folder.path()), ["image"]);
    assert_eq!(images_in(&text), [fixture.plan.top().descriptor.clone()]);
}

#[tokio::test]
async fn a_sink_that_is_dropped_leaves_nothing() {
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    for scheme in ["oci", "oci-archive", "docker-archive"] {
        let text = format!("{scheme}:{}/x", folder.path().display());
        let mut sink = open(&text.parse().expect("location"), None).expect("opens");
        fixture.write(&mut *sink);
        drop(sink);
        assert_eq!(names_in(folder.path()), [""; 0], "{scheme}");
    }
}

#[tokio::test]
async fn a_layout_that_is_there_takes_another_image() {
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    let text = format!("oci:{}", folder.path().display());
    fixture.save(&text, None);
    for tag in ["one", "two", "one"] {
        fixture.save(&format!("{text}:{tag}"), None);
    }
    fixture.save(&text, None);
    let tags: Vec<_> = images_in(&text)
        .into_iter()
        .map(|entry| entry.annotations.get("org.opencontainers.image.ref.name").cloned().unwrap_or_default())
        .collect();
    assert_eq!(tags, ["two", "one", "latest"]);
    assert_eq!(names_in(folder.path()), ["blobs", "index.json", "oci-layout"]);
    assert_eq!(names_in(&folder.path().join("blobs/sha256")).len(), 4);
}

#[tokio::test]
async fn what_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("temporary directory");
    fs::write(folder.path().join("x"), "mine").expect("writes");
    for path in [folder.path().to_owned(), folder.path().join("x")] {
        let location = format!("oci:{}", path.display()).parse().expect("location");
        assert!(matches!(open(&location, None), Err(SinkError::NotALayout { .. })));
    }
    let location = format!("oci-archive:{}/no/such/folder/x", folder.path().display()).parse().expect("location");
    assert!(matches!(open(&location, None), Err(SinkError::Open { .. })));
    assert_eq!(names_in(folder.path()), ["x"]);
}

#[tokio::test]
async fn archives_are_read_back_and_have_fixed_bytes() {
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    for (scheme, image, label) in [
        ("oci-archive", "", "latest"),
        ("oci-archive", ":tag", "tag"),
        ("docker-archive", "", "latest"),
        ("docker-archive", ":localhost/a/b:c", "c"),
    ] {
        let path = folder.path().join("x.tar");
        let text = format!("{scheme}:{}", path.display());
        fixture.save(&format!("{text}{image}"), None);
        let first = fs::read(&path).expect("reads");
        fixture.save(&format!("{text}{image}"), None);
        assert_eq!(fs::read(&path).expect("reads"), first, "one image, one archive");
        let images = images_in(&text);
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].annotations["org.opencontainers.image.ref.name"], label);
        assert_eq!(images[0].digest, fixture.plan.top().descriptor.digest);
    }
    assert_eq!(names_in(folder.path()), ["x.tar"]);
}

#[tokio::test]
async fn dockers_list_names_the_image_and_its_layers() {
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("x.tar");
    for (image, name, tags) in [
        ("", None, "null"),
        ("", Some("localhost/esz:plain"), r#"["localhost/esz:plain"]"#),
        (":a", Some("localhost/esz:plain"), r#"["a:latest"]"#),
    ] {
        fixture.save(&format!("docker-archive:{}{image}", path.display()), name);
        let mut archive = tar::Archive::new(fs::File::open(&path).expect("opens"));
        let mut list = String::new();
        for entry in archive.entries().expect("lists") {
            let mut entry = entry.expect("lists");
            if entry.path().expect("path") == Path::new("manifest.json") {
                io::Read::read_to_string(&mut entry, &mut list).expect("reads");
            }
        }
        let expected = format!(
            r#"[{{"Config":"blobs/sha256/cfcff87b3c45bf7e8d09f338cd63d9b7922bc88f0e0b56583f081ae6a5f5673f","RepoTags":{tags},"Layers":["blobs/sha256/ed9b6ce5a4dfd0b136bbbb6c9d3f3b7da899be1dc0640b46e3e11c0bf38273f2","blobs/sha256/493a346fee210b0659b7a0bc99c358273049f0f7dba15912c69f182661413849"]}}]"#
        );
        assert_eq!(list, expected);
    }
    let refused = open(&format!("docker-archive:{}:No Name", path.display()).parse().expect("location"), None);
    let sink = refused.expect("opens");
    let image = Image { plan: &fixture.plan, name: None, config: None };
    assert!(matches!(sink.accepts(&image), Err(SinkError::Name { .. })), "before anything is written");
    let finished = sink.finish(&Image { plan: &fixture.plan, name: None, config: None });
    assert!(matches!(finished, Err(SinkError::Name { .. })));
}

/// A stream that remembers what was written to it.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar's builder ends the archive when it is dropped: half of one then looked like a whole one to whoever read it.
#[tokio::test]
async fn half_a_stream_does_not_end_like_a_whole_one() {
    let fixture = fixture().await;
    let location = "docker-archive:-".parse().expect("location");
    let shared = Shared::default();
    drop(open(&location, Some(Box::new(shared.clone()))).expect("opens"));
    assert_eq!(shared.0.lock().expect("lock").len(), 0);
    let mut sink = open(&location, Some(Box::new(shared.clone()))).expect("opens");
    fixture.write(&mut *sink);
    drop(sink);
    assert!(!shared.0.lock().expect("lock").ends_with(&[0; 1024]), "it ends like an archive");
}

/// `--output /dev/null` must not leave a file there, and nor must a pipe become one.
#[tokio::test]
async fn a_pipe_is_written_to_and_never_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let fixture = fixture().await;
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("runs").success());
    let reading = std::thread::spawn({
        let path = path.clone();
        move || fs::read(path).expect("reads")
    });
    fixture.save(&format!("oci-archive:{}", path.display()), None);
    assert!(reading.join().expect("reads").len() > 1024);
    assert!(fs::symlink_metadata(&path).expect("there").file_type().is_fifo());
    let folder = format!("oci-archive:{}", folder.path().display()).parse().expect("location");
    assert!(matches!(open(&folder, None), Err(SinkError::Open { .. })), "a directory is no archive");
}

#[tokio::test]
async fn an_archive_can_be_streamed() {
    let fixture = fixture().await;
    let shared = Shared::default();
    let location = "oci-archive:-".parse().expect("location");
    assert!(matches!(open(&location, None), Err(SinkError::NoStream)));
    let mut sink = open(&location, Some(Box::new(shared.clone()))).expect("opens");
    fixture.write(&mut *sink);
    sink.finish(&Image { plan: &fixture.plan, name: None, config: None }).expect("finishes");
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("x.tar");
    fs::write(&path, &*shared.0.lock().expect("lock")).expect("writes");
    assert_eq!(images_in(&format!("oci-archive:{}", path.display())).len(), 1);
}

#[tokio::test]
async fn b2_a_body_of_another_length_is_refused() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let blob = Descriptor::new("", Digest::of(b"12345"), 5);
    let file = folder.path().join("body");
    for scheme in ["oci", "oci-archive"] {
        let location = format!("{scheme}:{}/x", folder.path().display()).parse().expect("location");
        let mut sink = open(&location, None).expect("opens");
        for bytes in ["1234", "123456"] {
            fs::write(&file, bytes).expect("writes");
            for body in [Body::Bytes(bytes.into()), Body::File(file.clone())] {
                let refused = sink.write(&blob, &body);
                assert!(matches!(refused, Err(SinkError::Length { expected: 5, .. })), "{scheme} {bytes}");
                assert!(!sink.has(&blob));
            }
        }
    }
}
