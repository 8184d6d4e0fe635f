//! A layer out of what an overlay's upper directory holds: the reverse of unpacking.
//!
//! Reading order: `header` (bytes of an archive), `upper` (looking into the directory), `mounted` (what is only there for
//! something to be mounted on), `pack` (compressed, in pieces, to whoever stores it). Imports the readers' headers, limits and
//! names. The same tree gives the same bytes: entries are sorted by name, directories before what is in them, and nothing is
//! said of a file but its type, mode, owner, time, extended attributes and bytes. Memory is bounded by the names of the
//! directories on the way to one entry, and by those of files with several names.
//!
//! Nothing is followed, no device is opened, nothing is changed. What a layer has no word for is refused rather than left
//! out, but for sockets, which mean nothing without their process.

mod header;
mod mounted;
mod pack;
mod upper;

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Read as _, Write},
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, Stat},
    io::Errno,
};

pub use self::pack::{Packed, PackedReader, Packing, packer};
use self::{
    header::{Fields, Kind},
    mounted::Lowers,
    upper::{Found, Upper},
};
use super::{
    Limit, Limits,
    block::padded,
    failure::{NameProblem, Shown},
    header::BLOCK,
    pax::Time,
    whiteout,
};

/// Bytes read of a file at a time.
const READ_BYTES: usize = 128 << 10;
/// Bytes of the names that are remembered of files with several.
const MAX_LINK_NAME_BYTES: u64 = 64 << 20;
/// Empty blocks at the end of an archive.
const END_BLOCKS: usize = 2;

/// What a layer is made of.
#[derive(Debug)]
pub struct Changes<'c> {
    /// The upper directory.
    pub upper: BorrowedFd<'c>,
    /// The directories below it, the topmost first.
    pub lowers: &'c [OwnedFd],
    /// Absolute paths inside at which something is mounted: what is there for that alone is no part of the layer.
    pub mounts: &'c BTreeSet<Vec<u8>>,
    /// How the owners on disk are called inside.
    pub owners: &'c Owners,
    /// How much it may take. A layer past them could be unpacked by nobody.
    pub limits: &'c Limits,
}

/// How users and groups on disk are called inside of a user namespace; without ranges, the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Ranges of users.
    pub users: Vec<IdRange>,
    /// Ranges of groups.
    pub groups: Vec<IdRange>,
}

/// Some ids that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first inside.
    pub inside: u32,
    /// The first on disk.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries of the archive.
    pub entries: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Sockets that were left out.
    pub sockets: u64,
}

/// Writes the archive of what has changed, uncompressed.
///
/// # Errors
/// [`WriteError`]. What was written by then is no archive.
pub fn write_layer(changes: &Changes<'_>, out: &mut dyn Write) -> Result<Written, WriteError> {
    let mut writer = Writer {
        upper: Upper::new(changes.upper, changes.limits.entries),
        lowers: Lowers(changes.lowers),
        changes,
        out,
        first: HashMap::new(),
        link_name_bytes: 0,
        written: Written::default(),
    };
    writer.root()?;
    writer.everything()?;
    writer.bytes(&[0; BLOCK * END_BLOCKS])?;
    Ok(writer.written)
}

struct Writer<'w> {
    changes: &'w Changes<'w>,
    upper: Upper<'w>,
    lowers: Lowers<'w>,
    out: &'w mut dyn Write,
    /// The first name of files that have several.
    first: HashMap<(u64, u64), Vec<u8>>,
    link_name_bytes: u64,
    written: Written,
}

