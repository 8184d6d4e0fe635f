//! Encrypted images: skopeo and nerdctl read what we encrypt, we read what they do, by layouts, a registry and IPFS.
//!
//! Keys are those that OpenSSL makes. Debian's containerd, as root; nothing but loopback and Unix sockets.

use super::nerdctl::{Nerdctl, needed};
use shipfs_tests::engines::Registry;
use shipfs_tests::image::check_blobs;
use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{run, said, tool};
use shipfs_tests::repository::Repository;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The image that is encrypted.
fn plain() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ocicrypt/plain")
}

/// A pair of keys in a folder: of RSA with so many bits, or on a curve. Gives the public and the private one.
fn pair(folder: &Path, kind: &str) -> (String, String) {
    let (public, private) = (folder.join(format!("{kind}.pub")), folder.join(format!("{kind}.key")));
    let mut generate = Command::new("openssl");
    generate.arg("genpkey").arg("-out").arg(&private);
    match kind.strip_prefix("rsa") {
        Some(bits) => generate.args(["-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")]),
        None => generate.args(["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{kind}")]),
    };
    run(&mut generate);
    run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public));
    (public.display().to_string(), private.display().to_string())
}

fn skopeo(arguments: &[&str]) -> Command {
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--insecure-policy"]).args(arguments);
    command
}

/// How many blobs of the plain image are in a layout: layers and configuration, and the manifest where nothing was added.
fn plain_blobs(layout: &Path) -> usize {
    let plain = check_blobs(&plain()).expect("a layout");
    check_blobs(layout).expect("a layout").iter().filter(|digest| plain.contains(digest)).count()
}

#[test]
fn interop_skopeo_and_we_decrypt_what_the_other_encrypted() {
    const NAME: &str = "interop_skopeo_and_we_decrypt_what_the_other_encrypted";
    if !tool(NAME, "skopeo") || !tool(NAME, "openssl") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let source = format!("oci:{}", plain().display());
    let expected = Repository::new(at("expected")).run(&["push", &source]);
    let keys = ["rsa2048", "rsa4096", "P-256", "P-384", "P-521"].map(|kind| (kind, pair(folder.path(), kind)));
    for (kind, (public, private)) in &keys {
        let ours = Repository::new(at(&format!("{kind}.ours")));
        let recipient = format!("jwe:{public}");
        // Ours, for skopeo. It passes over layers with addresses, which a layout root has not.
        ours.run(&["push", "--layout", "--name", "sealed", "--encrypt", &recipient, &source]);
        let (sealed, opened) = (at(&format!("{kind}.sealed")), at(&format!("{kind}.opened")));
        ours.run(&["pull", "sealed", "--to", &format!("oci:{}:latest", sealed.display())]);
        assert_eq!(plain_blobs(&sealed), 1, "{kind}: the configuration");
        let to = format!("oci:{}:latest", opened.display());
        run(&mut skopeo(&["--decryption-key", private, &format!("oci:{}:latest", sealed.display()), &to]));
        assert_eq!(plain_blobs(&opened), 4, "{kind}");
        // skopeo's, for us.
        let theirs = format!("oci:{}:latest", at(&format!("{kind}.theirs")).display());
        run(&mut skopeo(&["--encryption-key", &recipient, &source, &theirs]));
        assert_eq!(ours.run(&["image", "decrypt", "--key", private, &theirs, "opened"]), expected, "{kind}");
    }
    // For all of them at once.
    let recipients: Vec<String> = keys.iter().map(|(_, (public, _))| format!("jwe:{public}")).collect();
    let ours = Repository::new(at("ours"));
    ours.run(&["push", "--layout", "--name", "sealed", "--encrypt", &recipients.join(","), &source]);
    let sealed = format!("oci:{}:latest", at("sealed").display());
    ours.run(&["pull", "sealed", "--to", &sealed]);
    let theirs = format!("oci:{}:latest", at("theirs").display());
    let mut encrypt = skopeo(&[]);
    encrypt.args(recipients.iter().flat_map(|recipient| ["--encryption-key", recipient]));
    run(encrypt.args([&source, &theirs]));
    for (kind, (_, private)) in &keys {
        let opened = at(&format!("{kind}.shared"));
        run(&mut skopeo(&["--decryption-key", private, &sealed, &format!("oci:{}:latest", opened.display())]));
        assert_eq!(plain_blobs(&opened), 4, "{kind}");
        assert_eq!(ours.run(&["image", "decrypt", "--key", private, &theirs, "opened"]), expected, "{kind}");
    }
}

