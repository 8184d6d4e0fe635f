//! Images whose layers are encrypted.

use super::{Lab, Way};
use shipfs_tests::program;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

super::in_every_way! {
    b12_an_encrypted_image_runs_with_its_key_alone: privileged_b12_an_encrypted_image_runs_with_its_key_alone
        privileged_crun_b12_an_encrypted_image_runs_with_its_key_alone
        privileged_rootless_b12_an_encrypted_image_runs_with_its_key_alone
        privileged_rootless_crun_b12_an_encrypted_image_runs_with_its_key_alone;
}

/// A key where whoever runs containers can read it.
fn key(lab: &Lab, name: &str) -> String {
    let own = lab.folder.path().join(name);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ocicrypt").join(name);
    std::fs::copy(data, &own).expect("copied");
    if let Some(user) = &lab.user {
        user.give(&own);
    }
    own.display().to_string()
}

fn b12_an_encrypted_image_runs_with_its_key_alone(lab: &Lab) {
    let [public, own, other] = ["ec256.pub.pem", "ec256.priv.pem", "other.priv.pem"].map(|name| key(lab, name));
    let recipient = format!("--recipient=jwe:{public}");
    let sealed = program::run(lab.shipfs(&["--quiet", "image", "encrypt", &recipient, &lab.cid, "encrypted"]));
    program::run(lab.shipfs(&["rmi", &lab.cid]));
    program::run(lab.shipfs(&["gc"]));
    let run = |options: &[&str]| {
        let words = [&["run", "--rm"], options, &[sealed.trim(), "echo", "opened"]].concat();
        lab.shipfs(&words).output().expect("it starts")
    };
    let refused = |options: &[&str], why: &str| {
        let output = run(options);
        assert_eq!(output.status.code(), Some(125), "{}", program::said(&output));
        assert!(program::said(&output).contains(why), "{}", program::said(&output));
        lab.assert_clean();
    };
    refused(&[], "missing private key");
    refused(&["--key", &other], "no suitable key");
    assert!(lab.layer_folders().is_empty(), "{:?}", lab.layer_folders());
    let output = run(&["--key", &other, "--key", &own]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"opened\n"[..]), "{}", program::said(&output));
    // What was opened lies there for containers to come, out of the reach of other users.
    assert!(!lab.layer_folders().is_empty());
    let layers = std::fs::metadata(lab.layers()).expect("there");
    assert_eq!(layers.permissions().mode() & 0o077, 0, "{layers:?}");
    // That its layers are unpacked by now makes it nobody else's.
    refused(&[], "missing private key");
    refused(&["--key", &other], "no suitable key");
}

#[test]
fn privileged_what_changed_in_an_encrypted_image_is_committed_in_the_open() {
    let name = "privileged_what_changed_in_an_encrypted_image_is_committed_in_the_open";
    let Some(lab) = Lab::new(name, Way::ROOT) else { return };
    let [public, own] = ["ec256.pub.pem", "ec256.priv.pem"].map(|name| key(&lab, name));
    let recipient = format!("--recipient=jwe:{public}");
    let sealed = program::run(lab.shipfs(&["--quiet", "image", "encrypt", &recipient, &lab.cid, "encrypted"]));
    let script = ["sh", "-c", "echo new > /new"];
    program::run(lab.shipfs(&["run", "--name", "changed", "--key", &own, sealed.trim()]).args(script));
    let committed = lab.shipfs(&["commit", "changed"]).output().expect("it starts");
    assert!(program::said(&committed).contains("the new layer is not encrypted"), "{}", program::said(&committed));
    let committed = String::from_utf8(committed.stdout).expect("text");
    let run = |options: &[&str]| {
        let words = [&["run", "--rm"], options, &[committed.trim(), "cat", "/new"]].concat();
        lab.shipfs(&words).output().expect("it starts")
    };
    let output = run(&["--key", &own]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"new\n"[..]), "{}", program::said(&output));
    let refused = run(&[]);
    assert!(program::said(&refused).contains("missing private key"), "{}", program::said(&refused));
}
