//! What the store takes up.
//!
//! Imports its siblings. It never walks a DAG.

use super::files::PARTIAL;
use super::guard::read;
use super::{Store, StoreError, error::Doing as _, packs};
use std::collections::HashMap;

/// What the store takes up, in files and bytes. Sparse files count as long as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Complete files.
    pub files: u64,
    /// Bytes of complete files, each counted once however many CIDs it has.
    pub file_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of packs.
    pub pack_bytes: u64,
    /// Files being received or added, and those whose transfer stopped.
    pub partial_files: u64,
    /// Bytes of them.
    pub partial_bytes: u64,
}

impl Store {
    /// What the store takes up.
    ///
    /// # Errors
    /// What the disk says.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let sizes: HashMap<[u8; 32], u64> =
            read(&self.inner.facts).links.values().map(|link| (link.digest, link.size)).collect();
        let (packs, pack_bytes) = self.measure(packs::DIRECTORY)?;
        let (partial_files, partial_bytes) = self.measure(PARTIAL)?;
        let file_bytes = sizes.values().sum();
        Ok(Usage { files: sizes.len() as u64, file_bytes, packs, pack_bytes, partial_files, partial_bytes })
    }

    fn measure(&self, directory: &str) -> Result<(u64, u64), StoreError> {
        let disk = &self.inner.disk;
        let (mut files, mut bytes) = (0, 0);
        for name in disk.list(directory).doing(|| format!("list `{directory}`"))? {
            // It may be gone by now.
            if let Some(stat) = disk.stat(&format!("{directory}/{name}")).doing(|| format!("look at `{name}`"))? {
                files += 1;
                bytes += stat.size;
            }
        }
        Ok((files, bytes))
    }
}
