//! Whole images: what real tools encrypted, what comes back, and what is refused.

use std::{path::Path, sync::Arc};

use super::*;
use crate::{
    blobs::{Blobs as _, memory::MemoryBlobs},
    bring::Bringer,
    inspect,
    location::Location,
    names::{self, Shape},
    oci::{Descriptor, Platforms},
    plan::Plan,
    pull::{PullOptions, pull},
    push::{Conversion, PushError, PushFrom, PushOptions, push},
    reference::Reference,
    root::Root,
    sink, source,
};

fn data(name: &str) -> String {
    format!("{}/../tests/data/ocicrypt/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn key(name: &str) -> KeyFile {
    KeyFile::read(&data(&format!("{name}.priv.pem"))).expect("a key")
}

fn recipient(name: &str) -> Recipient {
    Recipient::read(&format!("jwe:{}", data(&format!("{name}.pub.pem")))).expect("a key")
}

fn encrypt_for(names: &[&str]) -> Change {
    let recipients = names.iter().map(|name| recipient(name)).collect();
    Change::Encrypt { recipients, keys: Vec::new(), layers: Selection::default() }
}

fn decrypt_with(names: &[&str]) -> Change {
    Change::Decrypt { keys: names.iter().map(|name| key(name)).collect(), layers: Selection::default() }
}

fn layout(path: &str) -> PushFrom {
    let location: Location = format!("oci:{path}").parse().expect("a location");
    PushFrom::Source(source::open(&location, None, Path::new("/nonexistent")).expect("opens").into(), None)
}

fn options(change: Change) -> PushOptions {
    PushOptions { platforms: Platforms::All, change, ..PushOptions::default() }
}

async fn pushed(store: &MemoryBlobs, from: &PushFrom, change: Change) -> Result<names::Image, PushError> {
    push(store, from, &options(change), &()).await
}

/// The image as it lies in the store.
async fn planned(store: &MemoryBlobs, image: &names::Image) -> Plan {
    let root = Root::open(store, &image.root).await.expect("a root");
    inspect::plan(&Bringer::new(store, &root, &()), &root, &Platforms::All.for_pull()).await.expect("an image")
}

fn layers(plan: &Plan) -> Vec<&Descriptor> {
    plan.blobs().into_iter().filter(|blob| crate::oci::media::is_layer(&blob.media_type)).collect()
}

#[tokio::test]
async fn what_skopeo_encrypted_is_the_plain_image_again() {
    let store = MemoryBlobs::default();
    let plain = pushed(&store, &layout(&data("plain")), Change::None).await.expect("pushed");
    for (folder, name) in [("encrypted-jwe", "rsa2048"), ("encrypted-jwe-ec256", "ec256")] {
        let other = MemoryBlobs::default();
        let opened = pushed(&other, &layout(&data(folder)), decrypt_with(&["other", name])).await.expect("opened");
        assert_eq!(opened.root, plain.root, "{folder}: every byte is the same");
        // By way of the store, too: what is there stays as it is, and is opened from there.
        let sealed = pushed(&other, &layout(&data(folder)), Change::None).await.expect("pushed");
        assert!(layers(&planned(&other, &sealed).await).iter().all(|layer| is_encrypted(layer)));
        let from = PushFrom::Stored(sealed.root);
        let again = pushed(&other, &from, decrypt_with(&[name])).await.expect("opened");
        assert_eq!(again.root, plain.root, "{folder}");
    }
}

#[tokio::test]
async fn what_is_encrypted_here_is_the_same_image_once_it_is_decrypted() {
    for shape in [Shape::Descriptor, Shape::Layout] {
        let store = MemoryBlobs::default();
        let push = async |from: &PushFrom, change| {
            let options = PushOptions { shape, ..options(change) };
            push(&store, from, &options, &()).await
        };
        let plain = push(&layout(&data("plain")), Change::None).await.expect("pushed");
        let sealed = push(&PushFrom::Stored(plain.root), encrypt_for(&["rsa2048", "ec256"])).await.expect("sealed");
        let (before, after) = (planned(&store, &plain).await, planned(&store, &sealed).await);
        for (plain, sealed) in layers(&before).iter().zip(layers(&after)) {
            assert_eq!(sealed.media_type, format!("{}+encrypted", plain.media_type));
            assert!(sealed.size == plain.size && sealed.digest != plain.digest);
            let names: Vec<_> = sealed.annotations.keys().map(String::as_str).collect();
            assert_eq!(names, ["org.opencontainers.image.enc.keys.jwe", "org.opencontainers.image.enc.pubopts"]);
        }
        for name in ["rsa2048", "ec256"] {
            let opened = push(&PushFrom::Stored(sealed.root), decrypt_with(&[name])).await.expect("opened");
            assert_eq!(opened.note.expect("a note").digest, plain.note.as_ref().expect("a note").digest, "{name}");
            // A layout that was copied has an index of its own.
            assert!(shape == Shape::Layout || opened.root == plain.root, "{name}");
        }
        let again = push(&PushFrom::Stored(plain.root), encrypt_for(&["ec256"])).await.expect("sealed");
        let more = planned(&store, &again).await;
        assert_ne!(layers(&after)[0].digest, layers(&more)[0].digest, "no key is used twice");
    }
}

#[tokio::test]
async fn more_recipients_are_added_without_touching_a_layer() {
    let store = MemoryBlobs::default();
    let sealed = pushed(&store, &layout(&data("encrypted-jwe")), Change::None).await.expect("pushed");
    let add = |with: &str| Change::Encrypt {
        recipients: vec![recipient("ec256")],
        keys: vec![key(with)],
        layers: Selection::default(),
    };
    let refused = pushed(&store, &PushFrom::Stored(sealed.root), add("other")).await;
    assert!(matches!(refused, Err(PushError::Crypt(CryptError::WrongKey { .. }))), "{refused:?}");
    let more = pushed(&store, &PushFrom::Stored(sealed.root), add("rsa2048")).await.expect("added");
    let digests = |plan: &Plan| layers(plan).iter().map(|layer| layer.digest.clone()).collect::<Vec<_>>();
    assert_eq!(digests(&planned(&store, &more).await), digests(&planned(&store, &sealed).await));
    let plain = pushed(&store, &layout(&data("plain")), Change::None).await.expect("pushed");
    for name in ["rsa2048", "ec256"] {
        let opened = pushed(&store, &PushFrom::Stored(more.root), decrypt_with(&[name])).await.expect("opened");
        assert_eq!(opened.root, plain.root, "{name}");
    }
}

#[tokio::test]
async fn single_layers_are_chosen_by_number() {
    let store = MemoryBlobs::default();
    let seal = |numbers: &[i64]| Change::Encrypt {
        recipients: vec![recipient("ec256")],
        keys: Vec::new(),
        layers: Selection(numbers.to_vec()),
    };
    for (numbers, expected) in [(&[0][..], [true, false]), (&[-1], [false, true]), (&[1, -2], [true, true])] {
        let image = pushed(&store, &layout(&data("plain")), seal(numbers)).await.expect("sealed");
        let plan = planned(&store, &image).await;
        assert_eq!(layers(&plan).iter().map(|layer| is_encrypted(layer)).collect::<Vec<_>>(), expected, "{numbers:?}");
    }
    for number in [2, -3] {
        let refused = pushed(&store, &layout(&data("plain")), seal(&[number])).await;
        assert!(matches!(refused, Err(PushError::Crypt(CryptError::NoSuchLayer { .. }))), "{refused:?}");
    }
    let nobody = pushed(&store, &layout(&data("plain")), encrypt_for(&[])).await;
    assert!(matches!(nobody, Err(PushError::Crypt(CryptError::NoRecipients))), "{nobody:?}");
}

#[tokio::test]
async fn layers_are_not_converted_and_encrypted_at_once() {
    let (store, folder) = (MemoryBlobs::default(), tempfile::tempdir().expect("a directory"));
    let estargz = Some(Conversion::new(folder.path().to_owned()));
    for change in [encrypt_for(&["rsa2048"]), decrypt_with(&["rsa2048"])] {
        let options = PushOptions { estargz: estargz.clone(), ..options(change) };
        let refused = push(&store, &layout(&data("plain")), &options, &()).await;
        assert!(matches!(refused, Err(PushError::ConvertChanged)), "{refused:?}");
    }
    assert_eq!(store.files(), 0);
}

#[tokio::test]
async fn b12_a_wrong_key_or_none_leaves_nothing() {
    let store = MemoryBlobs::default();
    let sealed = pushed(&store, &layout(&data("encrypted-jwe")), Change::None).await.expect("pushed");
    let (files, records) = (store.files(), store.records().kept().await.expect("lists"));
    let wrong = pushed(&store, &PushFrom::Stored(sealed.root), decrypt_with(&["other", "ec256"])).await;
    assert!(matches!(wrong, Err(PushError::Crypt(CryptError::WrongKey { .. }))), "{wrong:?}");
    let none = pushed(&store, &PushFrom::Stored(sealed.root), decrypt_with(&[])).await;
    assert!(matches!(none, Err(PushError::Crypt(CryptError::NoKey { .. }))), "{none:?}");
    assert_eq!((store.files(), store.records().kept().await.expect("lists")), (files, records));
}

#[tokio::test]
async fn b12_a_tampered_layer_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = MemoryBlobs::default();
    // The bytes of the second layer, which has another digest then; its annotations still open.
    let tampered = tampered(folder.path(), |layer, bytes| {
        bytes[100] ^= 1;
        layer.digest = Digest::of(bytes);
    });
    let refused = pushed(&store, &layout(&tampered), decrypt_with(&["rsa2048"])).await;
    assert!(matches!(refused, Err(PushError::Crypt(CryptError::Tampered { .. }))), "{refused:?}");
    // Another HMAC that everybody can write.
    let other = options::public(&[0; 32]);
    let tampered = self::tampered(&folder.path().join("hmac"), |layer, _| {
        layer.annotations.insert(options::PUBLIC.to_owned(), other.clone());
    });
    let refused = pushed(&store, &layout(&tampered), decrypt_with(&["rsa2048"])).await;
    assert!(matches!(refused, Err(PushError::Crypt(CryptError::Tampered { .. }))), "{refused:?}");
    // No envelope at all.
    let tampered = self::tampered(&folder.path().join("bare"), |layer, _| layer.annotations.clear());
    let refused = pushed(&store, &layout(&tampered), decrypt_with(&["rsa2048"])).await;
    assert!(matches!(refused, Err(PushError::Crypt(CryptError::WrongKey { .. }))), "{refused:?}");
    assert!(store.records().kept().await.expect("lists").is_empty());
    let plain = Digest::of(&std::fs::read(blob_path(&data("plain"), SECOND)).expect("reads"));
    let found = store.find(plain.sha256().as_ref().expect("SHA-256"), None).await.expect("looks");
    assert_eq!(found, None, "nothing of the layer");
}

