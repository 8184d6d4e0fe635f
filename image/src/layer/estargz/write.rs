//! From any layer to an eStargz one, in two passes: what it holds, then what it becomes.
//!
//! Imports the readers of its parent's siblings. The first pass finds out which entries a later one of the same name
//! replaces, which are left out as upstream leaves them out; the second one writes. Neither holds a layer, nor its table of
//! contents, in memory.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry as Slot},
    io::{self, Read, Write},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{
    super::{
        ApplyError, Limit, Limits,
        entry::{Entries, Entry, Kind},
        failure::Shown,
        header::BLOCK,
        pax::Time,
        stream::{self, Stream},
    },
    ConvertError, ConvertOptions, Converted, LANDMARK, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME,
    collect::Collector,
    footer::Footer,
    members::{self, Feeder, Note},
    tar::{Head, rounded},
    toc::TocEntry,
};
use crate::{oci::Digest, rfc3339};

/// Bytes of headers after which a member ends though no file begins: a layer of nothing but directories is cut, too.
const MEMBER_HEADERS: usize = 1 << 20;
/// Zeros at the end of an archive.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The last second of the year 9999, after which RFC 3339 has no years.
const LAST_SECOND: i64 = 253_402_300_799;
/// The first second of the year 0.
const FIRST_SECOND: i64 = -62_167_219_200;

/// Writes the layer that `open` opens, whatever compresses it, as eStargz to `output`. Blocks, and uses threads.
///
/// `open` is called twice and has to give the same bytes. After an error, what was written is to be thrown away.
///
/// # Errors
/// When the layer is malformed or exceeds a limit, says what a table of contents cannot hold, or nobody takes the output.
pub fn convert(
    open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    options: &ConvertOptions,
    output: impl Write + Send,
) -> Result<Converted, ConvertError> {
    let limits = &options.limits;
    let opened = || open().map_err(ApplyError::Read);
    let (replaced, before, _) = stream::read(opened()?, limits, None, |stream| survey(stream, options))?;
    let mut collector = Collector::new(&options.spool, output)?;
    let blob = opened()?;
    let ((hasher, bytes), again) = members::compress(
        options.threads.max(1),
        |member| collector.take(member),
        |feeder| {
            let mut writer = Writer::new(feeder, options);
            let read = stream::read(blob, limits, None, |stream| Ok(writer.layer(stream, &replaced)));
            let (written, again, _) = read?;
            written?;
            writer.cut()?;
            Ok(((writer.hasher, writer.bytes), again))
        },
    )?;
    if again != before {
        return Err(ConvertError::Changed);
    }
    let mut end = End { hasher, bytes };
    let (toc, toc_bytes, toc_digest) = collector.toc.finish()?;
    let offset = collector.offset;
    let mut member = GzEncoder::new(&mut collector.output, Compression::best());
    let head = Head::file(TOC_NAME, toc_bytes).encode();
    let head = head.ok_or(ConvertError::Unwritable { name: Shown::new(TOC_NAME.as_bytes()) })?;
    end.write(&mut member, &mut &head[..])?;
    end.write(&mut member, &mut io::BufReader::new(toc))?;
    let padding = vec![0; padding(toc_bytes)];
    end.write(&mut member, &mut padding.chain(&END[..]))?;
    member.finish().map_err(ConvertError::Output)?;
    collector.output.write_all(&Footer::bytes(offset)).map_err(ConvertError::Output)?;
    collector.output.flush().map_err(ConvertError::Output)?;
    Ok(Converted {
        before,
        diff_id: Digest::Sha256(end.hasher.finalize().into()),
        uncompressed_size: end.bytes,
        toc_digest,
    })
}

/// What is hashed and counted of the stream after the last member of the layer's own.
struct End {
    hasher: Sha256,
    bytes: u64,
}

impl End {
    fn write(&mut self, member: &mut impl Write, from: &mut dyn Read) -> Result<(), ConvertError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut buffer).map_err(ConvertError::Toc)?;
            if length == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..length]);
            self.bytes += length as u64;
            member.write_all(&buffer[..length]).map_err(ConvertError::Output)?;
        }
    }
}

/// Names that are the format's own: what a layer has of them, from another conversion, is left out.
fn is_reserved(entry: &Entry) -> bool {
    [PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK, TOC_NAME].iter().any(|name| entry.path.bytes() == name.as_bytes())
}

