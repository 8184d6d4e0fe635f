//! A directory that is an OCI layout: a new one, or one that is there and takes one image more.
//!
//! Imports its parent and [`oci`](crate::oci). A new directory appears whole; in one that is there, blobs appear one by
//! one, which no reader looks for, and the index last.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{
    Image, Sink, SinkError, blob_path, copy,
    pending::{Pending, sync_folder},
    tag,
};
use crate::{
    blobs::Body,
    link::{LAYOUT_MARKER, index_json},
    oci::{Descriptor, Index, MAX_DOCUMENT_BYTES, descriptor::REF_NAME},
};

/// A layout that is being written.
pub(super) struct LayoutSink {
    path: PathBuf,
    tag: Option<String>,
    target: Target,
}

enum Target {
    /// Everything is written under a hidden name.
    New(Pending),
    /// The layout is there, with this index.
    Existing(Box<Index>),
}

impl LayoutSink {
    /// Looks at what lies at `path`.
    pub(super) fn open(path: &Path, tag: Option<String>) -> Result<Self, SinkError> {
        let failed = |source| SinkError::Open { path: path.to_owned(), source };
        let target = if path.join("oci-layout").is_file() {
            Target::Existing(Box::new(read_index(path)?))
        } else {
            match fs::read_dir(path).map(|mut listing| listing.next().is_none()) {
                Ok(true) => {}
                Ok(false) => return Err(SinkError::NotALayout { path: path.to_owned() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(SinkError::NotALayout { path: path.to_owned() });
                }
                Err(error) => return Err(failed(error)),
            }
            let pending = Pending::beside(path);
            fs::create_dir_all(pending.path()).map_err(failed)?;
            Target::New(pending)
        };
        Ok(Self { path: path.to_owned(), tag, target })
    }

    /// Where files are written.
    fn folder(&self) -> &Path {
        match &self.target {
            Target::New(pending) => pending.path(),
            Target::Existing(_) => &self.path,
        }
    }
}

impl Sink for LayoutSink {
    fn accepts(&self, _: &Image<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> bool {
        let path = self.folder().join(blob_path(&blob.digest));
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    fn write(&mut self, blob: &Descriptor, body: &Body) -> Result<(), SinkError> {
        let path = self.folder().join(blob_path(&blob.digest));
        let failed = |source| SinkError::Write { what: blob.digest.to_string(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        let pending = Pending::beside(&path);
        let mut file = pending.create().map_err(failed)?;
        let got = match body.path() {
            // File to file, so that the system may share the bytes instead of copying them.
            Some(from) => File::open(from).and_then(|mut from| io::copy(&mut from, &mut file)),
            None => copy(blob, body, &mut file),
        };
        let got = got.map_err(failed)?;
        if got != blob.size {
            return Err(SinkError::Length { digest: blob.digest.clone(), expected: blob.size, got });
        }
        file.sync_data().and_then(|()| pending.show(&path)).map_err(failed)
    }

    fn finish(self: Box<Self>, image: &Image<'_>) -> Result<Descriptor, SinkError> {
        let mut entry = image.top();
        if let Some(wanted) = &self.tag {
            tag(&mut entry, wanted);
        }
        let failed = |source| SinkError::Write { what: self.path.display().to_string(), source };
        let path = &self.path;
        let top = entry.clone();
        match self.target {
            Target::New(pending) => {
                write_synced(&pending.path().join("oci-layout"), LAYOUT_MARKER).map_err(failed)?;
                write_synced(&pending.path().join("index.json"), &index_json(&entry)).map_err(failed)?;
                sync_folder(&pending.path().join("index.json")).map_err(failed)?;
                if path.is_dir() {
                    // Empty, or the rename fails as it should.
                    fs::remove_dir(path).map_err(failed)?;
                }
                pending.show(path).map_err(failed)?;
            }
            Target::Existing(mut index) => {
                let name = entry.annotations.get(REF_NAME).cloned();
                let mut entries = index.manifests.take().unwrap_or_default();
                entries.retain(|old| match (&name, old.annotations.get(REF_NAME)) {
                    (Some(name), Some(old)) => name != old,
                    (None, None) => old.digest != entry.digest,
                    _ => true,
                });
                entries.push(entry);
                index.manifests = Some(entries);
                let target = path.join("index.json");
                let pending = Pending::beside(&target);
                write_synced(pending.path(), &index.to_json()).map_err(failed)?;
                pending.show(&target).map_err(failed)?;
            }
        }
        Ok(top)
    }
}

fn read_index(path: &Path) -> Result<Index, SinkError> {
    let file = path.join("index.json");
    let failed = |source| SinkError::Open { path: file.clone(), source };
    let length = fs::metadata(&file).map_err(failed)?.len();
    if length > MAX_DOCUMENT_BYTES {
        let source = crate::oci::DocumentError::TooLarge { size: length };
        return Err(SinkError::Index { path: path.to_owned(), source });
    }
    let bytes = fs::read(&file).map_err(failed)?;
    Index::parse(&bytes).map_err(|source| SinkError::Index { path: path.to_owned(), source })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    File::open(path)?.sync_all()
}
