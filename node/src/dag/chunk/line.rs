//! The pieces in memory, and who does what to them next.
//!
//! No thread has a role. Whoever is idle takes the next thing to do, the digest first: it is the only long chain, all
//! else can catch up with it. Both cores of a small machine are busy to the end that way, which fixed roles do not
//! reach. This module never holds its lock while it hashes, reads, writes or calls anybody.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::{Hashed, PIECE_BYTES, PIECES, Sink, fill, leaf};
use crate::dag::CHUNK_BYTES;

/// Leaves of a full piece.
const PIECE_LEAVES: usize = PIECE_BYTES / CHUNK_BYTES;

/// The pieces in memory and what is still to be done to each.
pub(super) struct Line<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
    progress: &'a (dyn Fn(u64) + Sync),
}

/// `hasher` and `sink` are away while somebody uses them, which is what keeps their pieces in order.
struct State<'a> {
    /// Pieces not yet done with, the first of them number `first`.
    pieces: VecDeque<Piece>,
    first: usize,
    /// Numbers of the next piece to digest, to write, and to hash leaves of.
    digest: usize,
    write: usize,
    leaves: usize,
    /// The next leaf of that piece.
    leaf: usize,
    hasher: Option<Sha256>,
    sink: Option<&'a mut Sink<'a>>,
    /// Leaf hashes, by the number of the leaf.
    hashed: Vec<[u8; 32]>,
    size: u64,
    buffers: Vec<Vec<u8>>,
    ended: bool,
    failed: Option<io::Error>,
    abandoned: bool,
}

struct Piece {
    data: Arc<Vec<u8>>,
    offset: u64,
    /// Things still to be done: its digest, its write, each leaf.
    left: usize,
}

enum Task<'a> {
    Read(Vec<u8>),
    Digest(usize, Sha256, Arc<Vec<u8>>),
    Write(usize, &'a mut Sink<'a>, Arc<Vec<u8>>, u64),
    Leaf(usize, usize, Arc<Vec<u8>>),
    Leave,
}

impl<'a> Line<'a> {
    pub(super) fn new(sink: &'a mut Sink<'a>, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let state = State {
            pieces: VecDeque::new(),
            first: 0,
            digest: 0,
            write: 0,
            leaves: 0,
            leaf: 0,
            hasher: Some(Sha256::new()),
            sink: Some(sink),
            hashed: Vec::new(),
            size: 0,
            buffers: (1..PIECES).map(|_| Vec::new()).collect(),
            ended: false,
            failed: None,
            abandoned: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), progress }
    }

    /// Takes in the first piece, which the caller has read; it holds more than a leaf.
    pub(super) fn start(&self, first: Vec<u8>) {
        self.lock().take_in(first);
    }

    /// The state is whole whenever the lock is free, also after a panic: no user code runs under it.
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do until nothing is left. Only the thread that has the source reads.
    pub(super) fn work(&self, mut source: Option<&mut dyn Read>) {
        let _guard = Guard(self);
        loop {
            match self.next(source.is_some()) {
                Task::Leave => return,
                Task::Read(mut buffer) => {
                    let Some(source) = source.as_mut() else { return };
                    buffer.resize(PIECE_BYTES, 0);
                    match fill(*source, &mut buffer) {
                        Ok(length) => {
                            buffer.truncate(length);
                            self.lock().take_in(buffer);
                        }
                        Err(error) => self.fail(error),
                    }
                }
                Task::Digest(piece, mut hasher, data) => {
                    hasher.update(&*data);
                    drop(data);
                    let mut state = self.lock();
                    state.hasher = Some(hasher);
                    state.done(piece);
                }
                Task::Write(piece, sink, data, offset) => {
                    let written = sink(offset, &data);
                    let size = offset + data.len() as u64;
                    drop(data);
                    if let Err(error) = written {
                        return self.fail(error);
                    }
                    (self.progress)(size);
                    let mut state = self.lock();
                    state.sink = Some(sink);
                    state.done(piece);
                }
                Task::Leaf(piece, number, data) => {
                    let start = number % PIECE_LEAVES * CHUNK_BYTES;
                    let digest = Sha256::digest(&data[start..data.len().min(start + CHUNK_BYTES)]);
                    drop(data);
                    let mut state = self.lock();
                    state.hashed[number] = digest.into();
                    state.done(piece);
                }
            }
            self.changed.notify_all();
        }
    }

    /// Waits for something to do.
    fn next(&self, reads: bool) -> Task<'a> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.pick(reads) {
                return task;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fail(&self, error: io::Error) {
        self.lock().failed.get_or_insert(error);
        self.changed.notify_all();
    }

    pub(super) fn finish(self) -> io::Result<Hashed> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failed {
            return Err(error);
        }
        let digest = state.hasher.expect("whoever took the hasher gave it back").finalize().into();
        let last = state.hashed.len() - 1;
        let size_of = |index| if index == last { state.size as usize - last * CHUNK_BYTES } else { CHUNK_BYTES };
        let leaves = state.hashed.iter().enumerate().map(|(index, digest)| leaf(*digest, size_of(index))).collect();
        Ok(Hashed { leaves, digest, size: state.size })
    }
}

