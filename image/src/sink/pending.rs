//! A path that is shown only when it is whole.
//!
//! Imports nothing of this crate. What is written lies under a hidden name in the same folder, and is removed again
//! unless it was shown.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A hidden name beside a path.
pub(super) struct Pending {
    hidden: PathBuf,
    shown: bool,
}

impl Pending {
    /// Chooses a name in the folder of `path`, where nothing lies yet.
    pub(super) fn beside(path: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = path.with_file_name(format!(".{name}.{}-{count}.partial", std::process::id()));
        Self { hidden, shown: false }
    }

    /// The hidden name.
    pub(super) fn path(&self) -> &Path {
        &self.hidden
    }

    /// Creates a file under the hidden name.
    pub(super) fn create(&self) -> io::Result<File> {
        File::options().write(true).create_new(true).open(&self.hidden)
    }

    /// Gives it its name, and makes that survive a crash. The bytes must be synced already.
    pub(super) fn show(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.hidden, path)?;
        self.shown = true;
        sync_folder(path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.shown {
            let is_folder = fs::symlink_metadata(&self.hidden).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder { fs::remove_dir_all(&self.hidden) } else { fs::remove_file(&self.hidden) };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %self.hidden.display(), %error, "a partial image is left behind");
            }
        }
    }
}

/// Syncs the folder that `path` lies in.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
