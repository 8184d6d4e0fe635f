//! Reads Bitswap streams: frames, then messages, then blocks that are checked before anybody sees them.
//!
//! Memory follows what has really arrived, not what a length prefix claims, and all streams of one peer share one
//! allowance of it; a message longer than anything this peer was asked for is read past without being kept. Messages
//! that are good for nothing are read no faster than [`Limits::messages_per_second`].

use super::buffers::{BUFFER_BYTES, Buffers};
use super::wire::{self, MAX_LENGTH_BYTES, MAX_MESSAGE_BYTES, Payload};
use super::{Exchange, lock, schedule::Arrival};
use crate::block::Cid;
use crate::config::Limits;
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest message taken from a peer that we asked nothing of: [`wire::MAX_WANTS`] entries of about 60 bytes need a
/// quarter of it. Also what all such messages of one peer, being read or acted upon, may take together.
pub(super) const MAX_UNASKED_BYTES: usize = 256 << 10;
/// What all messages of a peer that may send blocks take together: one of the longest, and some wantlists.
const MAX_ASKED_BYTES: usize = MAX_MESSAGE_BYTES + MAX_UNASKED_BYTES;
/// A message must arrive within this time, and the time that its length takes at [`MIN_BYTES_PER_SECOND`]; else the
/// stream is cut.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest that a long message may come: several share one slow link.
const MIN_BYTES_PER_SECOND: usize = 8 << 10;
/// Messages shorter than this get memory of their own size, in bytes: a wantlist would keep a whole buffer busy.
const SMALL_BYTES: usize = BUFFER_BYTES / 2;
/// Messages may come at once before their number a second counts: what is allowed in so many seconds.
const BURST_SECONDS: u32 = 2;
/// So many wants or presences cost as much as a message: sixteen thousand a second, four gigabytes of blocks of the usual
/// size.
const ENTRIES_A_MESSAGE: usize = 8;
/// Messages longer than this from peers that were asked for nothing are wantlists, which take a millisecond to decode:
/// that is not done by the thread that serves all connections.
const LONG_BYTES: usize = 4 << 10;

/// What limits the reading from one peer; all its streams share it.
pub(super) struct Intake {
    asked: Arc<Semaphore>,
    unasked: Arc<Semaphore>,
    /// Wants of one message at a time: a peer with many streams waits behind itself.
    wants: tokio::sync::Mutex<()>,
    pace: Mutex<Pace>,
    /// Bytes of messages, counted as they arrive.
    pub(super) arriving: Arc<AtomicU64>,
}

impl Intake {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            asked: Arc::new(Semaphore::new(MAX_ASKED_BYTES)),
            unasked: Arc::new(Semaphore::new(MAX_UNASKED_BYTES)),
            wants: tokio::sync::Mutex::default(),
            pace: Mutex::new(Pace::new(limits.messages_per_second, Instant::now())),
            arriving: Arc::default(),
        }
    }
}

/// A bucket of messages that a peer may send.
struct Pace {
    each: Duration,
    burst: u32,
    left: u32,
    at: Instant,
}

impl Pace {
    fn new(a_second: u32, now: Instant) -> Self {
        let burst = a_second.max(1).saturating_mul(BURST_SECONDS);
        Self { each: Duration::from_secs(1) / a_second.max(1), burst, left: burst, at: now }
    }

    /// Takes so many messages out; how long to wait until they are covered.
    fn spend(&mut self, messages: u32, now: Instant) -> Duration {
        let each = self.each;
        let fresh = now.saturating_duration_since(self.at).as_nanos() / each.as_nanos();
        let fresh = u32::try_from(fresh).unwrap_or(self.burst).min(self.burst);
        if fresh > 0 {
            self.left = (self.left + fresh).min(self.burst);
            self.at = self.at.max(now);
        }
        let covered = messages.min(self.left);
        self.left -= covered;
        let debt = each * (messages - covered);
        // What is owed is earned before anything else is.
        self.at += debt;
        self.at.saturating_duration_since(now)
    }

    fn earn(&mut self) {
        self.left = (self.left + 1).min(self.burst);
    }
}

