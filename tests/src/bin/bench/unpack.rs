//! Unpacking a layer of this system's own programs, beside `tar -xzf` and beside inflating alone.
//!
//! Nobody syncs: `tar` does not either. Never leaves the unpacked files behind.

use crate::{Bench, median, say, timed};
use flate2::read::MultiGzDecoder;
use shipfs_image::layer::{Options, unpack_layer};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where files are taken from, as packages put them.
const SYSTEM: [&str; 3] = ["/usr/bin", "/usr/lib", "/usr/share"];

/// Files and directories below a folder, each after the one it lies in.
fn below(folder: &Path, found: &mut Vec<PathBuf>, left: &mut u64) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(meta) = entry.metadata() else { continue };
        if *left < meta.len() || !(meta.is_dir() || meta.is_file() || meta.is_symlink()) {
            continue;
        }
        *left -= meta.len();
        found.push(entry.path());
        if meta.is_dir() {
            below(&entry.path(), found, left);
        }
    }
}

impl Bench {
    /// A gzip layer of as many bytes as wanted; how many there are once it is unpacked.
    fn layer(&self, path: &Path) -> io::Result<u64> {
        let mut names = Vec::new();
        for folder in SYSTEM {
            below(Path::new(folder), &mut names, &mut ((self.mib << 20) / SYSTEM.len() as u64));
        }
        let mut tar = Command::new("tar");
        tar.args(["-C", "/", "--no-recursion", "--null", "-T", "-", "-cf", "-"]).stderr(Stdio::null());
        let mut tar = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (mut stdin, mut stdout) = (tar.stdin.take().expect("a pipe"), tar.stdout.take().expect("a pipe"));
        let list = std::thread::spawn(move || {
            names.iter().try_for_each(|name| stdin.write_all(&[&name.as_os_str().as_bytes()[1..], b"\0"].concat()))
        });
        let mut gzip = flate2::write::GzEncoder::new(File::create(path)?, flate2::Compression::new(6));
        let bytes = io::copy(&mut stdout, &mut gzip)?;
        gzip.finish()?;
        list.join().expect("no panic")?;
        tar.wait()?;
        Ok(bytes)
    }

    /// Inflate, hash and write, against those who do less.
    pub(crate) fn unpack(&self) {
        let layer = self.path("layer.tar.gz");
        let bytes = self.layer(&layer).expect("a layer");
        let target = self.path("unpacked");
        let fresh = || {
            let _ = fs::remove_dir_all(&target);
        };
        let (mut inflate, mut tar, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        let mut options = Options::root();
        options.sync = false;
        for _ in 0..self.rounds {
            inflate.push(timed(|| {
                let file = File::open(&layer).expect("the layer");
                io::copy(&mut MultiGzDecoder::new(file), &mut io::sink()).expect("inflates");
            }));
            fresh();
            fs::create_dir(&target).expect("a directory");
            tar.push(timed(|| {
                let done = Command::new("tar").arg("-xzf").arg(&layer).arg("-C").arg(&target).status();
                assert!(done.expect("tar").success());
            }));
            fresh();
            ours.push(timed(|| {
                let file = File::open(&layer).expect("the layer");
                let media_type = shipfs_image::oci::media::LAYER_GZIP;
                unpack_layer(file, media_type, None, &target, "layer", &options).expect("unpacks");
            }));
        }
        fresh();
        let _ = fs::remove_file(&layer);
        let mib = bytes as f64 / f64::from(1 << 20);
        let ratio =
            |other: &[f64]| median(&mut other.iter().zip(&ours).map(|(other, ours)| other / ours).collect::<Vec<_>>());
        let (by_inflate, by_tar) = (ratio(&inflate), ratio(&tar));
        let [inflate, tar, ours] = [inflate, tar, ours].map(|mut times| mib / median(&mut times));
        say(&format!(
            "{:<28} {ours:.0} MiB/s of {mib:.0}; inflate alone {inflate:.0}, ratio {by_inflate:.2}; tar -xzf {tar:.0}, ratio {by_tar:.2}",
            "unpack a layer"
        ));
    }
}
