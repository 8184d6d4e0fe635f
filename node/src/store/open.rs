//! Opening a repository: lock, version, journal, packs, index, in this order.
//!
//! Imports its siblings. It never touches a repository that another process holds, or that it does not understand.

use super::disk::{Disk, Mode, RealDisk};
use super::facts::Facts;
use super::files::{self, PARTIAL, STAGE_PREFIX};
use super::guard::{lock, read};
use super::handles::Handles;
use super::index::{Index, IndexError, SledIndex, State};
use super::journal::{self, Decoded, Journal};
use super::packs::{self, Packs};
use super::pending::Pending;
use super::rebuild;
use super::stopgap::{self, StopgapHome};
use super::{Inner, OpenError, Store, StoreError, error::Doing as _};
use crate::pin::lease::Leases;
use std::fmt::Debug;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

/// Layout version that this code reads and writes.
const LAYOUT_VERSION: u32 = 1;
/// Name of the file that holds it.
const VERSION_FILE: &str = "version";
/// Its name until it is written and synced.
const VERSION_TEMPORARY: &str = "version.tmp";
/// Name of the file that the holder locks.
const LOCK_FILE: &str = "lock";
/// Directory of the index.
const INDEX: &str = "index";
/// Where a broken index is moved; the next one to break replaces it.
const BROKEN_INDEX: &str = "index.broken";
/// Longest `version` file that is read, in bytes.
const MAX_VERSION_BYTES: u64 = 64;
/// Largest journal that is read, in bytes: some eight million links. Bounds memory when the file is not ours.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;
/// A journal smaller than this is not worth compacting, in bytes.
const MIN_COMPACTION_BYTES: u64 = 256 << 10;

/// How a store is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Whether the repository is made when there is none.
    pub create: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { create: true }
    }
}

/// Sizes that only tests change.
#[derive(Clone, Debug)]
pub(crate) struct OpenOptions {
    /// Bytes of journal below which it is left as it is.
    pub(crate) compact_at: u64,
    /// A longer journal is compacted at open when it is more than so many times as long as what is still true in it.
    pub(crate) compact_ratio: u64,
    /// Bytes of a pack that gets no more blocks.
    pub(crate) pack_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { compact_at: MIN_COMPACTION_BYTES, compact_ratio: 2, pack_bytes: packs::PACK_BYTES }
    }
}

/// How the index is opened, and thrown away when it is broken.
pub(crate) trait IndexHome: Send + Sync + Debug {
    /// Opens what is there, or an empty one.
    fn open(&self) -> Result<Arc<dyn Index>, IndexError>;
    /// Moves what is there out of the way.
    fn move_aside(&self) -> io::Result<()>;
}

#[derive(Debug)]
struct SledHome(PathBuf);

impl IndexHome for SledHome {
    fn open(&self) -> Result<Arc<dyn Index>, IndexError> {
        Ok(Arc::new(SledIndex::open(&self.0.join(INDEX))?))
    }

    fn move_aside(&self) -> io::Result<()> {
        let (from, to) = (self.0.join(INDEX), self.0.join(BROKEN_INDEX));
        let removed = match fs::symlink_metadata(&to) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&to),
            Ok(_) => fs::remove_file(&to),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Opens a repository, and makes it when there is none. Whatever an unclean stop left is put in order; an index that
    /// is lost or broken is rebuilt.
    ///
    /// # Errors
    /// [`OpenError`]; the repository is as it was.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let fail = |source: io::Error| refused(root, source);
        if options.create {
            // What is stored is nobody else's business.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(fail)?;
        }
        let held = File::options()
            .write(true)
            .create(options.create)
            .truncate(false)
            .open(root.join(LOCK_FILE))
            .map_err(fail)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held { path: root.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        let home = Box::new(SledHome(root.to_path_buf()));
        Self::open_on(root, Arc::new(RealDisk::new(root)), home, Some(held), OpenOptions::default())
    }

