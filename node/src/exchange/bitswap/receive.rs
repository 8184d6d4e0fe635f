//! Reads Bitswap streams: frames, then messages, then blocks that are checked before anybody sees them.
//!
//! Memory follows what has really arrived, not what a length prefix claims; a message longer than anything this peer
//! was asked for is read past without being kept.

use super::buffers::Buffers;
use super::wire::{self, MAX_LENGTH_BYTES, MAX_MESSAGE_BYTES, Message, Payload};
use super::{Exchange, lock, schedule::Arrival};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{io, sync::Arc};

/// Longest message taken from a peer that we asked nothing of: [`wire::MAX_WANTS`] entries of about 60 bytes need a
/// quarter of it.
const MAX_UNASKED_BYTES: usize = 256 << 10;
/// A message must arrive at this pace or better, else the stream is cut: 256 KiB in 30 s.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages shorter than this get memory of their own size: a wantlist would keep a whole buffer busy.
const SMALL_BYTES: usize = 16 << 10;

impl Exchange {
    /// Reads one stream to its end.
    pub(super) async fn receive(&self, peer: PeerId, mut stream: Stream) -> io::Result<()> {
        loop {
            let Some(length) = read_length(&mut stream).await? else { return Ok(()) };
            let expected = lock(&self.0.schedule).expects_from(&peer);
            let read = async {
                if length > MAX_UNASKED_BYTES && !expected {
                    tracing::debug!(%peer, length, "skipping a long message nobody asked for");
                    self.waste(&peer, length);
                    let skipped =
                        futures::io::copy((&mut stream).take(length as u64), &mut futures::io::sink()).await?;
                    return if skipped == length as u64 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                }
                read_exactly(&mut stream, length, &self.0.buffers).await.map(Some)
            };
            let read = tokio::time::timeout(READ_TIMEOUT, read).await;
            let Some(bytes) = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else { continue };
            let message = wire::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.handle(peer, message).await;
        }
    }

    async fn handle(&self, peer: PeerId, message: Message) {
        if !message.wants.is_empty() || message.full {
            self.serving().take_wants(peer, message.full, message.wants).await;
        }
        if !message.presences.is_empty() {
            let now = Instant::now();
            self.with_schedule(|schedule| {
                for (cid, have) in &message.presences {
                    schedule.on_presence(peer, cid, *have, now);
                }
            });
        }
        if message.blocks.is_empty() {
            return;
        }
        // Waiting here stops reading from this peer, and its own window then stops it from sending.
        let Ok(permit) = self.0.hashing.clone().acquire_owned().await else { return };
        let exchange = self.clone();
        self.0.tasks.spawn_blocking_on(
            move || {
                for payload in message.blocks {
                    exchange.take_block(peer, payload);
                }
                drop(permit);
            },
            &self.0.runtime,
        );
    }

    /// Hashes a block and hands it to whoever waits for it.
    fn take_block(&self, peer: PeerId, payload: Payload) {
        let size = payload.size();
        let block = match payload.into_block() {
            Ok(block) => block,
            Err(error) => {
                tracing::debug!(%peer, %error, "a block was refused");
                return self.waste(&peer, size);
            }
        };
        match self.with_schedule(|schedule| schedule.on_block(peer, &block, Instant::now())) {
            Arrival::Wanted => {
                if let Some(entry) = lock(&self.0.peers).get(&peer) {
                    entry.counters.received.fetch_add(size as u64, Ordering::Relaxed);
                }
            }
            arrival @ (Arrival::Duplicate | Arrival::Bogus) => {
                tracing::trace!(%peer, cid = %block.cid(), ?arrival, "a block nobody waits for");
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

/// Reads exactly `length` bytes, into memory that grows as they arrive.
async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), length: usize, buffers: &Buffers) -> io::Result<Bytes> {
    let mut buffer = if length <= SMALL_BYTES { vec![0; length] } else { buffers.take() };
    let mut filled = 0;
    while filled < length {
        if filled == buffer.len() {
            buffer.resize((buffer.len() * 2).min(length), 0);
        }
        let end = buffer.len().min(length);
        match stream.read(&mut buffer[filled..end]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(if length <= SMALL_BYTES { buffer.into() } else { buffers.share(buffer, length) })
}

#[cfg(test)]
mod tests {
    use super::super::buffers::BUFFER_BYTES;
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
        let buffers = Buffers::default();
        let error =
            run(read_exactly(&mut Cursor::new(&[0; 10][..]), MAX_MESSAGE_BYTES, &buffers)).expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        for length in [0, 1, SMALL_BYTES, SMALL_BYTES + 1, BUFFER_BYTES, BUFFER_BYTES + 1, BUFFER_BYTES * 3 + 5] {
            let bytes = vec![3; length];
            assert_eq!(run(read_exactly(&mut Cursor::new(&bytes[..]), length, &buffers)).expect("reads"), bytes);
        }
    }
}