impl<'a> State<'a> {
    /// Adds a piece; one that is not full is the last.
    fn take_in(&mut self, data: Vec<u8>) {
        self.ended = data.len() < PIECE_BYTES;
        if data.is_empty() {
            return;
        }
        let leaves = data.len().div_ceil(CHUNK_BYTES);
        let offset = self.size;
        self.size += data.len() as u64;
        self.hashed.resize(self.hashed.len() + leaves, [0; 32]);
        self.pieces.push_back(Piece { data: Arc::new(data), offset, left: leaves + 2 });
    }

    /// What to do next; `None` is to wait.
    fn pick(&mut self, reads: bool) -> Option<Task<'a>> {
        let end = self.first + self.pieces.len();
        if self.failed.is_some() || self.abandoned || (self.ended && self.pieces.is_empty()) {
            return Some(Task::Leave);
        }
        // Reading comes first while others may soon be idle, and last when they are not.
        let starved = end < self.digest + 2 || self.leaves == end;
        if reads
            && starved
            && let Some(task) = self.read()
        {
            return Some(task);
        }
        if self.digest < end
            && let Some(hasher) = self.hasher.take()
        {
            self.digest += 1;
            return Some(Task::Digest(self.digest - 1, hasher, self.data(self.digest - 1)));
        }
        if self.write < end
            && let Some(sink) = self.sink.take()
        {
            self.write += 1;
            let offset = self.pieces[self.write - 1 - self.first].offset;
            return Some(Task::Write(self.write - 1, sink, self.data(self.write - 1), offset));
        }
        if self.leaves < end {
            let (piece, number) = (self.leaves, self.leaves * PIECE_LEAVES + self.leaf);
            let data = self.data(piece);
            self.leaf += 1;
            if self.leaf * CHUNK_BYTES >= data.len() {
                (self.leaves, self.leaf) = (piece + 1, 0);
            }
            return Some(Task::Leaf(piece, number, data));
        }
        if reads { self.read() } else { None }
    }

    fn read(&mut self) -> Option<Task<'a>> {
        if self.ended { None } else { self.buffers.pop().map(Task::Read) }
    }

    fn data(&self, piece: usize) -> Arc<Vec<u8>> {
        self.pieces[piece - self.first].data.clone()
    }

    /// Notes that one thing was done to a piece; buffers of pieces that are done with are used again.
    fn done(&mut self, piece: usize) {
        self.pieces[piece - self.first].left -= 1;
        while self.pieces.front().is_some_and(|piece| piece.left == 0) {
            let data = self.pieces.pop_front().map(|piece| piece.data).unwrap_or_default();
            self.buffers.push(Arc::try_unwrap(data).unwrap_or_default());
            self.first += 1;
        }
    }
}

/// Sends the others home when a source, a sink or a listener panics; they would wait for ever.
struct Guard<'a, 'b>(&'a Line<'b>);

impl Drop for Guard<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().abandoned = true;
            self.0.changed.notify_all();
        }
    }
}
