//! Hashing everything, and putting right what can be.
//!
//! Imports its siblings and the walk of `pin`. It never throws bytes away: what is wrong goes to `quarantine/`.

use super::files::{QUARANTINE, blob_path, hash};
use super::guard::{read, write};
use super::index::{Location, hash_bytes};
use super::open::numbers;
use super::rebuild::{Placed, place_leaves};
use super::record::Link;
use super::{Inner, Store, StoreError, error::Doing as _, packs};
use crate::block::{Block, Cid};
use crate::pin::walk::{Live, Need};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadFile {
    /// The digest that is its name.
    pub digest: [u8; 32],
    /// Every CID it is linked under.
    pub cids: Vec<Cid>,
    /// Whether it is gone altogether.
    pub missing: bool,
}

/// Something that is kept and not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// Name of the keep, or CID of the pin.
    pub name: String,
    /// The DAG that is not whole: the root, or a member.
    pub root: Cid,
    /// The first block found to be missing or undecodable.
    pub block: Cid,
}

/// What verification found. It repaired what the store can know by itself; blocks that are lost must be fetched again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files hashed.
    pub files: u64,
    /// Blocks in packs hashed.
    pub blocks: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Files that are wrong or gone. Repair moves them to quarantine and unlinks them.
    pub bad_files: Vec<BadFile>,
    /// Blocks in packs that are not what their CID says. Repair drops them.
    pub bad_blocks: Vec<Cid>,
    /// Packs with stretches that hold no readable block. Repair moves them to quarantine, once their blocks are copied.
    pub damaged_packs: Vec<u32>,
    /// Rows of the index that were missing, wrong, or led nowhere. Repair puts them right.
    pub wrong_rows: u64,
    /// What is kept and not whole, after the repair if there was one.
    pub broken: Vec<Broken>,
}

impl VerifyReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.bad_files.is_empty()
            && self.bad_blocks.is_empty()
            && self.damaged_packs.is_empty()
            && self.wrong_rows == 0
            && self.broken.is_empty()
    }
}

