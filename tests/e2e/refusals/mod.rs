//! Bad input from outside: what is told, with which exit code, and that nothing changes.
//!
//! A [`Desk`] takes one bad thing after another, by push or by pull, and notes what was said; each test holds the notes
//! of its topic against what it expects.

mod dags;
mod documents;
mod places;
mod references;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shipfs_tests::crafted::{Crafted, Layout};
use shipfs_tests::image::{Noise, hex};
use shipfs_tests::program::{Running, said};
use shipfs_tests::repository::{Contents, Repository};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// A repository with something to lose, and a folder for what must not appear.
struct Desk {
    folder: tempfile::TempDir,
    repository: Repository,
    before: Contents,
    notes: String,
    next: usize,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(folder.path().join("sinks")).expect("a directory");
        let repository = Repository::new(folder.path().join("repository"));
        let layout = Layout::new(&folder.path().join("good"));
        let source = layout.finish(&[layout.image(&[&Noise::new(5).bytes(300_000)])]);
        repository.run(&["push", "--name", "good:1", &source]);
        let before = repository.contents();
        Self { folder, repository, before, notes: String::new(), next: 0 }
    }

    /// A path that is nobody's yet.
    fn path(&mut self) -> PathBuf {
        self.next += 1;
        self.folder.path().join(self.next.to_string())
    }

    /// Runs a verb that must be refused; notes what it says, and checks that nothing changed.
    fn refuses(&mut self, what: &str, command: &mut Command) {
        let told = self.told(what, command);
        let _ = write!(self.notes, "- {what}: {told}");
    }

    /// Notes what several verbs said of one thing; once, if they all said the same.
    fn note(&mut self, kind: &str, what: &str, told: &[(&str, String)]) {
        let kind = if kind.is_empty() { String::new() } else { format!("{kind}, ") };
        let (_, first) = &told[0];
        if told.iter().all(|(_, other)| other == first) {
            let _ = write!(self.notes, "- {kind}{what}: {first}");
            return;
        }
        for (verb, told) in told {
            let _ = write!(self.notes, "- {verb}, {kind}{what}: {told}");
        }
    }

    /// Runs a verb that must be refused, and checks that nothing changed; its exit code and what it says.
    fn told(&self, what: &str, command: &mut Command) -> String {
        let output = command.output().expect("it starts");
        let text = String::from_utf8(output.stderr.clone()).expect("text");
        assert!(output.stdout.is_empty(), "{what}: {}", said(&output));
        assert!(text.contains("error: "), "{what}: {}", said(&output));
        let obeyed = |letter: char| (letter.is_control() && letter != '\n') || letter == '\u{202e}';
        assert!(!text.contains(obeyed), "{what}: {text:?}");
        let code = output.status.code().unwrap_or_else(|| panic!("{what} ended by a signal: {}", said(&output)));
        let sinks = std::fs::read_dir(self.folder.path().join("sinks")).expect("a directory");
        let sinks: Vec<_> = sinks.map(|entry| entry.expect("an entry").file_name()).collect();
        assert!(sinks.is_empty(), "{what}: {sinks:?} is left at the sink");
        let after = self.repository.contents();
        assert!(after.keeps(&self.before), "{what}: {:#?} became {after:#?}", self.before);
        // Parts that were right were kept, for another try; they are nobody's.
        self.repository.run(&["gc"]);
        let after = self.repository.contents();
        assert_eq!(after.blobs, self.before.blobs, "{what}");
        format!("{code}\n{}", self.filtered(&text))
    }

    /// What is said, without what differs from run to run.
    fn filtered(&self, text: &str) -> String {
        let text = text.replace(&self.folder.path().display().to_string(), "DIR");
        let (mut out, mut word) = (String::new(), String::new());
        for letter in text.chars().chain(['\n']) {
            if letter.is_ascii_alphanumeric() {
                word.push(letter);
                continue;
            }
            let is_hash = word.len() == 64 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            match word.as_str() {
                // Nothing hashes to zeroes: to say so would be a lie.
                _ if is_hash => out.push_str(if word.starts_with("00000000") { "ZEROES" } else { "HASH" }),
                cid if cid.starts_with("baf") && cid.len() > 50 => out.push_str("CID"),
                peer if peer.starts_with("12D3KooW") => out.push_str("PEER"),
                other => out.push_str(other),
            }
            word.clear();
            out.push(letter);
        }
        out.pop();
        out
    }

    /// Holds what was said against what is expected.
    #[track_caller]
    fn expect(&self, expected: &str) {
        let expected = expected.trim_start_matches('\n');
        assert!(self.notes == expected, "what was said is not what is expected:\n{}", self.notes);
    }
}

/// Somebody who serves what was crafted.
struct Giver {
    _serving: Running,
    address: String,
}

impl Giver {
    /// Puts things into a repository, each of which gives a CID, and serves them.
    fn new(desk: &mut Desk, craft: impl FnOnce(&Crafted)) -> Self {
        let repository = Repository::new(desk.path());
        let crafted = Crafted::open(repository.path());
        craft(&crafted);
        crafted.close();
        let (serving, address) = repository.serve();
        Self { _serving: serving, address }
    }

    /// A pull of a CID into the desk's repository and to a sink.
    fn pull(&self, desk: &Desk, cid: &str) -> Command {
        let sink = format!("oci-archive:{}", desk.folder.path().join("sinks/image.tar").display());
        desk.repository.online(&self.address, &["pull", cid, "--name", "bad:1", "--to", &sink])
    }
}

/// What documents are made in: a layout, or a store.
trait Maker {
    /// Adds a blob; gives its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value;

    /// Adds a blob under the digest of other bytes; gives the descriptor that lies.
    fn lie(&self, media_type: &str, bytes: &[u8], claimed: &[u8]) -> Value;

    /// Adds a document; gives its descriptor.
    fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }
}

impl Maker for Layout {
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        Layout::blob(self, media_type, bytes)
    }

    fn lie(&self, media_type: &str, bytes: &[u8], claimed: &[u8]) -> Value {
        self.blob_named(media_type, bytes, &hex(&Sha256::digest(claimed)))
    }
}

impl Maker for Crafted {
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        Crafted::blob(self, media_type, bytes)
    }

    fn lie(&self, media_type: &str, bytes: &[u8], claimed: &[u8]) -> Value {
        let mut descriptor = Crafted::blob(self, media_type, bytes);
        descriptor["digest"] = json!(format!("sha256:{}", hex(&Sha256::digest(claimed))));
        descriptor
    }
}

/// A bad image: what it is, and how it is made; gives its top descriptor.
type Bad = (&'static str, fn(&dyn Maker) -> Value);

/// Has each image pushed out of a layout, and pulled from somebody who made it. What is said of both is noted once.
fn refuse_all(desk: &mut Desk, images: &[Bad]) {
    let mut cids = Vec::new();
    let giver = Giver::new(desk, |crafted| {
        cids.extend(images.iter().map(|(_, make)| crafted.root(&make(crafted))));
    });
    for ((what, make), cid) in images.iter().zip(&cids) {
        let layout = Layout::new(&desk.path());
        let source = layout.finish(&[make(&layout)]);
        let push = ["push", "--all-platforms", "--name", "bad:1", &source];
        let pushed = desk.told(what, &mut desk.repository.offline(&push));
        let pulled = desk.told(what, giver.pull(desk, cid).arg("--all-platforms"));
        desk.note("", what, &[("push", pushed), ("pull", pulled)]);
    }
}
