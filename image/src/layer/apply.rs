//! A layer into a directory.
//!
//! Imports all of the layer's modules. Takes entries in their order; the times and permissions of directories are set at
//! the end, deepest first. A target that an error leaves half-filled is the caller's to remove:
//! [`unpack_layer`](super::unpack_layer) does.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    ApplyError, Devices, Limit, Options, Whiteouts,
    decompress::check_type,
    entry::{Entries, Entry, EntryPath, Kind},
    failure::{NameProblem, Shown},
    metadata::{self, Failure, Place},
    pax::Time,
    stream,
    tree::Tree,
    whiteout::{self, Name},
};
use crate::oci::Digest;

/// Warnings that are kept; the others are counted.
const MAX_WARNINGS: usize = 64;
/// How often an entry is put in the place of something that somebody else puts there.
const ATTEMPTS: usize = 64;

/// What was unpacked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Applied {
    /// Digest of the decompressed bytes, all of them.
    pub diff_id: Digest,
    /// Entries in the archive.
    pub entries: u64,
    /// Decompressed bytes.
    pub bytes: u64,
    /// Directories that the layer has entries in but none for, as paths below the target: mode 755, the caller's.
    pub implied: Vec<PathBuf>,
    /// What could not be kept.
    pub warnings: Warnings,
}

/// What could not be kept of a layer, without harm to the rest.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Warnings {
    /// The first of them.
    pub first: Vec<Warning>,
    /// How many there were.
    pub count: u64,
}

/// Something that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A device node was replaced by an empty file.
    DeviceEmptied(Shown),
    /// A device node was left out.
    DeviceSkipped(Shown),
    /// An extended attribute, whose name follows, was left out.
    Xattr(Shown, Shown),
    /// A file of AUFS's own was left out.
    Aufs(Shown),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DeviceEmptied(name) => write!(formatter, "device `{name}` became an empty file"),
            Self::DeviceSkipped(name) => write!(formatter, "device `{name}` was left out"),
            Self::Xattr(name, attribute) => write!(formatter, "`{name}` could not keep its attribute `{attribute}`"),
            Self::Aufs(name) => write!(formatter, "`{name}` only meant something to AUFS and was left out"),
        }
    }
}

/// Unpacks `blob` into `target`, an empty directory, or with [`Whiteouts::Apply`] one that holds the lower layers.
///
/// `media_type` has to be a layer's; how it is compressed shows in its bytes. `diff_id` is the digest that its
/// decompressed bytes must have. Blocks until all is done, on this thread and two more. After an error, and when the digest
/// turns out wrong at the very end, the target holds some of the layer.
///
/// # Errors
/// When the layer is malformed, hostile, too large or another one, or the target cannot be written to.
pub fn apply(
    blob: impl Read + Send,
    media_type: &str,
    diff_id: Option<&Digest>,
    target: BorrowedFd<'_>,
    options: &Options,
) -> Result<Applied, ApplyError> {
    check_type(media_type)?;
    let (unpacked, got, bytes) = stream::read(blob, &options.limits, diff_id, |stream| {
        let entries = Entries::new(stream, &options.limits, diff_id.is_none());
        Unpack::new(entries, target, options).run()
    })?;
    if let Some(expected) = diff_id
        && *expected != got
    {
        return Err(ApplyError::DiffId { expected: expected.clone(), got });
    }
    Ok(Applied { diff_id: got, bytes, ..unpacked })
}

/// What a directory gets at the end.
struct Last {
    inode: u64,
    mode: u32,
    modified: Time,
}

struct Unpack<'o, 't, 's, 'p> {
    options: &'o Options,
    entries: Entries<'s, 'p>,
    tree: Tree<'t>,
    root: BorrowedFd<'t>,
    directories: BTreeMap<Vec<u8>, Last>,
    directory_bytes: u64,
    /// Inodes that this layer has brought; only where it lies among others.
    ours: HashSet<u64>,
    file_bytes: u64,
    count: u64,
    warnings: Warnings,
}

