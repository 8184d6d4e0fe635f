//! One repository as a user works with it, and what is in it as far as anybody can see.
//!
//! Goes through the command alone. Nothing here finds a peer by itself: who is online was named, on loopback.

use crate::image::hex;
use crate::program::{Running, run, shipfs};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes by which the journal may grow though nothing that anybody sees changed: a few links, no more.
const JOURNAL_SLACK: u64 = 16 << 10;

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
}

/// What is in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What `images` says.
    pub images: String,
    /// The digest of each file of `blobs/`, by its name, as hashed just now.
    pub blobs: BTreeMap<String, String>,
    /// Bytes of all journals.
    pub journal: u64,
}

impl Repository {
    /// The repository in a directory, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A verb that needs nobody else, and says nothing but its result.
    pub fn offline(&self, arguments: &[&str]) -> Command {
        let mut command = shipfs(&self.path);
        command.args(["--offline", "--quiet"]).args(arguments);
        command
    }

    /// A verb that may ask one peer.
    pub fn online(&self, peer: &str, arguments: &[&str]) -> Command {
        let mut command = shipfs(&self.path);
        command.args(["--no-mdns", "--quiet", "--peer", peer]).args(arguments);
        command
    }

    /// A daemon on a port of loopback that was free.
    pub fn daemon(&self) -> Command {
        let mut command = shipfs(&self.path);
        command.args(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"]);
        command
    }

    /// Starts a daemon; gives its address.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn serve(&self) -> (Running, String) {
        Self::start(&mut self.daemon())
    }

    /// Starts a daemon with these options, among them where to listen; gives the last of its addresses.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn serve_with(&self, options: &[&str]) -> (Running, String) {
        Self::start(shipfs(&self.path).arg("--no-mdns").args(options).arg("daemon"))
    }

    fn start(daemon: &mut Command) -> (Running, String) {
        let (running, ready) = Running::start(daemon, "ready").expect("it serves");
        (running, ready.rsplit(' ').next().expect("an address").to_owned())
    }

    /// Starts a registry on a port of loopback that was free, with more arguments; gives its address.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn registry(&self, global: &[&str], arguments: &[&str]) -> (Running, SocketAddr) {
        let mut command = shipfs(&self.path);
        command.args(global).args(["registry", "serve", "--listen-registry", "127.0.0.1:0"]).args(arguments);
        let (running, ready) = Running::start(&mut command, "registry: serving on").expect("it serves");
        (running, ready.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address"))
    }

    /// Runs a verb that needs nobody else and must succeed; its result.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.offline(arguments)).trim_end().to_owned()
    }

    /// The bytes of an image as an archive, which are the same for the same image.
    ///
    /// # Panics
    /// When it cannot be saved.
    pub fn saved(&self, image: &str) -> Vec<u8> {
        self.saved_as(image, "oci-archive")
    }

    /// As [`Repository::saved`], as an archive of a kind, `docker-archive` for instance.
    ///
    /// # Panics
    /// When it cannot be saved.
    pub fn saved_as(&self, image: &str, format: &str) -> Vec<u8> {
        let output = self.offline(&["save", "--format", format, image]).output().expect("it starts");
        assert!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What is in it.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn contents(&self) -> Contents {
        let images = run(shipfs(&self.path).args(["--offline", "images"]));
        let entries = |folder: &str| {
            let entries = fs::read_dir(self.path.join(folder)).expect("a directory");
            entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
        };
        let digest = |path: PathBuf| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, hex(&Sha256::digest(fs::read(path).expect("readable"))))
        };
        let journal = entries("journal").iter().map(|path| fs::metadata(path).expect("there").len()).sum();
        Contents { images, blobs: entries("blobs/sha256").into_iter().map(digest).collect(), journal }
    }
}

impl Contents {
    /// Whether nothing that counts has changed since: what is listed, every file that was there, and no more than a few
    /// words in the journal. What came in besides is what its name says.
    pub fn keeps(&self, before: &Self) -> bool {
        let has = |(name, digest): (&String, &String)| self.blobs.get(name) == Some(digest);
        let is_right = |(name, digest): (&String, &String)| name == digest || before.blobs.get(name) == Some(digest);
        let grown = self.journal.saturating_sub(before.journal);
        self.images == before.images
            && before.blobs.iter().all(has)
            && self.blobs.iter().all(is_right)
            && grown <= JOURNAL_SLACK
    }
}
