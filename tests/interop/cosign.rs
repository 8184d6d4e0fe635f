//! cosign: a signature goes where its image goes, over IPFS and through two registries.
//!
//! cosign writes it as OCI 1.1 says, as something that names the image it is about: so it lies inside of the image's layout
//! root. Keys are the test's own; no server of anybody's is asked.

use shipfs_tests::http;
use shipfs_tests::peers;
use shipfs_tests::program::{run, said};
use shipfs_tests::repository::Repository;
use shipfs_tests::{crafted::Layout, image::Noise};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// cosign, in a folder with its keys.
struct Cosign {
    program: PathBuf,
    room: PathBuf,
}

impl Cosign {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", &self.room).current_dir(&self.room).env("COSIGN_PASSWORD", "");
        // It asks Sigstore's servers for keys that a local key makes needless: whoever they are, they are not reached.
        command.env("COSIGN_EXPERIMENTAL", "1").env("HTTPS_PROXY", "http://127.0.0.1:1");
        command.args(arguments);
        command
    }

    fn sign(&self, image: &str) {
        let sign = ["sign", "--key", "cosign.key", "--tlog-upload=false", "--registry-referrers-mode=oci-1-1"];
        run(self.command(&sign).args(["--allow-http-registry", "--yes", image]));
    }

    fn verify(&self, key: &str, image: &str) -> Output {
        let verify = ["verify", "--key", key, "--experimental-oci11", "--insecure-ignore-tlog"];
        self.command(&verify).args(["--allow-http-registry", image]).output().expect("it starts")
    }
}

/// The digest of an image's top, and the CID of its root.
fn known(address: SocketAddr, path: &str) -> (String, String) {
    let answer = http::request(address, "GET", path, &[], &[]).expect("an answer");
    assert_eq!(answer.status, 200, "{path}");
    let cid = answer.header("x-ipfs-path").trim_start_matches("/ipfs/").to_owned();
    (answer.header("docker-content-digest").to_owned(), cid)
}

#[test]
fn interop_a_signature_of_cosign_travels_with_its_image() {
    let Some(program) = peers::program("interop_a_signature_of_cosign", "cosign") else { return };
    let folder = TempDir::new().expect("a folder");
    let cosign = Cosign { program, room: folder.path().to_owned() };
    run(&mut cosign.command(&["generate-key-pair"]));
    run(&mut cosign.command(&["generate-key-pair", "--output-key-prefix", "other"]));
    let signer = Repository::new(folder.path().join("signer"));
    let layout = Layout::new(&folder.path().join("layout"));
    let manifest = layout.image(&[&Noise::new(1).bytes(300_000)]);
    let digest = manifest["digest"].as_str().expect("a digest").to_owned();
    let pushed = signer.run(&["push", "--layout", "--name", "tools:1", &layout.finish(&[manifest])]);

    let signed = {
        let (_registry, address) = signer.registry(&["--offline"], &[]);
        let image = format!("{address}/tools@{digest}");
        assert_eq!(known(address, "/v2/tools/manifests/1"), (digest.clone(), pushed.clone()));
        assert!(!cosign.verify("cosign.pub", &image).status.success(), "nobody has signed it");
        cosign.sign(&image);
        let (same, signed) = known(address, "/v2/tools/manifests/1");
        assert_eq!(same, digest, "the image is as it was");
        assert_ne!(signed, pushed, "its root has the signature inside");
        signed
    };

    let (_daemon, peer) = signer.serve();
    let other = Repository::new(folder.path().join("other"));
    run(&mut other.online(&peer, &["pull", "--all-platforms", &signed]));
    let (_registry, address) = other.registry(&["--offline"], &[]);
    let image = format!("{address}/ipfs/{signed}");
    let verified = cosign.verify("cosign.pub", &image);
    assert!(verified.status.success(), "{}", said(&verified));
    let claim: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(claim[0]["critical"]["image"]["docker-manifest-digest"], digest.as_str());
    assert!(!cosign.verify("other.pub", &image).status.success(), "another key");
}