impl Writer<'_> {
    /// The root itself, if it is not like the layers' below.
    fn root(&mut self) -> Result<(), WriteError> {
        let found = self.upper.root()?;
        let below = match self.changes.lowers.first() {
            Some(lower) => Some(fs::fstat(lower).map_err(read(b".", "looking at a lower layer"))?),
            None => None,
        };
        let is_same = below.is_none_or(|below| mounted::is_like(&found.stat, &below));
        if is_same && found.xattrs.is_empty() {
            return Ok(());
        }
        self.entry(&found, b"./", Kind::Directory, 0, b"")
    }

    /// All that is below it, sorted: a stack of directories, each with the names that are still to come.
    fn everything(&mut self) -> Result<(), WriteError> {
        let mut levels = vec![(Vec::new(), self.upper.names(b"", self.left())?)];
        while let Some((folder, names)) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let path = joined(folder, &name);
            if let Some(inside) = self.one(folder.clone(), &name, &path)? {
                if levels.len() >= self.changes.limits.path_depth {
                    let limit = self.changes.limits.path_depth as u64;
                    return Err(WriteError::Limit { what: Limit::PathDepth, limit });
                }
                levels.push((path, inside));
            }
        }
        Ok(())
    }

    /// Entries that may still come.
    fn left(&self) -> u64 {
        self.changes.limits.entries.saturating_sub(self.written.entries)
    }

    /// Writes what one name stands for; of a directory, gives the names in it.
    fn one(
        &mut self,
        folder: Vec<u8>,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<std::vec::IntoIter<Vec<u8>>>, WriteError> {
        if whiteout::reserved(name) {
            return Err(WriteError::Name { name: Shown::new(path), problem: NameProblem::Reserved });
        }
        // A directory has a `/` at its end, a whiteout four bytes more.
        if path.len() + whiteout::PREFIX.len() > self.changes.limits.path_bytes {
            return Err(WriteError::Limit { what: Limit::PathBytes, limit: self.changes.limits.path_bytes as u64 });
        }
        let found = self.upper.look(&folder, name, path)?;
        if found.is_whiteout {
            let hidden = [whiteout::PREFIX, name].concat();
            self.mark(&joined(&folder, &hidden))?;
            return Ok(None);
        }
        if self.is_for_a_mount(path, &found)? {
            return Ok(None);
        }
        let kind = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => {
                self.entry(&found, &[path, b"/"].concat(), Kind::Directory, 0, b"")?;
                if found.is_opaque {
                    self.mark(&joined(path, whiteout::OPAQUE))?;
                }
                return self.upper.names(path, self.left()).map(Some);
            }
            FileType::Socket => {
                self.written.sockets += 1;
                return Ok(None);
            }
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Pipe,
            FileType::Unknown => return Err(read(path, "telling what it is")(Errno::INVAL)),
        };
        let inode = (found.stat.st_dev, found.stat.st_ino);
        if let Some(first) = self.first.get(&inode).cloned() {
            self.entry(&Found { xattrs: Vec::new(), ..found }, path, Kind::HardLink, 0, &first)?;
            return Ok(None);
        }
        match kind {
            Kind::File => self.file(&found, &folder, name, path)?,
            Kind::Symlink => {
                let target = self.upper.target(&folder, name, path)?;
                self.entry(&found, path, kind, 0, &target)?;
            }
            _ => self.entry(&found, path, kind, 0, b"")?,
        }
        if found.stat.st_nlink > 1 {
            self.link_name_bytes += path.len() as u64;
            if self.link_name_bytes > MAX_LINK_NAME_BYTES {
                return Err(WriteError::Limit { what: Limit::LinkNames, limit: MAX_LINK_NAME_BYTES });
            }
            self.first.insert(inode, path.to_vec());
        }
        Ok(None)
    }

    fn file(&mut self, found: &Found, folder: &[u8], name: &[u8], path: &[u8]) -> Result<(), WriteError> {
        let directory = self.upper.directory(folder, path)?;
        // What it is was looked at before; nothing that opening could change is waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(&*directory, name, flags, Mode::empty()).map_err(read(path, "opening it"))?;
        let stat = fs::fstat(&file).map_err(read(path, "looking at it"))?;
        if stat.st_ino != found.stat.st_ino || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(WriteError::Changed { name: Shown::new(path) });
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let limit = self.changes.limits.bytes;
        if self.written.bytes.saturating_add(size) > limit {
            return Err(WriteError::Limit { what: Limit::Bytes, limit });
        }
        self.entry(&Found { stat, xattrs: found.xattrs.clone(), ..*found }, path, Kind::File, size, b"")?;
        let (mut file, mut left, mut buffer) = (std::fs::File::from(file), size, vec![0; READ_BYTES]);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut buffer[..most]) {
                Ok(0) => return Err(WriteError::Changed { name: Shown::new(path) }),
                Ok(length) => {
                    self.bytes(&buffer[..length])?;
                    left -= length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(WriteError::Read { name: Shown::new(path), doing: "reading it", source }),
            }
        }
        let size = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.bytes(&[0; BLOCK][..padded(size) - size])
    }

    /// An empty file that hides something.
    fn mark(&mut self, path: &[u8]) -> Result<(), WriteError> {
        let none = Time::default();
        let (kind, device) = (Kind::File, (0, 0));
        let fields =
            Fields { path, kind, mode: 0, user: 0, group: 0, size: 0, modified: none, link: b"", device, xattrs: &[] };
        self.header(path, &fields)
    }

    fn entry(&mut self, found: &Found, path: &[u8], kind: Kind, size: u64, link: &[u8]) -> Result<(), WriteError> {
        let stat = &found.stat;
        let unknown = |id| WriteError::Owner { name: Shown::new(path), id };
        let owners = self.changes.owners;
        let is_device = matches!(kind, Kind::Character | Kind::Block);
        let fields = Fields {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            user: inside(&owners.users, stat.st_uid).ok_or_else(|| unknown(stat.st_uid))?,
            group: inside(&owners.groups, stat.st_gid).ok_or_else(|| unknown(stat.st_gid))?,
            size,
            modified: time(stat),
            link,
            device: if is_device { (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)) } else { (0, 0) },
            xattrs: &found.xattrs,
        };
        self.header(path, &fields)
    }

    fn header(&mut self, path: &[u8], fields: &Fields<'_>) -> Result<(), WriteError> {
        let encoded = fields.encode();
        let limits = self.changes.limits;
        if encoded.len() as u64 > limits.header_bytes {
            return Err(WriteError::Header {
                name: Shown::new(path),
                bytes: encoded.len() as u64,
                limit: limits.header_bytes,
            });
        }
        self.written.entries += 1;
        if self.written.entries > limits.entries {
            return Err(WriteError::Limit { what: Limit::Entries, limit: limits.entries });
        }
        self.bytes(&encoded)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.written.bytes += bytes.len() as u64;
        if self.written.bytes > self.changes.limits.bytes {
            return Err(WriteError::Limit { what: Limit::Bytes, limit: self.changes.limits.bytes });
        }
        self.out.write_all(bytes).map_err(WriteError::Write)
    }
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn inside(ranges: &[IdRange], id: u32) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    let in_range = |range: &IdRange| {
        let at = id.checked_sub(range.outside).filter(|at| *at < range.count)?;
        range.inside.checked_add(at)
    };
    ranges.iter().find_map(in_range)
}