/// Reads a layer to its end; the numbers of the entries that a later one replaces.
fn survey(stream: &mut Stream<'_>, options: &ConvertOptions) -> Result<HashSet<u64>, ApplyError> {
    let Limits { entries: most_entries, bytes: most_bytes, .. } = options.limits;
    let mut entries = Entries::new(stream, &options.limits, false);
    // By a part of their digests: names are long, and there may be a million of them.
    let mut last: HashMap<[u8; 16], u64> = HashMap::new();
    let mut replaced = HashSet::new();
    // The landmark is one, too.
    let (mut number, mut pieces, mut bytes) = (0, 1_u64, 0_u64);
    while let Some(entry) = entries.next()? {
        pieces = pieces.saturating_add(entry.size.div_ceil(options.chunk_bytes).max(1));
        if pieces > most_entries {
            return Err(ApplyError::Limit { what: Limit::Entries, limit: most_entries });
        }
        bytes = bytes.saturating_add(entry.size);
        if bytes > most_bytes {
            return Err(ApplyError::Limit { what: Limit::FileBytes, limit: most_bytes });
        }
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(entry.path.bytes())[..16]);
        match last.entry(key) {
            Slot::Occupied(mut slot) => {
                replaced.insert(slot.insert(number));
            }
            Slot::Vacant(slot) => {
                slot.insert(number);
            }
        }
        number += 1;
    }
    Ok(replaced)
}

/// The second pass.
struct Writer<'f, 'o> {
    feeder: &'f mut Feeder,
    options: &'o ConvertOptions,
    hasher: Sha256,
    bytes: u64,
    /// Bytes of headers since the member's payload.
    headers: usize,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl<'f, 'o> Writer<'f, 'o> {
    fn new(feeder: &'f mut Feeder, options: &'o ConvertOptions) -> Self {
        let (users, groups) = (HashMap::new(), HashMap::new());
        Self { feeder, options, hasher: Sha256::new(), bytes: 0, headers: 0, users, groups }
    }

    fn layer(&mut self, stream: &mut Stream<'_>, replaced: &HashSet<u64>) -> Result<(), ConvertError> {
        self.landmark()?;
        let mut entries = Entries::new(stream, &self.options.limits, false);
        let mut number = 0;
        while let Some(entry) = entries.next()? {
            if !is_reserved(&entry) && !replaced.contains(&number) {
                self.entry(&entry, &mut entries)?;
            }
            number += 1;
        }
        Ok(())
    }

    /// Says that nothing is to be fetched ahead.
    fn landmark(&mut self) -> Result<(), ConvertError> {
        let head = Head::file(NO_PREFETCH_LANDMARK, 1);
        let toc = TocEntry { name: NO_PREFETCH_LANDMARK.to_owned(), kind: "reg".to_owned(), ..TocEntry::default() };
        let mut payload = self.head(head, toc)?;
        self.payload(&mut payload, &[LANDMARK])?;
        self.end_payload(payload);
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, entries: &mut Entries<'_, '_>) -> Result<(), ConvertError> {
        let shown = || Shown::new(entry.path.bytes());
        let head = Head::of(entry).map_err(|problem| ConvertError::Head { name: shown(), problem })?;
        let toc = self.describe(entry, &head)?;
        let mut payload = self.head(head, toc)?;
        // A sparse file becomes a plain one.
        let whole = [(0, entry.size)];
        let pieces = entry.map.as_ref().map_or(&whole[..], |map| &map.pieces);
        let mut at = 0;
        for (offset, length) in pieces {
            self.zeros(&mut payload, offset - at)?;
            let mut left = *length;
            while left > 0 {
                let bytes = entries.data_up_to(left)?;
                left -= bytes.len() as u64;
                self.payload(&mut payload, bytes)?;
            }
            at = offset + length;
        }
        self.zeros(&mut payload, entry.size - at)?;
        self.end_payload(payload);
        Ok(())
    }

    /// What the table says about an entry.
    fn describe(&mut self, entry: &Entry, head: &Head) -> Result<TocEntry, ConvertError> {
        let shown = || Shown::new(entry.path.bytes());
        let text = |bytes: &[u8], what| match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(ConvertError::NotText { name: shown(), what }),
        };
        let kind = match entry.kind {
            Kind::Directory => "dir",
            Kind::File => "reg",
            Kind::HardLink(_) => "hardlink",
            Kind::Symlink(_) => "symlink",
            Kind::Character(..) => "char",
            Kind::Block(..) => "block",
            Kind::Fifo => "fifo",
        };
        let is_link = matches!(entry.kind, Kind::HardLink(_) | Kind::Symlink(_));
        let is_device = matches!(entry.kind, Kind::Character(..) | Kind::Block(..));
        let device = if is_device { head.device } else { (0, 0) };
        let xattrs = entry.xattrs.iter().map(|(name, value)| Ok((text(name, "extended attribute")?, value.clone())));
        Ok(TocEntry {
            name: text(&head.name, "name")?,
            kind: kind.to_owned(),
            size: head.size,
            modtime: modified(head.modified).ok_or_else(|| ConvertError::Time { name: shown() })?,
            link_name: if is_link { text(&head.link, "target")? } else { String::new() },
            mode: head.mode,
            uid: head.user,
            gid: head.group,
            user_name: unless_said(&mut self.users, head.user, text(&head.user_name, "owner")?),
            group_name: unless_said(&mut self.groups, head.group, text(&head.group_name, "group")?),
            dev_major: device.0,
            dev_minor: device.1,
            xattrs: xattrs.collect::<Result<_, ConvertError>>()?,
            ..TocEntry::default()
        })
    }

