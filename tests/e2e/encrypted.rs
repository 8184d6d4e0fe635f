//! Encrypted images as their users have them: made, shipped, opened by those they are for, and by nobody else.

use serde_json::Value;
use shipfs_tests::program::{self, said, shipfs};
use shipfs_tests::repository::Repository;
use shipfs_tests::{image, multi_arch};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file of the encryption's test data.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ocicrypt").join(name)
}

/// The same as text.
fn text(name: &str) -> String {
    data(name).display().to_string()
}

/// What `inspect` says of an image.
fn inspected(repository: &Repository, name: &str) -> Value {
    serde_json::from_str(&repository.run(&["inspect", name])).expect("JSON")
}

/// The documents of an image of this kind.
fn documents<'i>(image: &'i Value, field: &'i str) -> impl Iterator<Item = &'i Value> {
    let all = image["documents"].as_array().expect("a list");
    all.iter().map(|document| &document["body"]).filter(move |body| body.get(field).is_some())
}

/// Whether any file of a repository holds these bytes.
fn is_anywhere(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).expect("a directory").any(|entry| {
        let path = entry.expect("an entry").path();
        match fs::symlink_metadata(&path).expect("metadata") {
            metadata if metadata.is_dir() => is_anywhere(&path, bytes),
            metadata if metadata.is_file() => {
                fs::read(&path).expect("reads").windows(bytes.len()).any(|window| window == bytes)
            }
            _ => false,
        }
    })
}

/// What nerdctl's own suite does, with another host in between.
#[test]
fn upstreams_encryption_round_works() {
    let folder = TempDir::new().expect("a directory");
    let [author, owner, user] = ["author", "owner", "user"].map(|name| Repository::new(folder.path().join(name)));
    let source = multi_arch::layout(&folder.path().join("layout"));
    let plain = author.run(&["push", "--all-platforms", &source]);
    let (serving, address) = author.serve();
    program::run(&mut owner.online(&address, &["pull", &plain]));
    drop(serving);
    let host = owner.run(&["push", &plain]);
    let recipient = format!("--recipient=jwe:{}", text("rsa2048.pub.pem"));
    let sealed = owner.run(&["image", "encrypt", &recipient, &format!("ipfs://{plain}"), "encrypted"]);
    let seen = inspected(&owner, "encrypted");
    let index = documents(&seen, "manifests").next().expect("an index");
    assert_eq!(index["manifests"].as_array().expect("a list").len(), 1, "{index}");
    let manifest = documents(&seen, "layers").next().expect("a manifest");
    let layer = &manifest["layers"][0];
    assert!(layer["annotations"]["org.opencontainers.image.enc.keys.jwe"].is_string(), "{layer}");
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    assert_eq!(owner.run(&["push", "ipfs://encrypted"]), sealed);
    let (_serving, address) = owner.serve();
    let pull = program::run(&mut user.online(&address, &["pull", "--unpack=false", &sealed]));
    assert_eq!(pull.trim(), sealed);
    let before = user.contents();
    for (key, why) in [("rsa2048.pub.pem", "not a private key"), ("other.priv.pem", "no suitable key unwrapper")] {
        let decrypt = ["image", "decrypt", "--key", &text(key), &sealed, "decrypted"];
        let refused = user.offline(&decrypt).output().expect("it starts");
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(said(&refused).contains(why), "{}", said(&refused));
        assert!(user.contents().keeps(&before) && !user.contents().images.contains("decrypted"), "{key}");
    }
    let opened = user.run(&["image", "decrypt", "--key", &text("rsa2048.priv.pem"), &sealed, "decrypted"]);
    // As the one platform of it that was encrypted.
    assert_eq!(opened, host);
}

#[test]
fn b12_an_encrypted_image_is_written_open_for_its_key_alone() {
    let folder = TempDir::new().expect("a directory");
    let repository = Repository::new(folder.path().join("repository"));
    let place = |name: &str| folder.path().join(name);
    let sealed = repository.run(&["push", &format!("oci:{}", text("encrypted-jwe"))]);
    let pull = |key: Option<&str>, to: &str| {
        let mut command = repository.offline(&["pull", &sealed, "--to", to]);
        command.args(key.into_iter().flat_map(|key| ["--key".to_owned(), text(key)]));
        command.output().expect("it starts")
    };
    // Without a key it stays as it is, and who cannot take it so is not given it.
    assert!(pull(None, &format!("oci:{}", place("kept").display())).status.success());
    let archive = place("archive");
    for key in [None, Some("ec256.priv.pem")] {
        let refused = pull(key, &format!("docker-archive:{}", archive.display()));
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(said(&refused).contains("is encrypted") && said(&refused).contains("--key"), "{}", said(&refused));
        assert!(!archive.exists());
    }
    let to = format!("oci:{}", place("open").display());
    let written = pull(Some("rsa2048.priv.pem"), &to);
    assert!(written.status.success(), "{}", said(&written));
    let blobs = |folder: &Path| image::check_blobs(folder).expect("a layout");
    let (open, kept, plain) = (blobs(&place("open")), blobs(&place("kept")), blobs(&data("plain")));
    // Layers and configuration; the manifest has addresses in it.
    assert_eq!(open.iter().filter(|digest| plain.contains(digest)).count(), 3, "{open:?}");
    assert_eq!(kept.iter().filter(|digest| plain.contains(digest)).count(), 1, "{kept:?}");
    let archived = pull(Some("rsa2048.priv.pem"), &format!("docker-archive:{}", archive.display()));
    assert!(archived.status.success() && archive.exists(), "{}", said(&archived));
    // Nothing that was opened, and no key, lies in what is served.
    let layer = fs::read(data("plain/blobs/sha256/7b2cf488e29139f1a7de100146cb29ade65a7144f4c741e9e1f6063a1e2d1158"));
    assert!(!is_anywhere(repository.path(), &layer.expect("reads")));
    let key = fs::read_to_string(data("rsa2048.priv.pem")).expect("reads");
    assert!(!is_anywhere(repository.path(), key.lines().nth(3).expect("lines").as_bytes()));
}

