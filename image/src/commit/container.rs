//! What a container changed: packed on a thread of its own, while the container stands still.
//!
//! Imports [`run`](crate::run), which knows where it lies, and the writer of layers.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::CommitError;
use crate::{
    layer::{
        Changes, Limits, Written,
        write::{IdRange, Owners, Packed, PackedReader, packer},
        write_layer,
    },
    oci::media::Compression,
    run::{RunError, keeper::Keeper, overlay, pause::Paused, settings::RootWay, state::Container},
};

/// Largest bundle that is read.
const MAX_BUNDLE_BYTES: u64 = 8 << 20;

/// A container whose changes are wanted.
pub(super) struct Changed {
    repository: PathBuf,
    container: Container,
    pause: bool,
}

/// What is read of what the runtime was told.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    size: u32,
}

impl Changed {
    pub(super) fn new(repository: &Path, container: Container, pause: bool) -> Self {
        Self { repository: repository.to_owned(), container, pause }
    }

    /// The work to be done on one thread, and what is to be read on another. `None` for a compression that is not written.
    #[expect(clippy::type_complexity, reason = "two ends of one thing, taken apart at once")]
    pub(super) fn pack(
        self,
        compression: Compression,
    ) -> Option<(impl FnOnce() -> Result<(Packed, Written), CommitError> + Send + 'static, PackedReader)> {
        let (mut packing, reader) = packer(compression)?;
        let work = move || {
            let limits = Limits::default();
            // Elsewhere the changes are not told apart from the image, or not all of them can be read from here.
            let is_overlay = self.container.state()?.root.is_none_or(|way| way == RootWay::Overlay);
            if !is_overlay || !rustix::process::geteuid().is_root() {
                return Err(CommitError::Unreadable { id: self.container.short() });
            }
            let _paused = if self.pause { Paused::new(&self.container)? } else { None };
            let path = self.container.directory.join(overlay::UPPER);
            let failed = |source| RunError::State { path: path.clone(), source };
            let upper = File::open(&path).map_err(failed)?;
            let layers = self.container.image()?.layers;
            let keeper = Keeper::of(&self.repository, None);
            let all = keeper.layers();
            let open = |chain: &String| File::open(all.tree(chain)).map(OwnedFd::from);
            let lowers: Vec<_> = layers.iter().rev().map(open).collect::<Result<_, _>>().map_err(failed)?;
            let (mounts, owners) = self.bundle()?;
            let changes =
                Changes { upper: upper.as_fd(), lowers: &lowers, mounts: &mounts, owners: &owners, limits: &limits };
            let written = write_layer(&changes, &mut packing)?;
            // Removing a container begins with taking it out of sight: then not all of it may have been there to be read.
            let inode = upper.metadata().map_err(failed)?.ino();
            if std::fs::metadata(&path).map_err(failed)?.ino() != inode {
                return Err(RunError::UnknownContainer { text: self.container.short() }.into());
            }
            Ok((packing.finish(&limits)?, written))
        };
        Some((work, reader))
    }

    /// Where something is mounted inside, and how owners are called there.
    fn bundle(&self) -> Result<(BTreeSet<Vec<u8>>, Owners), RunError> {
        let path = self.container.directory.join("config.json");
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(MAX_BUNDLE_BYTES).read_to_end(&mut bytes)?;
            Ok(serde_json::from_slice::<Bundle>(&bytes)?)
        };
        let bundle = read().map_err(|source| RunError::State { path: path.clone(), source })?;
        let ranges = |mappings: Vec<Mapping>| {
            let range = |Mapping { inside, outside, size }| IdRange { inside, outside, count: size };
            mappings.into_iter().map(range).collect()
        };
        let owners = Owners { users: ranges(bundle.linux.uid_mappings), groups: ranges(bundle.linux.gid_mappings) };
        Ok((bundle.mounts.into_iter().map(|mount| mount.destination.into_bytes()).collect(), owners))
    }
}
