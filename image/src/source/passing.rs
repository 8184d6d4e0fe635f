//! A stream that is read once, from its beginning to its end, by whoever needs the next bytes of it.
//!
//! Imports its parent's errors. A [`Stream`] may be cloned: each clone has a place of its own in it, and goes on only from
//! where the others have read to. What nobody reads is passed over.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

use super::SourceError;

/// Bytes passed over at a time.
const SKIP_BYTES: usize = 64 << 10;

/// A place in a stream.
#[derive(Clone)]
pub(super) struct Stream {
    shared: Arc<Mutex<Shared>>,
    at: u64,
}

struct Shared {
    reader: Box<dyn Read + Send>,
    /// Bytes that were read of it.
    at: u64,
    has_ended: bool,
    /// Why no more could be read.
    failed: Option<io::Error>,
}

impl Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(length) => {
                    self.has_ended |= length == 0 && !buffer.is_empty();
                    self.at += length as u64;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let again = io::Error::new(error.kind(), error.to_string());
                    self.failed.get_or_insert(error);
                    return Err(again);
                }
            }
        }
    }

    /// Passes over what lies before `to`; says whether the stream goes so far.
    fn skip_to(&mut self, to: u64) -> io::Result<bool> {
        if self.at >= to {
            return Ok(true);
        }
        let mut skipped = vec![0; SKIP_BYTES];
        while self.at < to {
            let length = usize::try_from(to - self.at).unwrap_or(usize::MAX).min(SKIP_BYTES);
            if self.read(&mut skipped[..length])? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Stream {
    /// The beginning of a stream.
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        let shared = Shared { reader, at: 0, has_ended: false, failed: None };
        Self { shared: Arc::new(Mutex::new(shared)), at: 0 }
    }

    /// The next `size` bytes after `offset`.
    pub(super) fn part(&self, offset: u64, size: u64) -> Passing {
        Passing { stream: Self { shared: Arc::clone(&self.shared), at: offset }, left: size }
    }

    /// Reads on to the end, or so many bytes.
    pub(super) fn drain(&self, limit: u64) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let end = shared.at.saturating_add(limit);
        let mut skipped = vec![0; SKIP_BYTES];
        while shared.at < end && matches!(shared.read(&mut skipped), Ok(1..)) {}
    }

    /// Why the stream could not be read further, if it was that.
    pub(super) fn failure(&self) -> Option<SourceError> {
        let source = self.shared.lock().unwrap_or_else(PoisonError::into_inner).failed.take()?;
        // How decoders say that what they read was cut off.
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Some(SourceError::Archive(source));
        }
        Some(SourceError::Read { what: "archive".to_owned(), source })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.at > self.at {
            return Err(io::Error::other("what has passed cannot be read again"));
        }
        if !shared.skip_to(self.at)? {
            return Ok(0);
        }
        let length = shared.read(buffer)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Stream {
    /// Goes on, which costs nothing until something is read.
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let to = match position {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(self.at)
    }
}

/// A file of a stream, which has so many bytes or is cut off.
#[derive(Clone)]
pub(super) struct Passing {
    stream: Stream,
    left: u64,
}

impl Passing {
    /// Bytes left to read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Passes over what nobody read of the file `name` of `size` bytes, which must be there all the same.
    pub(super) fn pass_over(&self, name: &str, size: u64) -> Result<(), SourceError> {
        let end = self.stream.at + self.left;
        let mut shared = self.stream.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = shared.skip_to(end);
        drop(shared);
        match is_there {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failure(name, size, io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.failure(name, size, source)),
        }
    }

    /// Why the file `name` of `size` bytes could not be read to its end, if the stream is to blame.
    pub(super) fn broken(&self, name: &str, size: u64) -> Option<SourceError> {
        if let Some(failure) = self.stream.failure() {
            return Some(failure);
        }
        let shared = self.stream.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = self.stream.at - (size - self.left);
        shared.has_ended.then(|| SourceError::Truncated { name: name.to_owned(), size, offset, end: shared.at })
    }

    /// The same of an error of this reader.
    pub(super) fn failure(&self, name: &str, size: u64, source: io::Error) -> SourceError {
        self.broken(name, size).unwrap_or_else(|| SourceError::Read { what: name.to_owned(), source })
    }
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let length = self.stream.read(&mut buffer[..length])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}
