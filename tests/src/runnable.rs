//! Makes an image that really runs: a static busybox, users, links, and files that a later layer removes.
//!
//! Needs Debian's `busybox-static`. The same bytes at every run with the same busybox.

use crate::image::hex;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::Path;
use tar::{EntryType, Header};

/// Where Debian puts it.
const BUSYBOX: &str = "/usr/bin/busybox";
/// What it can be called in the image.
const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "ls", "sleep", "true", "false", "id", "pwd", "env", "kill", "touch", "mkdir", "stat", "head",
    "tty", "stty", "hostname", "grep", "wc", "mount", "dd", "trap", "ps",
];
/// The users of the image.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
/// Its groups.
const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web\n";

/// A layer that is being written.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    fn entry(mut self, path: &str, kind: EntryType, mode: u32, owner: (u64, u64), content: &[u8], link: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            self.0.append_data(&mut header, path, content).expect("in memory");
        } else {
            header.set_size(0);
            self.0.append_link(&mut header, path, link).expect("in memory");
        }
        self
    }

    /// A file of root's.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, mode, (0, 0), content, "")
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.entry(&format!("{path}/"), EntryType::Directory, mode, owner, b"", "")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, (0, 0), b"", target)
    }

    /// Removes what a lower layer brings.
    #[must_use]
    pub fn whiteout(self, folder: &str, name: &str) -> Self {
        self.file(&format!("{folder}/.wh.{name}"), 0o644, b"")
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("in memory")
    }
}

/// The layers of the image: busybox and users, then more files, then some of them gone.
///
/// # Panics
/// Without busybox.
pub fn layers() -> Vec<Layer> {
    let busybox = fs::read(BUSYBOX).expect("busybox-static is here");
    let mut base = Layer::default()
        .directory("bin", 0o755, (0, 0))
        .file("bin/busybox", 0o755, &busybox)
        .directory("etc", 0o755, (0, 0))
        .file("etc/passwd", 0o644, PASSWD.as_bytes())
        .file("etc/group", 0o644, GROUP.as_bytes())
        .directory("root", 0o700, (0, 0))
        .directory("srv", 0o755, (33, 34))
        .directory("tmp", 0o1777, (0, 0));
    for applet in APPLETS {
        base = base.symlink(&format!("bin/{applet}"), "busybox");
    }
    let more = Layer::default()
        .directory("data", 0o755, (0, 0))
        .file("data/kept", 0o644, b"kept\n")
        .file("data/removed", 0o644, b"removed\n")
        .directory("data/hidden", 0o755, (0, 0))
        .file("data/hidden/old", 0o644, b"old\n")
        .symlink("usr", "data");
    let less = Layer::default()
        .whiteout("data", "removed")
        .directory("data/hidden", 0o755, (0, 0))
        .file("data/hidden/.wh..wh..opq", 0o644, b"")
        .file("data/hidden/new", 0o644, b"new\n");
    vec![base, more, less]
}

/// What the image says about running it.
pub fn config() -> Value {
    json!({
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh", "-c", "echo started by default"],
        "Labels": {"a": "label"},
    })
}

/// Writes an OCI layout of one image named `busybox:test`, out of these layers and with this `config`.
///
/// # Errors
/// What the disk says.
pub fn layout(folder: &Path, layers: Vec<Layer>, config: &Value) -> io::Result<()> {
    const OCI: &str = "application/vnd.oci.image";
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let write = |bytes: &[u8]| -> io::Result<(String, usize)> {
        let digest = hex(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes)?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    let (mut descriptors, mut inside) = (Vec::new(), Vec::new());
    for layer in layers {
        let tar = layer.finish();
        inside.push(format!("sha256:{}", hex(&Sha256::digest(&tar))));
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::fast());
        io::Write::write_all(&mut packed, &tar)?;
        let (digest, size) = write(&packed.finish()?)?;
        descriptors.push(json!({"mediaType": format!("{OCI}.layer.v1.tar+gzip"), "digest": digest, "size": size}));
    }
    let document = json!({
        "architecture": architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": &inside},
        // Some builders count them.
        "history": inside.iter().map(|_| json!({"created_by": "busybox"})).collect::<Vec<_>>(),
    });
    let (digest, size) = write(&serde_json::to_vec(&document)?)?;
    let media_type = format!("{OCI}.config.v1+json");
    let (digest, size) = write(&serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": {"mediaType": media_type, "digest": digest, "size": size},
        "layers": descriptors,
    }))?)?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "busybox:test"},
        }],
    });
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
