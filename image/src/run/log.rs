//! What a container printed while nobody was there to see it.
//!
//! One line a record, as Kubernetes' runtimes write it: `TIME stdout|stderr F|P TEXT`, where `P` says that the line goes on
//! in the next record. Bytes are kept as they are. A log is bounded: past a size it becomes `log.1`, whose predecessor goes.
//! Imports how moments are written.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use crate::rfc3339;

/// Name of the log in a container's directory.
const NAME: &str = "log";
/// Size past which a new log is begun: two of them are what a container may fill a disk with.
const MAX_LOG_BYTES: u64 = 10 << 20;
/// Longest piece of a line in one record.
const MAX_PIECE_BYTES: usize = 16 << 10;
/// Longest record that is read: a piece and what stands before it.
const MAX_RECORD_BYTES: u64 = (MAX_PIECE_BYTES + 128) as u64;
/// How often somebody who follows a log looks for more.
pub const FOLLOW_PACE: Duration = Duration::from_millis(100);

/// A log that is being written, by several threads.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    file: Mutex<(File, u64)>,
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and a terminal.
    Output,
    /// Standard error.
    Error,
}

impl Log {
    /// Begins a log in a container's directory.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self { folder: folder.to_owned(), file: Mutex::new((open(folder)?, 0)) })
    }

    /// Writes down what comes out of `reader`, until that ends. A disk that is full loses words, it does not stop the
    /// container.
    pub(crate) fn copy(&self, reader: impl Read, stream: Stream) {
        let mut reader = BufReader::with_capacity(MAX_PIECE_BYTES, reader);
        loop {
            let (piece, is_whole) = match reader.fill_buf() {
                Ok([]) => return,
                Ok(buffer) => match buffer.iter().position(|byte| *byte == b'\n') {
                    Some(end) => (buffer[..end].to_vec(), true),
                    None => (buffer.to_vec(), false),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal ends so.
                Err(_) => return,
            };
            reader.consume(piece.len() + usize::from(is_whole));
            if let Err(error) = self.write(stream, &piece, is_whole) {
                tracing::debug!(%error, "a line of a container is lost");
            }
        }
    }

    fn write(&self, stream: Stream, piece: &[u8], is_whole: bool) -> io::Result<()> {
        let name = if stream == Stream::Output { "stdout" } else { "stderr" };
        let mut record =
            format!("{} {name} {} ", rfc3339::nanoseconds(SystemTime::now()), if is_whole { 'F' } else { 'P' })
                .into_bytes();
        record.extend_from_slice(piece);
        record.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if file.1 + record.len() as u64 > MAX_LOG_BYTES {
            fs::rename(self.folder.join(NAME), self.folder.join(format!("{NAME}.1")))?;
            *file = (open(&self.folder)?, 0);
        }
        file.0.write_all(&record)?;
        file.1 += record.len() as u64;
        Ok(())
    }
}

fn open(folder: &Path) -> io::Result<File> {
    fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(folder.join(NAME))
}

/// Reads a log from its beginning, and what is added to it.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    reader: Option<BufReader<File>>,
    is_old: bool,
}

impl LogReader {
    /// Opens the log of a container.
    pub fn open(container: &super::state::Container) -> Self {
        Self::in_folder(&container.directory)
    }

    fn in_folder(folder: &Path) -> Self {
        let old = File::open(folder.join(format!("{NAME}.1"))).ok();
        let is_old = old.is_some();
        let first = old.or_else(|| File::open(folder.join(NAME)).ok());
        Self { folder: folder.to_owned(), reader: first.map(BufReader::new), is_old }
    }

    /// The next piece that was printed, with its line's end if it has one; `None` when there is no more for now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn next_piece(&mut self) -> io::Result<Option<(Stream, Vec<u8>)>> {
        loop {
            let Some(reader) = &mut self.reader else {
                self.reader = File::open(self.folder.join(NAME)).ok().map(BufReader::new);
                self.is_old = false;
                if self.reader.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let mut record = Vec::new();
            let read = reader.by_ref().take(MAX_RECORD_BYTES).read_until(b'\n', &mut record)?;
            if record.pop_if(|byte| *byte == b'\n').is_some() {
                if let Some(piece) = parse(&record) {
                    return Ok(Some(piece));
                }
                continue;
            }
            // Half a record is whole the next time.
            reader.seek_relative(-i64::try_from(read).unwrap_or(0))?;
            if self.is_old || self.was_replaced()? {
                self.reader = None;
                continue;
            }
            return Ok(None);
        }
    }

    /// Whether a new log was begun since this one was opened.
    fn was_replaced(&mut self) -> io::Result<bool> {
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let own = reader.get_ref().metadata()?;
        let is_at_end = reader.stream_position()? >= own.len();
        Ok(is_at_end && fs::metadata(self.folder.join(NAME)).is_ok_and(|now| now.ino() != own.ino()))
    }
}

fn parse(record: &[u8]) -> Option<(Stream, Vec<u8>)> {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let (_, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let stream = if stream == b"stderr" { Stream::Error } else { Stream::Output };
    let mut text = text.to_vec();
    if tag == b"F" {
        text.push(b'\n');
    }
    Some((stream, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut LogReader) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some((_, piece)) = reader.next_piece().expect("reads") {
            text.extend(piece);
        }
        text
    }

    #[test]
    fn what_was_printed_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a directory");
        let log = Log::create(folder.path()).expect("begun");
        let mut printed = b"one\n\ntwo \xff\x00 bytes\n".to_vec();
        printed.extend(vec![b'x'; 3 * MAX_PIECE_BYTES + 7]);
        printed.extend(b"\nno end");
        log.copy(&printed[..], Stream::Output);
        let mut reader = LogReader::in_folder(folder.path());
        assert_eq!(all(&mut reader), printed);
        log.copy(&b"more\n"[..], Stream::Error);
        assert_eq!(reader.next_piece().expect("reads"), Some((Stream::Error, b"more\n".to_vec())));
        assert_eq!(reader.next_piece().expect("reads"), None);
    }

    #[test]
    fn a_log_is_bounded_and_followed_across_its_end() {
        let folder = tempfile::tempdir().expect("a directory");
        let log = Log::create(folder.path()).expect("begun");
        let line = [vec![b'y'; 1023], vec![b'\n']].concat();
        let mut reader = LogReader::in_folder(folder.path());
        let mut seen = 0;
        for _ in 0..30 {
            log.copy(&line.repeat(1024)[..], Stream::Output);
            seen += all(&mut reader).len();
        }
        assert_eq!(seen, 30 << 20, "a follower misses nothing");
        let size: u64 = fs::read_dir(folder.path())
            .expect("listed")
            .map(|file| file.expect("one").metadata().expect("there").len())
            .sum();
        assert!(size <= 2 * MAX_LOG_BYTES, "{size} bytes");
        let late = all(&mut LogReader::in_folder(folder.path()));
        assert!(late.len() as u64 > MAX_LOG_BYTES / 2 && late.starts_with(b"yyy"));
    }
}
