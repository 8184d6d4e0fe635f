//! The seam between the store and the disk.
//!
//! Every byte the store writes goes through [`Disk`], so that the crash harness can record the operations and take any
//! unsynced one away again. Only sled does its own I/O: what it holds can be thrown away. This module imports nothing of
//! this crate. It never decides what is written where or when it is synced.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// An existing file, to read.
    Read,
    /// A file to read and write, created when it does not exist.
    Write,
    /// A file to read and write that is empty whatever was there.
    Truncate,
}

/// Size and modification time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Modification time, nanoseconds since the Unix epoch.
    pub(crate) mtime: i64,
}

/// A directory tree; every path is relative to the repository.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; durable once the directory of `to` is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// Makes a directory and its parents; durable on return.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// The names of the files in a directory, in no order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Size and time of a file; `None` when there is none.
    fn stat(&self, path: &str) -> io::Result<Option<Stat>>;
}

/// An open file. Positions are explicit, so that one handle serves many threads.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Reads exactly `length` bytes at `offset`.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes` at `offset`.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes bytes and size durable (not the name).
    fn sync(&self) -> io::Result<()>;
    /// Size and time.
    fn stat(&self) -> io::Result<Stat>;
    /// Asks for the range to be written out soon, without waiting for it.
    fn start_writeback(&self, range: Range<u64>);
    /// Whether the range lies in the file and has no hole.
    fn is_filled(&self, range: Range<u64>) -> io::Result<bool>;
}

/// The file system, below one directory.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        if mode != Mode::Read {
            options.write(true).create(true).truncate(mode == Mode::Truncate);
        }
        Ok(Arc::new(RealFile(options.open(self.root.join(path))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = self.root.join(path);
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&path)?;
        // Every directory between the repository and the new one got a name; the last is reached by its parent.
        let parents = path.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.root));
        for parent in parents {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.root.join(path))?.sync_all()
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(path))? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        match fs::symlink_metadata(self.root.join(path)) {
            Ok(metadata) => Ok(Some(stat_of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = offset + bytes.len() as u64;
            // The capacity may be more than was asked for: the last read is cut below.
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    /// `fsync`, not `fdatasync`: a file that grew writes its inode either way, and the recorded time must be the one
    /// found after a power cut, or the file would be hashed again for nothing.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.0.metadata()?))
    }

    /// `POSIX_FADV_DONTNEED` starts an asynchronous write-back of the dirty pages of the range, as
    /// `sync_file_range(SYNC_FILE_RANGE_WRITE)` would, which no safe wrapper in use here offers. Pages that are already
    /// clean leave the cache, so it is asked for once a range, right after writing it. It is a hint: errors are ignored.
    fn start_writeback(&self, range: Range<u64>) {
        if let Some(length) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
            let _ = rustix::fs::fadvise(&self.0, range.start, Some(length), rustix::fs::Advice::DontNeed);
        }
    }

    fn is_filled(&self, range: Range<u64>) -> io::Result<bool> {
        if range.is_empty() || range.end > self.0.metadata()?.len() {
            return Ok(range.is_empty());
        }
        // Seeking moves the shared position, which nothing else uses: all reads and writes name theirs.
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Hole(range.start)) {
            Ok(hole) => Ok(hole >= range.end),
            Err(rustix::io::Errno::NXIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    Stat { size: metadata.len(), mtime: metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec() }
}
