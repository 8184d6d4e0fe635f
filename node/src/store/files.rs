//! Complete files: adding one, linking one that already lies there, and finding one.
//!
//! Imports its siblings and the results of `dag`. It never reads a file that it wrote, unless its size or time changed.

use super::disk::{DiskFile, Mode, Stat};
use super::guard::{lock, read, write};
use super::handles::Target;
use super::index::{Location, hash_bytes};
use super::pending::Rows;
use super::record::{Link, Record};
use super::{Inner, Store, StoreError, error::Doing as _};
use crate::block::Cid;
use crate::dag::{Hashed, Leaf, Tree};
use crate::pin::Lease;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

/// Directory of the complete files.
pub(crate) const DIRECTORY: &str = "blobs/sha256";
/// Directory of the files being written.
pub(crate) const PARTIAL: &str = "partial";
/// Directory of the files that turned out wrong.
pub(crate) const QUARANTINE: &str = "quarantine";
/// What the name of a file being added begins with, in [`PARTIAL`].
pub(crate) const STAGE_PREFIX: &str = "stage-";
/// Bytes read at a time when a file is hashed.
const READ_BYTES: usize = 1 << 20;

/// A complete file in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// The file CID.
    pub cid: Cid,
    /// SHA-256 of the whole file.
    pub digest: [u8; 32],
    /// Length in bytes.
    pub size: u64,
    /// Bytes of the whole DAG, nodes included (`Tsize` of a link to it), as far as known.
    pub cumulative: Option<u64>,
    /// Where it lies. Read only: what changes it takes it out of the store.
    pub path: PathBuf,
}

/// Path of the blob with this digest.
pub(crate) fn blob_path(digest: &[u8; 32]) -> String {
    format!("{DIRECTORY}/{}", hex(digest))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

impl Store {
    /// The complete file of a CID. One that changed behind the store's back is hashed first, and is no file of the store
    /// any more when it is wrong.
    pub fn file(&self, cid: &Cid) -> Option<FileInfo> {
        let link = read(&self.inner.facts).by_cid(cid)?;
        self.inner.intact(&link)
    }

    /// Every complete file with this digest: the same bytes, once for each CID they are known under.
    pub fn file_by_digest(&self, digest: &[u8; 32]) -> Vec<FileInfo> {
        let links = read(&self.inner.facts).by_digest(digest);
        links.iter().filter_map(|link| self.inner.intact(link)).collect()
    }

    /// Begins a new file. Dropping it removes what was written.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be made.
    pub fn stage(&self) -> Result<Staged, StoreError> {
        self.inner.check_poisoned()?;
        let number = self.inner.next_stage.fetch_add(1, Ordering::Relaxed);
        let path = format!("{PARTIAL}/{STAGE_PREFIX}{number}");
        let file = self.inner.disk.open(&path, Mode::Truncate).doing(|| format!("make `{path}`"))?;
        Ok(Staged { inner: self.inner.clone(), file, path: Some(path), _lease: self.inner.lease() })
    }

    /// Links and indexes a blob that already lies in `blobs/sha256/`: writes nothing but rows and nodes. The caller has
    /// just hashed it.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] when there is no such blob of that size.
    pub fn index_file(&self, hashed: &Hashed, tree: &Tree) -> Result<FileInfo, StoreError> {
        let path = blob_path(&hashed.digest);
        let _gate = read(&self.inner.gate);
        let stat = self.inner.disk.stat(&path).doing(|| format!("look at `{path}`"))?;
        match stat {
            Some(stat) if stat.size == hashed.size => self.inner.link_tree(hashed, tree, stat),
            stat => {
                let found = stat.map_or(0, |stat| stat.size);
                Err(StoreError::WrongSize { subject: path, expected: hashed.size, found })
            }
        }
    }
}

/// A file that is being added. Its bytes are written at their offsets, from any thread.
#[derive(Debug)]
pub struct Staged {
    inner: Arc<Inner>,
    file: Arc<dyn DiskFile>,
    /// Gone once the file has its final name.
    path: Option<String>,
    _lease: Lease,
}

impl Staged {
    /// Writes bytes at an offset.
    ///
    /// # Errors
    /// [`StoreError`] when the disk refuses; the file is removed when this is dropped.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.check_space(bytes.len(), "a file that is being added")?;
        self.file.write(offset, bytes).doing(|| "write a file that is being added".into())
    }

    /// Asks for the range to be written out soon, so that [`Staged::finish`] waits for less. Each range once.
    pub fn start_writeback(&self, range: Range<u64>) {
        self.file.start_writeback(range);
    }

    /// Syncs the file, names it by its digest, and puts the nodes of its tree. When a blob of this digest is in the store
    /// already, what was written is dropped and that one is linked. Durable, and in the journal, at the next commit.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] when the bytes written are not those that were hashed; what was written is removed on any
    /// error.
    pub fn finish(mut self, hashed: &Hashed, tree: &Tree) -> Result<FileInfo, StoreError> {
        let found = self.file.stat().doing(|| "look at a file that is being added".into())?.size;
        if found != hashed.size {
            let subject = "a file that is being added".to_owned();
            return Err(StoreError::WrongSize { subject, expected: hashed.size, found });
        }
        let inner = self.inner.clone();
        let path = self.path.as_ref().expect("the path is taken by this function only, which consumes the value");
        let synced = inner.sync_blob(&*self.file, path, &hashed.digest)?;
        let _gate = read(&inner.gate);
        let named = inner.name_blob(&*self.file, path, &hashed.digest, synced)?;
        if named.moved {
            self.path = None;
        }
        inner.link_tree(hashed, tree, named.stat)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // What cannot be removed now is removed at the next open.
            let _ = self.inner.disk.unlink(&path);
        }
    }
}

