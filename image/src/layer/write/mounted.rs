//! What is in an upper directory only since something is mounted on it: made by the runtime, and nobody's work.
//!
//! Imports its siblings. Inside of a container such places cannot be seen, since the mount lies over them.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    WriteError, Writer, joined, read,
    upper::{Found, is_whiteout, xattr},
};

/// The layers below, the topmost first.
pub(super) struct Lowers<'l>(pub(super) &'l [OwnedFd]);

impl Writer<'_> {
    /// Whether `path` is a place for a mount, or a directory on the way to one, and nothing else: not in the layers below,
    /// or there just the same.
    pub(super) fn is_for_a_mount(&mut self, path: &[u8], found: &Found) -> Result<bool, WriteError> {
        let absolute = [b"/", path].concat();
        let is_place = self.changes.mounts.contains(&absolute);
        let below = [&absolute[..], b"/"].concat();
        let is_above = self.changes.mounts.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below));
        if !is_place && !is_above || found.is_opaque || !found.xattrs.is_empty() {
            return Ok(false);
        }
        let beneath = self.lowers.find(path)?;
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => return Ok(is_place && found.stat.st_size == 0 && beneath.is_none()),
            FileType::Directory if beneath.is_none_or(|beneath| is_like(&found.stat, &beneath)) => {}
            _ => return Ok(false),
        }
        // As deep as mounts are.
        for name in self.upper.names(path, self.left())? {
            let inside = joined(path, &name);
            let found = self.upper.look(path, &name, &inside)?;
            if found.is_whiteout || !self.is_for_a_mount(&inside, &found)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether two are of one type, mode and owner.
pub(super) fn is_like(one: &Stat, other: &Stat) -> bool {
    (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
}

impl Lowers<'_> {
    /// What the layers below have at `path`, if anything.
    fn find(&self, path: &[u8]) -> Result<Option<Stat>, WriteError> {
        let failed = read(path, "looking for it in the layers below");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        'layers: for lower in self.0 {
            let mut directory = fs::openat(lower, c".", flags, Mode::empty()).map_err(&failed)?;
            let mut hides = false;
            let mut parts = path.split(|byte| *byte == b'/').peekable();
            while let Some(part) = parts.next() {
                let stat = match fs::statat(&directory, part, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) if hides => return Ok(None),
                    Err(Errno::NOENT) => continue 'layers,
                    other => other.map_err(&failed)?,
                };
                if is_whiteout(&stat) {
                    return Ok(None);
                }
                if parts.peek().is_none() {
                    return Ok(Some(stat));
                }
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    return Ok(None);
                }
                let opaque = |name: &[u8]| xattr(directory.as_fd(), part, name).is_ok_and(|value| value == b"y");
                hides |= opaque(b"trusted.overlay.opaque") || opaque(b"user.overlay.opaque");
                directory = fs::openat(&directory, part, flags, Mode::empty()).map_err(&failed)?;
            }
        }
        Ok(None)
    }
}
