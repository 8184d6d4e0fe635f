//! What a layer takes away from the layers below it.
//!
//! Imports `apply`, whose work this is part of. In a layer of an overlay it becomes a mark, in a plain directory it is done.
//! What the same layer brings is never touched, whichever comes first in the archive.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, Stat},
    io::Errno,
};

use super::{
    ApplyError, Whiteouts,
    apply::{Unpack, open_directory, write},
    entry::Entry,
    failure::Shown,
    remove::prune,
};

impl Unpack<'_, '_, '_, '_> {
    /// The directory hides, or loses, what lower layers have in it.
    pub(super) fn opaque(&mut self, entry: &Entry, parent: &[u8]) -> Result<(), ApplyError> {
        if self.options.whiteouts != Whiteouts::Apply {
            let directory = self.parent(entry, parent, true)?;
            return self
                .tree
                .hide(directory.as_fd())
                .map_err(|error| write(entry, "making its directory opaque", error));
        }
        match self.tree.directory(parent, false) {
            Ok(directory) => self.prune(entry, directory.as_fd()),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(write(entry, "opening its directory", error)),
        }
    }

    /// An entry of lower layers is hidden, or removed.
    pub(super) fn removed(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<(), ApplyError> {
        let overlay = self.options.whiteouts != Whiteouts::Apply;
        let directory = match self.tree.directory(parent, overlay) {
            Err(Errno::NOENT | Errno::NOTDIR) if !overlay => return Ok(()),
            Err(Errno::NOTDIR) => return Err(ApplyError::NotADirectory { name: Shown::new(entry.path.bytes()) }),
            other => other.map_err(|error| write(entry, "opening its directory", error))?,
        };
        let stat = match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(write(entry, "looking at what it names", error)),
        };
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match stat {
            // What this layer brings stays; if it is a directory, then without what lower layers have there.
            Some(stat) if overlay || self.ours.contains(&stat.st_ino) => {
                if !is_directory(&stat) {
                    return Ok(());
                }
                let hidden = open_directory(directory.as_fd(), name);
                let hidden = hidden.map_err(|error| write(entry, "opening what it names", error))?;
                if overlay {
                    self.tree.hide(hidden.as_fd()).map_err(|error| write(entry, "making it opaque", error))
                } else {
                    self.prune(entry, hidden.as_fd())
                }
            }
            Some(_) => {
                self.tree.remove(directory.as_fd(), name).map_err(|error| write(entry, "removing what it names", error))
            }
            None if overlay => self.whiteout(entry, directory.as_fd(), name),
            None => Ok(()),
        }
    }

    fn whiteout(&mut self, entry: &Entry, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), ApplyError> {
        let doing = "making the whiteout";
        if !self.tree.has_whiteout_files() {
            let make = || fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0);
            match self.replace(entry, directory, name, doing, make) {
                // An overlay below, or a kernel before 5.8, lets no user make one.
                Err(ApplyError::Write { source, .. })
                    if self.options.whiteouts == Whiteouts::OverlayUser
                        && source.kind() == std::io::ErrorKind::PermissionDenied => {}
                done => return done.map(drop),
            }
        }
        self.tree.make_whiteout_file(directory, name).map_err(|error| write(entry, doing, error))
    }

    /// Removes what is in `directory` and not of this layer. Directories below are looked into for what is.
    fn prune(&mut self, entry: &Entry, directory: BorrowedFd<'_>) -> Result<(), ApplyError> {
        self.tree.forget();
        prune(directory, &|inode| self.ours.contains(&inode))
            .map_err(|error| write(entry, "removing what it hides", error))
    }
}
