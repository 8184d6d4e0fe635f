//! A disk in memory whose power can be cut.
//!
//! Every operation that changes something is written to a log. [`image`] says what a disk may hold after a power cut at
//! any place of the log: what was synced, and of the rest whatever the drive happened to write, in any order, writes torn.
//! Names need a sync of their directory, as POSIX has it; a rename is one step. Imports the `Disk` seam.

use super::index::IndexImage;
use crate::store::disk::{Disk, DiskFile, Mode, Stat};
use crate::store::index::{State, Value};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// One operation, or a mark that the scenario left.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        path: String,
        file: u64,
    },
    Rename {
        from: String,
        to: String,
        file: u64,
    },
    Unlink {
        path: String,
    },
    SyncDir {
        path: String,
    },
    Write {
        file: u64,
        offset: u64,
        bytes: Vec<u8>,
        mtime: i64,
    },
    SetLen {
        file: u64,
        size: u64,
        mtime: i64,
    },
    Sync {
        file: u64,
    },
    /// The kernel forgets that anything was unwritten: no later sync makes it durable.
    SyncFailed {
        file: u64,
    },
    IndexInsert {
        key: Vec<u8>,
        value: Value,
    },
    IndexRemove {
        key: Vec<u8>,
    },
    IndexState {
        state: State,
    },
    IndexFlush,
    IndexLost,
    /// A claim begins to be made true, or is true now.
    Begun(usize),
    Done(usize),
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Op>>>);

impl Log {
    pub(crate) fn push(&self, op: Op) {
        self.0.lock().expect("lock").push(op);
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        self.0.lock().expect("lock").clone()
    }
}

/// Contents and time of a file.
#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    mtime: i64,
}

/// Names and files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    names: BTreeMap<String, u64>,
    files: HashMap<u64, Contents>,
    next: u64,
    clock: i64,
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fault {
    /// Changing operations that still succeed.
    pub(crate) after: u64,
    /// How many fail then.
    pub(crate) count: u64,
    /// Whether syncs fail (as with a dying drive) or everything but syncs (as with a full disk).
    pub(crate) syncs: bool,
}

#[derive(Debug, Default)]
struct Inner {
    image: Image,
    log: Option<Log>,
    fault: Option<Fault>,
    /// Changing operations that may fail, so far.
    counted: u64,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Inner>>);

impl SimulatedDisk {
    /// A disk that holds `image` and writes its operations to `log`.
    pub(crate) fn new(image: Image, log: Option<Log>) -> Self {
        Self(Arc::new(Mutex::new(Inner { image, log, ..Inner::default() })))
    }

    /// What it holds now, synced or not.
    pub(crate) fn image(&self) -> Image {
        self.lock().image.clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// How many operations a fault of this kind could have hit.
    pub(crate) fn counted(&self) -> u64 {
        self.lock().counted
    }

    /// Names in a directory.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        self.list(directory).expect("a simulated disk lists")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("lock")
    }
}

impl Inner {
    fn tick(&mut self) -> i64 {
        self.image.clock += 1;
        self.image.clock
    }

    fn note(&self, op: Op) {
        if let Some(log) = &self.log {
            log.push(op);
        }
    }

