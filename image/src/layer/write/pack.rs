//! A layer on its way to whoever stores it: hashed, compressed, handed over in pieces from one thread to another.
//!
//! Imports its parent. What is written ends only by [`Packing::finish`]: a writer that is dropped before makes its reader fail,
//! so that half a layer is never taken for one. No more than [`PIECES`] wait.

use std::{
    io::{self, Read, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use flate2::{GzBuilder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::WriteError;
use crate::{
    layer::{Limit, Limits},
    oci::{Digest, media::Compression},
};

/// Bytes handed over at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for whoever stores them: 1 MiB.
const PIECES: usize = 4;

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the bytes before they were compressed.
    pub diff_id: Digest,
}

/// Takes an archive's bytes, and hands them on packed.
pub struct Packing {
    encoder: Encoder,
    hasher: Sha256,
    plain_bytes: u64,
}

/// Gives the packed bytes: to be read on another thread.
pub struct PackedReader {
    pieces: Receiver<Piece>,
    current: io::Cursor<Vec<u8>>,
    ended: bool,
}

enum Encoder {
    Plain(Pieces),
    Gzip(Box<GzEncoder<Pieces>>),
}

enum Piece {
    Bytes(Vec<u8>),
    End,
}

struct Pieces {
    to: SyncSender<Piece>,
    buffer: Vec<u8>,
    bytes: u64,
}

/// The two ends of a layer that is being packed. `None` for a compression that is not written here.
pub fn packer(compression: Compression) -> Option<(Packing, PackedReader)> {
    let (to, pieces) = sync_channel(PIECES);
    let pieces_to = Pieces { to, buffer: Vec::with_capacity(PIECE_BYTES), bytes: 0 };
    let encoder = match compression {
        Compression::None => Encoder::Plain(pieces_to),
        // No time and no name: the same bytes at every run.
        Compression::Gzip => Encoder::Gzip(Box::new(GzBuilder::new().write(pieces_to, flate2::Compression::default()))),
        Compression::Zstd => return None,
    };
    let packing = Packing { encoder, hasher: Sha256::new(), plain_bytes: 0 };
    Some((packing, PackedReader { pieces, current: io::Cursor::default(), ended: false }))
}

impl Packing {
    /// Hands the last of it over.
    ///
    /// # Errors
    /// When the reader is gone, or so much was made so small that whoever unpacks it would take it for a bomb.
    pub fn finish(self, limits: &Limits) -> Result<Packed, WriteError> {
        let is_compressed = matches!(self.encoder, Encoder::Gzip(_));
        let mut pieces = match self.encoder {
            Encoder::Plain(pieces) => pieces,
            Encoder::Gzip(encoder) => encoder.finish().map_err(WriteError::Write)?,
        };
        let allowed = pieces.bytes.saturating_mul(limits.ratio).max(limits.ratio_free_bytes);
        if is_compressed && self.plain_bytes > allowed {
            return Err(WriteError::Limit { what: Limit::Ratio, limit: limits.ratio });
        }
        pieces.flush().map_err(WriteError::Write)?;
        pieces.to.send(Piece::End).map_err(|_| WriteError::Write(gone()))?;
        Ok(Packed { diff_id: Digest::Sha256(self.hasher.finalize().into()) })
    }
}

impl Write for Packing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.encoder {
            Encoder::Plain(pieces) => pieces.write(bytes)?,
            Encoder::Gzip(encoder) => encoder.write(bytes)?,
        };
        self.hasher.update(&bytes[..length]);
        self.plain_bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        self.bytes += length as u64;
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        self.to.send(Piece::Bytes(piece)).map_err(|_| gone())
    }
}

impl Read for PackedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.current.read(buffer)?;
            if length > 0 || buffer.is_empty() || self.ended {
                return Ok(length);
            }
            match self.pieces.recv() {
                Ok(Piece::Bytes(piece)) => self.current = io::Cursor::new(piece),
                Ok(Piece::End) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the layer was not written to its end"));
                }
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "nobody stores it any more")
}
