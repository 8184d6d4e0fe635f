//! Reads an eStargz (or zstd:chunked) layer at random, and gives nothing that its table of contents does not vouch for.
//!
//! Imports `footer`, `toc` and the tar header of its parent's siblings. The table is hashed before it is parsed, a chunk
//! before it is handed out. A layer whose table lies about where things are is refused whole: offsets that go backwards,
//! chunks that leave a gap or overlap, entries that nobody could verify.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        Limits, Shown,
        entry::EntryPath,
        header::{BLOCK, Header},
    },
    MAX_TOC_BYTES, TOC_NAME,
    footer::{Footer, MOST_BYTES},
    toc::TocEntry,
};
use crate::oci::Digest;

/// Most entries of a table, and of the archive that it describes.
const MAX_ENTRIES: usize = 1_000_000;
/// Most bytes of a chunk, and of what lies before it in its member: they are decompressed, and held, for each read.
pub(super) const MAX_CHUNK_BYTES: u64 = 64 << 20;
/// Bytes of compressed input that are read at a time.
const INPUT_BYTES: usize = 256 << 10;

/// Bytes that can be read from anywhere.
pub trait ReadAt {
    /// Reads what lies at `offset`; nothing past the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// A layer whose table of contents was checked.
#[derive(Debug)]
pub struct Estargz<B> {
    blob: B,
    footer: Footer,
    entries: Vec<TocEntry>,
    chunks: Vec<Chunk>,
}

/// Where the bytes of an entry are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    /// Position in the table.
    entry: usize,
    /// Where its member begins, and where the next one does.
    member: (u64, u64),
    /// Where it begins in the member.
    inner: u64,
    size: u64,
    digest: Digest,
}

impl<B: ReadAt> Estargz<B> {
    /// Opens a layer of `size` bytes with the table of contents that has this digest.
    ///
    /// # Errors
    /// [`ReadError::NotEstargz`] when the end of the layer names no table, another one when the table is not the one
    /// expected, or says what cannot be.
    pub fn open(blob: B, size: u64, toc_digest: &Digest) -> Result<Self, ReadError> {
        let length = size.min(MOST_BYTES as u64);
        let mut end = Vec::new();
        part(&blob, size - length, length).read_to_end(&mut end).map_err(ReadError::Read)?;
        let footer = Footer::parse(&end).ok_or(ReadError::NotEstargz)?;
        let table = table(&blob, size, footer)?;
        let got = Digest::of(&table);
        if got != *toc_digest {
            return Err(ReadError::TocDigest { expected: toc_digest.clone(), got });
        }
        let Table(entries) = serde_json::from_slice(&table).map_err(ReadError::Json)?;
        drop(table);
        let chunks = chunks(&entries, footer)?;
        Ok(Self { blob, footer, entries, chunks })
    }

    /// What its end says.
    pub fn footer(&self) -> Footer {
        self.footer
    }

    /// Its table, in order.
    pub fn entries(&self) -> &[TocEntry] {
        &self.entries
    }

