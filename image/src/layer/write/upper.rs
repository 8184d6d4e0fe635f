//! Looking into an upper directory: what overlayfs keeps there, in the words of layers.
//!
//! Imports `tree`, which never leaves the directory, and the errors. Attributes with which an overlay keeps its own books are
//! understood and left out.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{self, AtFlags, FileType, Stat},
    io::{self, Errno},
};

use super::{WriteError, read};
use crate::layer::{Limit, Whiteouts, apply::open_directory, failure::Shown, metadata::is_foreign, tree::Tree};

/// Longest list of the names of attributes, and longest value, in bytes: the kernel's limits.
const MAX_XATTR_BYTES: usize = 64 << 10;
/// How the attributes of overlays begin, mounted by root or by others.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// A directory, and the layer that it keeps.
pub(super) struct Upper<'u> {
    directory: BorrowedFd<'u>,
    tree: Tree<'u>,
    entries: u64,
}

/// Something in it.
pub(super) struct Found {
    pub(super) stat: Stat,
    /// Sorted by name, without those of the overlay.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) is_opaque: bool,
    pub(super) is_whiteout: bool,
}

impl<'u> Upper<'u> {
    /// Of which no more than so many entries are read.
    pub(super) fn new(directory: BorrowedFd<'u>, entries: u64) -> Self {
        Self { directory, tree: Tree::new(directory, Whiteouts::Overlay, false), entries }
    }

    /// The directory `path`, to work in with single names; `about` is what an error is about.
    pub(super) fn directory(&mut self, path: &[u8], about: &[u8]) -> Result<Rc<OwnedFd>, WriteError> {
        self.tree.directory(path, false).map_err(read(about, "opening its directory"))
    }

    /// The names in a directory, sorted; fails when there are more than `most`.
    pub(super) fn names(&mut self, path: &[u8], most: u64) -> Result<std::vec::IntoIter<Vec<u8>>, WriteError> {
        let failed = read(path, "reading the directory");
        let directory = self.directory(path, path)?;
        let directory = open_directory(directory.as_fd(), b".").map_err(&failed)?;
        let mut names = Vec::new();
        for found in fs::Dir::new(directory).map_err(&failed)? {
            let found = found.map_err(&failed)?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if names.len() as u64 >= most {
                return Err(WriteError::Limit { what: Limit::Entries, limit: self.entries });
            }
            names.push(name.to_vec());
        }
        names.sort_unstable();
        Ok(names.into_iter())
    }

    /// The directory itself.
    pub(super) fn root(&self) -> Result<Found, WriteError> {
        let stat = fs::fstat(self.directory).map_err(read(b".", "looking at it"))?;
        found(self.directory, b".", b".", stat)
    }

    /// What `name` in `folder` is.
    pub(super) fn look(&mut self, folder: &[u8], name: &[u8], path: &[u8]) -> Result<Found, WriteError> {
        let directory = self.directory(folder, path)?;
        let stat = fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read(path, "looking at it"))?;
        found(directory.as_fd(), name, path, stat)
    }

    /// Where a link leads to.
    pub(super) fn target(&mut self, folder: &[u8], name: &[u8], path: &[u8]) -> Result<Vec<u8>, WriteError> {
        let directory = self.directory(folder, path)?;
        let target = fs::readlinkat(&*directory, name, Vec::new()).map_err(read(path, "reading the link"))?;
        Ok(target.into_bytes())
    }
}

/// Whether something of this kind is a whiteout by itself.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn found(directory: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: Stat) -> Result<Found, WriteError> {
    let mut found = Found { stat, xattrs: Vec::new(), is_opaque: false, is_whiteout: is_whiteout(&stat) };
    if found.is_whiteout {
        return Ok(found);
    }
    let failed = read(path, "reading its extended attributes");
    for attribute in xattr_names(directory, name).map_err(&failed)? {
        let own = OVERLAY.iter().find_map(|prefix| attribute.strip_prefix(*prefix));
        let elsewhere = |attribute| Err(WriteError::Elsewhere { name: Shown::new(path), attribute });
        match own {
            Some(b"opaque") => found.is_opaque = xattr(directory, name, &attribute).map_err(&failed)? == b"y",
            // Another way to say it, where no device may be made.
            Some(b"whiteout") => found.is_whiteout = stat.st_size == 0,
            Some(b"redirect") => return elsewhere("redirect"),
            Some(b"metacopy") => return elsewhere("metacopy"),
            Some(_) => {}
            None if is_foreign(&attribute) => {}
            None => {
                let value = xattr(directory, name, &attribute).map_err(&failed)?;
                found.xattrs.push((attribute, value));
            }
        }
    }
    found.xattrs.sort();
    Ok(found)
}

/// A path to the name itself: there are no calls for attributes that take a directory and a name.
fn place(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat()
}

fn xattr_names(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; MAX_XATTR_BYTES];
    let length = match fs::llistxattr(&place(directory, name)[..], &mut list[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    list.truncate(length);
    Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The value of an attribute.
pub(super) fn xattr(directory: BorrowedFd<'_>, name: &[u8], attribute: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = vec![0; MAX_XATTR_BYTES];
    let length = fs::lgetxattr(&place(directory, name)[..], attribute, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}