#[test]
fn c12_a_key_that_others_can_read_is_warned_of_and_shown_nowhere() {
    let folder = TempDir::new().expect("a directory");
    let repository = Repository::new(folder.path().join("repository"));
    let key = folder.path().join("key.pem");
    fs::copy(data("rsa2048.priv.pem"), &key).expect("copied");
    let sealed = repository.run(&["push", &format!("oci:{}", text("encrypted-jwe"))]);
    let bytes = fs::read_to_string(&key).expect("reads");
    for (mode, is_warned_of) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("permitted");
        let mut command = shipfs(repository.path());
        command.args(["--offline", "-vv", "image", "decrypt", "--key"]).arg(&key).args([&sealed, "open"]);
        let told = said(&command.output().expect("it starts"));
        assert_eq!(told.contains("others on this host can read the key"), is_warned_of, "{told}");
        assert!(bytes.lines().all(|line| line.starts_with("---") || !told.contains(line)), "{told}");
    }
    // By way of another process, and out of a pipe.
    let (_serving, _) = repository.serve();
    let mut command = Command::new("sh");
    let script = "cat \"$3\" | \"$1\" --repo \"$2\" --quiet image decrypt --key /dev/stdin \"$4\" piped";
    command.args(["-c", script, "sh"]).arg(program::shipfs_path()).arg(repository.path());
    let output = command.arg(&key).arg(&sealed).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_is_no_recipient_is_said_to_be_none() {
    let folder = TempDir::new().expect("a directory");
    let repository = Repository::new(folder.path().join("repository"));
    repository.run(&["push", "--name", "plain", &format!("oci:{}", text("plain"))]);
    let key = text("rsa2048.priv.pem");
    for (recipient, why, code) in [
        (None, "at least one recipient must be specified", 2),
        (Some("key"), "invalid recipient format", 1),
        (Some(&*format!("jwe:{key}")), "file provided is not a public key", 1),
        (Some("pgp:me@example.org"), "envelopes of `pgp` are not supported", 1),
        (Some("rot13:me"), "provided protocol not recognized", 1),
    ] {
        let mut command = repository.offline(&["image", "encrypt"]);
        command.args(recipient.map(|recipient| format!("--recipient={recipient}"))).args(["plain", "encrypted"]);
        let output = command.output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{recipient:?}: {}", said(&output));
        assert!(said(&output).contains(why), "{recipient:?}: {}", said(&output));
    }
    assert!(!repository.contents().images.contains("encrypted"));
}

#[test]
fn an_image_is_encrypted_on_its_way_in() {
    let folder = TempDir::new().expect("a directory");
    let repository = Repository::new(folder.path().join("repository"));
    let recipient = format!("jwe:{}", text("ec256.pub.pem"));
    let source = format!("oci:{}", text("plain"));
    let sealed = repository.run(&["push", "--name", "encrypted", "--encrypt", &recipient, &source]);
    let seen = inspected(&repository, "encrypted");
    let manifest = documents(&seen, "layers").next().expect("a manifest");
    for layer in manifest["layers"].as_array().expect("a list") {
        assert!(layer["mediaType"].as_str().is_some_and(|name| name.ends_with("+encrypted")), "{layer}");
    }
    let layer = fs::read(data("plain/blobs/sha256/7b2cf488e29139f1a7de100146cb29ade65a7144f4c741e9e1f6063a1e2d1158"));
    assert!(!is_anywhere(repository.path(), &layer.expect("reads")), "it was never written as it was");
    let opened = repository.run(&["image", "decrypt", "--key", &text("ec256.priv.pem"), &sealed, "decrypted"]);
    assert_eq!(opened, repository.run(&["push", &source]));
}

/// A stream is taken into the store while it passes; what is to be encrypted must not be.
#[test]
fn a_stream_is_encrypted_on_its_way_in() {
    let folder = TempDir::new().expect("a directory");
    let repository = Repository::new(folder.path().join("repository"));
    let layout = folder.path().join("layout");
    image::layout(&layout, &[300 << 10], 12).expect("written");
    let archive = folder.path().join("archive.tar");
    program::run(
        Command::new("tar").arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&layout).arg("."),
    );
    let recipient = format!("jwe:{}", text("ec256.pub.pem"));
    let push = |options: &[&str]| {
        let mut command = repository.offline(&[&["push"], options, &["oci-archive:-"]].concat());
        let output = command.stdin(fs::File::open(&archive).expect("opens")).output().expect("it starts");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("blobs").map(|blob| blob.expect("an entry").path());
    let layer = blobs.max_by_key(|path| fs::metadata(path).expect("there").len()).expect("a layer");
    // The store cuts it into pieces; one of them has these bytes.
    let layer = &fs::read(layer).expect("reads")[1000..2000];
    let sealed = push(&["--encrypt", &recipient]);
    assert!(!is_anywhere(repository.path(), layer), "it was stored as it was");
    let opened = repository.run(&["image", "decrypt", "--key", &text("ec256.priv.pem"), &sealed, "decrypted"]);
    assert_eq!(opened, push(&[]));
    assert!(is_anywhere(repository.path(), layer), "it would be seen");
    // What is converted is stored as it is before it could be encrypted.
    let mut both = repository.offline(&["push", "--estargz", "--encrypt", &recipient, "decrypted"]);
    let refused = both.output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
}