impl Exchange {
    /// Reads one stream to its end. What is no Bitswap counts against the peer.
    pub(super) async fn receive(&self, peer: PeerId, stream: Stream) -> io::Result<()> {
        let done = self.receive_all(peer, stream).await;
        if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            self.with_schedule(|schedule| schedule.on_bogus(peer));
        }
        done
    }

    async fn receive_all(&self, peer: PeerId, mut stream: Stream) -> io::Result<()> {
        let shared = lock(&self.0.peers).get(&peer).map(|entry| (entry.intake.clone(), entry.ledger.clone()));
        let Some((intake, ledger)) = shared else { return Ok(()) };
        loop {
            let Some(length) = read_length(&mut stream).await? else { return Ok(()) };
            let may_send_blocks = lock(&self.0.schedule).may_send_blocks(&peer);
            let allowance = match (may_send_blocks, length > MAX_UNASKED_BYTES) {
                (true, _) => Some(&intake.asked),
                (false, false) => Some(&intake.unasked),
                (false, true) => None,
            };
            let timeout = READ_TIMEOUT + Duration::from_secs((length / MIN_BYTES_PER_SECOND) as u64);
            let read = async {
                let Some(allowance) = allowance else {
                    tracing::debug!(%peer, length, "skipping a long message nobody asked for");
                    self.waste(&peer, length);
                    self.with_schedule(|schedule| schedule.on_unneeded(peer, length));
                    let skipped =
                        futures::io::copy((&mut stream).take(length as u64), &mut futures::io::sink()).await?;
                    return if skipped == length as u64 {
                        Ok(None)
                    } else {
                        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                    };
                };
                // No message is longer than its allowance, so this waits for other streams of the peer and ends.
                let permit = allowance.clone().acquire_many_owned(length as u32).await.map_err(io::Error::other)?;
                // Nor is it longer than what all may take together; short ones never wait for the long ones of others.
                let shared = if length > LONG_BYTES && !may_send_blocks {
                    let shared = self.0.unasked.clone().acquire_many_owned(length as u32);
                    Some(shared.await.map_err(io::Error::other)?)
                } else {
                    None
                };
                let bytes = read_exactly(&mut stream, length, &self.0.buffers, &intake.arriving).await?;
                Ok(Some((bytes, permit, shared)))
            };
            let read = tokio::time::timeout(timeout, read).await;
            let read = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let Some((bytes, permit, shared)) = read else { continue };
            let (mut turn, mut place) = (None, None);
            let decoded = if length > LONG_BYTES && !may_send_blocks {
                turn = Some(intake.wants.lock().await);
                place = Some(self.0.lists.acquire().await.map_err(io::Error::other)?);
                let bytes = bytes.clone();
                self.look_up(move |_| wire::decode(&bytes)).await.ok_or(io::ErrorKind::ConnectionAborted)?
            } else {
                wire::decode(&bytes)
            };
            let message = decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let (entries, is_list) = (message.wants.len() + message.presences.len(), place.is_some());
            if !is_list {
                self.keep_pace(peer, &intake, entries).await;
            }
            if !message.wants.is_empty() || message.full {
                if turn.is_none() {
                    turn = Some(intake.wants.lock().await);
                }
                self.take_wants(&ledger, message.full, message.wants).await;
            }
            drop((turn, place, shared));
            self.take_presences(peer, &message.presences);
            if !message.blocks.is_empty() {
                self.take_blocks(peer, message.blocks, bytes, permit, &intake).await;
            } else {
                drop((bytes, permit));
            }
            // What is decoded takes twice the memory of what came: nobody waits with that.
            if is_list {
                self.keep_pace(peer, &intake, entries).await;
            }
        }
    }

    /// Waits until a message of so many entries is covered by what the peer may send.
    async fn keep_pace(&self, peer: PeerId, intake: &Intake, entries: usize) {
        let wait = lock(&intake.pace).spend(1 + (entries / ENTRIES_A_MESSAGE) as u32, Instant::now());
        if !wait.is_zero() {
            tracing::trace!(%peer, ?wait, "the peer sends too many messages");
            tokio::time::sleep(wait).await;
        }
    }

    fn take_presences(&self, peer: PeerId, presences: &[(Cid, bool)]) {
        if presences.is_empty() {
            return;
        }
        self.0.trace.presences(&peer, presences);
        let now = Instant::now();
        self.with_schedule(|schedule| {
            for (cid, have) in presences {
                schedule.on_presence(peer, cid, *have, now);
            }
        });
    }

    /// Hashes the blocks of a message elsewhere. Both `bytes`, the message, and what it was allowed are given back then.
    async fn take_blocks(
        &self,
        peer: PeerId,
        blocks: Vec<Payload>,
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
        intake: &Arc<Intake>,
    ) {
        // Waiting here stops reading from this peer, and its own window then stops it from sending.
        let Ok(hashing) = self.0.hashing.clone().acquire_owned().await else { return };
        let (exchange, intake, held) = (self.clone(), intake.clone(), held_by(bytes.len()));
        drop(bytes);
        self.0.tasks.spawn_blocking_on(
            move || {
                for payload in blocks {
                    exchange.take_block(peer, payload, held, &intake);
                }
                drop((permit, hashing));
            },
            &self.0.runtime,
        );
    }

    /// Hashes a block and hands it to whoever waits for it. `held` is what its message keeps in memory.
    fn take_block(&self, peer: PeerId, payload: Payload, held: usize, intake: &Intake) {
        let size = payload.size();
        // A block must not keep much more in memory than itself.
        let payload = if size < held / 2 { payload.detached() } else { payload };
        let block = match payload.into_block() {
            Ok(block) => block,
            Err(error) => {
                tracing::debug!(%peer, %error, "a block was refused");
                self.0.trace.wrong(&peer);
                self.with_schedule(|schedule| schedule.on_bogus(peer));
                return self.waste(&peer, size);
            }
        };
        let arrival = self.with_schedule(|schedule| {
            let arrival = schedule.on_block(peer, &block, Instant::now());
            if arrival == Arrival::Wanted {
                self.0.trace.arrived(&peer, block.cid(), size);
            }
            arrival
        });
        match arrival {
            Arrival::Wanted => {
                lock(&intake.pace).earn();
                if let Some(entry) = lock(&self.0.peers).get(&peer) {
                    entry.counters.received.fetch_add(size as u64, Ordering::Relaxed);
                }
            }
            arrival @ (Arrival::Duplicate | Arrival::Bogus) => {
                tracing::trace!(%peer, cid = %block.cid(), ?arrival, "a block nobody waits for");
                if arrival == Arrival::Bogus {
                    self.0.trace.wrong(&peer);
                }
                self.waste(&peer, size);
            }
        }
    }

    fn waste(&self, peer: &PeerId, size: usize) {
        let counters = lock(&self.0.peers).get(peer).map(|entry| Arc::clone(&entry.counters));
        if let Some(counters) = counters {
            counters.wasted.fetch_add(size as u64, Ordering::Relaxed);
        }
    }
}

