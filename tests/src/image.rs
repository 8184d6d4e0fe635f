//! Makes OCI layouts of a wanted size, the same at every run.

use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Bytes written at a time.
const PIECE: usize = 1 << 20;

/// Bytes that repeat nowhere and compress not at all, the same for a seed.
pub struct Noise(u64);

impl Noise {
    /// A stream of noise.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Fills a buffer with the next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            piece.copy_from_slice(&self.0.to_le_bytes()[..piece.len()]);
        }
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

/// SHA2-256 in hexadecimal.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes one blob of noise into a layout; returns its digest in hexadecimal.
fn blob(layout: &Path, length: u64, noise: &mut Noise) -> io::Result<String> {
    let temporary = layout.join("blobs/sha256/new");
    let mut file = fs::File::create(&temporary)?;
    let (mut hasher, mut left, mut piece) = (Sha256::new(), length, vec![0; PIECE]);
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        noise.fill(&mut piece[..now]);
        hasher.update(&piece[..now]);
        file.write_all(&piece[..now])?;
        left -= now as u64;
    }
    let digest = hex(&hasher.finalize());
    fs::rename(temporary, layout.join("blobs/sha256").join(&digest))?;
    Ok(digest)
}

fn document(layout: &Path, value: &serde_json::Value) -> io::Result<(String, usize)> {
    let bytes = serde_json::to_vec(value)?;
    let digest = hex(&Sha256::digest(&bytes));
    fs::write(layout.join("blobs/sha256").join(&digest), &bytes)?;
    Ok((digest, bytes.len()))
}

/// Writes an OCI layout of one image whose layers are noise of these sizes, in bytes. It moves like a real image; it
/// does not unpack.
///
/// # Errors
/// What the disk says.
pub fn layout(folder: &Path, layers: &[u64], seed: u64) -> io::Result<()> {
    use serde_json::json;
    const OCI: &str = "application/vnd.oci.image";
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    let mut noise = Noise::new(seed);
    let mut descriptors = Vec::new();
    for size in layers {
        let digest = blob(folder, *size, &mut noise)?;
        descriptors.push(json!({
            "mediaType": format!("{OCI}.layer.v1.tar"), "digest": format!("sha256:{digest}"), "size": size,
        }));
    }
    let diffs: Vec<_> = descriptors.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"comment": format!("noise {seed}")}],
    });
    let (digest, size) = document(folder, &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
        "config": {
            "mediaType": format!("{OCI}.config.v1+json"), "digest": format!("sha256:{digest}"), "size": size,
        },
        "layers": descriptors,
    });
    let (digest, size) = document(folder, &manifest)?;
    let index = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"),
        "manifests": [{
            "mediaType": format!("{OCI}.manifest.v1+json"), "digest": format!("sha256:{digest}"), "size": size,
        }],
    });
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// The blobs of a layout: names and contents' digests agree, or this fails.
///
/// # Errors
/// What the disk says, or [`io::ErrorKind::InvalidData`] with the blob that is not what its name says.
pub fn check_blobs(layout: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut hasher = Sha256::new();
        io::copy(&mut fs::File::open(&path)?, &mut hasher)?;
        if hex(&hasher.finalize()) != name {
            return Err(io::Error::new(io::ErrorKind::InvalidData, name));
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}
