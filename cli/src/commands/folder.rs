//! A folder for the time that a verb takes.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use shipfs_image::control::{Failure, FailureKind};

/// A folder for one verb, in the repository, that nobody else looks into; removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it, empty.
    pub(super) fn new(repository: &Path, verb: &str) -> Result<Self, Failure> {
        let path = repository.join(format!(".{verb}-{}", std::process::id()));
        let made = std::fs::create_dir_all(repository).and_then(|()| {
            // Left over from a process of the same number that was killed.
            let _ = std::fs::remove_dir_all(&path);
            DirBuilder::new().mode(0o700).create(&path)
        });
        made.map_err(|error| place(&error, "cannot make", &path)).map(|()| Self(path))
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is wrong with a place on disk.
pub(super) fn place(error: &std::io::Error, doing: &str, path: &Path) -> Failure {
    Failure::from_error(FailureKind::Place, error).while_doing(format!("{doing} `{}`", path.display()))
}
