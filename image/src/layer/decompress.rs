//! What a layer's blob holds: gzip of any number of members, zstd, or the tar itself.
//!
//! Imports [`media`], [`Limits`] and the errors. The content decides, as it does for containerd: media
//! types are often wrong. Memory is bounded by the window; bytes after the end, and a missing end, are errors.

use std::{
    cell::{Cell, RefCell},
    io::{self, BufReader, Read},
    rc::Rc,
};

use super::{ApplyError, Limit, Limits};
use crate::oci::media::{self, Compression};

/// Compressed bytes read at a time.
const INPUT_BYTES: usize = 256 << 10;

/// Whether layers of this type are archives that can be read here.
///
/// # Errors
/// [`ApplyError::MediaType`] for encrypted layers and what is no layer at all.
pub fn check_type(media_type: &str) -> Result<(), ApplyError> {
    if media::is_layer(media_type) && !media_type.contains("encrypted") {
        return Ok(());
    }
    Err(ApplyError::MediaType { media_type: media_type.chars().take(200).collect() })
}

/// The bytes inside a blob, counted.
pub struct Decompressor<R: Read> {
    decoder: Decoder<Input<R>>,
    source: Rc<Source>,
    limits: Limits,
    produced: u64,
}

type Input<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, Counting<R>>>;

enum Decoder<B: io::BufRead> {
    Plain(B),
    Gzip(Box<flate2::bufread::MultiGzDecoder<B>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, B>>),
}

/// What the other side of a decoder knows.
#[derive(Default)]
struct Source {
    bytes: Cell<u64>,
    failure: RefCell<Option<io::Error>>,
}

struct Counting<R> {
    inner: R,
    source: Rc<Source>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Ok(length) => {
                    self.source.bytes.set(self.source.bytes.get() + length as u64);
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    self.source.failure.replace(Some(error));
                    return Err(kind.into());
                }
            }
        }
    }
}

impl<R: Read> Decompressor<R> {
    /// Looks at the first bytes of `blob`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(blob: R, limits: &Limits) -> Result<Self, ApplyError> {
        let source = Rc::new(Source::default());
        let mut counting = Counting { inner: blob, source: Rc::clone(&source) };
        let mut start = Vec::with_capacity(Compression::SNIFF_BYTES);
        let sniffed = counting.by_ref().take(Compression::SNIFF_BYTES as u64).read_to_end(&mut start);
        sniffed.map_err(|error| ApplyError::Read(source.failure.take().unwrap_or(error)))?;
        let compression = Compression::sniff(&start);
        let input = BufReader::with_capacity(INPUT_BYTES, io::Cursor::new(start).chain(counting));
        let decoder = match compression {
            Compression::None => Decoder::Plain(input),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(ApplyError::Decompress)?;
                decoder.window_log_max(limits.zstd_window_log).map_err(ApplyError::Decompress)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, source, limits: limits.clone(), produced: 0 })
    }

    /// Fills `buffer`; less than that only at the end.
    ///
    /// # Errors
    /// When the blob cannot be read, is malformed, or exceeds a limit.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ApplyError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let read = match &mut self.decoder {
                Decoder::Plain(reader) => reader.read(rest),
                Decoder::Gzip(reader) => reader.read(rest),
                Decoder::Zstd(reader) => reader.read(rest),
            };
            match read {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(match self.source.failure.take() {
                        Some(failure) => ApplyError::Read(failure),
                        None if error.kind() == io::ErrorKind::UnexpectedEof => {
                            ApplyError::Truncated { what: "its compressed bytes" }
                        }
                        None => ApplyError::Decompress(error),
                    });
                }
            }
        }
        self.produced += filled as u64;
        self.check()?;
        Ok(filled)
    }

    fn check(&self) -> Result<(), ApplyError> {
        let Limits { bytes, ratio, ratio_free_bytes, .. } = self.limits;
        if self.produced > bytes {
            return Err(ApplyError::Limit { what: Limit::Bytes, limit: bytes });
        }
        let allowed = self.source.bytes.get().saturating_mul(ratio).max(ratio_free_bytes);
        if self.produced > allowed && !matches!(self.decoder, Decoder::Plain(_)) {
            return Err(ApplyError::Limit { what: Limit::Ratio, limit: ratio });
        }
        Ok(())
    }
}