    /// Fails when it is time to.
    fn may_fail(&mut self, is_sync: bool) -> io::Result<()> {
        self.counted += 1;
        if let Some(fault) = self.fault.as_mut().filter(|fault| fault.syncs == is_sync) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.count > 0 {
                fault.count -= 1;
                let kind = if is_sync { io::ErrorKind::Other } else { io::ErrorKind::StorageFull };
                return Err(kind.into());
            }
        }
        Ok(())
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        let file = match inner.image.names.get(path).copied() {
            Some(file) => file,
            None if mode == Mode::Read => return Err(absent()),
            None => {
                inner.may_fail(false)?;
                inner.image.next += 1;
                let (file, mtime) = (inner.image.next, inner.tick());
                inner.image.names.insert(path.to_owned(), file);
                inner.image.files.insert(file, Contents { bytes: Vec::new(), mtime });
                inner.note(Op::Create { path: path.to_owned(), file });
                file
            }
        };
        drop(inner);
        let handle = SimulatedFile { disk: self.clone(), file };
        if mode == Mode::Truncate && handle.stat()?.size > 0 {
            handle.set_len(0)?;
        }
        Ok(Arc::new(handle))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.may_fail(false)?;
        let file = inner.image.names.remove(from).ok_or_else(absent)?;
        inner.image.names.insert(to.to_owned(), file);
        inner.note(Op::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.image.names.remove(path).ok_or_else(absent)?;
        inner.note(Op::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn create_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.may_fail(true)?;
        inner.note(Op::SyncDir { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let inner = self.lock();
        let names = inner.image.names.keys().filter(|name| parent(name) == path);
        Ok(names.filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect())
    }

    fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        let inner = self.lock();
        Ok(inner.image.names.get(path).map(|file| inner.image.stat(*file)))
    }
}

impl Image {
    fn stat(&self, file: u64) -> Stat {
        let contents = &self.files[&file];
        Stat { size: contents.bytes.len() as u64, mtime: contents.mtime }
    }

    fn write(&mut self, file: u64, offset: u64, bytes: &[u8], mtime: i64) {
        let contents = self.files.entry(file).or_default();
        let start = usize::try_from(offset).expect("a small file");
        if contents.bytes.len() < start + bytes.len() {
            contents.bytes.resize(start + bytes.len(), 0);
        }
        contents.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        contents.mtime = mtime;
    }

    fn set_len(&mut self, file: u64, size: u64, mtime: i64) {
        let contents = self.files.entry(file).or_default();
        contents.bytes.resize(usize::try_from(size).expect("a small file"), 0);
        contents.mtime = mtime;
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl DiskFile for SimulatedFile {
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let inner = self.disk.lock();
        let start = usize::try_from(offset).expect("a small file");
        let bytes = inner.image.files[&self.file].bytes.get(start..start + length);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let failed = inner.may_fail(false);
        // A full disk takes the first half.
        let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let mtime = inner.tick();
        inner.image.write(self.file, offset, bytes, mtime);
        inner.note(Op::Write { file: self.file, offset, bytes: bytes.to_vec(), mtime });
        failed
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let mtime = inner.tick();
        inner.image.set_len(self.file, size, mtime);
        inner.note(Op::SetLen { file: self.file, size, mtime });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let synced = inner.may_fail(true);
        let file = self.file;
        inner.note(if synced.is_ok() { Op::Sync { file } } else { Op::SyncFailed { file } });
        synced
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.disk.lock().image.stat(self.file))
    }

    fn start_writeback(&self, _range: Range<u64>) {}

    /// Zeros are taken for a hole.
    fn is_filled(&self, range: Range<u64>) -> io::Result<bool> {
        let length = usize::try_from(range.end - range.start).expect("a small range");
        Ok(self.read(range.start, length).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0)))
    }
}

/// What becomes of the operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None was written.
    Dropped,
    /// All were written.
    Kept,
    /// All were written but the last write, of which half was.
    Torn,
    /// Each was written, torn or dropped, as chance has it.
    Shuffled(u64),
}

