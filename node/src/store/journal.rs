//! The journal: facts, appended and synced, replayed at open.
//!
//! ```text
//! journal/<n>   | header 40 bytes | frame | frame | ...                       integers little-endian
//! header = | "shipfs-j" | version u32 = 1 | snapshot end u64 | previous n u64 | previous length u64 | crc32 u32 |
//! frame  = | "frm1" | its place in the file u64 | body length u32 | crc32 u32 of place, length, body | body = record ... |
//! ```
//! One commit appends one frame and syncs it before the next is written, so a frame is there whole or not at all, and only
//! the last can be torn. A damaged frame with a good one behind it is therefore not a crash but bit rot, and is refused:
//! facts are not dropped in silence. (A frame says where it lies, so that one quoted in a note is none.) Compaction writes the live facts into `<n + 1>` (up to *snapshot end*), syncs it under
//! another name and renames it; *previous* says which state of which journal it stands for, so that the index, which
//! remembers a position, need not be rebuilt.
//!
//! Imports the `Disk` seam and records. It never knows what a record means.
#![cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, reason = "the readers are public to be fuzzed")
)]

use super::disk::{Disk, DiskFile, Mode};
use super::record::{MAX_RECORD_BYTES, Record};
use std::io;
use std::sync::Arc;

/// Directory of the journals.
pub(crate) const DIRECTORY: &str = "journal";
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 40;
/// Largest body of a frame, in bytes; records are spread over frames to stay below. Bounds what a lying length costs.
pub(crate) const MAX_FRAME_BYTES: usize = 16 << 20;
/// Bytes of a frame before its body.
const FRAME_HEADER_BYTES: usize = 20;
const MAGIC: &[u8; 8] = b"shipfs-j";
const FRAME_MAGIC: &[u8; 4] = b"frm1";
const VERSION: u32 = 1;

/// A place in the sequence of journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the journal.
    pub journal: u64,
    /// Bytes of it that are meant.
    pub length: u64,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The records of every whole frame, each with the position of the end of its frame.
    pub records: Vec<(u64, Record)>,
    /// Bytes up to the end of the last whole frame; what follows was never synced.
    pub valid: u64,
    /// Where the last whole frame begins.
    pub last: u64,
    /// End of the facts that compaction wrote.
    pub snapshot_end: u64,
    /// The state of the earlier journal that those facts stand for.
    pub previous: Option<Position>,
}

/// Why a journal cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Not a journal of this version.
    #[error("header is damaged or of another version, expected version {VERSION}")]
    Header,
    /// A synced frame does not match its checksum.
    #[error("the frame at byte {offset} is damaged although frames behind it are whole")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
    },
    /// A frame matches its checksum and holds something unknown.
    #[error("the frame at byte {offset} holds a record of an unknown kind")]
    Unknown {
        /// Where the frame begins.
        offset: u64,
    },
}

/// Decodes a whole journal, header included. Pure; a torn tail is not an error.
///
/// # Errors
/// [`JournalError`] when facts would be lost by going on.
pub fn decode_records(input: &[u8]) -> Result<Decoded, JournalError> {
    let mut decoded = decode_header(input).ok_or(JournalError::Header)?;
    let mut at = HEADER_BYTES;
    decoded.last = at as u64;
    while let Some((body, end)) = frame_at(input, at) {
        let mut rest = body;
        while !rest.is_empty() {
            let record = Record::decode(&mut rest).ok_or(JournalError::Unknown { offset: at as u64 })?;
            decoded.records.push((end as u64, record));
        }
        decoded.last = at as u64;
        at = end;
    }
    decoded.valid = at as u64;
    // The snapshot was synced before it got its name: it is never torn.
    let damaged = decoded.valid < decoded.snapshot_end
        || (at + 1..input.len()).any(|next| input[next..].starts_with(FRAME_MAGIC) && frame_at(input, next).is_some());
    if damaged { Err(JournalError::Damaged { offset: at as u64 }) } else { Ok(decoded) }
}

fn decode_header(input: &[u8]) -> Option<Decoded> {
    let header = input.get(..HEADER_BYTES)?;
    let (fields, crc) = header.split_at(HEADER_BYTES - 4);
    if !fields.starts_with(MAGIC) || crc32fast::hash(fields).to_le_bytes() != crc || read_u32(fields, 8)? != VERSION {
        return None;
    }
    let previous = Position { journal: read_u64(fields, 20)?, length: read_u64(fields, 28)? };
    Some(Decoded {
        snapshot_end: read_u64(fields, 12)?,
        previous: (previous.journal != 0).then_some(previous),
        ..Decoded::default()
    })
}