impl Store {
    /// Hashes every file and every block in packs, checks the rows of the index, and whether what is kept is whole.
    /// Others go on meanwhile. `progress` is called with the bytes hashed so far; it must not block.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; what is merely wrong is in the report.
    pub fn verify(&self, repair: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<VerifyReport, StoreError> {
        let inner = &*self.inner;
        inner.commit_with(&[])?;
        let mut report = VerifyReport::default();
        inner.verify_files(repair, progress, &mut report)?;
        inner.verify_packs(repair, progress, &mut report)?;
        inner.verify_rows(repair, &mut report)?;
        inner.verify_kept(&mut report)?;
        if !report.broken.is_empty() {
            // Perhaps it is only the index that lost sight of a block.
            inner.index_again()?;
            report.broken.clear();
            inner.verify_kept(&mut report)?;
        }
        Ok(report)
    }
}

impl Inner {
    fn verify_files(
        &self,
        repair: bool,
        progress: &(dyn Fn(u64) + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let mut files: BTreeMap<[u8; 32], Vec<Arc<Link>>> = BTreeMap::new();
        for link in read(&self.facts).links.values() {
            files.entry(link.digest).or_default().push(link.clone());
        }
        for (digest, links) in files {
            let path = blob_path(&digest);
            let found = match self.disk.open(&path, super::disk::Mode::Read) {
                Ok(file) => {
                    let size = file.stat().doing(|| format!("look at `{path}`"))?.size;
                    let before = report.bytes;
                    let digest = hash(&*file, size, &mut |bytes| progress(before + bytes));
                    report.bytes += size;
                    Some(digest.doing(|| format!("hash `{path}`"))?)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(StoreError::io(format!("open `{path}`"), error)),
            };
            report.files += 1;
            // A collection may have removed it meanwhile.
            if found == Some(digest) || read(&self.facts).by_digest(&digest).is_empty() {
                continue;
            }
            let cids = links.iter().map(|link| link.cid).collect();
            report.bad_files.push(BadFile { digest, cids, missing: found.is_none() });
            if repair {
                self.quarantine(&digest)?;
            }
        }
        Ok(())
    }

    /// Bytes of a pack that were synced and committed: all of one that gets no more blocks.
    pub(crate) fn promised(&self, pack: u32, length: usize) -> u64 {
        let packed = read(&self.facts).packed;
        match pack.cmp(&packed.pack) {
            Ordering::Less => length as u64,
            Ordering::Equal => packed.length,
            Ordering::Greater => 0,
        }
    }

    fn verify_packs(
        &self,
        repair: bool,
        progress: &(dyn Fn(u64) + Sync),
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let names = self.disk.list(packs::DIRECTORY).doing(|| "list the packs".into())?;
        for pack in numbers::<u32>(&names) {
            let bytes = match packs::read(&*self.disk, pack) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.doing(|| format!("read pack {pack}"))?,
            };
            let scanned = packs::scan_promised(&bytes, self.promised(pack, bytes.len()));
            let mut bad = Vec::new();
            for packed in &scanned.blocks {
                let data = Bytes::copy_from_slice(&bytes[packed.data.clone()]);
                if Block::verify(packed.cid, data).is_err() {
                    bad.push(packed.cid);
                }
            }
            report.blocks += scanned.blocks.len() as u64;
            report.bytes += bytes.len() as u64;
            progress(report.bytes);
            // Behind the last block of the pack that is being written there may be half of the next one.
            if !scanned.damaged.is_empty() {
                report.damaged_packs.push(pack);
            }
            if repair && !(bad.is_empty() && scanned.damaged.is_empty()) {
                let _gate = write(&self.gate);
                self.commit_with(&[])?;
                self.rewrite_pack(pack)?;
                let (from, to) = (packs::path(pack), format!("{QUARANTINE}/pack-{pack}"));
                let moved = self.disk.create_dir(QUARANTINE).and_then(|()| self.disk.rename(&from, &to));
                moved.doing(|| format!("move `{from}` to `{to}`"))?;
            }
            report.bad_blocks.extend(bad);
        }
        Ok(())
    }

    /// Compares the rows of files with what their nodes say, and looks where the rows of packs lead.
    fn verify_rows(&self, repair: bool, report: &mut VerifyReport) -> Result<(), StoreError> {
        // Rows of blocks that come and go meanwhile would look wrong.
        let _gate = write(&self.gate);
        self.commit_with(&[])?;
        let links: Vec<Arc<Link>> = read(&self.facts).links.values().cloned().collect();
        for link in links {
            let mut wanted = Vec::new();
            let mut node = |cid: &Cid| {
                let bytes = self.read_committed_block(&hash_bytes(cid.hash()))?;
                Ok::<_, StoreError>(bytes.and_then(|bytes| Block::verify(*cid, bytes).ok()))
            };
            place_leaves(&link, &mut node, &mut |placed| {
                if let Placed::Leaf { cid, offset, length } = placed {
                    wanted.push((hash_bytes(cid.hash()), Location::File { link: link.id, offset, length }));
                }
            })?;
            self.verify_leaves(&link, &wanted, repair, report)?;
        }
        let mut lost = Vec::new();
        let mut ends = BTreeMap::new();
        let index = self.index()?;
        let mut each = |key: &[u8], value: &[u8]| {
            let Some((_, Location::Pack { pack, offset, length })) = Location::decode(key, value) else { return true };
            let end = *ends
                .entry(pack)
                .or_insert_with(|| self.disk.stat(&packs::path(pack)).ok().flatten().map_or(0, |stat| stat.size));
            if u64::from(offset) + u64::from(length) > end {
                lost.push(key.to_vec());
            }
            true
        };
        index.for_each(&[], &mut each).map_err(|error| self.index_failed(error))?;
        report.wrong_rows += lost.len() as u64;
        if repair {
            let removed = lost.iter().try_for_each(|key| index.remove(key)).and_then(|()| index.flush());
            removed.map_err(|error| self.index_failed(error))?;
        }
        Ok(())
    }

    /// A chunk that a file holds several times has one row, which may point at any of them.
    fn verify_leaves(
        &self,
        link: &Link,
        wanted: &[(Vec<u8>, Location)],
        repair: bool,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let index = self.index()?;
        let all: HashSet<(&[u8], Box<[u8]>)> =
            wanted.iter().map(|(hash, location)| (&**hash, Box::from(location.value()))).collect();
        for (hash, location) in wanted {
            let rows = index.locations(hash).map_err(|error| self.index_failed(error))?;
            let mine = rows.iter().find(|row| matches!(row, Location::File { link: id, .. } if *id == link.id));
            if mine.is_some_and(|mine| all.contains(&(&**hash, Box::from(mine.value())))) {
                continue;
            }
            report.wrong_rows += 1;
            if repair {
                index.insert(&location.key(hash), &location.value()).map_err(|error| self.index_failed(error))?;
            }
        }
        Ok(())
    }

    fn verify_kept(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let kept: Vec<(String, Cid)> = {
            let facts = read(&self.facts);
            let pins = facts.pins.keys().map(|cid| (cid.to_string(), *cid));
            let keeps =
                facts.keeps.values().filter(|keep| !keep.incomplete).flat_map(|keep| {
                    std::iter::once(&keep.root).chain(&keep.members).map(|cid| (keep.name.clone(), *cid))
                });
            pins.chain(keeps).collect()
        };
        for (name, root) in kept {
            match Live::default().walk(self, &root, Need::Whole) {
                Ok(()) => {}
                Err(StoreError::Incomplete { missing: block, .. } | StoreError::Undecodable { block, .. }) => {
                    report.broken.push(Broken { name, root, block: *block });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