/// Bytes that a message of this length keeps in memory.
fn held_by(length: usize) -> usize {
    if length <= SMALL_BYTES { length } else { length.max(BUFFER_BYTES) }
}

/// Reads a length prefix; `None` at the end of the stream.
async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<usize>> {
    let (mut length, mut byte) = (0usize, [0u8]);
    for position in 0..MAX_LENGTH_BYTES {
        if stream.read(&mut byte).await? == 0 {
            return if position == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        length |= usize::from(byte[0] & 0x7f) << (7 * position);
        if byte[0] & 0x80 == 0 {
            if length > MAX_MESSAGE_BYTES {
                break;
            }
            return Ok(Some(length));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a bitswap message is longer than {MAX_MESSAGE_BYTES} bytes"),
    ))
}

/// Reads exactly `length` bytes, into memory that grows as they arrive, and counts them.
async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    buffers: &Buffers,
    arriving: &AtomicU64,
) -> io::Result<Bytes> {
    let mut buffer = if length <= SMALL_BYTES { vec![0; length] } else { buffers.take() };
    let mut filled = 0;
    while filled < length {
        if filled == buffer.len() {
            buffer.resize((buffer.len() * 2).min(length), 0);
        }
        let end = buffer.len().min(length);
        match stream.read(&mut buffer[filled..end]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                filled += read;
                arriving.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(if length <= SMALL_BYTES { buffer.into() } else { buffers.share(buffer, length) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn c7_a_length_past_four_mebibytes_ends_the_stream() {
        for bytes in [&[0x81, 0x80, 0x80, 0x02][..], &[0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(run(read_length(&mut Cursor::new(bytes))).is_err(), "{bytes:?}");
        }
        assert_eq!(run(read_length(&mut Cursor::new(&[0x80, 0x80, 0x80, 0x02][..]))).expect("fits"), Some(4 << 20));
    }

    #[test]
    fn c7_memory_follows_what_arrives_not_what_is_claimed() {
        let (buffers, count) = (Buffers::default(), AtomicU64::new(0));
        let error = run(read_exactly(&mut Cursor::new(&[0; 10][..]), MAX_MESSAGE_BYTES, &buffers, &count))
            .expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        for length in [0, 1, SMALL_BYTES, SMALL_BYTES + 1, BUFFER_BYTES, BUFFER_BYTES + 1, BUFFER_BYTES * 3 + 5] {
            let bytes = vec![3; length];
            assert_eq!(
                run(read_exactly(&mut Cursor::new(&bytes[..]), length, &buffers, &count)).expect("reads"),
                bytes
            );
        }
    }

    #[test]
    fn c7_messages_come_at_a_pace() {
        let begun = Instant::now();
        let mut pace = Pace::new(2000, begun);
        let burst = pace.burst;
        for _ in 0..burst {
            assert_eq!(pace.spend(1, begun), Duration::ZERO);
        }
        let each = pace.each;
        assert_eq!(pace.spend(1, begun), each);
        assert_eq!(pace.spend(10, begun), each * 11);
        // A minute later the burst is full again, and no more than that.
        assert_eq!(pace.spend(burst, begun + Duration::from_secs(60)), Duration::ZERO);
        assert_eq!(pace.spend(1, begun + Duration::from_secs(60)), each);
        pace.earn();
        assert_eq!(pace.spend(1, begun + Duration::from_secs(61)), Duration::ZERO);
    }
}
