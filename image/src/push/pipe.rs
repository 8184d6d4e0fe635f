//! Bytes from whoever makes them to whoever stores them, on two threads.
//!
//! Imports nothing of this crate. A stream that its writer did not end is an error to its reader: what is half made is
//! never taken for whole.

use std::{
    io::{self, Read, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

/// Pieces that wait for the reader. Writers here write a megabyte at a time, or so.
const WAITING: usize = 2;

/// Both ends of a stream.
pub(super) fn pipe() -> (PipeReader, PipeWriter) {
    let (sender, receiver) = sync_channel(WAITING);
    (PipeReader { pieces: receiver, piece: Vec::new(), at: 0, ended: false }, PipeWriter(sender))
}

/// The end that is read. Blocks.
pub(super) struct PipeReader {
    pieces: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

/// The end that is written to. Blocks.
pub(super) struct PipeWriter(SyncSender<Vec<u8>>);

impl PipeWriter {
    /// Says that this was all.
    pub(super) fn end(self) -> io::Result<()> {
        self.0.send(Vec::new()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended && !buffer.is_empty() {
            self.piece = self.pieces.recv().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            self.at = 0;
            self.ended = self.piece.is_empty();
        }
        let rest = &self.piece[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_ended_is_an_error() {
        let (mut reader, mut writer) = pipe();
        writer.write_all(b"whole").expect("room");
        writer.end().expect("somebody reads");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("whole");
        assert_eq!(text, "whole");
        let (mut reader, mut writer) = pipe();
        writer.write_all(b"half").expect("room");
        drop(writer);
        assert_eq!(reader.read_to_end(&mut Vec::new()).expect_err("half").kind(), io::ErrorKind::UnexpectedEof);
        let (reader, mut writer) = pipe();
        drop(reader);
        assert_eq!(writer.write_all(b"x").expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
    }
}