/// Body and end of the frame at `at`, when a whole one is there.
fn frame_at(input: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let start = at.checked_add(FRAME_HEADER_BYTES)?;
    let header = input.get(at..start)?;
    let length = read_u32(header, 12)? as usize;
    if !header.starts_with(FRAME_MAGIC) || read_u64(header, 4)? != at as u64 || length > MAX_FRAME_BYTES {
        return None;
    }
    let end = start + length;
    let body = input.get(start..end)?;
    (frame_crc(&header[4..16], body) == read_u32(header, 16)?).then_some((body, end))
}

fn frame_crc(fields: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(fields);
    crc.update(body);
    crc.finalize()
}

fn read_u32(input: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(input.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(input: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(input.get(at..at + 8)?.try_into().ok()?))
}

/// Encodes records as frames, as few as fit, for byte `at` of a journal.
pub fn encode_frames(at: u64, records: &[Record]) -> Vec<u8> {
    let (mut out, mut body) = (Vec::new(), Vec::new());
    for record in records {
        record.encode(&mut body);
        if body.len() > MAX_FRAME_BYTES - MAX_RECORD_BYTES {
            push_frame(at, &mut out, &body);
            body.clear();
        }
    }
    if !body.is_empty() {
        push_frame(at, &mut out, &body);
    }
    out
}

fn push_frame(at: u64, out: &mut Vec<u8>, body: &[u8]) {
    let mut fields = (at + out.len() as u64).to_le_bytes().to_vec();
    fields.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(FRAME_MAGIC);
    out.extend_from_slice(&fields);
    out.extend_from_slice(&frame_crc(&fields, body).to_le_bytes());
    out.extend_from_slice(body);
}

/// Encodes a whole journal that begins with `records`, standing for `previous`.
pub fn encode_journal(previous: Option<Position>, records: &[Record]) -> Vec<u8> {
    let frames = encode_frames(HEADER_BYTES as u64, records);
    let previous = previous.unwrap_or(Position { journal: 0, length: 0 });
    let mut out = Vec::with_capacity(HEADER_BYTES + frames.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&((HEADER_BYTES + frames.len()) as u64).to_le_bytes());
    out.extend_from_slice(&previous.journal.to_le_bytes());
    out.extend_from_slice(&previous.length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out.extend_from_slice(&frames);
    out
}

/// The journal that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<dyn DiskFile>,
    number: u64,
    length: u64,
}

impl Journal {
    /// Writes a new journal under another name, syncs it, and gives it its name; then removes the earlier one.
    pub(crate) fn create(disk: &dyn Disk, previous: Option<Position>, records: &[Record]) -> io::Result<Self> {
        let number = previous.map_or(1, |previous| previous.journal + 1);
        let bytes = encode_journal(previous, records);
        let (path, temporary) = (path(number), format!("{DIRECTORY}/{number}.tmp"));
        let file = disk.open(&temporary, Mode::Truncate)?;
        file.write(0, &bytes)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(DIRECTORY)?;
        Ok(Self { file, number, length: bytes.len() as u64 })
    }

    /// Opens journal `number`, which holds `bytes`, and cuts off what is torn. The last frame is written once more: its sync
    /// may have failed, and what the kernel still shows may not be on the disk.
    pub(crate) fn resume(disk: &dyn Disk, number: u64, bytes: &[u8], decoded: &Decoded) -> io::Result<Self> {
        let file = disk.open(&path(number), Mode::Write)?;
        if bytes.len() as u64 != decoded.valid {
            file.set_len(decoded.valid)?;
        }
        if let (Ok(last), Ok(valid)) = (usize::try_from(decoded.last), usize::try_from(decoded.valid)) {
            file.write(decoded.last, &bytes[last..valid])?;
        }
        file.sync()?;
        Ok(Self { file, number, length: decoded.valid })
    }

    /// Everything in it, header included.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        self.file.read(0, usize::try_from(self.length).map_err(|_| io::ErrorKind::FileTooLarge)?)
    }

    /// Where the next frame goes.
    pub(crate) fn position(&self) -> Position {
        Position { journal: self.number, length: self.length }
    }

    /// Appends one frame (more past [`MAX_FRAME_BYTES`]) and syncs it. After a failed write nothing has happened and it
    /// may be tried again; whether a failed *sync* happened is unknown.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        let frames = encode_frames(self.length, records);
        if let Err(error) = self.file.write(self.length, &frames) {
            // What was written of it is overwritten by the next frame, and no reader takes it for a frame.
            let _ = self.file.set_len(self.length);
            return Err(AppendError::Write(error));
        }
        self.file.sync().map_err(AppendError::Sync)?;
        self.length += frames.len() as u64;
        Ok(())
    }
}

/// Why a frame was not appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Not written; nothing has happened.
    Write(io::Error),
    /// Written, and perhaps not durable.
    Sync(io::Error),
}

/// Path of journal `number`.
pub(crate) fn path(number: u64) -> String {
    format!("{DIRECTORY}/{number}")
}
