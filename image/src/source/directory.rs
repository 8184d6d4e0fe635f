//! The files of a layout that lies in a directory.
//!
//! Imports its parent's errors. Only regular files are read, so a pipe that lies there cannot make a push wait; names are
//! built from checked digests, so none leaves the directory.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{SourceError, layout::Files};
use crate::blobs::{Added, Content};

/// A directory.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Names a directory, which is not looked at yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The path of `name` and its size, if it is a regular file.
    fn file(&self, name: &str) -> Result<Option<(PathBuf, u64)>, SourceError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some((path, metadata.len()))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SourceError::Open { path, source }),
        }
    }
}

impl Files for Directory {
    fn place(&self) -> &Path {
        &self.path
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>, SourceError> {
        let Some((path, _)) = self.file(name)? else { return Ok(None) };
        let file = fs::File::open(&path).map_err(|source| SourceError::Open { path, source })?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::Read { what: name.to_owned(), source })?;
        Ok(Some(bytes.into()))
    }

    fn open(&self, name: &str) -> Result<Option<(Content, u64)>, SourceError> {
        Ok(self.file(name)?.map(|(path, size)| (Content::File(path), size)))
    }

    fn added(&self, _: &str) -> Option<Added> {
        None
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let path = self.path.join(folder);
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(source) => return Err(SourceError::Open { path, source }),
        };
        let mut files = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|source| SourceError::Read { what: folder.to_owned(), source })?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some((_, size)) = self.file(&format!("{folder}/{name}"))? {
                files.push((name, size));
            }
        }
        Ok(files)
    }
}
