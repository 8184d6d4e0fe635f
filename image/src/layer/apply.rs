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
    fs::{self, Mode, OFlags},
    io::Errno,
};

use super::{
    ApplyError, Limit, Options,
    decompress::check_type,
    entry::{Entries, Entry, Kind},
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
    /// Whether what is removed is marked by files that are called as in the archive: the kernel's overlay does not know
    /// them. Only with [`Whiteouts::OverlayUser`](super::Whiteouts::OverlayUser), where nothing else can be made.
    pub has_whiteout_files: bool,
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
    /// So many files belong to users or groups that the namespace has no ids for, and became root's.
    Owners(u64),
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DeviceEmptied(name) => write!(formatter, "device `{name}` became an empty file"),
            Self::DeviceSkipped(name) => write!(formatter, "device `{name}` was left out"),
            Self::Xattr(name, attribute) => write!(formatter, "`{name}` could not keep its attribute `{attribute}`"),
            Self::Aufs(name) => write!(formatter, "`{name}` only meant something to AUFS and was left out"),
            Self::Owners(count) => {
                write!(formatter, "files whose owners have no id here became root's: {count}")
            }
        }
    }
}

/// Unpacks `blob` into `target`, an empty directory, or with [`Whiteouts::Apply`](super::Whiteouts::Apply) one that holds the lower layers.
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
pub(super) struct Last {
    pub(super) inode: u64,
    pub(super) mode: u32,
    pub(super) modified: Time,
}

pub(super) struct Unpack<'o, 't, 's, 'p> {
    pub(super) options: &'o Options,
    pub(super) entries: Entries<'s, 'p>,
    pub(super) tree: Tree<'t>,
    root: BorrowedFd<'t>,
    pub(super) directories: BTreeMap<Vec<u8>, Last>,
    pub(super) directory_bytes: u64,
    /// Inodes that this layer has brought; only where it lies among others.
    pub(super) ours: HashSet<u64>,
    file_bytes: u64,
    count: u64,
    /// Files whose owner could not be kept.
    flattened: u64,
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
            flattened: 0,
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
        if self.flattened > 0 {
            self.warn(Warning::Owners(self.flattened));
        }
        let path =
            |bytes: Vec<u8>| PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes));
        let has_whiteout_files = self.tree.has_whiteout_files();
        let implied = self.tree.implied.into_iter().filter(|path| !self.directories.contains_key(path));
        Ok(Applied {
            // Known once the hashing thread has seen the last byte.
            diff_id: Digest::Sha256([0; 32]),
            entries: self.count,
            bytes: 0,
            implied: implied.map(path).collect(),
            has_whiteout_files,
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

    pub(super) fn parent(&mut self, entry: &Entry, parent: &[u8], make: bool) -> Result<Rc<OwnedFd>, ApplyError> {
        self.tree.directory(parent, make).map_err(|error| match error {
            Errno::NOTDIR => ApplyError::NotADirectory { name: Shown::new(entry.path.bytes()) },
            error => write(entry, "opening its directory", error),
        })
    }

    /// Sets all but the times; gives the permissions that it got.
    pub(super) fn attributes(&mut self, entry: &Entry, place: Place<'_>, mode: u32) -> Result<u32, ApplyError> {
        let mut lost = Vec::new();
        let mut warn = |name: &[u8], _: Errno| lost.push(Shown::new(name));
        let got = metadata::apply(place, entry, self.options.ownership, mode, &mut warn).map_err(failed(entry))?;
        self.flattened += u64::from(got.is_flattened);
        for attribute in lost {
            self.warn(Warning::Xattr(Shown::new(entry.path.bytes()), attribute));
        }
        Ok(got.mode)
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.count += 1;
        if self.warnings.first.len() < MAX_WARNINGS {
            self.warnings.first.push(warning);
        }
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

pub(super) fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::openat(directory, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn write(entry: &Entry, doing: &'static str, error: Errno) -> ApplyError {
    ApplyError::Write { name: Shown::new(entry.path.bytes()), doing, source: error.into() }
}

pub(super) fn failed(entry: &Entry) -> impl Fn(Failure) -> ApplyError {
    move |(doing, error)| write(entry, doing, error)
}
