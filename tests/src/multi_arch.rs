//! Makes an image that really runs, for two platforms, out of Debian's static busybox.
//!
//! Needs `/bin/busybox` of the package `busybox-static`. The second platform gets the same program: it is there to be
//! carried and chosen, not to run.

use crate::image::hex;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// The program in it.
pub const PROGRAM: &str = "/bin/busybox";
/// What its default command prints.
pub const GREETING: &str = "hello from a layer";
/// Its platforms.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const OCI: &str = "application/vnd.oci.image";

/// Writes a layout with one image for two platforms, always the same for the same busybox.
///
/// # Errors
/// What the disk says, also when there is no busybox.
pub fn layout(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    let program = fs::read(PROGRAM)?;
    let mut manifests = Vec::new();
    for architecture in ARCHITECTURES {
        let tar = tar(&program, architecture)?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        let layer = blob(folder, &format!("{OCI}.layer.v1.tar+gzip"), &gzip.finish()?)?;
        let config = json!({
            "created": "1970-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
            "config": { "Cmd": ["/bin/sh", "-c", format!("echo {GREETING}")], "Env": ["PATH=/bin"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&Sha256::digest(&tar)))] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "busybox" }],
        });
        let config = blob(folder, &format!("{OCI}.config.v1+json"), config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"), "config": config, "layers": [layer],
        });
        let mut manifest = blob(folder, &format!("{OCI}.manifest.v1+json"), manifest.to_string().as_bytes())?;
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "manifests": manifests });
    let index = blob(folder, &format!("{OCI}.index.v1+json"), index.to_string().as_bytes())?;
    let top = json!({ "schemaVersion": 2, "manifests": [index] });
    fs::write(folder.join("index.json"), top.to_string())?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// The files of the layer.
fn tar(program: &[u8], architecture: &str) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        if let Some(link) = link {
            header.set_link_name(link)?;
        }
        tar.append_data(&mut header, path, bytes)
    };
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        add(folder, tar::EntryType::Directory, 0o755, &[], None)?;
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, program, None)?;
    for name in ["sh", "echo", "cat", "uname", "sleep"] {
        add(&format!("bin/{name}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"))?;
    }
    add("etc/arch", tar::EntryType::Regular, 0o644, format!("{architecture}\n").as_bytes(), None)?;
    add("etc/passwd", tar::EntryType::Regular, 0o644, b"root:x:0:0:root:/:/bin/sh\n", None)?;
    tar.into_inner()
}

/// Writes a blob; how it is referred to.
fn blob(folder: &Path, media_type: &str, bytes: &[u8]) -> io::Result<Value> {
    let digest = hex(&Sha256::digest(bytes));
    fs::write(folder.join("blobs/sha256").join(&digest), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}