    /// The bytes of one entry: of a file its first chunk, which may be all of it. Nothing for what has no bytes.
    ///
    /// # Errors
    /// When they cannot be read, or are others than the table says.
    pub fn read(&self, entry: usize) -> Result<Vec<u8>, ReadError> {
        match self.chunks.binary_search_by_key(&entry, |chunk| chunk.entry) {
            Ok(at) => self.chunk(&self.chunks[at]),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Reads every chunk and every file.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify(&self) -> Result<(), ReadError> {
        let mut file = None;
        for (at, chunk) in self.chunks.iter().enumerate() {
            let bytes = self.chunk(chunk)?;
            let entry = &self.entries[chunk.entry];
            if entry.kind != "chunk" {
                file = Some((entry, Sha256::new()));
            }
            let Some((first, hasher)) = &mut file else { continue };
            hasher.update(&bytes);
            let is_last = self.chunks.get(at + 1).is_none_or(|next| self.entries[next.entry].kind != "chunk");
            if is_last && !first.digest.is_empty() {
                let got = Digest::Sha256(std::mem::take(hasher).finalize().into());
                if first.digest != got.to_string() {
                    return Err(entry_error(first, "its digest is not that of its bytes"));
                }
            }
        }
        Ok(())
    }

    fn chunk(&self, chunk: &Chunk) -> Result<Vec<u8>, ReadError> {
        let entry = &self.entries[chunk.entry];
        let damaged = |source| ReadError::Damaged { name: Shown::new(entry.name.as_bytes()), source };
        let (begin, end) = chunk.member;
        let input = io::BufReader::with_capacity(INPUT_BYTES, part(&self.blob, begin, end - begin));
        let mut member: Box<dyn Read + '_> = match self.footer {
            Footer::Gzip { .. } => Box::new(GzDecoder::new(input)),
            Footer::Zstd { .. } => Box::new(zstd_reader(input).map_err(damaged)?.single_frame()),
        };
        let skipped = io::copy(&mut member.by_ref().take(chunk.inner), &mut io::sink()).map_err(damaged)?;
        let mut bytes = Vec::new();
        member.take(chunk.size).read_to_end(&mut bytes).map_err(damaged)?;
        if skipped < chunk.inner || (bytes.len() as u64) < chunk.size {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        if !chunk.digest.matches(&bytes) {
            return Err(entry_error(entry, "its digest is not that of its bytes"));
        }
        Ok(bytes)
    }
}

/// The bytes of the table, decompressed, unchecked.
fn table<B: ReadAt>(blob: &B, size: u64, footer: Footer) -> Result<Vec<u8>, ReadError> {
    let damaged = |source| ReadError::Table { source };
    let lies = |problem| ReadError::Toc { problem };
    let mut bytes = Vec::new();
    match footer {
        Footer::Gzip { toc, footer } => {
            let end = size - footer;
            if toc >= end {
                return Err(lies("it begins after the end of the layer"));
            }
            let mut member = GzDecoder::new(io::BufReader::with_capacity(INPUT_BYTES, part(blob, toc, end - toc)));
            let mut block = [0; BLOCK];
            member.read_exact(&mut block).map_err(damaged)?;
            let header = Header::new(block).map_err(|_| lies("its header is malformed"))?;
            if header.name() != TOC_NAME.as_bytes() || header.kind() != b'0' {
                return Err(lies("its entry is called otherwise"));
            }
            let length = header.size().map_err(|_| lies("its header is malformed"))?;
            if length > MAX_TOC_BYTES {
                return Err(lies("it is too long"));
            }
            member.take(length).read_to_end(&mut bytes).map_err(damaged)?;
            if (bytes.len() as u64) < length {
                return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Footer::Zstd { toc, compressed, uncompressed } => {
            if toc.checked_add(compressed).is_none_or(|end| end > size) {
                return Err(lies("it ends after the end of the layer"));
            }
            if uncompressed > MAX_TOC_BYTES {
                return Err(lies("it is too long"));
            }
            let frame = zstd_reader(io::BufReader::with_capacity(INPUT_BYTES, part(blob, toc, compressed)));
            frame.map_err(damaged)?.take(uncompressed + 1).read_to_end(&mut bytes).map_err(damaged)?;
            if bytes.len() as u64 != uncompressed {
                return Err(lies("it has another length than the footer says"));
            }
        }
    }
    Ok(bytes)
}

/// Where all bytes are, if the table says so of each of them in one way only.
fn chunks(entries: &[TocEntry], footer: Footer) -> Result<Vec<Chunk>, ReadError> {
    let (Footer::Gzip { toc, .. } | Footer::Zstd { toc, .. }) = footer;
    let limits = Limits::default();
    let mut chunks: Vec<Chunk> = Vec::new();
    // The file whose chunks come, its size, and where the next one begins.
    let mut file: Option<(&TocEntry, u64)> = None;
    for (at, entry) in entries.iter().enumerate() {
        let wrong = |problem| entry_error(entry, problem);
        if EntryPath::new(entry.name.as_bytes(), &limits).is_err() {
            return Err(wrong("its name is none"));
        }
        let begin = match (&*entry.kind, file) {
            ("chunk", Some((of, begin))) if of.name == entry.name => begin,
            ("chunk", _) => return Err(wrong("it is a chunk of no file")),
            (_, Some((of, end))) if end != of.size => return Err(entry_error(of, "some of its chunks are missing")),
            ("reg", _) => 0,
            ("dir" | "symlink" | "hardlink" | "char" | "block" | "fifo", _) => {
                file = None;
                continue;
            }
            _ => return Err(wrong("it is of no known type")),
        };
        if entry.kind == "reg" {
            file = Some((entry, 0));
        }
        if !entry.has_bytes() {
            continue;
        }
        let Some((of, end)) = &mut file else { continue };
        let left = of.size - begin;
        let size = if entry.chunk_size == 0 { left } else { entry.chunk_size };
        if entry.chunk_offset != begin || size > left || size == 0 {
            return Err(wrong("its chunks leave a gap, or overlap"));
        }
        if size > MAX_CHUNK_BYTES || entry.inner_offset > MAX_CHUNK_BYTES {
            return Err(wrong("its chunks are too large"));
        }
        *end = begin + size;
        let said = if entry.chunk_digest.is_empty() && size == of.size { &entry.digest } else { &entry.chunk_digest };
        let digest = said.parse().map_err(|_| wrong("its bytes have no digest"))?;
        let inner = entry.inner_offset;
        let goes_on = chunks.last().is_none_or(|last| (entry.offset, inner) > (last.member.0, last.inner));
        if entry.offset >= toc || !goes_on {
            return Err(wrong("its bytes lie where they cannot"));
        }
        chunks.push(Chunk { entry: at, member: (entry.offset, toc), inner, size, digest });
    }
    if let Some((of, end)) = file
        && end != of.size
    {
        return Err(entry_error(of, "some of its chunks are missing"));
    }
    let mut next = (toc, toc);
    for chunk in chunks.iter_mut().rev() {
        if chunk.member.0 != next.0 {
            next = (chunk.member.0, next.0);
        }
        chunk.member.1 = next.1;
    }
    Ok(chunks)
}

fn entry_error(entry: &TocEntry, problem: &'static str) -> ReadError {
    ReadError::Entry { name: Shown::new(entry.name.as_bytes()), problem }
}

fn zstd_reader<R: io::BufRead>(input: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(Limits::default().zstd_window_log)?;
    Ok(decoder)
}

/// A part of the layer as a stream.
fn part<B: ReadAt>(blob: &B, offset: u64, length: u64) -> impl Read + '_ {
    struct Part<'b, B>(&'b B, u64);
    impl<B: ReadAt> Read for Part<'_, B> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.read_at(buffer, self.1)?;
            self.1 += length as u64;
            Ok(length)
        }
    }
    Part(blob, offset).take(length)
}

