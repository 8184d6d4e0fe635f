//! Makes what an entry says, in the place of what may be there.
//!
//! Imports `apply`, whose work this is part of. Nothing is opened that was not just made, but for directories; nothing is
//! written to that was there before.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    ApplyError, Devices, Whiteouts,
    apply::{Last, Unpack, Warning, failed, open_directory, write},
    entry::{Entry, EntryPath, Kind},
    failure::Shown,
    metadata::{self, Place},
};

/// How often an entry is put in the place of something that somebody else puts there.
const ATTEMPTS: usize = 64;

impl Unpack<'_, '_, '_, '_> {
    /// Makes something new called `base`, in the place of what may be there. Says whether that was a whiteout.
    pub(super) fn replace<T>(
        &mut self,
        entry: &Entry,
        directory: BorrowedFd<'_>,
        base: &[u8],
        doing: &'static str,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<(T, bool), ApplyError> {
        let mut hidden = false;
        for _ in 0..ATTEMPTS {
            match make() {
                Ok(made) => {
                    let unmarked = self.tree.remove_whiteout_file(directory, base);
                    hidden |= unmarked.map_err(|error| write(entry, "removing its whiteout", error))?;
                    return Ok((made, hidden));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(write(entry, doing, error)),
            }
            if let Ok(stat) = fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW) {
                hidden |= self.tree.is_whiteout(&stat);
            }
            self.tree.remove(directory, base).map_err(|error| write(entry, "removing what is in its place", error))?;
        }
        Err(write(entry, doing, Errno::EXIST))
    }

    pub(super) fn directory(
        &mut self,
        entry: &Entry,
        directory: BorrowedFd<'_>,
        base: &[u8],
    ) -> Result<(), ApplyError> {
        let make = || {
            match fs::mkdirat(directory, base, Mode::RWXU) {
                // One that is there stays.
                Err(Errno::EXIST) => {}
                other => other?,
            }
            match open_directory(directory, base) {
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Err(Errno::EXIST),
                other => other,
            }
        };
        let (made, hidden) = self.replace(entry, directory, base, "making the directory", make)?;
        if hidden {
            self.tree.hide(made.as_fd()).map_err(|error| write(entry, "making it opaque", error))?;
        }
        self.directory_made(entry, made.as_fd())
    }

    pub(super) fn directory_made(&mut self, entry: &Entry, made: BorrowedFd<'_>) -> Result<(), ApplyError> {
        // Until all is in it, it has to stay open to us.
        let got = self.attributes(entry, Place::Open(made), entry.mode | 0o700)?;
        let inode = fs::fstat(made).map_err(|error| write(entry, "looking at it", error))?.st_ino;
        self.mine(inode);
        let last = Last { inode, mode: entry.mode & (got | 0o777), modified: entry.modified };
        if self.directories.insert(entry.path.bytes().to_vec(), last).is_none() {
            self.directory_bytes += entry.path.bytes().len() as u64;
        }
        Ok(())
    }

    pub(super) fn file(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || fs::openat(directory, base, flags, Mode::RUSR | Mode::WUSR);
        let (file, _) = self.replace(entry, directory, base, "creating the file", create)?;
        self.contents(entry, file.as_fd())?;
        self.attributes(entry, Place::Open(file.as_fd()), entry.mode)?;
        metadata::set_time(Place::Open(file.as_fd()), entry.modified).map_err(failed(entry))?;
        self.made(entry, file.as_fd())
    }

    fn contents(&mut self, entry: &Entry, file: BorrowedFd<'_>) -> Result<(), ApplyError> {
        let writing = |error| write(entry, "writing the file", error);
        let Some(map) = &entry.map else {
            loop {
                let bytes = self.entries.data()?;
                if bytes.is_empty() {
                    return Ok(());
                }
                write_all(file, bytes, None).map_err(writing)?;
            }
        };
        fs::ftruncate(file, map.size).map_err(writing)?;
        let mut pieces = map.pieces.iter().copied().filter(|(_, length)| *length > 0);
        let mut piece = pieces.next();
        loop {
            let mut bytes = self.entries.data()?;
            if bytes.is_empty() {
                return Ok(());
            }
            while let Some((offset, length)) = piece
                && !bytes.is_empty()
            {
                let now = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
                write_all(file, &bytes[..now], Some(offset)).map_err(writing)?;
                bytes = &bytes[now..];
                let now = now as u64;
                piece = if now == length { pieces.next() } else { Some((offset + now, length - now)) };
            }
        }
    }

