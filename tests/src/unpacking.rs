//! A place to unpack hostile layers at, with something outside that must stay as it is.

use crate::tree::{Look, Tree, look};
use shipfs_image::layer::{Applied, ApplyError, Options, Whiteouts, apply, unpack_layer};
use shipfs_image::oci::Digest;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Type of a layer; its bytes say how it is compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A folder with layers, and a tree beside them that no layer may touch.
pub struct Ground {
    folder: TempDir,
    outside: Tree,
    next: AtomicU32,
}

/// What this process may do: as root of the host, as root of a user namespace, or as nobody in particular.
pub fn options() -> Options {
    match (rustix::process::geteuid().is_root(), is_root_of_the_host()) {
        (_, true) => Options::root(),
        (true, false) => Options::namespaced(),
        (false, false) => Options::rootless(),
    }
}

/// Whether this process is root, and not only of a user namespace.
pub fn is_root_of_the_host() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// In the system's temporary folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join("directory/inner")).expect("a directory");
        fs::write(outside.join("secret"), "a secret").expect("written");
        fs::write(outside.join("directory/file"), "a file").expect("written");
        fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::set_permissions(outside.join("directory"), fs::Permissions::from_mode(0o700)).expect("a mode");
        symlink("secret", outside.join("link")).expect("a link");
        let ground = Self { outside: Tree::new(), folder, next: AtomicU32::new(0) };
        let before = ground.look_outside();
        Self { outside: before, ..ground }
    }

    fn look_outside(&self) -> Tree {
        look(&self.outside(), Look::ALL).expect("the outside")
    }

    /// What must not change.
    pub fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// The directory of layers.
    pub fn layers(&self) -> PathBuf {
        self.folder.path().join("layers")
    }

    /// Unpacks a layer in both ways to resolve paths, which must agree; the directory, or the error.
    ///
    /// # Errors
    /// What unpacking says.
    ///
    /// # Panics
    /// When they do not agree, something is left of a failed one, or the outside has changed.
    pub fn unpack(&self, blob: &[u8], options: &Options) -> Result<(PathBuf, Applied), ApplyError> {
        let slow = {
            let mut slow = options.clone();
            slow.component_wise = true;
            slow
        };
        let names = [(); 2].map(|()| format!("layer{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let [quick, careful] = [(options, &names[0]), (&slow, &names[1])].map(|(options, name)| {
            let result = unpack_layer(blob, LAYER, Some(&diff_id(blob)), &self.layers(), name, options);
            assert_eq!(result.is_ok(), self.layers().join(name).exists(), "{result:?}");
            result
        });
        self.check();
        match (quick, careful) {
            (Ok(applied), Ok(_)) => {
                let path = self.layers().join(&names[0]);
                let other = self.layers().join(&names[1]);
                let all = Look { times: false, ..Look::ALL };
                assert_eq!(look(&path, all).expect("a tree"), look(&other, all).expect("a tree"));
                fs::remove_dir_all(other).expect("removed");
                Ok((path, applied))
            }
            (Err(one), Err(other)) => {
                assert_eq!(one.to_string(), other.to_string());
                Err(one)
            }
            (one, other) => panic!("{one:?}, but a component at a time {other:?}"),
        }
    }

    /// What a layer unpacks to.
    ///
    /// # Errors
    /// What unpacking says, as text with its causes.
    ///
    /// # Panics
    /// As [`Ground::unpack`].
    pub fn tree(&self, blob: &[u8]) -> Result<Tree, String> {
        let (path, _) = self.unpack(blob, &options()).map_err(|error| told(&error))?;
        Ok(look(&path, Look { owners: false, times: false, xattrs: true, root: false }).expect("a tree"))
    }

    /// Unpacks layers one above the other into one plain directory.
    ///
    /// # Errors
    /// What unpacking says.
    ///
    /// # Panics
    /// When the outside has changed.
    pub fn apply(&self, blobs: &[Vec<u8>]) -> Result<PathBuf, ApplyError> {
        let path = self.folder.path().join(format!("applied{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("a directory");
        let directory = fs::File::open(&path).expect("a directory");
        let mut options = options();
        options.whiteouts = Whiteouts::Apply;
        let done =
            blobs.iter().try_for_each(|blob| apply(&blob[..], LAYER, None, directory.as_fd(), &options).map(|_| ()));
        self.check();
        done.map(|()| path)
    }

    /// That nothing has changed outside, and nothing half-done is left.
    ///
    /// # Panics
    /// When it has, or is.
    pub fn check(&self) {
        assert_eq!(self.look_outside(), self.outside, "the outside");
        assert_eq!(unfinished(&self.layers()), 0, "unfinished layers");
        let beside =
            fs::read_dir(self.folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let strange = |name: &String| {
            !matches!(name.trim_end_matches(|c: char| c.is_ascii_digit()), "outside" | "layers" | "applied")
        };
        let strange: Vec<_> = beside.map(|name| name.to_string_lossy().into_owned()).filter(strange).collect();
        assert!(strange.is_empty(), "beside the layers: {strange:?}");
    }
}

/// How many layers are being unpacked.
fn unfinished(layers: &Path) -> usize {
    let Ok(entries) = fs::read_dir(layers) else { return 0 };
    entries.filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with('.')).count()
}

/// Digest of what is in a layer, plain or compressed.
///
/// # Panics
/// When it cannot be decompressed: then it is that of the blob.
pub fn diff_id(blob: &[u8]) -> Digest {
    let mut plain = Vec::new();
    let whole = match blob {
        [0x1f, 0x8b, ..] => {
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(blob), &mut plain).is_ok()
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::copy_decode(blob, &mut plain).is_ok(),
        _ => false,
    };
    if whole { Digest::of(&plain) } else { Digest::of(blob) }
}

/// An error with its causes.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
