//! The files of a tar, found in one pass over its headers and then read at random.
//!
//! Imports its parent's errors. Nothing is unpacked: a name is a key in a map, a link is another key, so neither can
//! leave the archive. Headers may take no more memory than the bounds below.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{SourceError, layout::Files};
use crate::blobs::Content;

/// Most entries that are read: 1024 blobs, each with a directory, a version file and links to it, and room to spare.
const MAX_ENTRIES: usize = 16_384;
/// Most bytes that the headers of one entry may take, long names and extended attributes included.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Most links that are followed one after another.
const MAX_LINKS: usize = 8;

/// A tar whose entries are known.
pub(super) struct Tarball {
    file: Arc<File>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    File { offset: u64, size: u64 },
    Link { target: String },
}

impl Tarball {
    /// Reads the headers of the tar in `file`.
    pub(super) fn scan(file: File) -> Result<Self, SourceError> {
        let end = file.metadata().map_err(SourceError::Archive)?.len();
        let budget = Arc::new(AtomicU64::new(0));
        let mut archive = tar::Archive::new(Budgeted { file: &file, budget: Arc::clone(&budget) });
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
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let link = || entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let kind = entry.header().entry_type();
            let found = if kind.is_file() || kind.is_contiguous() {
                if offset.checked_add(size).is_none_or(|last| last > end) {
                    return Err(SourceError::Truncated { name, size, offset, end });
                }
                Entry::File { offset, size }
            } else if kind.is_symlink() {
                Entry::Link { target: beside(&name, &link().unwrap_or_default()) }
            } else if kind.is_hard_link() {
                Entry::Link { target: link().unwrap_or_default() }
            } else {
                continue;
            };
            // Of two entries with one name the later is the file, as it would be had they been unpacked.
            entries.insert(clean(&name).ok_or(SourceError::Escapes { name })?, found);
        }
        Ok(Self { file: Arc::new(file), entries })
    }

    /// Whether there is something of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the bytes of `name` lie, links followed; `None` when there is no such entry.
    pub(super) fn find(&self, name: &str) -> Result<Option<Member>, SourceError> {
        let Some(mut key) = clean(name) else { return Ok(None) };
        let link = |target: &str| SourceError::Link { name: name.to_owned(), target: target.to_owned() };
        for hop in 0..=MAX_LINKS {
            match self.entries.get(&key) {
                Some(Entry::File { offset, size }) => {
                    return Ok(Some(Member { file: Arc::clone(&self.file), at: *offset, end: offset + size }));
                }
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
        let Some(member) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        member
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| SourceError::Read { what: name.to_owned(), source })?;
        Ok(Some(bytes.into()))
    }

    fn open(&self, name: &str) -> Result<Option<(Content, u64)>, SourceError> {
        Ok(self.find(name)?.map(|member| {
            let size = member.size();
            (Content::Reader(Box::new(member)), size)
        }))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, SourceError> {
        let mut files = Vec::new();
        for key in self.entries.keys() {
            let Some(name) = key.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { continue };
            if !name.contains('/')
                && let Some(member) = self.find(key)?
            {
                files.push((name.to_owned(), member.size()));
            }
        }
        Ok(files)
    }
}

/// The bytes of one entry, read from where they lie. Several may be read at once.
#[derive(Clone)]
pub(super) struct Member {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Member {
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

/// A file whose reads stop when the budget for one entry's headers is spent.
struct Budgeted<'f> {
    file: &'f File,
    budget: Arc<AtomicU64>,
}

impl Read for Budgeted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other(format!("an entry's headers take more than {MAX_HEADER_BYTES} bytes")));
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read(&mut buffer[..length])?;
        self.budget.store(left - length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl Seek for Budgeted<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
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
