//! A few open files, so that serving a block does not open one.
//!
//! Imports the `Disk` seam. It never checks what a file holds.

use super::disk::{Disk, DiskFile, Mode};
use super::guard::lock;
use super::{files, packs};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Most files kept open: a few images' layers, far from the usual limit of 1024 descriptors.
const MAX_HANDLES: usize = 64;

/// What a handle is open on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Blob([u8; 32]),
    Pack(u32),
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<Target, (Arc<dyn DiskFile>, u64)>,
    clock: u64,
}

/// Open files, the least recently used of which are closed.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Open>);

impl Handles {
    /// The open file, opened when it is not.
    pub(crate) fn get(&self, disk: &dyn Disk, target: Target) -> io::Result<Arc<dyn DiskFile>> {
        {
            let mut open = lock(&self.0);
            open.clock += 1;
            let clock = open.clock;
            if let Some((file, used)) = open.files.get_mut(&target) {
                *used = clock;
                return Ok(file.clone());
            }
        }
        let path = match target {
            Target::Blob(digest) => files::blob_path(&digest),
            Target::Pack(number) => packs::path(number),
        };
        let file = disk.open(&path, Mode::Read)?;
        let mut open = lock(&self.0);
        if open.files.len() >= MAX_HANDLES {
            let oldest = open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(target, _)| *target);
            if let Some(oldest) = oldest {
                open.files.remove(&oldest);
            }
        }
        let clock = open.clock;
        open.files.insert(target, (file.clone(), clock));
        Ok(file)
    }

    /// Closes a file that was moved, replaced or removed.
    pub(crate) fn forget(&self, target: Target) {
        lock(&self.0).files.remove(&target);
    }
}