impl<'o, 't, 's, 'p> Unpack<'o, 't, 's, 'p> {
    fn new(entries: Entries<'s, 'p>, target: BorrowedFd<'t>, options: &'o Options) -> Self {
        Self {
            options,
            entries,
            tree: Tree::new(target, options.whiteouts, options.component_wise),
            root: target,
            directories: BTreeMap::new(),
            directory_bytes: 0,
            ours: HashSet::new(),
            file_bytes: 0,
            count: 0,
            warnings: Warnings::default(),
        }
    }

    fn run(mut self) -> Result<Applied, ApplyError> {
        let limits = &self.options.limits;
        while let Some(entry) = self.entries.next()? {
            self.count += 1;
            if self.count > limits.entries {
                return Err(ApplyError::Limit { what: Limit::Entries, limit: limits.entries });
            }
            self.file_bytes = self.file_bytes.saturating_add(entry.size);
            if self.file_bytes > limits.bytes {
                return Err(ApplyError::Limit { what: Limit::FileBytes, limit: limits.bytes });
            }
            self.entry(&entry)?;
            if self.directory_bytes + self.tree.implied_bytes > limits.directory_name_bytes {
                let limit = limits.directory_name_bytes;
                return Err(ApplyError::Limit { what: Limit::DirectoryNames, limit });
            }
        }
        self.finish_directories()?;
        let path =
            |bytes: Vec<u8>| PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
        let implied = self.tree.implied.into_iter().filter(|path| !self.directories.contains_key(path));
        Ok(Applied {
            // Known once the hashing thread has seen the last byte.
            diff_id: Digest::Sha256([0; 32]),
            entries: self.count,
            bytes: 0,
            implied: implied.map(path).collect(),
            warnings: self.warnings,
        })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let named = |problem| ApplyError::Name { name: Shown::new(entry.path.bytes()), problem };
        let (parent, base) = entry.path.split();
        if entry.path.is_root() {
            let root = open_directory(self.root, b".").map_err(|error| write(entry, "opening it", error))?;
            return self.directory_made(entry, root.as_fd());
        }
        if parent.split(|byte| *byte == b'/').any(whiteout::reserved) {
            return Err(named(NameProblem::Reserved));
        }
        match whiteout::classify(base).map_err(named)? {
            Name::Plain => {}
            Name::Nothing => {
                self.warn(Warning::Aufs(Shown::new(entry.path.bytes())));
                return Ok(());
            }
            Name::Opaque => return self.opaque(entry, parent),
            Name::Removed(name) => return self.removed(entry, parent, name),
        }
        if let Kind::HardLink(target) = &entry.kind
            && target.components().any(whiteout::reserved)
        {
            return Err(named(NameProblem::Reserved));
        }
        let directory = self.parent(entry, parent, true)?;
        match &entry.kind {
            Kind::Directory => self.directory(entry, directory.as_fd(), base),
            Kind::File => self.file(entry, directory.as_fd(), base),
            Kind::HardLink(target) => self.hard_link(entry, directory.as_fd(), base, target),
            _ => self.special(entry, directory.as_fd(), base),
        }
    }

    fn parent(&mut self, entry: &Entry, parent: &[u8], make: bool) -> Result<Rc<OwnedFd>, ApplyError> {
        self.tree.directory(parent, make).map_err(|error| match error {
            Errno::NOTDIR => ApplyError::NotADirectory { name: Shown::new(entry.path.bytes()) },
            error => write(entry, "opening its directory", error),
        })
    }

