//! Answers other peers: the server half of Bitswap.
//!
//! One [`Ledger`] a peer; one task a peer, which sends one block at a time, so that a peer that reads slowly holds two
//! blocks of memory and no more. Nothing is served while serving is off: every want is answered with DONT_HAVE.

use super::behaviour::Version;
use super::ledger::{Job, Ledger};
use super::wire::{self, Want};
use super::{Exchange, in_time, lock};
use crate::block::Cid;
use crate::store::Blockstore;
use bytes::{Buf as _, Bytes};
use futures::{AsyncWriteExt as _, future::OptionFuture};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A peer that takes nothing of a block for this long does not read: a write takes a millisecond or two.
const PAUSE: Duration = Duration::from_millis(100);
/// Wants looked up at once, of one peer.
const WANTS_AT_ONCE: usize = 128;

impl Exchange {
    /// Takes a peer's wants into its ledger, whose task answers them.
    pub(super) async fn take_wants(&self, ledger: &Mutex<Ledger>, full: bool, wants: Vec<Want>) {
        let serving = self.0.serving.load(Ordering::Relaxed);
        let (mut full, mut wants) = (full, wants.into_iter().peekable());
        // A long list has its turn again and again, with those of others in between.
        while full || wants.peek().is_some() {
            let some: Vec<_> = wants.by_ref().take(WANTS_AT_ONCE).collect();
            let looked_up = if serving {
                // Looking sizes up reads the index, which may touch the disk.
                self.look_up(move |store| {
                    let size = |want: &Want| if want.cancel { None } else { store.size(&want.cid).ok().flatten() };
                    some.into_iter().map(|want| (size(&want), want)).collect()
                })
                .await
            } else {
                Some(some.into_iter().map(|want| (None, want)).collect())
            };
            let Some(looked_up) = looked_up else { return };
            lock(ledger).take(std::mem::take(&mut full), looked_up);
        }
    }

    /// Does something that takes a while on a blocking thread. Few do so at a time: those who ask for blocks need the
    /// threads, too. `None` when the node shuts down.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Blockstore) -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.0.lookups.clone().acquire_owned().await.ok()?;
        let store = self.0.store.clone();
        let work = move || {
            let done = work(&*store);
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Sends replies to one peer for as long as it is connected.
    pub(super) async fn send_replies(&self, peer: PeerId, ledger: Arc<Mutex<Ledger>>, newer: Arc<Notify>) {
        let wake = lock(&ledger).wake.clone();
        let mut stream: Option<(Stream, Version)> = None;
        // The block after the one being sent is read meanwhile, if there is room for it: a peer that does not read what it
        // gets must not hold two, for as long as that takes to be found out, when many do so.
        let mut ahead = None;
        let mut room = None;
        // Answers in a row that could not be written.
        let mut failed = 0;
        let next = || {
            let job = lock(&ledger).next();
            job.map(|job| self.prepare(job))
        };
        loop {
            if ahead.is_none() {
                ahead = next();
            }
            if ahead.is_none() {
                // Nothing more to say for now: let what was written go.
                if let Some((open, _)) = &mut stream
                    && !matches!(in_time(open.flush(), &newer).await, Ok(Ok(())))
                {
                    stream = None;
                }
                lock(&ledger).sending = false;
                wake.notified().await;
                continue;
            }
            let ready = OptionFuture::from(ahead.take()).await.and_then(Result::ok).flatten();
            drop(room.take());
            if let Ok(permit) = self.0.ahead.clone().try_acquire_owned() {
                room = Some(permit);
                ahead = next();
            }
            let Some(ready) = ready else { continue };
            // Asked for anew meanwhile, over a new connection for instance: once is enough.
            if matches!(&ready, Ready::Block(cid, _) if lock(&ledger).is_due(cid)) {
                continue;
            }
            let (open, version) = match &mut stream {
                Some(open) => open,
                None => match self.open(&peer).await {
                    Ok(open) => stream.insert(open),
                    Err(error) => {
                        tracing::debug!(%peer, %error, "replies cannot be sent to the peer");
                        continue;
                    }
                },
            };
            let job = ready.job();
            match in_time(write(open, *version, ready), &newer).await {
                Ok(Ok((sent, written))) => {
                    failed = 0;
                    if let Some(entry) = lock(&self.0.peers).get(&peer) {
                        entry.counters.sent.fetch_add(sent, Ordering::Relaxed);
                        entry.counters.wire_sent.fetch_add(written, Ordering::Relaxed);
                    }
                }
                // A stream that the peer has closed is opened once more.
                Ok(Err(_)) => {
                    stream = None;
                    failed += 1;
                    if failed == 1 {
                        lock(&ledger).again(job);
                    }
                }
                Err(_) => {
                    tracing::debug!(%peer, "the peer does not read its replies");
                    // Each of them would wait as long; it may ask again.
                    (stream, ahead) = (None, None);
                    lock(&ledger).clear();
                }
            }
        }
    }

    fn prepare(&self, job: Job) -> tokio::task::JoinHandle<Option<Ready>> {
        let store = self.0.store.clone();
        tokio::task::spawn_blocking(move || match job {
            Job::Presences(presences) => Some(Ready::Presences(presences)),
            Job::Block(cid) => match store.get(&cid) {
                Ok(Some(data)) => Some(Ready::Block(cid, data)),
                // It went away since it was looked up.
                Ok(None) => Some(Ready::Presences(vec![(cid, false)])),
                Err(error) => {
                    tracing::warn!(%cid, %error, "a block cannot be read to serve it");
                    Some(Ready::Presences(vec![(cid, false)]))
                }
            },
        })
    }
}

enum Ready {
    Block(Cid, Bytes),
    Presences(Vec<(Cid, bool)>),
}

impl Ready {
    fn job(&self) -> Job {
        match self {
            Self::Block(cid, _) => Job::Block(*cid),
            Self::Presences(presences) => Job::Presences(presences.clone()),
        }
    }
}

/// Writes one reply; returns the block bytes sent, and all bytes.
async fn write(stream: &mut Stream, version: Version, ready: Ready) -> io::Result<(u64, u64)> {
    match ready {
        Ready::Block(cid, data) => {
            let head = match version {
                Version::V1_0 if !wire::legacy_can_carry(&cid) => return Ok((0, 0)),
                Version::V1_0 => wire::encode_legacy_block_head(data.len()),
                _ => wire::encode_block_head(&cid, data.len()),
            };
            let length = data.len();
            stream.write_all(&head).await?;
            write_out(stream, data).await?;
            Ok((length as u64, (head.len() + length) as u64))
        }
        Ready::Presences(presences) if version == Version::V1_2 => {
            let message = wire::encode_presences(&presences);
            stream.write_all(&message).await?;
            Ok((0, message.len() as u64))
        }
        Ready::Presences(_) => Ok((0, 0)),
    }
}

/// Writes a block. Of one that its peer does not go on reading, only the rest stays in memory: many may do that.
async fn write_out(stream: &mut Stream, mut data: Bytes) -> io::Result<()> {
    let mut is_whole = true;
    while !data.is_empty() {
        let written = match tokio::time::timeout(PAUSE, stream.write(&data)).await {
            Ok(written) => written?,
            Err(_) if is_whole => {
                data = Bytes::copy_from_slice(&data);
                is_whole = false;
                continue;
            }
            Err(_) => stream.write(&data).await?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data.advance(written);
    }
    Ok(())
}