    /// Opens a repository on any disk, with any index.
    pub(crate) fn open_on(
        root: &Path,
        disk: Arc<dyn Disk>,
        home: Box<dyn IndexHome>,
        held: Option<File>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let fail = |source: io::Error| refused(root, source);
        check_version(root, &*disk)?;
        for directory in [files::DIRECTORY, PARTIAL, packs::DIRECTORY, journal::DIRECTORY] {
            disk.create_dir(directory).map_err(fail)?;
        }
        sweep_leftovers(&*disk).map_err(fail)?;
        let (journal, decoded) = open_journal(root, &*disk)?;
        let mut facts = Facts::default();
        for (_, record) in &decoded.records {
            facts.apply(record);
        }
        let packs = Packs::resume(disk.clone(), facts.packed, options.pack_bytes).map_err(fail)?;
        let tail = packs.tail();
        let position = journal.position();
        let now = State { journal: position, packs: tail };
        let built = rebuild::ready(&*disk, &*home, &facts, &decoded, now);
        let is_full = built.as_ref().is_err_and(IndexError::is_full);
        let (built, home) = if is_full && stopgap::fits(&facts) && home.move_aside().is_ok() {
            tracing::warn!("the disk is full: the block index is kept in memory, and built anew once there is room");
            let home: Box<dyn IndexHome> = Box::new(StopgapHome::default());
            (rebuild::ready(&*disk, &*home, &facts, &decoded, now), home)
        } else {
            (built, home)
        };
        let index = built.map_err(|source| {
            let path = root.to_path_buf();
            if source.is_full() { OpenError::Full { path } } else { OpenError::Index { path, source } }
        })?;
        let inner = Inner {
            root: root.to_path_buf(),
            packs: Mutex::new(packs),
            disk,
            options,
            checking: Mutex::new(()),
            gate: RwLock::new(()),
            leases: Mutex::new(Leases::default()),
            naming: Mutex::new(()),
            journal: Mutex::new(journal),
            pending: RwLock::new(Pending::default()),
            facts: RwLock::new(facts),
            index: RwLock::new(index),
            broken: AtomicU8::new(0),
            unchecked: AtomicU64::new(u64::MAX / 2),
            home,
            handles: Handles::default(),
            poisoned: AtomicBool::new(false),
            next_stage: AtomicU64::new(1),
            _lock: held,
        };
        // What is full is not made longer, were it to get shorter after that.
        let compacted = if is_full { Ok(()) } else { inner.compact() };
        compacted.map_err(|error| match error {
            StoreError::Full { .. } => OpenError::Full { path: root.to_path_buf() },
            StoreError::Io { source, .. } => fail(source),
            error => fail(io::Error::other(error)),
        })?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// Replaces a journal most of which no longer holds by one that says only what is still true.
    pub(crate) fn compact(&self) -> Result<(), StoreError> {
        let mut journal = lock(&self.journal);
        self.check_poisoned()?;
        let old = journal.position();
        let live = {
            let pending = read(&self.pending);
            // What is not in the journal yet must not get into it this way.
            if !pending.current.links.is_empty() || !pending.frozen.is_empty() {
                return Ok(());
            }
            read(&self.facts).records()
        };
        let least = journal::encode_journal(Some(old), &live).len() as u64;
        if old.length < self.options.compact_at || old.length <= self.options.compact_ratio * least {
            return Ok(());
        }
        // The index must be at the position that the new journal stands for.
        let index = self.index_in_commit(&journal)?;
        index.flush().map_err(|error| self.index_failed(error))?;
        *journal = Journal::create(&*self.disk, Some(old), &live).doing(|| "compact the journal".into())?;
        self.disk.unlink(&journal::path(old.journal)).doing(|| "remove the old journal".into())?;
        let state = State { journal: journal.position(), packs: read(&self.facts).packed };
        index.set_state(state).map_err(|error| self.index_failed(error))
    }
}

/// Makes or checks the version file.
fn check_version(root: &Path, disk: &dyn Disk) -> Result<(), OpenError> {
    let fail = |source: io::Error| refused(root, source);
    match disk.open(VERSION_FILE, Mode::Read) {
        Ok(file) => {
            let length = file.stat().map_err(fail)?.size.min(MAX_VERSION_BYTES);
            let bytes = file.read(0, usize::try_from(length).unwrap_or(0)).map_err(fail)?;
            let found = String::from_utf8_lossy(&bytes).trim().to_owned();
            if found == LAYOUT_VERSION.to_string() {
                return Ok(());
            }
            Err(OpenError::UnknownVersion { path: root.to_path_buf(), found, known: LAYOUT_VERSION })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let written = disk.open(VERSION_TEMPORARY, Mode::Truncate).and_then(|file| {
                file.write(0, format!("{LAYOUT_VERSION}\n").as_bytes())?;
                file.sync()?;
                disk.rename(VERSION_TEMPORARY, VERSION_FILE)?;
                disk.sync_dir("")
            });
            written.map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

/// Removes files that were being added, and journals that never got their name.
fn sweep_leftovers(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.list(PARTIAL)?.iter().filter(|name| name.starts_with(STAGE_PREFIX)) {
        disk.unlink(&format!("{PARTIAL}/{name}"))?;
    }
    for name in disk.list(journal::DIRECTORY)?.iter().filter(|name| name.ends_with(".tmp")) {
        disk.unlink(&format!("{}/{name}", journal::DIRECTORY))?;
    }
    Ok(())
}

/// Reads the newest journal, or begins the first one, and removes those it replaces.
fn open_journal(root: &Path, disk: &dyn Disk) -> Result<(Journal, Decoded), OpenError> {
    let fail = |source: io::Error| refused(root, source);
    let numbers = numbers::<u64>(&disk.list(journal::DIRECTORY).map_err(fail)?);
    let Some(&number) = numbers.last() else {
        let journal = Journal::create(disk, None, &[]).map_err(fail)?;
        return Ok((journal, Decoded::default()));
    };
    let file = disk.open(&journal::path(number), Mode::Read).map_err(fail)?;
    let size = file.stat().map_err(fail)?.size;
    let bytes = match usize::try_from(size) {
        Ok(length) if size <= MAX_JOURNAL_BYTES => file.read(0, length).map_err(fail)?,
        _ => return Err(fail(io::ErrorKind::FileTooLarge.into())),
    };
    let decoded = journal::decode_records(&bytes).map_err(|source| OpenError::Journal {
        path: root.to_path_buf(),
        number,
        source,
    })?;
    let journal = Journal::resume(disk, number, &bytes, &decoded).map_err(fail)?;
    // Its name must be durable before it is written to, and before those that it replaces go.
    disk.sync_dir(journal::DIRECTORY).map_err(fail)?;
    for old in &numbers[..numbers.len() - 1] {
        disk.unlink(&journal::path(*old)).map_err(fail)?;
    }
    Ok((journal, decoded))
}

/// The names that are numbers, in order.
pub(crate) fn numbers<N: std::str::FromStr + Ord>(names: &[String]) -> Vec<N> {
    let mut numbers: Vec<N> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort();
    numbers
}

fn refused(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => OpenError::ReadOnly { path, source },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::Full { path },
        _ => OpenError::Io { path, source },
    }
}
