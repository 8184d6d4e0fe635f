//! Where the files of a stream go, which passes once: into the store, where most of them are wanted, or into a file
//! without a name.
//!
//! Imports its parent's errors, [`blobs`](crate::blobs) and its sibling `spool`. What goes into the store is hashed on its way
//! and has no name there: unless an image comes to keep it, the next collection frees it. A stream is written once,
//! whatever is in it.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    SourceError,
    passing::Passing,
    spool::{self, copy},
};
use crate::{
    blobs::{Added, Blobs, Content, Expected, Want},
    oci::Digest,
};

/// Longest file that is held in memory: a stream has many that are a few bytes long.
const MAX_SMALL_BYTES: u64 = 64 << 10;
/// Most bytes that are held in memory of one stream.
const MAX_HELD_BYTES: u64 = 16 << 20;

/// Where what passes once is kept.
#[derive(Clone)]
pub enum Aside {
    /// Files without names in this folder.
    Folder(PathBuf),
    /// A store.
    Store(IntoStore),
}

/// A store that streams go into.
#[derive(Clone)]
pub struct IntoStore {
    /// The store. What it took in is held at least as long as the source is there.
    pub blobs: Arc<dyn Blobs>,
    /// Runs its waiting.
    pub runtime: Handle,
    /// Whether an archive that is a layout is wanted with all its bytes, so that an image must not be pieced together from
    /// what the store has of it.
    pub wants_layouts: bool,
}

impl fmt::Debug for Aside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => formatter.debug_tuple("Folder").field(path).finish(),
            Self::Store(store) => formatter.debug_tuple("Store").field(&store.wants_layouts).finish(),
        }
    }
}

/// Takes the files of one stream.
pub(super) struct Keeper<'a> {
    aside: &'a Aside,
    held: u64,
    file: Option<Arc<File>>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(aside: &'a Aside) -> Self {
        Self { aside, held: 0, file: None }
    }

    /// Takes the next file, called `name` in the stream.
    pub(super) fn keep(&mut self, name: &str, mut passing: Passing) -> Result<Kept, SourceError> {
        let size = passing.left();
        let failed = |passing: &Passing, source| passing.failure(name, size, source);
        if size <= MAX_SMALL_BYTES && self.held + size <= MAX_HELD_BYTES {
            let mut bytes = Vec::new();
            passing.read_to_end(&mut bytes).map_err(|source| failed(&passing, source))?;
            self.held += size;
            return Ok(Kept::Small(bytes.into()));
        }
        match self.aside {
            Aside::Store(store) => store.keep(name, passing).map(Kept::Stored),
            Aside::Folder(folder) => {
                let spooling = |source| SourceError::Spool { path: folder.clone(), source };
                let file = match &self.file {
                    Some(file) => Arc::clone(file),
                    None => Arc::new(spool::nameless(folder).map_err(spooling)?),
                };
                let mut end = &*file;
                let offset = end.seek(io::SeekFrom::End(0)).map_err(spooling)?;
                let told = passing.clone();
                copy(&mut passing, &file, |source| failed(&told, source), spooling)?;
                self.file = Some(Arc::clone(&file));
                Ok(Kept::Member(Member { file, at: offset, end: offset + size }))
            }
        }
    }
}

impl IntoStore {
    fn keep(&self, name: &str, passing: Passing) -> Result<Stored, SourceError> {
        let size = passing.left();
        // A blob of a layout is called by its digest, and need not be read if it is here.
        let announced =
            name.strip_prefix("blobs/sha256/").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let expected = announced.and_then(|digest| Some(Expected { digest: digest.sha256()?, size }));
        let content = Content::Reader(Box::new(passing.clone()));
        let added = self.runtime.block_on(self.blobs.add(content, expected, &|_| {})).map_err(|source| {
            let stopped = passing.broken(name, size);
            stopped.unwrap_or_else(|| SourceError::Store { what: name.to_owned(), source: Box::new(source) })
        })?;
        // What is here already was not read, but a stream that is cut off there is cut off.
        passing.pass_over(name, size)?;
        Ok(Stored { added, store: self.clone() })
    }

    /// What the store has by this digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<Stored> {
        let digest = digest.sha256()?;
        // If the store fails, what is not found is read anew, and adding it tells why.
        let added = self.runtime.block_on(self.blobs.find(&digest, None)).ok()??;
        Some(Stored { added, store: self.clone() })
    }
}

/// A file of a stream that has passed, or of an archive on disk.
#[derive(Clone)]
pub(super) enum Kept {
    /// In memory.
    Small(Bytes),
    /// A part of a file.
    Member(Member),
    /// In the store.
    Stored(Stored),
}

/// A file that is in the store.
#[derive(Clone)]
pub(super) struct Stored {
    /// What the store made of it.
    pub(super) added: Added,
    store: IntoStore,
}

impl Stored {
    fn content(&self) -> io::Result<Content> {
        let Added { cid, digest, size, .. } = self.added;
        let fetching = self.store.blobs.fetch(&cid, Want::Exactly(Expected { digest, size }), &|_| {});
        self.store.runtime.block_on(fetching).map_err(io::Error::other)?.body.into_content()
    }
}

impl Kept {
    /// Bytes that it has.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Member(member) => member.size(),
            Self::Stored(stored) => stored.added.size,
        }
    }

    /// What it hashes to, if that is known.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Stored(stored) => Some(Digest::Sha256(stored.added.digest)),
            Self::Small(bytes) => Some(Digest::of(bytes)),
            Self::Member(_) => None,
        }
    }

    /// What the store made of it, if it is there.
    pub(super) fn added(&self) -> Option<Added> {
        match self {
            Self::Stored(stored) => Some(stored.added),
            Self::Small(_) | Self::Member(_) => None,
        }
    }

    /// Its bytes.
    pub(super) fn content(&self) -> io::Result<Content> {
        match self {
            Self::Small(bytes) => Ok(Content::Bytes(bytes.clone())),
            Self::Member(member) => Ok(Content::Reader(Box::new(member.clone()))),
            Self::Stored(stored) => stored.content(),
        }
    }

    /// Its bytes, from the first.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self.content()? {
            Content::Reader(reader) => reader,
            Content::Bytes(bytes) => Box::new(io::Cursor::new(bytes)),
            Content::File(path) => Box::new(File::open(path)?),
        })
    }
}

/// A part of a file, read from where it lies. Several may be read at once.
#[derive(Clone)]
pub(super) struct Member {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Member {
    /// The bytes from `at` on, up to `end`.
    pub(super) fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end }
    }

    /// Bytes left to read.
    pub(super) fn size(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.size()).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