/// What nerdctl's own suite does with a registry.
#[test]
fn interop_an_encrypted_image_goes_through_a_registry() {
    const NAME: &str = "interop_an_encrypted_image_goes_through_a_registry";
    if !tool(NAME, "docker-registry") || !tool(NAME, "openssl") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let (public, private) = pair(folder.path(), "rsa2048");
    let registry = Registry::start(&at("registry"), None);
    let [owner, user] = ["owner", "user"].map(|name| Repository::new(at(name)));
    let there = format!("docker://{}/a/encrypted:1", registry.address);
    let online = |repository: &Repository, arguments: &[&str]| {
        let mut command = shipfs_tests::program::shipfs(repository.path());
        command.args(["--quiet", "--no-mdns"]).args(arguments);
        command
    };
    owner.run(&["push", "--name", "plain", &format!("oci:{}", plain().display())]);
    owner.run(&["image", "encrypt", &format!("--recipient=jwe:{public}"), "plain", "encrypted"]);
    run(&mut online(&owner, &["push", "encrypted", &there]));
    let there_plain = format!("docker://{}/a/plain:1", registry.address);
    run(&mut online(&owner, &["push", "plain", &there_plain]));
    let expected = run(&mut online(&Repository::new(at("expected")), &["push", &there_plain]));
    // As it is, it can be taken in, but neither be run nor given to who cannot open it.
    let sealed = run(&mut online(&user, &["push", &there])).trim().to_owned();
    let archive = format!("docker-archive:{}", at("archive").display());
    let refused = online(&user, &["cp", &there, &archive]).output().expect("it starts");
    assert!(refused.status.code() == Some(1) && said(&refused).contains("is encrypted"), "{}", said(&refused));
    let decrypt = |key: &str, from: &str| online(&user, &["image", "decrypt", "--key", key, from, "open"]).output();
    for from in [&*there, &*sealed] {
        let refused = decrypt(&public, from).expect("it starts");
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let opened = decrypt(&private, from).expect("it starts");
        assert!(opened.status.success(), "{}", said(&opened));
        assert_eq!(String::from_utf8_lossy(&opened.stdout), expected);
    }
    // A registry gets an open image without any of it in our store.
    let open = format!("docker://{}/a/open:1", registry.address);
    run(&mut online(&owner, &["pull", "encrypted", "--key", &private, "--to", &open]));
    let back = Repository::new(at("back"));
    run(&mut online(&back, &["cp", &open, &format!("oci:{}", at("layout").display())]));
    assert_eq!(plain_blobs(&at("layout")), 3);
}

#[test]
fn privileged_interop_nerdctl_and_we_decrypt_what_the_other_encrypted() {
    const NAME: &str = "privileged_interop_nerdctl_and_we_decrypt_what_the_other_encrypted";
    let Some(program) = needed(NAME).filter(|_| tool(NAME, "openssl")) else { return };
    let Some(kubo) = Kubo::start(NAME, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let (public, private) = pair(folder.path(), "rsa2048");
    let recipient = format!("--recipient=jwe:{public}");
    let ours = Repository::new(folder.path().join("ours"));
    let plain = ours.run(&["push", "--name", "plain", &format!("oci:{}", plain().display())]);
    let sealed = ours.run(&["image", "encrypt", &recipient, "plain", "sealed"]);
    let (_serving, address) = ours.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    let nerdctl = Nerdctl::start(&program);
    // Ours, for nerdctl.
    nerdctl.nerdctl(&kubo, &["pull", "--unpack=false", &format!("ipfs://{sealed}")]);
    let refused = nerdctl.command(&kubo, &["image", "decrypt", "--key", &public, &sealed, "open"]).output();
    assert_eq!(refused.expect("it starts").status.code(), Some(1));
    nerdctl.nerdctl(&kubo, &["image", "decrypt", "--key", &private, &sealed, "open"]);
    // Its layers are there again, as they were.
    let layers = [
        "ad7bcb3fa11f2e230a9295ea77888e8f20002f8a0fac88d7422182c6abc0ac44",
        "7b2cf488e29139f1a7de100146cb29ade65a7144f4c741e9e1f6063a1e2d1158",
    ];
    let content = nerdctl.content();
    assert!(layers.iter().all(|layer| content.contains(*layer)), "{content:?}");
    // nerdctl's, for us, through Kubo.
    nerdctl.nerdctl(&kubo, &["image", "encrypt", &recipient, "open", "theirs"]);
    let theirs = nerdctl.nerdctl(&kubo, &["push", "ipfs://theirs"]);
    let theirs = theirs.lines().last().expect("a CID").trim().to_owned();
    let peer = Repository::new(folder.path().join("peer"));
    run(&mut peer.online(&kubo.addresses()[0], &["pull", &theirs]));
    let refused = peer.offline(&["image", "decrypt", "--key", &public, &theirs, "open"]).output();
    assert_eq!(refused.expect("it starts").status.code(), Some(1));
    peer.run(&["image", "decrypt", "--key", &private, &theirs, "open"]);
    let out = folder.path().join("out");
    peer.run(&["save", "--format", "oci", "--output", &out.display().to_string(), "open"]);
    assert_eq!(plain_blobs(&out), 3, "of {plain}");
}