/// The second layer of the plain image.
const SECOND: &str = "7b2cf488e29139f1a7de100146cb29ade65a7144f4c741e9e1f6063a1e2d1158";

fn blob_path(layout: &str, hex: &str) -> String {
    format!("{layout}/blobs/sha256/{hex}")
}

/// A copy of what skopeo encrypted, with its second layer changed.
fn tampered(folder: &Path, change: impl Fn(&mut Descriptor, &mut Vec<u8>)) -> String {
    let from = data("encrypted-jwe");
    let to = folder.display().to_string();
    let read = |path: String| std::fs::read(path).expect("reads");
    let write = |hex: &str, bytes: &[u8]| std::fs::write(blob_path(&to, hex), bytes).expect("writes");
    std::fs::create_dir_all(format!("{to}/blobs/sha256")).expect("a directory");
    let mut index = crate::oci::Index::parse(&read(format!("{from}/index.json"))).expect("an index");
    let top = &mut index.manifests.as_mut().expect("a list")[0];
    let bytes = read(blob_path(&from, &top.digest.hex()));
    let mut manifest = crate::oci::Manifest::parse(&bytes).expect("a manifest");
    let layers = manifest.layers.as_mut().expect("a list");
    write(&layers[0].digest.hex(), &read(blob_path(&from, &layers[0].digest.hex())));
    let mut bytes = read(blob_path(&from, &layers[1].digest.hex()));
    change(&mut layers[1], &mut bytes);
    write(&layers[1].digest.hex(), &bytes);
    write(&manifest.config.digest.hex(), &read(blob_path(&from, &manifest.config.digest.hex())));
    let bytes = manifest.to_json();
    (top.digest, top.size) = (Digest::of(&bytes), bytes.len() as u64);
    write(&top.digest.hex(), &bytes);
    std::fs::write(format!("{to}/index.json"), index.to_json()).expect("writes");
    std::fs::write(format!("{to}/oci-layout"), crate::link::LAYOUT_MARKER).expect("writes");
    to
}