    pub(super) fn hard_link(
        &mut self,
        entry: &Entry,
        directory: BorrowedFd<'_>,
        base: &[u8],
        target: &EntryPath,
    ) -> Result<(), ApplyError> {
        let failed = |error: Errno| ApplyError::HardLink {
            name: Shown::new(entry.path.bytes()),
            target: Shown::new(target.bytes()),
            source: error.into(),
        };
        let (from, name) = target.split();
        if target.is_root() {
            return Err(failed(Errno::PERM));
        }
        let from = self.tree.directory(from, false).map_err(failed)?;
        let there = fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        // A directory cannot be, and a whiteout is no entry.
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(failed(Errno::PERM));
        }
        if self.tree.is_whiteout(&there) {
            return Err(failed(Errno::NOENT));
        }
        for _ in 0..ATTEMPTS {
            // Without any flag, a link at the end is linked to rather than followed.
            match fs::linkat(&from, name, directory, base, AtFlags::empty()) {
                Ok(()) => {
                    self.mine(there.st_ino);
                    return self.tree.remove_whiteout_file(directory, base).map(drop).map_err(failed);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            if let Ok(stat) = fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW)
                && (stat.st_dev, stat.st_ino) == (there.st_dev, there.st_ino)
            {
                return Ok(());
            }
            self.tree.remove(directory, base).map_err(|error| write(entry, "removing what is in its place", error))?;
        }
        Err(failed(Errno::EXIST))
    }

    /// Links, pipes and devices.
    pub(super) fn special(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
        let device = match entry.kind {
            Kind::Character(major, minor) | Kind::Block(major, minor) => Some((major, minor)),
            _ => None,
        };
        let shown = || Shown::new(entry.path.bytes());
        // A character device of these numbers would be a whiteout, which only whiteouts may make.
        let whiteout = matches!(entry.kind, Kind::Character(0, 0));
        match (device, self.options.devices) {
            (Some(_), Devices::Skip) => {
                self.warn(Warning::DeviceSkipped(shown()));
                return Ok(());
            }
            (Some(_), Devices::Create) if whiteout => {
                self.warn(Warning::DeviceSkipped(shown()));
                return Ok(());
            }
            (Some(_), Devices::Empty) => {
                self.warn(Warning::DeviceEmptied(shown()));
                return self.file(entry, directory, base);
            }
            _ => {}
        }
        let permissions = Mode::RUSR | Mode::WUSR;
        let (kind, (major, minor)) = match &entry.kind {
            Kind::Symlink(target) => {
                let make = || fs::symlinkat(&target[..], directory, base);
                self.replace(entry, directory, base, "making the link", make)?;
                return self.special_made(entry, directory, base);
            }
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::Block(major, minor) => (FileType::BlockDevice, (*major, *minor)),
            Kind::Character(major, minor) => (FileType::CharacterDevice, (*major, *minor)),
            // Not special; `entry` has dealt with them.
            Kind::Directory | Kind::File | Kind::HardLink(_) => return Ok(()),
        };
        let make = || fs::mknodat(directory, base, kind, permissions, fs::makedev(major, minor));
        self.replace(entry, directory, base, "making the node", make)?;
        self.special_made(entry, directory, base)
    }

    fn special_made(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
        let place = Place::Named(directory, base);
        self.attributes(entry, place, entry.mode)?;
        metadata::set_time(place, entry.modified).map_err(failed(entry))?;
        if self.options.whiteouts == Whiteouts::Apply {
            let stat = fs::statat(directory, base, AtFlags::SYMLINK_NOFOLLOW);
            self.mine(stat.map_err(|error| write(entry, "looking at it", error))?.st_ino);
        }
        Ok(())
    }

    fn made(&mut self, entry: &Entry, file: BorrowedFd<'_>) -> Result<(), ApplyError> {
        if self.options.whiteouts == Whiteouts::Apply {
            self.mine(fs::fstat(file).map_err(|error| write(entry, "looking at it", error))?.st_ino);
        }
        Ok(())
    }

    fn mine(&mut self, inode: u64) {
        if self.options.whiteouts == Whiteouts::Apply {
            self.ours.insert(inode);
        }
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut at: Option<u64>) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = match at {
            Some(at) => rustix::io::pwrite(file, bytes, at),
            None => rustix::io::write(file, bytes),
        };
        match written {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => {
                bytes = &bytes[length..];
                at = at.map(|at| at + length as u64);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