/// A table as it is written: a list with an end.
struct Table(Vec<TocEntry>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Document;
        impl<'de> Visitor<'de> for Document {
            type Value = Table;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a table of contents")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let (mut version, mut entries) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match &*key {
                        "version" if version.is_none() => version = Some(map.next_value::<u32>()?),
                        "entries" if entries.is_none() => entries = Some(map.next_value::<Entries>()?),
                        "version" | "entries" => return Err(A::Error::custom("a field is there twice")),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                match (version, entries) {
                    (Some(1), Some(Entries(entries))) => Ok(Table(entries)),
                    _ => Err(A::Error::custom("expected version 1, and entries")),
                }
            }
        }
        deserializer.deserialize_map(Document)
    }
}

struct Entries(Vec<TocEntry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format!("more than {MAX_ENTRIES} entries")));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// Why a layer is not what it claims to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It could not be read.
    #[error("reading the layer")]
    Read(#[source] io::Error),
    /// Its end names no table of contents.
    #[error("the layer has no table of contents")]
    NotEstargz,
    /// The table cannot be found where the layer's end says it is.
    #[error("the layer's table of contents: {problem}")]
    Toc {
        /// Why not.
        problem: &'static str,
    },
    /// The table could not be decompressed.
    #[error("decompressing the layer's table of contents")]
    Table {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The table is another one.
    #[error("the layer's table of contents is `{got}`, expected `{expected}`")]
    TocDigest {
        /// What it should be.
        expected: Digest,
        /// What it is.
        got: Digest,
    },
    /// The table is malformed.
    #[error("the layer's table of contents is malformed")]
    Json(#[source] serde_json::Error),
    /// What the table says of an entry cannot be, or is not so.
    #[error("entry `{name}`: {problem}")]
    Entry {
        /// The entry.
        name: Shown,
        /// What is wrong.
        problem: &'static str,
    },
    /// The bytes of an entry could not be decompressed.
    #[error("entry `{name}`: decompressing it")]
    Damaged {
        /// The entry.
        name: Shown,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
