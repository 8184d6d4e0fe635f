//! A layer into a directory of layers: whole, or not at all.
//!
//! Imports `apply`, `tree` and `remove`. A layer is unpacked beside its place, under a name that begins with `.unpacking-`
//! and with a lock that ends with the process, and gets its own name once its digest is right and, if asked for, once the
//! filesystem has it on the disk (one `syncfs`: a layer can be unpacked again, so no file is synced by itself). An error, a
//! full disk included, takes away all that was written; [`sweep`] takes away what a killed process has left.
//!
//! The directory of layers must be its owner's alone: programs with setuid bits lie in it, which other users of the host
//! could start otherwise.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{self, AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid},
    io::Errno,
};

use super::{
    Applied, ApplyError, Options, Ownership, Whiteouts, apply, metadata, pax::Time, remove::remove, tree::Tree,
};
use crate::oci::Digest;

/// How the names of unfinished layers begin.
const UNFINISHED: &str = ".unpacking-";
/// Names that are tried for an unfinished layer: each that is taken is another process's.
const ATTEMPTS: usize = 64;

/// Unpacks a layer to `layers/name`; `layers` is made if it is not there.
///
/// Several may be unpacked at once, by threads or processes. When somebody else has put the same layer there meanwhile,
/// theirs stays. See [`apply()`] for `media_type` and `diff_id`.
///
/// # Errors
/// As [`apply()`], and when the directory of layers cannot be used. Nothing of the layer is left then.
pub fn unpack_layer(
    blob: impl Read + Send,
    media_type: &str,
    diff_id: Option<&Digest>,
    layers: &Path,
    name: &str,
    options: &Options,
) -> Result<Applied, ApplyError> {
    stage_layer(blob, media_type, diff_id, layers, options)?.publish(name)
}

/// Unpacks a layer into a directory of layers, without giving it its name yet.
///
/// # Errors
/// As [`unpack_layer`].
pub fn stage_layer(
    blob: impl Read + Send,
    media_type: &str,
    diff_id: Option<&Digest>,
    layers: &Path,
    options: &Options,
) -> Result<Staged, ApplyError> {
    let failed = |doing| move |error: Errno| place(layers, doing, error.into());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(layers)
        .map_err(|error| place(layers, "making the directory of layers", error))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = fs::open(layers, flags, Mode::empty()).map_err(failed("opening the directory of layers"))?;
    let mode = fs::fstat(&parent).map_err(failed("looking at it"))?.st_mode & 0o777;
    if mode & 0o077 != 0 {
        return Err(ApplyError::Exposed { path: layers.display().to_string(), mode });
    }
    let (unfinished, directory) = begin(&parent).map_err(failed("making a directory in it"))?;
    let staged =
        |applied| Staged { parent, path: layers.to_owned(), unfinished, directory, applied, options: options.clone() };
    // From here on, dropping it takes everything away.
    let mut staged = staged(None);
    fs::fchmod(&staged.directory, Mode::from_raw_mode(0o755)).map_err(failed("making a directory in it"))?;
    staged.applied = Some(apply(blob, media_type, diff_id, staged.directory.as_fd(), options)?);
    Ok(staged)
}

/// Makes a directory that nobody else sweeps away.
fn begin(parent: &OwnedFd) -> rustix::io::Result<(String, OwnedFd)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..ATTEMPTS {
        let name = format!("{UNFINISHED}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match fs::mkdirat(parent, &name, Mode::RWXU) {
            Err(Errno::EXIST) => continue,
            other => other?,
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = fs::openat(parent, &name, flags, Mode::empty()) else { continue };
        if fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // Somebody may have swept before it was locked.
        let inode = fs::fstat(&directory)?.st_ino;
        if fs::statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_ino == inode) {
            return Ok((name, directory));
        }
    }
    Err(Errno::EXIST)
}

/// A layer that is unpacked but has no name; dropping it takes it away.
#[derive(Debug)]
pub struct Staged {
    parent: OwnedFd,
    path: PathBuf,
    unfinished: String,
    directory: OwnedFd,
    applied: Option<Applied>,
    options: Options,
}

impl Staged {
    /// What was unpacked.
    pub fn applied(&self) -> Option<&Applied> {
        self.applied.as_ref()
    }