    /// Makes something new called `base`, in the place of what may be there. Says whether that was a whiteout.
    fn replace<T>(
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
                Ok(made) => return Ok((made, hidden)),
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

    fn directory(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
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

    fn directory_made(&mut self, entry: &Entry, made: BorrowedFd<'_>) -> Result<(), ApplyError> {
        // Until all is in it, it has to stay open to us.
        self.attributes(entry, Place::Open(made), entry.mode | 0o700)?;
        let inode = fs::fstat(made).map_err(|error| write(entry, "looking at it", error))?.st_ino;
        self.mine(inode);
        let last = Last { inode, mode: entry.mode, modified: entry.modified };
        if self.directories.insert(entry.path.bytes().to_vec(), last).is_none() {
            self.directory_bytes += entry.path.bytes().len() as u64;
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
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

    fn hard_link(
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
                Ok(()) => return Ok(()),
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
    fn special(&mut self, entry: &Entry, directory: BorrowedFd<'_>, base: &[u8]) -> Result<(), ApplyError> {
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

    fn attributes(&mut self, entry: &Entry, place: Place<'_>, mode: u32) -> Result<(), ApplyError> {
        let mut lost = Vec::new();
        let mut warn = |name: &[u8], _: Errno| lost.push(Shown::new(name));
        metadata::apply(place, entry, self.options.ownership, mode, &mut warn).map_err(failed(entry))?;
        for attribute in lost {
            self.warn(Warning::Xattr(Shown::new(entry.path.bytes()), attribute));
        }
        Ok(())
    }

    fn warn(&mut self, warning: Warning) {
        self.warnings.count += 1;
        if self.warnings.first.len() < MAX_WARNINGS {
            self.warnings.first.push(warning);
        }
    }

    /// The directory hides, or loses, what lower layers have in it.
    fn opaque(&mut self, entry: &Entry, parent: &[u8]) -> Result<(), ApplyError> {
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
    fn removed(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<(), ApplyError> {
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
            None if overlay => {
                let make = || fs::mknodat(&directory, name, FileType::CharacterDevice, Mode::empty(), 0);
                self.replace(entry, directory.as_fd(), name, "making the whiteout", make).map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// Removes what is in `directory` and not of this layer. Directories below are looked into for what is.
    fn prune(&mut self, entry: &Entry, directory: BorrowedFd<'_>) -> Result<(), ApplyError> {
        self.tree.forget();
        super::remove::prune(directory, &|inode| self.ours.contains(&inode))
            .map_err(|error| write(entry, "removing what it hides", error))
    }

    fn finish_directories(&mut self) -> Result<(), ApplyError> {
        let directories = std::mem::take(&mut self.directories);
        for (path, last) in directories.iter().rev() {
            let failed = |(doing, error): Failure| ApplyError::Write {
                name: Shown::new(path),
                doing,
                source: io::Error::from(error),
            };
            let at = path.iter().rposition(|byte| *byte == b'/');
            let (parent, base) = match at {
                Some(at) => (&path[..at], &path[at + 1..]),
                None if path.is_empty() => (&path[..], &b"."[..]),
                None => (&path[..0], &path[..]),
            };
            // Something else may be there by now, or nothing.
            let Ok(parent) = self.tree.directory(parent, false) else { continue };
            let Ok(directory) = open_directory(parent.as_fd(), base) else { continue };
            let stat = fs::fstat(&directory).map_err(|error| failed(("looking at it", error)))?;
            if stat.st_ino != last.inode {
                continue;
            }
            if last.mode | 0o700 != last.mode {
                let mode = Mode::from_raw_mode(last.mode);
                fs::fchmod(&directory, mode).map_err(|error| failed(("changing its mode", error)))?;
            }
            metadata::set_time(Place::Open(directory.as_fd()), last.modified).map_err(failed)?;
        }
        self.directories = directories;
        Ok(())
    }
}

fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::openat(directory, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
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

fn write(entry: &Entry, doing: &'static str, error: Errno) -> ApplyError {
    ApplyError::Write { name: Shown::new(entry.path.bytes()), doing, source: error.into() }
}

fn failed(entry: &Entry) -> impl Fn(Failure) -> ApplyError {
    move |(doing, error)| write(entry, doing, error)
}
