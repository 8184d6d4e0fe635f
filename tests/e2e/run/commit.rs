//! `commit`: a container as an image, pulled and run elsewhere.

use super::{Lab, Way, wait_until};
use serde_json::{Value, json};
use shipfs_tests::program;
use shipfs_tests::runnable;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The documents and layers of an image, as a layout.
struct Saved {
    folder: PathBuf,
    manifest: Value,
}

impl Saved {
    fn new(lab: &Lab, image: &str) -> Self {
        let folder = lab.folder.path().join(format!("saved-{}", image.replace(['/', ':'], "-")));
        program::run(lab.shipfs(&["--quiet", "cp", image, &format!("oci:{}", folder.display())]));
        let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json")).expect("there")).expect("JSON");
        let mut saved = Self { folder, manifest: Value::Null };
        saved.manifest = saved.document(&index["manifests"][0]);
        saved
    }

    fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().expect("a digest").replace(':', "/");
        fs::read(self.folder.join("blobs").join(digest)).expect("there")
    }

    fn document(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.blob(descriptor)).expect("JSON")
    }

    fn config(&self) -> Value {
        self.document(&self.manifest["config"])
    }

    fn layers(&self) -> &[Value] {
        self.manifest["layers"].as_array().expect("a list")
    }

    /// The names in the topmost layer.
    fn top(&self) -> Vec<String> {
        let layer = self.blob(self.layers().last().expect("a layer"));
        let tar: Box<dyn std::io::Read> = match layer.first() {
            Some(0x1f) => Box::new(flate2::read::GzDecoder::new(&layer[..])),
            _ => Box::new(&layer[..]),
        };
        let mut archive = tar::Archive::new(tar);
        let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
            String::from_utf8(entry.expect("an entry").path_bytes().to_vec()).expect("text")
        };
        archive.entries().expect("an archive").map(name).collect()
    }
}

impl Lab {
    /// Runs a command in a container that stays.
    fn leave(&self, options: &[&str], script: &str) {
        program::run(self.shipfs(&["run"]).args(options).arg(&self.cid).args(["sh", "-c", script]));
    }

    /// Commits with these arguments; gives the CID.
    fn commit(&self, arguments: &[&str]) -> String {
        program::run(self.shipfs(&["--quiet", "commit"]).args(arguments)).trim().to_owned()
    }
}

