//! Makes an image that really runs: a static busybox, users, links, and files that a later layer removes.
//!
//! Needs Debian's `busybox-static`. The same bytes at every run with the same busybox.

use crate::crafted::{CONFIG, Layout, MANIFEST, manifest};
use serde_json::{Value, json};
use std::fs;
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
const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:50:web\nstaff:x:51:root\n";

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

    /// A file of somebody's.
    #[must_use]
    pub fn file_of(self, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, mode, owner, content, "")
    }

    /// One more name of a file.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, (0, 0), b"", target)
    }

    /// The device that forgets what is written to it.
    #[must_use]
    pub fn null_device(mut self, path: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_mode(0o666);
        header.set_size(0);
        header.set_device_major(1).expect("a small number");
        header.set_device_minor(3).expect("a small number");
        self.0.append_data(&mut header, path, &b""[..]).expect("in memory");
        self
    }

    /// Extended attributes of the entry that follows.
    #[must_use]
    pub fn attributes(mut self, pairs: &[(&str, &[u8])]) -> Self {
        let names: Vec<_> = pairs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let pairs = names.iter().zip(pairs).map(|(name, (_, value))| (name.as_str(), *value));
        self.0.append_pax_extensions(pairs).expect("in memory");
        self
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

/// Writes an OCI layout of one image named `busybox:test`, out of these layers and with this `config`; gives what to push.
///
/// # Panics
/// When the disk fails.
pub fn layout(folder: &Path, layers: Vec<Layer>, config: &Value) -> String {
    layout_for(architecture(), folder, layers, config)
}

/// As [`layout`], for a machine of this architecture, in Go's words.
///
/// # Panics
/// As [`layout`].
pub fn layout_for(architecture: &str, folder: &Path, layers: Vec<Layer>, config: &Value) -> String {
    let layout = Layout::new(folder);
    let packed = layers.into_iter().map(|layer| layout.packed_layer(&layer.finish()));
    let (layers, inside): (Vec<_>, Vec<_>) = packed.unzip();
    let document = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": &inside},
        // Some builders count them.
        "history": inside.iter().map(|_| json!({"created_by": "busybox"})).collect::<Vec<_>>(),
    });
    let config = layout.document(CONFIG, &document);
    let mut named = layout.document(MANIFEST, &manifest(&config, &layers));
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "busybox:test"});
    layout.finish(&[named])
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