#[tokio::test]
async fn a_pull_with_a_key_writes_the_plain_image_and_keeps_the_encrypted_one() {
    let seeder = Arc::new(MemoryBlobs::default());
    let sealed = pushed(&seeder, &layout(&data("encrypted-jwe")), Change::None).await.expect("pushed");
    let folder = tempfile::tempdir().expect("a directory");
    let to = folder.path().join("out");
    let open = || {
        let location: Location = format!("oci:{}", to.display()).parse().expect("a location");
        Some(sink::open(&location, None).expect("opens"))
    };
    let with = |keys: &[&str]| PullOptions {
        platforms: Platforms::All,
        keys: keys.iter().map(|name| key(name)).collect(),
        ..PullOptions::default()
    };
    let store = MemoryBlobs::with_peers(vec![seeder]);
    let wrong = pull(&store, &sealed.root, &with(&["other"]), open(), &()).await;
    assert!(matches!(wrong, Err(crate::pull::PullError::Crypt(CryptError::WrongKey { .. }))), "{wrong:?}");
    assert!(!to.exists() && store.records().kept().await.expect("lists").is_empty());
    let pulled = pull(&store, &sealed.root, &with(&["rsa2048"]), open(), &()).await.expect("pulled");
    assert_eq!(pulled.root, sealed.root);
    let plain = MemoryBlobs::default();
    let expected = pushed(&plain, &layout(&data("plain")), Change::None).await.expect("pushed");
    let written = pushed(&plain, &layout(&to.display().to_string()), Change::None).await.expect("pushed");
    assert_eq!(written.root, expected.root);
    // The store itself has what it pulled, and nothing that was opened.
    let plan = planned(&store, &pulled).await;
    assert!(layers(&plan).iter().all(|layer| is_encrypted(layer)));
    for layer in layers(&planned(&plain, &expected).await) {
        let digest = layer.digest.sha256().expect("SHA-256");
        assert_eq!(store.find(&digest, None).await.expect("looks"), None);
    }
    let reference: Reference = sealed.root.to_string().parse().expect("a CID");
    assert!(names::resolve(store.records(), &reference).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_encrypted_is_not_passed_over() {
    let store = MemoryBlobs::default();
    let plain = pushed(&store, &layout(&data("plain")), Change::None).await.expect("pushed");
    let plan = planned(&store, &plain).await;
    let sealer = Sealer::new(&[recipient("ec256")], &[]).expect("recipients");
    let with = |media_type: &str| {
        plan.changed(|blob| {
            let is_layer = crate::oci::media::is_layer(&blob.media_type);
            let media_type = if is_layer { media_type } else { &blob.media_type };
            Descriptor { media_type: media_type.to_owned(), ..blob.clone() }
        })
    };
    let chart = with("application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    let refused = sealer.steps(&chart, &Selection::default()).await;
    assert!(matches!(refused, Err(CryptError::MediaType { .. })));
    let steps = sealer.steps(&with("application/vnd.in-toto+json"), &Selection::default()).await.expect("known");
    assert!(steps.iter().all(|(_, step)| matches!(step, Step::Pass(_))));
    let docker = with("application/vnd.docker.image.rootfs.diff.tar.gzip");
    let steps = sealer.steps(&docker, &Selection::default()).await.expect("known");
    assert!(steps.iter().all(|(_, step)| matches!(step, Step::Seal(_))));
}
