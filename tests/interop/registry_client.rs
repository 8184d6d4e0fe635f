//! A registry that others wrote: what we send it gives back as it was, to us and to skopeo.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use shipfs_tests::engines::Registry;
use shipfs_tests::image::{check_blobs, hex, layout};
use shipfs_tests::program::{run, said, shipfs, tool};
use tempfile::TempDir;

/// `me` with the password `secret`.
const USERS: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// What a registry has under a name, as skopeo sees it: the digest of its bytes.
fn raw_digest(name: &str) -> String {
    use sha2::Digest as _;
    let raw = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
        .output()
        .expect("skopeo runs");
    assert!(raw.status.success(), "{}", said(&raw));
    format!("sha256:{}", hex(&sha2::Sha256::digest(&raw.stdout)))
}

/// The digest of a layout's only image.
fn top(folder: &Path) -> String {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).expect("an index")).expect("JSON");
    index["manifests"][0]["digest"].as_str().expect("a digest").to_owned()
}

#[test]
fn interop_registry_gives_back_what_it_was_sent() {
    const NAME: &str = "interop_registry_gives_back_what_it_was_sent";
    if !tool(NAME, "docker-registry") || !tool(NAME, "skopeo") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let registry = Registry::start(&at("registry"), None);
    let (source, out) = (at("source"), at("out"));
    layout(&source, &[1000, 300_000, 3 << 20], 7).expect("a layout");
    let (from, name) = (format!("oci:{}", source.display()), format!("{}/a/one:tag", registry.address));
    let here = |number: u32| shipfs(&at(&format!("repository{number}")));
    let digest = run(here(1).args(["-q", "cp", &from, &format!("docker://{name}")]));
    assert_eq!((digest.trim(), raw_digest(&name)), (&*top(&source), top(&source)));
    // Another host gets it from there, by tag and by digest.
    let by_digest = format!("docker://{}/a/one@{}", registry.address, digest.trim());
    run(here(2).args(["-q", "cp", &by_digest, &format!("oci:{}", out.display())]));
    assert_eq!(check_blobs(&out).expect("whole"), check_blobs(&source).expect("whole"));
    // A place says nothing that is not in the image: the CID is the same from a registry by any name.
    let pushed = |number: u32, place: &str| run(here(number).args(["-q", "push", place]));
    assert_eq!(pushed(2, &by_digest), pushed(3, &format!("docker://{name}")));
    assert!(run(here(3).arg("images")).contains(&name));
    // What is there is not sent again; what another repository of the registry has is taken over.
    let again = here(1).args(["cp", &from, &format!("docker://{name}")]).output().expect("runs");
    let text = said(&again);
    assert_eq!((text.matches("  here already").count(), text.matches("  written").count()), (4, 1), "{text}");
    run(here(3).args(["-q", "cp", &format!("docker://{name}"), &format!("docker://{}/a/two:tag", registry.address)]));
    assert_eq!(raw_digest(&format!("{}/a/two:tag", registry.address)), top(&source));
    let taken = fs::read_dir(at("repository3").join("blobs/sha256")).expect("blobs").count();
    assert!(taken >= 4, "{taken}");
}

/// Writes a layout of one image for `linux/amd64` and `linux/arm64`.
fn two_platforms(folder: &Path) {
    use sha2::Digest as _;
    let mut entries = Vec::new();
    for (seed, architecture) in [(1, "amd64"), (2, "arm64")] {
        layout(folder, &[1000 * seed, 5000], seed).expect("a layout");
        let index = fs::read(folder.join("index.json")).expect("an index");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
        let mut entry = index["manifests"][0].clone();
        entry["platform"] = serde_json::json!({ "architecture": architecture, "os": "linux" });
        entries.push(entry);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    let bytes = serde_json::to_vec(&index).expect("serialises");
    let digest = hex(&sha2::Sha256::digest(&bytes));
    fs::write(folder.join("blobs/sha256").join(&digest), &bytes).expect("writes");
    let top = serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() });
    let list = serde_json::json!({ "schemaVersion": 2, "manifests": [top] });
    fs::write(folder.join("index.json"), serde_json::to_vec(&list).expect("serialises")).expect("writes");
}

#[test]
fn interop_registry_takes_many_platforms_and_what_ipfs_says_of_an_image() {
    const NAME: &str = "interop_registry_takes_many_platforms_and_what_ipfs_says_of_an_image";
    if !tool(NAME, "docker-registry") || !tool(NAME, "skopeo") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let registry = Registry::start(&folder.path().join("registry"), None);
    let data = folder.path().join("source");
    two_platforms(&data);
    let (from, place) =
        (format!("oci:{}", data.display()), |tag: &str| format!("docker://{}/many:{tag}", registry.address));
    let here = || shipfs(&folder.path().join("repository"));
    let all = run(here().args(["-q", "cp", "--all-platforms", &from, &place("all")]));
    assert_eq!((all.trim(), raw_digest(&place("all")["docker://".len()..])), (&*top(&data), top(&data)));
    // One platform of several is its manifest alone, as it was.
    let one = run(here().args(["-q", "cp", "--platform", "linux/arm64", &from, &place("one")]));
    let index = fs::read_to_string(data.join("blobs/sha256").join(&top(&data)["sha256:".len()..])).expect("an index");
    assert!(index.contains(one.trim()) && one.trim() == raw_digest(&place("one")["docker://".len()..]));
    // This registry refuses addresses on IPFS; it is told what it takes, and its user what became of it.
    let cid = run(here().args(["-q", "push", "--all-platforms", &from]));
    let output = here().args(["cp", cid.trim(), &place("cid")]).output().expect("runs");
    let told = said(&output);
    assert!(output.status.success() && told.contains("does not take it as it is"), "{told}");
    let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(digest, raw_digest(&place("cid")["docker://".len()..]));
}

#[test]
fn interop_registry_lets_in_those_who_logged_in() {
    const NAME: &str = "interop_registry_lets_in_those_who_logged_in";
    if !tool(NAME, "docker-registry") || !tool(NAME, "skopeo") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let registry = Registry::start(&at("registry"), Some(USERS));
    layout(&at("source"), &[1000], 7).expect("a layout");
    let from = format!("oci:{}", at("source").display());
    let place = format!("docker://{}/a:1", registry.address);
    let here = || {
        let mut command = shipfs(&at("repository"));
        command.env("HOME", at("home"));
        command
    };
    let stranger = here().args(["cp", &from, &place]).output().expect("runs");
    let text = said(&stranger);
    assert!(!stranger.status.success() && text.contains("not logged in") && text.contains("shipfs login"), "{text}");
    let login = |password: &str| {
        fs::write(at("password"), format!("{password}\n")).expect("writes");
        let mut command = here();
        command.args(["login", "-u", "me", "--password-stdin", &registry.address]);
        command.stdin(fs::File::open(at("password")).expect("opens")).output().expect("runs")
    };
    let file = at("home/.docker/config.json");
    assert!(!login("wrong").status.success() && !file.exists());
    let entered = login("secret");
    assert!(entered.status.success(), "{}", said(&entered));
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    run(here().args(["-q", "cp", &from, &place]));
    // Others read the same file.
    let skopeo = ["inspect", "--tls-verify=false", "--authfile", file.to_str().expect("text"), &place];
    assert!(run(Command::new("skopeo").args(skopeo)).contains(&top(&at("source"))));
    run(here().args(["logout", &registry.address]));
    assert!(
        !here().args(["cp", &place, &format!("oci:{}", at("out").display())]).output().expect("runs").status.success()
    );
}