    /// Gives directories that the layer has no entries for what the first of the lower layers (from the top one down) that
    /// has them says: owner, permissions and time. In an overlay they would be hidden otherwise.
    ///
    /// # Errors
    /// When a lower layer cannot be read, or the layer not written to.
    pub fn inherit(&mut self, lowers: &[&Path]) -> Result<(), ApplyError> {
        let Some(applied) = &self.applied else { return Ok(()) };
        if applied.implied.is_empty() {
            return Ok(());
        }
        let mut own = Tree::new(self.directory.as_fd(), Whiteouts::Overlay, self.options.component_wise);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut open = Vec::with_capacity(lowers.len());
        for lower in lowers {
            let failed = |error: Errno| place(lower, "opening a lower layer", error.into());
            open.push(fs::open(*lower, flags, Mode::empty()).map_err(failed)?);
        }
        let mut trees: Vec<_> = open
            .iter()
            .map(|lower| Tree::new(lower.as_fd(), Whiteouts::Overlay, self.options.component_wise))
            .collect();
        // Deepest first: taking permissions from a directory may close it.
        for path in applied.implied.iter().rev() {
            let failed = |error: Errno| place(&self.path.join(path), "inheriting its permissions", error.into());
            let path = path.as_os_str().as_bytes();
            let Some(lower) = trees.iter_mut().find_map(|tree| tree.directory(path, false).ok()) else { continue };
            let stat = fs::fstat(&*lower).map_err(failed)?;
            let directory = own.directory(path, false).map_err(failed)?;
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = fs::openat(&*directory, c".", flags, Mode::empty()).map_err(failed)?;
            if self.options.ownership != Ownership::Squash {
                let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                fs::fchown(&directory, Some(user), Some(group)).map_err(failed)?;
            }
            fs::fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed)?;
            let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
            let modified = Time { seconds: stat.st_mtime, nanoseconds };
            metadata::set_time(metadata::Place::Open(directory.as_fd()), modified)
                .map_err(|(_, error)| failed(error))?;
        }
        Ok(())
    }

    /// Gives it its name, which must be a single one and not begin with a dot.
    ///
    /// # Errors
    /// When it cannot be synced or renamed; then it is taken away.
    pub fn publish(mut self, name: &str) -> Result<Applied, ApplyError> {
        let failed = |doing| move |error: Errno| (doing, error);
        let mut done = || {
            if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
                return Err(("naming a layer", Errno::INVAL));
            }
            if self.options.sync {
                fs::syncfs(&self.directory).map_err(failed("syncing the layer"))?;
            }
            let moved = fs::renameat_with(&self.parent, &self.unfinished, &self.parent, name, RenameFlags::NOREPLACE);
            match moved {
                Err(Errno::INVAL | Errno::NOSYS) => {
                    fs::renameat(&self.parent, &self.unfinished, &self.parent, name)
                        .map_err(failed("naming the layer"))?;
                }
                // Ours goes when it is dropped.
                Err(Errno::EXIST) => return Ok(()),
                other => other.map_err(failed("naming the layer"))?,
            }
            self.unfinished.clear();
            if self.options.sync { fs::fsync(&self.parent).map_err(failed("syncing the name")) } else { Ok(()) }
        };
        done().map_err(|(doing, error)| place(&self.path.join(name), doing, error.into()))?;
        self.applied.take().ok_or_else(|| place(&self.path, "naming a layer", io::ErrorKind::NotFound.into()))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.unfinished.is_empty() {
            // What cannot be removed now, `sweep` removes.
            let _ = remove(self.parent.as_fd(), self.unfinished.as_bytes());
        }
    }
}

/// Removes unfinished layers that no process works on any more; says how many there were.
///
/// # Errors
/// When the directory of layers cannot be read. One that is not there has none.
pub fn sweep(layers: &Path) -> Result<u64, ApplyError> {
    let failed = |doing| move |error: Errno| place(layers, doing, error.into());
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match fs::open(layers, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        other => other.map_err(failed("opening the directory of layers"))?,
    };
    let mut removed = 0;
    for found in fs::Dir::read_from(&parent).map_err(failed("reading the directory of layers"))? {
        let found = found.map_err(failed("reading the directory of layers"))?;
        let name = found.file_name();
        if !name.to_bytes().starts_with(UNFINISHED.as_bytes()) {
            continue;
        }
        let Ok(directory) = fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) else { continue };
        if fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let shown = layers.join(OsStr::from_bytes(name.to_bytes()));
        remove(parent.as_fd(), name.to_bytes())
            .map_err(|error| place(&shown, "removing what is left of a layer", error.into()))?;
        removed += 1;
    }
    Ok(removed)
}

fn place(path: &Path, doing: &'static str, source: io::Error) -> ApplyError {
    ApplyError::Place { path: path.display().to_string(), doing, source }
}