fn time(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() }
}

/// A failed step of reading an entry.
fn read(path: &[u8], doing: &'static str) -> impl Fn(Errno) -> WriteError {
    move |error| WriteError::Read { name: Shown::new(path), doing, source: error.into() }
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It would take more than whoever unpacks it allows.
    #[error("the layer would exceed the limit of {limit} {what}")]
    Limit {
        /// Of what.
        what: Limit,
        /// As many are allowed.
        limit: u64,
    },
    /// What describes one entry is too long.
    #[error("entry `{name}` needs {bytes} bytes of headers, at most {limit} are allowed")]
    Header {
        /// The entry.
        name: Shown,
        /// Bytes of its name and attributes.
        bytes: u64,
        /// As many are allowed.
        limit: u64,
    },
    /// A name that means something else in a layer.
    #[error("entry `{name}`: {problem}")]
    Name {
        /// The name.
        name: Shown,
        /// What is wrong.
        problem: NameProblem,
    },
    /// An owner that nobody inside has.
    #[error("entry `{name}` belongs to id {id}, which the container does not have")]
    Owner {
        /// The entry.
        name: Shown,
        /// The user or group on disk.
        id: u32,
    },
    /// The overlay keeps only a part of something here, and no layer can say where the rest is.
    #[error("entry `{name}` has its content in a lower layer under another name (`{attribute}`)")]
    Elsewhere {
        /// The entry.
        name: Shown,
        /// What says so.
        attribute: &'static str,
    },
    /// Something is written to while it is read.
    #[error("entry `{name}` changed while it was read")]
    Changed {
        /// The entry.
        name: Shown,
    },
    /// Something could not be read.
    #[error("entry `{name}`: {doing}")]
    Read {
        /// The entry.
        name: Shown,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("writing the layer")]
    Write(#[source] io::Error),
}

#[cfg(test)]
mod tests;
