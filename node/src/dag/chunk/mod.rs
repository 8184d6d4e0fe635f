//! A file's leaves and its digest: read once, hashed twice while the bytes are warm, written once.
//!
//! Imports `block` and `build::Leaf`. It never spawns a task or touches a runtime: it blocks, and works with plain
//! threads that end before it returns. It holds [`IN_FLIGHT_BYTES`] at most, whatever the input's size.
//!
//! A whole-file digest is sequential, the hashes of the leaves are not, and together they are all the work there is:
//! how it is shared out over the threads is the story of `line`.

mod line;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use self::line::Line;
use super::CHUNK_BYTES;
use super::build::Leaf;
use crate::block::{CODEC_RAW, cid_from_sha256};

/// Bytes that are read, digested and handed on at a time: four leaves, few enough to stay in a core's cache, many
/// enough that a system call for each costs nothing.
const PIECE_BYTES: usize = 4 * CHUNK_BYTES;
/// Pieces in memory at a time: one being read, one digested, one written, one whose leaves are hashed, and two between.
const PIECES: usize = 6;
/// Bytes of input held at a time.
pub const IN_FLIGHT_BYTES: usize = PIECES * PIECE_BYTES;
/// Threads that can be busy at a time: the digest keeps one, and in the time it needs for a byte, its leaf hash, its
/// read and its write keep three others at most.
const MAX_THREADS: usize = 4;

/// What hashing a file yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Its leaves in order; one empty leaf when it is empty.
    pub leaves: Vec<Leaf>,
    /// SHA2-256 of the whole.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: u64,
}

/// What takes the bytes of an input in order: the offset and a piece of at most 1 MiB.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + Send + 'a;

/// Hashes `file` from its start to its end, whatever its cursor; both hashes of a piece are made while it is warm.
///
/// `threads` counts the caller's, which works too. A file of one leaf is hashed once, since its digest is the leaf's.
///
/// # Errors
/// Those of reading the file.
pub fn hash_file(file: &File, threads: usize) -> io::Result<Hashed> {
    ingest(&mut Positioned { file, offset: 0 }, &mut |_, _| Ok(()), threads, &|_| ())
}

/// Hashes the leaves of `file` and not the whole: half the work, for bytes whose digest is known.
///
/// # Errors
/// Those of reading the file, [`io::ErrorKind::UnexpectedEof`] when it shrinks meanwhile.
pub fn hash_leaves(file: &File, threads: usize) -> io::Result<Vec<Leaf>> {
    let size = file.metadata()?.len();
    let count = size.div_ceil(CHUNK_BYTES as u64).max(1);
    let next = AtomicU64::new(0);
    let work = || -> io::Result<Vec<(u64, Leaf)>> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut leaves = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(leaves);
            }
            let offset = index * CHUNK_BYTES as u64;
            let data = &mut buffer[..(size - offset).min(CHUNK_BYTES as u64) as usize];
            file.read_exact_at(data, offset)?;
            leaves.push((index, leaf(Sha256::digest(&*data).into(), data.len())));
        }
    };
    let mut leaves = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads.min(usize::try_from(count).unwrap_or(threads))).map(|_| scope.spawn(work)).collect();
        let mut leaves = work()?;
        for other in others {
            leaves.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        io::Result::Ok(leaves)
    })?;
    leaves.sort_unstable_by_key(|(index, _)| *index);
    Ok(leaves.into_iter().map(|(_, leaf)| leaf).collect())
}

/// Reads `source` to its end, once, hashes it both ways and hands each piece to `sink` in order.
///
/// `threads` counts the caller's, which works too and is the only one that reads. `progress` hears how many bytes the
/// sink has taken so far, after each piece. An empty input calls neither.
///
/// # Errors
/// The first error of `source` or `sink`; the sink is not called again after it.
pub fn ingest(
    source: &mut dyn Read,
    sink: &mut Sink<'_>,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<Hashed> {
    let mut first = vec![0; PIECE_BYTES];
    let length = fill(source, &mut first)?;
    first.truncate(length);
    if length <= CHUNK_BYTES {
        if length > 0 {
            sink(0, &first)?;
            progress(length as u64);
        }
        let digest = Sha256::digest(&first).into();
        return Ok(Hashed { leaves: vec![leaf(digest, length)], digest, size: length as u64 });
    }
    let line = Line::new(sink, progress);
    line.start(first);
    thread::scope(|scope| {
        for _ in 1..threads.min(MAX_THREADS) {
            scope.spawn(|| line.work(None));
        }
        line.work(Some(source));
    });
    line.finish()
}

fn leaf(digest: [u8; 32], size: usize) -> Leaf {
    Leaf { cid: cid_from_sha256(CODEC_RAW, &digest), size: size as u64 }
}

/// Reads until `buffer` is full or the source ends.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A file read from its start, its cursor left alone.
struct Positioned<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
