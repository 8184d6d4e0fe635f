//! Makes an image that really runs, for two platforms, out of Debian's static busybox.
//!
//! Needs `/bin/busybox` of the package `busybox-static`. The second platform gets the same program: it is there to be
//! carried and chosen, not to run.

use crate::crafted::{CONFIG, INDEX, Layout, MANIFEST, manifest};
use serde_json::json;
use std::fs;
use std::io;
use std::path::Path;

/// The program in it.
pub const PROGRAM: &str = "/bin/busybox";
/// What its default command prints.
pub const GREETING: &str = "hello from a layer";
/// Its platforms.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Writes a layout with one image for two platforms, always the same for the same busybox; gives what to push.
///
/// # Panics
/// When the disk fails, and when there is no busybox.
pub fn layout(folder: &Path) -> String {
    let (layout, program) = (Layout::new(folder), fs::read(PROGRAM).expect("busybox-static is here"));
    let manifests = ARCHITECTURES.map(|architecture| {
        let (layer, inside) = layout.packed_layer(&tar(&program, architecture).expect("in memory"));
        let config = json!({
            "created": "1970-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
            "config": { "Cmd": ["/bin/sh", "-c", format!("echo {GREETING}")], "Env": ["PATH=/bin"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [inside] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "busybox" }],
        });
        let config = layout.document(CONFIG, &config);
        let mut manifest = layout.document(MANIFEST, &manifest(&config, &[layer]));
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifest
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    layout.finish(&[layout.document(INDEX, &index)])
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