/// A blob that has its final name.
pub(crate) struct Named<'a> {
    pub(crate) stat: Stat,
    /// Whether the file that was to be named is that blob now.
    pub(crate) moved: bool,
    _naming: MutexGuard<'a, ()>,
}

impl Inner {
    /// Size and time of a blob that is linked and unchanged.
    pub(crate) fn intact_blob(&self, digest: &[u8; 32]) -> Option<Stat> {
        let links = read(&self.facts).by_digest(digest);
        let link = links.first()?;
        self.open_blob(link).ok()??.stat().ok()
    }

    /// Syncs a file that is to be named, unless the same blob is in the store already; says whether it did. Takes its time,
    /// so it is done before anything is locked.
    pub(crate) fn sync_blob(&self, file: &dyn DiskFile, path: &str, digest: &[u8; 32]) -> Result<bool, StoreError> {
        if self.intact_blob(digest).is_some() {
            return Ok(false);
        }
        file.sync().map(|()| true).map_err(|error| {
            // Pages may be gone that the kernel will not write again, and a later sync would succeed without them.
            let _ = self.disk.unlink(path);
            StoreError::io(format!("sync `{path}`"), error)
        })
    }

    /// Gives a file its final name, unless the same blob is in the store already. The result must live until the blob is
    /// linked, so that two files of one digest become one.
    pub(crate) fn name_blob(
        &self,
        file: &dyn DiskFile,
        path: &str,
        digest: &[u8; 32],
        synced: bool,
    ) -> Result<Named<'_>, StoreError> {
        let naming = lock(&self.naming);
        if let Some(stat) = self.intact_blob(digest) {
            return Ok(Named { stat, moved: false, _naming: naming });
        }
        // The blob that was there a moment ago is gone.
        if !synced {
            file.sync().doing(|| format!("sync `{path}`"))?;
        }
        let stat = file.stat().doing(|| format!("look at `{path}`"))?;
        let to = blob_path(digest);
        self.disk.rename(path, &to).doing(|| format!("rename `{path}` to `{to}`"))?;
        self.handles.forget(Target::Blob(*digest));
        Ok(Named { stat, moved: true, _naming: naming })
    }

    /// Links a blob to the tree that was built over it.
    fn link_tree(&self, hashed: &Hashed, tree: &Tree, stat: Stat) -> Result<FileInfo, StoreError> {
        for node in &tree.nodes {
            self.put(node)?;
        }
        let id = write(&self.facts).take_id();
        let link = Link {
            id,
            cid: tree.root,
            digest: hashed.digest,
            size: hashed.size,
            cumulative: Some(tree.cumulative),
            mtime: stat.mtime,
        };
        let rows = rows_of(id, &hashed.leaves);
        Ok(self.add_link(link, || rows))
    }

    /// Adds a link and its rows to what the next commit publishes.
    pub(crate) fn add_link(&self, link: Link, rows: impl FnOnce() -> Rows) -> FileInfo {
        let info = self.info(&link);
        let mut pending = write(&self.pending);
        let known = read(&self.facts).by_cid(&link.cid).filter(|known| known.digest == link.digest);
        // Known already: all that may be new is the time, when another file took the place of the first.
        let id = known.as_ref().map_or(link.id, |known| known.id);
        lock(&self.leases).saw_link(id);
        pending.current.links.push(id);
        pending.current.renamed = true;
        pending.current.bytes += link.size;
        write(&self.facts).apply(&Record::Link(Link { id, ..link }));
        if known.is_some() {
            return info;
        }
        // Under the lock, so that no reader finds them gone from where they were and not yet here.
        pending.current.rows.append(rows());
        info
    }

    pub(crate) fn info(&self, link: &Link) -> FileInfo {
        FileInfo {
            cid: link.cid,
            digest: link.digest,
            size: link.size,
            cumulative: link.cumulative,
            path: self.root.join(blob_path(&link.digest)),
        }
    }

    fn intact(&self, link: &Link) -> Option<FileInfo> {
        self.open_blob(link).ok().flatten().map(|_| self.info(link))
    }

    /// Opens the blob of a link, once it is known to be the one that was linked: when its size or time changed, it is
    /// hashed first. `None` when it is gone or wrong; it is unlinked then.
    pub(crate) fn open_blob(&self, link: &Link) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let target = Target::Blob(link.digest);
        match self.handles.get(&*self.disk, target) {
            Ok(file) => {
                let stat = file.stat().doing(|| "look at a blob".into())?;
                if (stat.size, stat.mtime) == (link.size, link.mtime) {
                    return Ok(Some(file));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open a blob", error)),
        }
        self.handles.forget(target);
        self.check_changed(link)
    }

    /// Decides about a blob that is not as it was recorded.
    fn check_changed(&self, link: &Link) -> Result<Option<Arc<dyn DiskFile>>, StoreError> {
        let _one_at_a_time = lock(&self.checking);
        let target = Target::Blob(link.digest);
        // Another thread may have decided while this one waited.
        let Some(link) = read(&self.facts).links.get(&link.id).cloned() else { return Ok(None) };
        let file = match self.handles.get(&*self.disk, target) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(digest = hex(&link.digest), "a blob is gone");
                self.unlink_digest(&link.digest)?;
                return Ok(None);
            }
            Err(error) => return Err(StoreError::io("open a blob", error)),
        };
        let stat = file.stat().doing(|| "look at a blob".into())?;
        if (stat.size, stat.mtime) == (link.size, link.mtime) {
            return Ok(Some(file));
        }
        let digest = if stat.size == link.size {
            Some(hash(&*file, stat.size, &mut |_| ()).doing(|| "hash a blob".into())?)
        } else {
            None
        };
        if digest == Some(link.digest) {
            let mut pending = write(&self.pending);
            let mut facts = write(&self.facts);
            for link in facts.by_digest(&link.digest) {
                facts.apply(&Record::Link(Link { mtime: stat.mtime, ..(*link).clone() }));
                pending.current.links.push(link.id);
            }
            return Ok(Some(file));
        }
        self.quarantine(&link.digest)?;
        Ok(None)
    }

    /// Moves a wrong blob out of the way and unlinks it, so that it can be fetched anew.
    pub(crate) fn quarantine(&self, digest: &[u8; 32]) -> Result<(), StoreError> {
        self.handles.forget(Target::Blob(*digest));
        tracing::warn!(digest = hex(digest), "a blob is not what its name says; it is moved to quarantine");
        let from = blob_path(digest);
        let to = format!("{QUARANTINE}/{}", hex(digest));
        let moved = self.disk.create_dir(QUARANTINE).and_then(|()| self.disk.rename(&from, &to));
        // Whatever becomes of the file, it is served no more.
        self.unlink_digest(digest)?;
        moved.doing(|| format!("move `{from}` to `{to}`"))
    }

    fn unlink_digest(&self, digest: &[u8; 32]) -> Result<(), StoreError> {
        let links = read(&self.facts).by_digest(digest);
        let records: Vec<_> = links.iter().map(|link| Record::Unlink(link.id)).collect();
        {
            let mut facts = write(&self.facts);
            records.iter().for_each(|record| facts.apply(record));
        }
        self.commit_with(&records)
    }
}

/// The rows of a file whose leaves lie one behind the other.
fn rows_of(id: u32, leaves: &[Leaf]) -> Rows {
    let mut offset = 0;
    let mut rows = Rows::default();
    for leaf in leaves {
        // `Block` bounds a leaf to far less than u32.
        let length = u32::try_from(leaf.size).unwrap_or(u32::MAX);
        rows.insert(&hash_bytes(leaf.cid.hash()), Location::File { link: id, offset, length });
        offset += leaf.size;
    }
    rows
}

/// SHA-256 of the first `size` bytes of a file.
pub(crate) fn hash(file: &dyn DiskFile, size: u64, progress: &mut dyn FnMut(u64)) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(READ_BYTES);
        hasher.update(file.read(offset, length)?);
        offset += length as u64;
        progress(offset);
    }
    Ok(hasher.finalize().into())
}
