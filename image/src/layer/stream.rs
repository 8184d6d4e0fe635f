//! Decompresses on one thread, hashes on another, and hands the bytes to a third.
//!
//! Imports `decompress` and the errors. Inflating is what takes longest, so nothing else happens on its thread. No more
//! than [`CHUNKS`] pieces wait on either side, and their memory is used again.

use std::{
    io::Read,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use sha2::{Digest as _, Sha256, Sha512};

use super::{ApplyError, Limits, decompress::Decompressor};
use crate::oci::Digest;

/// Bytes handed over at a time: the threads meet some thousand times a second.
const CHUNK_BYTES: usize = 256 << 10;
/// Pieces that wait for the slower of two threads: 2 MiB.
const CHUNKS: usize = 8;

type Chunk = Arc<Vec<u8>>;

/// Buffers to use again.
#[derive(Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(CHUNK_BYTES, 0);
        buffer
    }

    /// The last of those who hold a chunk gives it back.
    fn give(&self, chunk: Chunk) {
        if let Some(buffer) = Arc::into_inner(chunk) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// The decompressed bytes of a layer, in order, once.
pub(super) struct Stream<'p> {
    chunks: Receiver<Result<Chunk, ApplyError>>,
    pool: &'p Pool,
    current: Option<Chunk>,
    at: usize,
}

impl Stream<'_> {
    /// The next bytes, at most `most`; none at the end, or when none are wanted.
    pub(super) fn next(&mut self, most: u64) -> Result<&[u8], ApplyError> {
        if most > 0 && self.current.as_ref().is_none_or(|chunk| self.at == chunk.len()) {
            if let Some(chunk) = self.current.take() {
                self.pool.give(chunk);
            }
            self.at = 0;
            // Gone without an error: the end.
            self.current = self.chunks.recv().ok().transpose()?;
        }
        let rest = self.current.as_ref().map_or(&[][..], |chunk| &chunk[self.at..]);
        let length = rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.at += length;
        Ok(&rest[..length])
    }

    /// Fills `buffer`, or says how much of it there was.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ApplyError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let next = self.next((buffer.len() - filled) as u64)?;
            if next.is_empty() {
                break;
            }
            buffer[filled..filled + next.len()].copy_from_slice(next);
            filled += next.len();
        }
        Ok(filled)
    }
}

/// How a stream is hashed.
enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

/// What `consume` makes of the bytes in `blob`, their digest, and how many there were. It has to read them all.
///
/// The digest is of the algorithm of `like`, SHA-256 without.
pub(super) fn read<T>(
    blob: impl Read + Send,
    limits: &Limits,
    like: Option<&Digest>,
    consume: impl FnOnce(&mut Stream<'_>) -> Result<T, ApplyError>,
) -> Result<(T, Digest, u64), ApplyError> {
    let pool = Pool::default();
    let pool = &pool;
    let (to_consumer, chunks) = sync_channel(CHUNKS);
    let (to_hasher, hashed) = sync_channel::<Chunk>(CHUNKS);
    let hasher = match like {
        Some(Digest::Sha512(_)) => Hasher::Sha512(Box::default()),
        _ => Hasher::Sha256(Sha256::new()),
    };
    thread::scope(|scope| {
        let hashing = thread::Builder::new()
            .name("layer-hash".to_owned())
            .spawn_scoped(scope, move || hash(&hashed, hasher, pool))
            .map_err(ApplyError::Thread)?;
        let inflating = thread::Builder::new()
            .name("layer-inflate".to_owned())
            .spawn_scoped(scope, move || {
                if let Err(error) = inflate(blob, limits, pool, &to_consumer, &to_hasher) {
                    // Nobody listens any more when the consumer has failed before.
                    let _ = to_consumer.send(Err(error));
                }
            })
            .map_err(ApplyError::Thread)?;
        let mut stream = Stream { chunks, pool, current: None, at: 0 };
        let result = consume(&mut stream);
        drop(stream);
        inflating.join().unwrap_or_else(|panic| resume_unwind(panic));
        let (digest, bytes) = hashing.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((result?, digest, bytes))
    })
}

fn inflate(
    blob: impl Read,
    limits: &Limits,
    pool: &Pool,
    to_consumer: &SyncSender<Result<Chunk, ApplyError>>,
    to_hasher: &SyncSender<Chunk>,
) -> Result<(), ApplyError> {
    let mut decompressor = Decompressor::new(blob, limits)?;
    loop {
        let mut buffer = pool.take();
        let length = decompressor.fill(&mut buffer)?;
        buffer.truncate(length);
        if length == 0 {
            return Ok(());
        }
        let chunk = Arc::new(buffer);
        let lost = to_hasher.send(Arc::clone(&chunk)).is_err() || to_consumer.send(Ok(chunk)).is_err();
        if lost {
            return Ok(());
        }
    }
}

fn hash(chunks: &Receiver<Chunk>, mut hasher: Hasher, pool: &Pool) -> (Digest, u64) {
    let mut bytes = 0;
    while let Ok(chunk) = chunks.recv() {
        bytes += chunk.len() as u64;
        match &mut hasher {
            Hasher::Sha256(hasher) => hasher.update(&chunk[..]),
            Hasher::Sha512(hasher) => hasher.update(&chunk[..]),
        }
        pool.give(chunk);
    }
    let digest = match hasher {
        Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
        Hasher::Sha512(hasher) => Digest::Sha512(Box::new(hasher.finalize().into())),
    };
    (digest, bytes)
}
