//! The files of a tar: found in one pass over the headers of one that lies on disk, kept as they pass of one that does not.
//!
//! Imports its parent's errors and its siblings. Nothing is unpacked: a name is a key in a map, a link is another key, so neither can
//! leave the archive. Headers may take no more memory than the bounds below.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    SourceError,
    aside::{Aside, Keeper, Kept, Member},
    layout::Files,
    passing::Stream,
};
use crate::blobs::{Added, Content};

/// Most entries that are read: 1024 blobs, each with a directory, a version file and links to it, and room to spare.
const MAX_ENTRIES: usize = 16_384;
/// Most bytes that the headers of one entry may take, long names and extended attributes included.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Most bytes after a tar's end that are read: some programs fill up what they write, none by so much.
const MAX_TAIL_BYTES: u64 = 16 << 20;
/// Most links that are followed one after another.
const MAX_LINKS: usize = 8;

/// A tar whose entries are known.
pub(super) struct Tarball {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
enum Entry {
    File(Kept),
    Link { target: String },
}

impl Tarball {
    /// Reads the headers of the tar in `file`, and nothing else of it.
    pub(super) fn scan(file: File) -> Result<Self, SourceError> {
        let end = file.metadata().map_err(SourceError::Archive)?.len();
        let file = Arc::new(file);
        let keep = |name: String, offset: u64, size: u64| match offset.checked_add(size) {
            Some(last) if last <= end => Ok(Kept::Member(Member::new(Arc::clone(&file), offset, last))),
            _ => Err(SourceError::Truncated { name, size, offset, end }),
        };
        let entries = read_entries(&*file, keep)?;
        Ok(Self { entries })
    }

    /// Reads a tar that passes once, and has `keeper` keep its files.
    pub(super) fn take_in(stream: Stream, aside: &Aside) -> Result<Self, SourceError> {
        let mut keeper = Keeper::new(aside);
        let parts = stream.clone();
        let keep = |name: String, offset: u64, size: u64| keeper.keep(&name, parts.part(offset, size));
        let entries = read_entries(stream.clone(), keep).map_err(|error| match error {
            SourceError::Archive(_) => stream.failure().unwrap_or(error),
            error => error,
        })?;
        // Whoever writes it should not find its reader gone, and may say at its end that it went wrong.
        stream.drain(MAX_TAIL_BYTES);
        stream.failure().map_or(Ok(Self { entries }), Err)
    }

    /// Whether there is something of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the bytes of `name` lie, links followed; `None` when there is no such entry.
    pub(super) fn find(&self, name: &str) -> Result<Option<Kept>, SourceError> {
        let Some(mut key) = clean(name) else { return Ok(None) };
        let link = |target: &str| SourceError::Link { name: name.to_owned(), target: target.to_owned() };
        for hop in 0..=MAX_LINKS {
            match self.entries.get(&key) {
                Some(Entry::File(kept)) => return Ok(Some(kept.clone())),
                Some(Entry::Link { target }) => key = clean(target).ok_or_else(|| link(target))?,
                None if hop == 0 => return Ok(None),
                None => break,
            }
        }
        Err(link(&key))
    }
}

impl Files for Tarball {
    fn place(&self) -> &Path {
        Path::new("")
    }

    fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>, SourceError> {
        let Some(kept) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        kept.open()
            .and_then(|reader| reader.take(limit + 1).read_to_end(&mut bytes))
            .map_err(|source| SourceError::Read { what: name.to_owned(), source })?;
        Ok(Some(bytes.into()))
    }

    fn open(&self, name: &str) -> Result<Option<(Content, u64)>, SourceError> {
        let Some(kept) = self.find(name)? else { return Ok(None) };
        let content = kept.content().map_err(|source| SourceError::Read { what: name.to_owned(), source })?;
        Ok(Some((content, kept.size())))
    }

    fn added(&self, name: &str) -> Option<Added> {
        self.find(name).ok()??.added()
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let mut files = Vec::new();
        for key in self.entries.keys() {
            let Some(name) = key.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
            if !name.contains('/')
                && let Some(kept) = self.find(key)?
            {
                files.push((name.to_owned(), kept.size()));
            }
        }
        Ok(files)
    }
}

/// Reads the headers of a tar. Each file's name, offset and size are given to `keep`.
fn read_entries<R: Read + Seek>(
    tar: R,
    mut keep: impl FnMut(String, u64, u64) -> Result<Kept, SourceError>,
) -> Result<BTreeMap<String, Entry>, SourceError> {
    let budget = Arc::new(AtomicU64::new(0));
    let mut archive = tar::Archive::new(Budgeted { inner: tar, budget: Arc::clone(&budget) });
    let mut entries = BTreeMap::new();
    let mut listing = archive.entries_with_seek().map_err(SourceError::Archive)?;
    for count in 0.. {
        budget.store(MAX_HEADER_BYTES, Ordering::Relaxed);
        let Some(entry) = listing.next() else { break };
        let entry = entry.map_err(SourceError::Archive)?;
        if count == MAX_ENTRIES {
            return Err(SourceError::TooManyEntries { limit: MAX_ENTRIES });
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let key = clean(&name).ok_or_else(|| SourceError::Escapes { name: name.clone() })?;
        let link = || entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
        let kind = entry.header().entry_type();
        let found = if kind.is_file() || kind.is_contiguous() {
            Entry::File(keep(key.clone(), entry.raw_file_position(), entry.size())?)
        } else if kind.is_symlink() {
            Entry::Link { target: beside(&name, &link().unwrap_or_default()) }
        } else if kind.is_hard_link() {
            Entry::Link { target: link().unwrap_or_default() }
        } else {
            continue;
        };
        // Of two entries with one name the later is the file, as it would be had they been unpacked.
        entries.insert(key, found);
    }
    Ok(entries)
}

/// A tar whose reads stop when the budget for one entry's headers is spent.
struct Budgeted<R> {
    inner: R,
    budget: Arc<AtomicU64>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other(format!("an entry's headers take more than {MAX_HEADER_BYTES} bytes")));
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.inner.read(&mut buffer[..length])?;
        self.budget.store(left - length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl<R: Seek> Seek for Budgeted<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

/// A name as a key: no leading `/` or `./`, nothing empty; `None` when it leaves the archive.
fn clean(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part if part.contains('\0') => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Where a symbolic link in the folder of `name` points.
fn beside(name: &str, target: &str) -> String {
    match name.trim_end_matches('/').rsplit_once('/') {
        Some((folder, _)) if !target.starts_with('/') => format!("{folder}/{target}"),
        _ => target.to_owned(),
    }
}