/// A small generator of numbers, the same on every run.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the disk and the index hold after a power cut behind `ops`, which happened on a disk that held `base`.
pub(crate) fn image(base: &Image, index: &IndexImage, ops: &[Op], fate: Fate) -> (Image, IndexImage) {
    let mut dice = Dice(if let Fate::Shuffled(seed) = fate { seed } else { 0 });
    let durable = durable(ops);
    let last_write = ops
        .iter()
        .enumerate()
        .filter(|(at, op)| !durable[*at] && matches!(op, Op::Write { .. }))
        .map(|(at, _)| at)
        .next_back();
    let (mut image, mut index) = (base.clone(), index.clone());
    // sled's log is one sequence: it keeps a beginning of what was not flushed.
    let unflushed = ops.iter().enumerate().filter(|(at, op)| op.is_index() && !durable[*at]).count() as u64;
    let mut index_left = match fate {
        Fate::Dropped => 0,
        Fate::Kept | Fate::Torn => unflushed,
        Fate::Shuffled(_) => dice.roll(unflushed + 1),
    };
    for (at, op) in ops.iter().enumerate() {
        if op.is_index() {
            if durable[at] || index_left > 0 {
                index_left -= u64::from(!durable[at]);
                index.apply(op);
            }
            continue;
        }
        let written = durable[at]
            || match fate {
                Fate::Dropped => false,
                Fate::Kept | Fate::Torn => true,
                Fate::Shuffled(_) => dice.roll(2) == 0,
            };
        let torn = !durable[at] && (fate == Fate::Torn && last_write == Some(at))
            || (matches!(fate, Fate::Shuffled(_)) && !durable[at] && dice.roll(4) == 0);
        if written {
            image.apply(op, torn);
        }
        if let Op::Create { file, .. } = op {
            image.next = image.next.max(*file);
        }
        if let Op::Write { mtime, .. } | Op::SetLen { mtime, .. } = op {
            image.clock = image.clock.max(*mtime);
        }
    }
    (image, index)
}

/// Which operations a later sync made durable.
fn durable(ops: &[Op]) -> Vec<bool> {
    let mut durable = vec![false; ops.len()];
    let mut files = HashMap::new();
    let mut directories = HashMap::new();
    let mut flushed = false;
    for (at, op) in ops.iter().enumerate().rev() {
        durable[at] = match op {
            Op::Sync { file } => {
                files.insert(*file, ());
                true
            }
            Op::SyncFailed { file } => {
                files.remove(file);
                true
            }
            Op::SyncDir { path } => {
                directories.insert(path.clone(), ());
                true
            }
            Op::IndexFlush => {
                flushed = true;
                true
            }
            Op::Write { file, .. } | Op::SetLen { file, .. } => files.contains_key(file),
            Op::Create { path, .. } | Op::Unlink { path } => directories.contains_key(parent(path)),
            Op::Rename { to, .. } => directories.contains_key(parent(to)),
            Op::IndexInsert { .. } | Op::IndexRemove { .. } | Op::IndexState { .. } => flushed,
            Op::IndexLost | Op::Begun(_) | Op::Done(_) => true,
        };
    }
    durable
}

impl Op {
    fn is_index(&self) -> bool {
        matches!(
            self,
            Self::IndexInsert { .. }
                | Self::IndexRemove { .. }
                | Self::IndexState { .. }
                | Self::IndexLost
                | Self::IndexFlush
        )
    }
}

impl Image {
    fn apply(&mut self, op: &Op, torn: bool) {
        match op {
            Op::Create { path, file } => {
                self.names.insert(path.clone(), *file);
                self.files.entry(*file).or_default();
            }
            Op::Rename { from, to, file } => {
                // If the name `from` was never written, it stands for another file, or none.
                if self.names.get(from) == Some(file) {
                    self.names.remove(from);
                }
                self.names.insert(to.clone(), *file);
                self.files.entry(*file).or_default();
            }
            Op::Unlink { path } => {
                self.names.remove(path);
            }
            Op::Write { file, offset, bytes, mtime } => {
                self.write(*file, *offset, &bytes[..if torn { bytes.len() / 2 } else { bytes.len() }], *mtime);
                if torn {
                    // The length may be there before the bytes are.
                    let end = offset + bytes.len() as u64;
                    let size = self.stat(*file).size.max(end);
                    self.set_len(*file, size, *mtime);
                }
            }
            Op::SetLen { file, size, mtime } => self.set_len(*file, *size, *mtime),
            _ => {}
        }
    }
}