#[test]
fn privileged_a_commit_has_what_changed_and_nothing_else() {
    let Some(lab) = Lab::new("privileged_a_commit_has_what_changed_and_nothing_else", Way::ROOT) else { return };
    let volume = lab.folder.path().join("volume");
    fs::create_dir(&volume).expect("made");
    let options = ["--name", "one", "-v", &format!("{}:/mnt/deep", volume.display()), "--tmpfs", "/cache"];
    let script = "echo hello > /hello; echo x > /mnt/deep/x; echo x > /cache/x; chmod 750 /data/kept; rm /etc/group; \
                  rm -rf /data/hidden; mkdir /data/hidden; echo 1 > /data/hidden/1; mv /srv /srv2";
    lab.leave(&options, script);
    let cid = lab.commit(&["one", "tools:2"]);
    let saved = Saved::new(&lab, "tools:2");
    let expected = [
        "data/",
        "data/hidden/",
        "data/hidden/.wh..wh..opq",
        "data/hidden/1",
        "data/kept",
        "etc/",
        "etc/.wh.group",
        "hello",
        ".wh.srv",
        "srv2/",
    ];
    assert_eq!(saved.top(), expected);
    assert_eq!(saved.layers().len(), 4);
    let text = |words: &[&str]| program::run(lab.shipfs(&["run", "--rm", "tools:2"]).args(words));
    assert_eq!(
        text(&["sh", "-c", "cat /hello /data/hidden/1; ls /data/hidden /mnt 2>&1; stat -c %a /data/kept"]),
        "hello\n1\nls: /mnt: No such file or directory\n/data/hidden:\n1\n750\n"
    );
    // The same container gives the same layer, to the last byte.
    lab.commit(&["one", "again:1"]);
    assert_eq!(Saved::new(&lab, "again:1").layers(), saved.layers());
    lab.commit(&["--compression", "none", "one", "plain:1"]);
    let plain = Saved::new(&lab, "plain:1");
    assert_eq!(plain.layers()[3]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(plain.config()["rootfs"], saved.config()["rootfs"], "it unpacks to the same");
    // On top of its own image, and by another name.
    program::run(lab.shipfs(&["tag", &cid, "other:1"]));
    program::run(lab.shipfs(&["run", "--name", "two", "other:1", "sh", "-c", "rm /hello"]));
    lab.commit(&["two", "third"]);
    assert_eq!(
        (Saved::new(&lab, "third").top(), Saved::new(&lab, "third").layers().len()),
        (vec![".wh.hello".to_owned()], 5)
    );
    program::run(lab.shipfs(&["rm", "one", "two"]));
    lab.assert_clean();
}

#[test]
fn privileged_a_commit_says_what_the_container_was_told() {
    let Some(lab) = Lab::new("privileged_a_commit_says_what_the_container_was_told", Way::ROOT) else { return };
    program::run(lab.shipfs(&["run", "--name", "one", "-e", "TOLD=1", "-w", "/data", &lab.cid, "echo", "told"]));
    lab.commit(&["one", "plain"]);
    let plain = Saved::new(&lab, "plain");
    assert_eq!(plain.layers().len(), 3, "nothing has changed");
    let config = plain.config();
    let last = config["history"].as_array().expect("a list").last().expect("an entry");
    assert_eq!((&last["empty_layer"], &last["created_by"]), (&json!(true), &json!("echo told")));
    assert_eq!(config["config"]["Env"], json!(["PATH=/bin", "FROM_IMAGE=yes", "TOLD=1"]));
    assert_eq!(program::run(lab.shipfs(&["run", "--rm", "plain"])), "told\n");
    let changes = [
        "-c",
        "CMD [\"sh\", \"-c\", \"echo $A; pwd; id -un\"]",
        "-c",
        "ENV A=\"b c\"",
        "-c",
        "WORKDIR deep",
        "-c",
        "USER web",
        "-c",
        "LABEL x=y",
        "-c",
        "EXPOSE 80",
        "-m",
        "why",
        "-a",
        "me",
    ];
    lab.commit(&[&changes[..], &["one", "changed"]].concat());
    let config = Saved::new(&lab, "changed").config();
    let last = config["history"].as_array().expect("a list").last().expect("an entry");
    assert_eq!((&last["comment"], &last["author"], &config["author"]), (&json!("why"), &json!("me"), &json!("me")));
    assert_eq!(config["config"]["Labels"], json!({"a": "label", "x": "y"}));
    assert_eq!(program::run(lab.shipfs(&["run", "--rm", "changed"])), "b c\n/data/deep\nweb\n");
    let wrong = lab.shipfs(&["commit", "-c", "RUN x", "one"]).output().expect("it starts");
    assert_eq!(wrong.status.code(), Some(2), "{}", program::said(&wrong));
    program::run(lab.shipfs(&["rm", "one"]));
    lab.assert_clean();
}

#[test]
fn privileged_a_commit_has_the_shape_of_its_image() {
    let Some(mut lab) = Lab::new("privileged_a_commit_has_the_shape_of_its_image", Way::ROOT) else { return };
    let source = runnable::layout(&lab.folder.path().join("whole"), runnable::layers(), &runnable::config());
    lab.cid = program::run(lab.shipfs(&["--quiet", "push", "--layout", "--name", "whole", &source])).trim().to_owned();
    lab.leave(&["--name", "one"], "echo x > /x");
    let cid = lab.commit(&["one", "whole:2"]);
    let rows: Value = serde_json::from_str(&program::run(lab.shipfs(&["--json", "images"]))).expect("JSON");
    let row = rows.as_array().expect("a list").iter().find(|row| row["cid"] == cid.as_str()).expect("it is listed");
    assert_eq!((&row["shape"], &row["name"]), (&json!("layout"), &json!("whole:2")));
    let manifest = Saved::new(&lab, "whole:2").manifest;
    assert!(
        manifest["layers"].as_array().expect("a list").iter().all(|layer| layer.get("urls").is_none()),
        "{manifest}"
    );
}

#[test]
fn privileged_a_running_container_stands_still_meanwhile() {
    let Some(lab) = Lab::new("privileged_a_running_container_stands_still_meanwhile", Way::ROOT) else { return };
    let script = "i=0; echo ready; while true; do i=$((i + 1)); echo $i > /count; done";
    let _running = lab.start(&["--name", "one"], script);
    let count = || program::run(lab.shipfs(&["exec", "one", "cat", "/count"])).trim().parse::<u64>().unwrap_or(0);
    lab.commit(&["one", "first"]);
    let after = count();
    wait_until("it goes on", || count() > after);
    // What changes while it is read is told, not taken.
    wait_until("it is read between two writes", || {
        let output = lab.shipfs(&["commit", "--pause=false", "one", "second"]).output().expect("it starts");
        assert!(output.status.success() || program::said(&output).contains("changed while it was read"));
        output.status.success()
    });
    for image in ["first", "second"] {
        assert_eq!(Saved::new(&lab, image).top(), ["count"]);
    }
    assert!(!paused(&lab));
    program::run(lab.shipfs(&["rm", "--force", "one"]));
}

fn paused(lab: &Lab) -> bool {
    lab.container_folders().iter().any(|folder| folder.join("paused").exists())
}

/// Whoever pauses a container may be killed before it goes on.
#[test]
fn privileged_a_container_whose_commit_was_killed_goes_on() {
    let Some(lab) = Lab::new("privileged_a_container_whose_commit_was_killed_goes_on", Way::ROOT) else { return };
    // A hole of 16 GiB: reading it takes a while.
    let script = "dd if=/dev/zero of=/large bs=1 count=1 seek=17179869184 2>/dev/null; echo ready; \
                  i=0; while true; do i=$((i + 1)); echo $i > /count; done";
    let _running = lab.start(&["--name", "one"], script);
    let upper = lab.container_folders().pop().expect("a container").join("upper");
    let count = || fs::read_to_string(upper.join("count")).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let before = lab.shipfs(&["--quiet", "images"]).output().expect("it starts").stdout;
    let mut committing =
        lab.shipfs(&["commit", "one", "never"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_until("it is paused", || paused(&lab) && frozen(&lab));
    committing.kill().expect("killed");
    committing.wait().expect("gone");
    assert!(paused(&lab) && frozen(&lab), "nobody let it go on");
    program::run(lab.shipfs(&["ps"]));
    assert!(!paused(&lab) && !frozen(&lab));
    let then = count();
    wait_until("it goes on", || count().is_some() && count() != then);
    assert_eq!(lab.shipfs(&["--quiet", "images"]).output().expect("it starts").stdout, before);
    program::run(lab.shipfs(&["rm", "--force", "one"]));
}

/// Whether the kernel holds the processes of the container.
fn frozen(lab: &Lab) -> bool {
    let id = lab.container_folders().pop().and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()));
    let Some(id) = id else { return false };
    let state = |path: String| fs::read_to_string(path).unwrap_or_default();
    state(format!("/sys/fs/cgroup/freezer/shipfs/{id}/freezer.state")).trim() == "FROZEN"
        || state(format!("/sys/fs/cgroup/shipfs/{id}/cgroup.events")).contains("frozen 1")
}

#[test]
fn privileged_a_commit_that_fails_leaves_nothing() {
    let Some(lab) = Lab::new("privileged_a_commit_that_fails_leaves_nothing", Way::ROOT) else { return };
    lab.leave(&["--name", "one"], "dd if=/dev/urandom of=/a bs=1000000 count=3 2>/dev/null; touch /.wh.b");
    let blobs = |lab: &Lab| {
        let mut names: Vec<_> = fs::read_dir(lab.repository().join("blobs/sha256"))
            .expect("there")
            .flatten()
            .map(|one| one.file_name())
            .collect();
        names.sort();
        names
    };
    let before = (blobs(&lab), program::run(lab.shipfs(&["images"])));
    let failed = lab.shipfs(&["commit", "one", "never"]).output().expect("it starts");
    assert_eq!(failed.status.code(), Some(1));
    assert!(program::said(&failed).contains("`.wh.b`"), "{}", program::said(&failed));
    assert_eq!((blobs(&lab), program::run(lab.shipfs(&["images"]))), before);
    let spooled = fs::read_dir(lab.repository().join("partial")).into_iter().flatten().count();
    assert_eq!(spooled, 0);
    for (container, image) in [("nobody", "x"), ("one", "Not/A:Name")] {
        assert!(!lab.shipfs(&["commit", container, image]).output().expect("it starts").status.success());
    }
    // Its image may be gone, though its layers are kept.
    program::run(lab.shipfs(&["rmi", &lab.cid]));
    let failed = lab.shipfs(&["commit", "one"]).output().expect("it starts");
    assert!(program::said(&failed).contains("hint: pull the image"), "{}", program::said(&failed));
    assert!(Path::new(&lab.repository()).exists());
    program::run(lab.shipfs(&["rm", "one"]));
    lab.assert_clean();
}

/// What it cannot be sure to read whole, it does not make an image of.
#[test]
fn privileged_rootless_a_commit_is_refused() {
    let Some(lab) = Lab::new("privileged_rootless_a_commit_is_refused", Way::USER) else { return };
    lab.leave(&["--name", "one"], "touch /a");
    let refused = lab.shipfs(&["commit", "one"]).output().expect("it starts");
    assert_eq!(refused.status.code(), Some(1));
    assert!(program::said(&refused).contains("root alone can commit"), "{}", program::said(&refused));
    program::run(lab.shipfs(&["rm", "one"]));
    lab.assert_clean();
}