    /// Writes a header, and notes the entry unless it has bytes.
    fn head(&mut self, head: Head, mut toc: TocEntry) -> Result<Payload, ConvertError> {
        if self.headers > MEMBER_HEADERS {
            self.cut()?;
        }
        let size = head.size;
        let name = Shown::new(&head.name);
        let bytes = head.encode().ok_or(ConvertError::Unwritable { name })?;
        self.headers += bytes.len();
        self.write(&bytes);
        let mut payload =
            Payload { size, name: String::new(), at: 0, left: 0, chunk: Sha256::new(), file: None, toc: None };
        if size > 0 {
            toc.size = size;
            payload.name.clone_from(&toc.name);
            payload.file = (size > self.options.chunk_bytes).then(Sha256::new);
            payload.toc = Some(toc);
        } else {
            if toc.kind == "reg" {
                toc.digest = Digest::of(b"").to_string();
            }
            self.feeder.note(Note::Entry(toc.into()));
        }
        Ok(payload)
    }

    fn zeros(&mut self, payload: &mut Payload, mut count: u64) -> Result<(), ConvertError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.payload(payload, &ZEROS[..length])?;
            count -= length as u64;
        }
        Ok(())
    }

    /// The next bytes of a file, cut into chunks.
    fn payload(&mut self, payload: &mut Payload, mut bytes: &[u8]) -> Result<(), ConvertError> {
        while !bytes.is_empty() {
            if payload.left == 0 {
                self.cut()?;
                self.headers = 0;
                payload.left = (payload.size - payload.at).min(self.options.chunk_bytes);
                payload.chunk = Sha256::new();
                // The padding and the next header lie in the same member.
                self.feeder.expect(payload.left + 4 * BLOCK as u64);
            }
            let length = usize::try_from(payload.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            payload.chunk.update(now);
            if let Some(file) = &mut payload.file {
                file.update(now);
            }
            self.write(now);
            payload.left -= length as u64;
            payload.at += length as u64;
            if payload.left == 0 {
                self.end_chunk(payload);
            }
            bytes = rest;
        }
        Ok(())
    }

    fn end_chunk(&mut self, payload: &mut Payload) {
        let whole = self.options.chunk_bytes;
        let begin = if payload.at == payload.size && !payload.at.is_multiple_of(whole) {
            payload.at - payload.at % whole
        } else {
            payload.at - whole
        };
        let digest = Digest::Sha256(std::mem::take(&mut payload.chunk).finalize().into());
        let first = payload.toc.take();
        let mut entry = first.unwrap_or_else(|| TocEntry {
            name: payload.name.clone(),
            kind: "chunk".to_owned(),
            ..TocEntry::default()
        });
        entry.chunk_offset = begin;
        entry.chunk_size = if payload.at - begin == whole { whole } else { 0 };
        entry.chunk_digest = digest.to_string();
        self.feeder.note(Note::Entry(entry.into()));
        if payload.at == payload.size {
            let file = payload.file.take().map(|file| Digest::Sha256(file.finalize().into()));
            self.feeder.note(Note::Digest(file.unwrap_or(digest)));
        }
    }

    fn end_payload(&mut self, payload: Payload) {
        self.write(&END[..padding(payload.size)]);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.feeder.write(bytes);
    }

    fn cut(&mut self) -> Result<(), ConvertError> {
        self.headers = 0;
        self.feeder.cut().map_err(|members::Gone| ConvertError::Output(io::ErrorKind::BrokenPipe.into()))
    }
}

/// The bytes of a file, as they come.
struct Payload {
    size: u64,
    name: String,
    /// Bytes so far, and what is left of the chunk.
    at: u64,
    left: u64,
    chunk: Sha256,
    /// Only of a file with more than one chunk.
    file: Option<Sha256>,
    /// What the table says of its first chunk, until that is noted.
    toc: Option<TocEntry>,
}

/// Bytes up to the next block.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default()
}

/// A name that was not the last one said for this number.
fn unless_said(said: &mut HashMap<u32, String>, id: u32, name: String) -> String {
    if name.is_empty() || said.get(&id) == Some(&name) {
        return String::new();
    }
    said.insert(id, name.clone());
    name
}

/// A time as the table has it: to the second, nothing at all for the first second of 1970.
fn modified(time: Time) -> Option<String> {
    if time.seconds == 0 {
        return Some(String::new());
    }
    let seconds = rounded(time).seconds;
    (FIRST_SECOND..=LAST_SECOND).contains(&seconds).then(|| rfc3339::since_epoch(seconds))
}
