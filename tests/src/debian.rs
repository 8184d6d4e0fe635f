//! Makes a real image out of Debian packages: files, links and modes as systems have them, hundreds of megabytes.
//!
//! Needs `apt-get` with its lists, and `dpkg-deb`. Each package is a layer.

use crate::image::hex;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Packages of some 230 MB together once compressed, and one static program to run.
pub const PACKAGES: [&str; 6] =
    ["busybox-static", "libc6", "gcc-12", "libllvm14", "openjdk-17-jre-headless", "golang-1.19-go"];

/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Hashes what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::other(format!("{what} failed"))
}

/// Fetches the packages into a folder, unless they lie there.
fn packages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let find = |package: &str| -> io::Result<Option<PathBuf>> {
        let prefix = format!("{package}_");
        let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))))
    };
    for package in PACKAGES {
        if find(package)?.is_none() {
            let done = Command::new("apt-get").args(["download", "-qq", package]).current_dir(folder).output()?;
            if !done.status.success() {
                return Err(failed(&format!("apt-get download {package}")));
            }
        }
    }
    PACKAGES.iter().map(|package| find(package)?.ok_or_else(|| failed("apt-get download"))).collect()
}

/// Writes one package as a layer; returns its digest, its size and the digest of what is inside.
fn layer(package: &Path, blobs: &Path) -> io::Result<(String, u64, String)> {
    let mut unpack = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let mut tar = unpack.stdout.take().ok_or_else(|| failed("dpkg-deb"))?;
    let temporary = blobs.join("new");
    let file = Hashing::new(File::create(&temporary)?);
    let mut packed = Hashing::new(GzEncoder::new(file, Compression::fast()));
    let mut piece = vec![0; PIECE];
    loop {
        let read = tar.read(&mut piece)?;
        if read == 0 {
            break;
        }
        packed.write_all(&piece[..read])?;
    }
    if !unpack.wait()?.success() {
        return Err(failed("dpkg-deb"));
    }
    let inside = hex(&packed.hasher.finalize());
    let file = packed.inner.finish()?;
    let digest = hex(&file.hasher.finalize());
    fs::rename(temporary, blobs.join(&digest))?;
    Ok((digest, file.size, inside))
}

/// Writes an OCI layout of the packages, named `debian:test`; `cache` keeps the packages.
///
/// # Errors
/// When a package cannot be had or the disk fails.
pub fn layout(folder: &Path, cache: &Path) -> io::Result<()> {
    const OCI: &str = "application/vnd.oci.image";
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let (mut layers, mut inside) = (Vec::new(), Vec::new());
    for package in packages(cache)? {
        let (digest, size, diff) = layer(&package, &blobs)?;
        let media_type = format!("{OCI}.layer.v1.tar+gzip");
        layers.push(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size}));
        inside.push(format!("sha256:{diff}"));
    }
    let write = |value: &serde_json::Value| -> io::Result<(String, usize)> {
        let bytes = serde_json::to_vec(value)?;
        let digest = hex(&Sha256::digest(&bytes));
        fs::write(blobs.join(&digest), &bytes)?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    let (digest, size) = write(&json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/busybox", "echo", "a container of it runs"]},
        "rootfs": {"type": "layers", "diff_ids": inside},
    }))?;
    let (digest, size) = write(&json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": {"mediaType": format!("{OCI}.config.v1+json"), "digest": digest, "size": size},
        "layers": layers,
    }))?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "debian:test"},
        }],
    });
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}
