//! Which blobs an image consists of.

use std::{collections::BTreeMap, sync::Mutex};

use super::*;
use crate::oci::{Platform, Platforms};

/// Documents by digest, and how often each was read.
#[derive(Default)]
struct Shelf {
    documents: BTreeMap<Digest, Bytes>,
    reads: Mutex<usize>,
}

impl Shelf {
    fn put(&mut self, media_type: &str, text: String) -> Descriptor {
        let descriptor = Descriptor::new(media_type, Digest::of(text.as_bytes()), text.len() as u64);
        self.documents.insert(descriptor.digest.clone(), text.into());
        descriptor
    }

    fn manifest(&mut self, layers: &[Descriptor]) -> Descriptor {
        let config = blob(media::CONFIG, "config");
        self.put(
            media::MANIFEST,
            format!(r#"{{"schemaVersion":2,"config":{},"layers":{}}}"#, json(&config), list(layers)),
        )
    }

    fn index(&mut self, entries: &[Descriptor]) -> Descriptor {
        self.put(media::INDEX, format!(r#"{{"schemaVersion":2,"manifests":{}}}"#, list(entries)))
    }

    async fn plan(&self, top: &Descriptor, platforms: &Platforms) -> Result<Plan, PlanError<String>> {
        let read = |wanted: Descriptor| async move {
            *self.reads.lock().expect("lock") += 1;
            self.documents.get(&wanted.digest).cloned().ok_or(wanted.digest.to_string())
        };
        Plan::make(top.clone(), &platforms.for_push(), read).await
    }
}

fn json(descriptor: &Descriptor) -> String {
    String::from_utf8(descriptor.to_json()).expect("UTF-8")
}

fn list(descriptors: &[Descriptor]) -> String {
    format!("[{}]", descriptors.iter().map(json).collect::<Vec<_>>().join(","))
}

fn blob(media_type: &str, text: &str) -> Descriptor {
    Descriptor::new(media_type, Digest::of(text.as_bytes()), text.len() as u64)
}

fn on(platform: &str, descriptor: Descriptor) -> Descriptor {
    Descriptor { platform: Some(platform.parse::<Platform>().expect("platform")), ..descriptor }
}

fn only(platform: &str) -> Platforms {
    Platforms::parse(&[platform]).expect("platform")
}

#[tokio::test]
async fn a_plan_lists_each_part_once() {
    let mut shelf = Shelf::default();
    let (one, two) = (blob(media::LAYER, "one"), blob(media::LAYER_GZIP, "two"));
    let first = shelf.manifest(&[one.clone(), two.clone(), one.clone()]);
    let second = shelf.manifest(&[one.clone(), blob(media::LAYER, "three")]);
    let top = shelf.index(&[on("linux/amd64", first.clone()), on("linux/arm64", second.clone())]);
    let plan = shelf.plan(&top, &Platforms::All).await.expect("plans");
    assert_eq!(plan.blobs().len(), 4, "one, two, three and the configuration");
    assert_eq!(plan.documents().len(), 3);
    assert_eq!(plan.size(), top.size + first.size + second.size + 3 + 3 + 5 + 6);
    assert!(!plan.is_partial() && !plan.selects_nothing());

    let plan = shelf.plan(&top, &only("linux/arm64")).await.expect("plans");
    assert_eq!((plan.blobs().len(), plan.documents().len()), (3, 2));
    assert!(plan.is_partial());
    assert_eq!(plan.platforms(), (vec!["linux/arm64".into()], vec!["linux/amd64".into(), "linux/arm64".into()]));

    let plan = shelf.plan(&top, &only("linux/s390x")).await.expect("plans");
    assert!(plan.selects_nothing());
}

#[tokio::test]
async fn unwanted_documents_are_not_read() {
    let mut shelf = Shelf::default();
    let wanted = shelf.manifest(&[]);
    let top = shelf.index(&[on("linux/amd64", wanted), on("linux/arm64", blob(media::MANIFEST, "absent"))]);
    assert!(shelf.plan(&top, &only("linux/amd64")).await.is_ok());
    assert_eq!(*shelf.reads.lock().expect("lock"), 2);
    assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::Read(_))));
}

#[tokio::test]
async fn b1_a_document_must_be_what_its_descriptor_says() {
    let mut shelf = Shelf::default();
    let manifest = shelf.manifest(&[]);
    let index = shelf.index(&[]);
    for top in [
        Descriptor { media_type: media::INDEX.into(), ..manifest.clone() },
        Descriptor { media_type: media::MANIFEST.into(), ..index.clone() },
        shelf.index(&[Descriptor { media_type: media::INDEX.into(), ..manifest }]),
    ] {
        assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::Document { .. })));
    }
}

#[tokio::test]
async fn b5_depth_is_bounded() {
    let mut shelf = Shelf::default();
    let mut top = shelf.manifest(&[]);
    for depth in 2..=5 {
        top = shelf.index(&[top]);
        let plan = shelf.plan(&top, &Platforms::All).await;
        assert_eq!(plan.is_ok(), depth <= MAX_DEPTH, "{depth}");
        assert!(depth <= MAX_DEPTH || matches!(plan, Err(PlanError::TooDeep { .. })));
    }
}

#[tokio::test]
async fn b5_the_number_of_blobs_is_bounded_over_all_documents() {
    let mut shelf = Shelf::default();
    let manifest = shelf.manifest(&vec![blob(media::LAYER, "x"); 300]);
    let top = shelf.index(&vec![manifest.clone(); 3]);
    assert!(shelf.plan(&top, &Platforms::All).await.is_ok());
    let top = shelf.index(&vec![manifest; 4]);
    assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::TooMany)));
    // Some hundred references to one index of as many, which says ten thousand with 20 KB.
    let inner = shelf.manifest(&[]);
    let inner = shelf.index(&vec![inner; 100]);
    let top = shelf.index(&vec![inner; 100]);
    assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::TooMany)));
}

#[tokio::test]
async fn b5_the_size_of_documents_is_bounded_before_they_are_read() {
    let mut shelf = Shelf::default();
    let claims = |size| Descriptor { size, ..blob(media::MANIFEST, "x") };
    for top in [claims(MAX_DOCUMENT_BYTES + 1), claims(u64::MAX)] {
        assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::Document { .. })));
    }
    assert_eq!(*shelf.reads.lock().expect("lock"), 0);
    let top = shelf.index(&vec![claims(MAX_DOCUMENT_BYTES); 5]);
    assert!(matches!(shelf.plan(&top, &Platforms::All).await, Err(PlanError::TooLarge)));
    assert_eq!(*shelf.reads.lock().expect("lock"), 1);
}
