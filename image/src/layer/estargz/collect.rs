//! Puts members one after the other, and the table of contents aside until they are all there.
//!
//! Imports `members` and `toc`. Only the entries of one file are in memory: the digest in the first is known after the last.

use std::{
    fs::File,
    io::{BufWriter, Seek as _, Write},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{
    ConvertError, MAX_TOC_BYTES,
    members::{Member, Note},
    toc::{TOC_END, TOC_START, TocEntry},
};
use crate::{oci::Digest, source::nameless};

/// What the members become.
pub(super) struct Collector<W> {
    pub(super) output: W,
    /// Bytes that were written.
    pub(super) offset: u64,
    pub(super) toc: Toc,
    /// Entries of the file whose digest is not known yet.
    pending: Vec<TocEntry>,
}

impl<W: Write> Collector<W> {
    /// Lays the table aside in a file without a name in `spool`.
    pub(super) fn new(spool: &Path, output: W) -> Result<Self, ConvertError> {
        Ok(Self { output, offset: 0, toc: Toc::new(spool)?, pending: Vec::new() })
    }

    pub(super) fn take(&mut self, member: Member) -> Result<(), ConvertError> {
        for note in member.notes {
            match note {
                Note::Entry(mut entry) if entry.has_bytes() => {
                    entry.offset = self.offset;
                    self.pending.push(*entry);
                }
                Note::Entry(entry) => self.toc.write(&entry)?,
                Note::Digest(digest) => {
                    let mut entries = std::mem::take(&mut self.pending);
                    if let Some(first) = entries.first_mut() {
                        first.digest = digest.to_string();
                    }
                    entries.iter().try_for_each(|entry| self.toc.write(entry))?;
                }
            }
        }
        self.offset += member.bytes.len() as u64;
        self.output.write_all(&member.bytes).map_err(ConvertError::Output)
    }
}

/// The table, in a file.
pub(super) struct Toc {
    file: BufWriter<File>,
    hasher: Sha256,
    bytes: u64,
    line: Vec<u8>,
    is_empty: bool,
}

impl Toc {
    fn new(spool: &Path) -> Result<Self, ConvertError> {
        let file = BufWriter::new(nameless(spool).map_err(ConvertError::Toc)?);
        let mut toc = Self { file, hasher: Sha256::new(), bytes: 0, line: TOC_START.to_vec(), is_empty: true };
        toc.write_line()?;
        Ok(toc)
    }

    fn write(&mut self, entry: &TocEntry) -> Result<(), ConvertError> {
        if !std::mem::take(&mut self.is_empty) {
            self.line.push(b',');
        }
        entry.write(&mut self.line);
        self.write_line()
    }

    fn write_line(&mut self) -> Result<(), ConvertError> {
        self.hasher.update(&self.line);
        self.bytes += self.line.len() as u64;
        if self.bytes > MAX_TOC_BYTES {
            return Err(ConvertError::TocTooLong);
        }
        self.file.write_all(&self.line).map_err(ConvertError::Toc)?;
        self.line.clear();
        Ok(())
    }

    /// The whole table at its start, its bytes and its digest.
    pub(super) fn finish(mut self) -> Result<(File, u64, Digest), ConvertError> {
        self.line.extend_from_slice(TOC_END);
        self.write_line()?;
        let mut file = self.file.into_inner().map_err(|error| ConvertError::Toc(error.into_error()))?;
        file.rewind().map_err(ConvertError::Toc)?;
        Ok((file, self.bytes, Digest::Sha256(self.hasher.finalize().into())))
    }
}
