//! Answers other peers: the server half of Bitswap.
//!
//! One ledger a peer, of at most [`Limits::wants_per_peer`] wants; one task a peer, which sends one block at a time, so that a peer
//! that reads slowly holds two blocks of memory and no more. Nothing is served while serving is off: every want is
//! answered with DONT_HAVE.

use super::behaviour::Version;
use super::wire::{self, Want};
use super::{Exchange, WRITE_TIMEOUT, lock};
use crate::block::Cid;
use crate::config::Limits;
use crate::store::Blockstore;
use bytes::Bytes;
use futures::{AsyncWriteExt as _, future::OptionFuture};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A block this small is sent in place of HAVE, as boxo does: the answer costs about the same.
const SMALL_BLOCK_BYTES: u64 = 1024;
/// Presences in one message: about 40 KiB.
const MAX_PRESENCES: usize = 1024;

/// Wants looked up at once, of one peer.
const WANTS_AT_ONCE: usize = 128;

/// An answer to a want; the greater one answers the lesser ones, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    DontHave,
    Have,
    Block,
}

/// What one peer wants of us. It is dropped with the peer's last connection.
pub(super) struct Ledger {
    max_wants: usize,
    /// In the order they are sent. Those whose serial is not that of `answers` were taken back.
    order: VecDeque<(u64, Cid)>,
    answers: HashMap<Cid, (u64, Answer)>,
    serial: u64,
    /// Wanted and not here: answered should it arrive. `true` when the block itself is wanted.
    missing: HashMap<Cid, bool>,
    wake: Arc<Notify>,
    sending: bool,
}

impl Ledger {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_wants: limits.wants_per_peer,
            order: VecDeque::new(),
            answers: HashMap::new(),
            serial: 0,
            missing: HashMap::new(),
            wake: Arc::default(),
            sending: false,
        }
    }

    fn push(&mut self, cid: Cid, answer: Answer) {
        if let Some((_, known)) = self.answers.get_mut(&cid) {
            *known = answer.max(*known);
        } else if self.answers.len() < self.max_wants {
            self.serial += 1;
            self.answers.insert(cid, (self.serial, answer));
            self.order.push_back((self.serial, cid));
            if self.order.len() > 2 * self.max_wants {
                let answers = &self.answers;
                self.order.retain(|(serial, cid)| answers.get(cid).is_some_and(|(known, _)| known == serial));
            }
        }
    }

    fn cancel(&mut self, cid: &Cid) {
        self.missing.remove(cid);
        self.answers.remove(cid);
    }

    fn clear(&mut self) {
        self.order.clear();
        self.answers.clear();
        self.missing.clear();
    }

    /// The next answer, if it is one that `fits`.
    fn pop(&mut self, fits: impl FnOnce(Answer) -> bool) -> Option<(Cid, Answer)> {
        while let Some((serial, cid)) = self.order.front().copied() {
            match self.answers.get(&cid) {
                Some((known, answer)) if *known == serial => {
                    let answer = *answer;
                    if !fits(answer) {
                        return None;
                    }
                    self.order.pop_front();
                    self.answers.remove(&cid);
                    return Some((cid, answer));
                }
                _ => drop(self.order.pop_front()),
            }
        }
        None
    }

    /// The next piece of work: all presences at the head, or one block.
    fn next(&mut self) -> Option<Job> {
        let (cid, answer) = self.pop(|_| true)?;
        self.sending = true;
        if answer == Answer::Block {
            return Some(Job::Block(cid));
        }
        let mut presences = vec![(cid, answer == Answer::Have)];
        while presences.len() < MAX_PRESENCES
            && let Some((cid, answer)) = self.pop(|answer| answer != Answer::Block)
        {
            presences.push((cid, answer == Answer::Have));
        }
        Some(Job::Presences(presences))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.sending || !self.answers.is_empty()
    }

    /// Answers if this block was waited for.
    pub(super) fn stored(&mut self, cid: &Cid) {
        if let Some(block) = self.missing.remove(cid) {
            self.push(*cid, if block { Answer::Block } else { Answer::Have });
            self.wake.notify_one();
        }
    }

    /// Takes wants in; each with the size of its block, if that is here and may be given.
    fn take(&mut self, full: bool, wants: Vec<(Option<u64>, Want)>) {
        if full {
            self.clear();
        }
        for (size, Want { cid, cancel, have_only, send_dont_have }) in wants {
            match size {
                _ if cancel => self.cancel(&cid),
                Some(size) if !have_only || size <= SMALL_BLOCK_BYTES => self.push(cid, Answer::Block),
                Some(_) => self.push(cid, Answer::Have),
                None => {
                    if self.missing.len() < self.max_wants || self.missing.contains_key(&cid) {
                        *self.missing.entry(cid).or_default() |= !have_only;
                    }
                    if send_dont_have {
                        self.push(cid, Answer::DontHave);
                    }
                }
            }
        }
        self.wake.notify_one();
    }
}

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
    pub(super) async fn send_replies(&self, peer: PeerId, ledger: Arc<Mutex<Ledger>>) {
        let wake = lock(&ledger).wake.clone();
        let mut stream: Option<(Stream, Version)> = None;
        // The block after the one being sent is read meanwhile, if there is room for it: a peer that does not read what it
        // gets must not hold two, for as long as that takes to be found out, when many do so.
        let mut ahead = None;
        let mut room = None;
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
                    && !matches!(tokio::time::timeout(WRITE_TIMEOUT, open.flush()).await, Ok(Ok(())))
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
            // A stream that the peer has closed is opened once more.
            for _ in 0..2 {
                let (open, version) = match &mut stream {
                    Some(open) => open,
                    None => match self.open(&peer).await {
                        Ok(open) => stream.insert(open),
                        Err(error) => {
                            tracing::debug!(%peer, %error, "replies cannot be sent to the peer");
                            break;
                        }
                    },
                };
                match tokio::time::timeout(WRITE_TIMEOUT, write(open, *version, &ready)).await {
                    Ok(Ok((sent, written))) => {
                        if let Some(entry) = lock(&self.0.peers).get(&peer) {
                            entry.counters.sent.fetch_add(sent, Ordering::Relaxed);
                            entry.counters.wire_sent.fetch_add(written, Ordering::Relaxed);
                        }
                        break;
                    }
                    Ok(Err(_)) => stream = None,
                    Err(_) => {
                        tracing::debug!(%peer, "the peer does not read its replies");
                        // Each of them would wait as long; it may ask again.
                        (stream, ahead) = (None, None);
                        lock(&ledger).clear();
                        break;
                    }
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

enum Job {
    Block(Cid),
    Presences(Vec<(Cid, bool)>),
}

enum Ready {
    Block(Cid, Bytes),
    Presences(Vec<(Cid, bool)>),
}

/// Writes one reply; returns the block bytes sent, and all bytes.
async fn write(stream: &mut Stream, version: Version, ready: &Ready) -> io::Result<(u64, u64)> {
    match ready {
        Ready::Block(cid, data) => {
            let head = match version {
                Version::V1_0 if !wire::legacy_can_carry(cid) => return Ok((0, 0)),
                Version::V1_0 => wire::encode_legacy_block_head(data.len()),
                _ => wire::encode_block_head(cid, data.len()),
            };
            stream.write_all(&head).await?;
            stream.write_all(data).await?;
            Ok((data.len() as u64, (head.len() + data.len()) as u64))
        }
        Ready::Presences(presences) if version == Version::V1_2 => {
            let message = wire::encode_presences(presences);
            stream.write_all(&message).await?;
            Ok((0, message.len() as u64))
        }
        Ready::Presences(_) => Ok((0, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Block;

    const MAX_WANTS: usize = wire::MAX_WANTS;

    fn cid(n: usize) -> Cid {
        *Block::raw(Bytes::copy_from_slice(&n.to_le_bytes())).cid()
    }

    fn want(n: usize, have_only: bool) -> Want {
        Want { cid: cid(n), cancel: false, have_only, send_dont_have: true }
    }

    fn cancel(n: usize) -> Want {
        Want { cid: cid(n), cancel: true, have_only: false, send_dont_have: false }
    }

    /// A peer that asks first whether we have a block, then for the block, wants the block.
    #[test]
    fn a_want_for_the_block_overtakes_the_one_for_have() {
        let mut ledger = Ledger::new(&Limits::default());
        ledger.take(false, vec![(Some(5000), want(1, true)), (Some(5000), want(1, false))]);
        assert!(matches!(ledger.next(), Some(Job::Block(found)) if found == cid(1)));
        assert!(ledger.next().is_none());
        // The same for what is not here yet, whichever comes last.
        ledger.take(false, vec![(None, want(2, false)), (None, want(2, true))]);
        assert!(matches!(ledger.next(), Some(Job::Presences(denied)) if denied == [(cid(2), false)]));
        ledger.stored(&cid(2));
        assert!(matches!(ledger.next(), Some(Job::Block(found)) if found == cid(2)));
    }

    #[test]
    fn c8_a_flood_of_wants_fills_a_ledger_once() {
        let mut ledger = Ledger::new(&Limits::default());
        for round in 0..10 {
            ledger.take(false, (0..MAX_WANTS).map(|n| (Some(9999), want(round * MAX_WANTS + n, false))).collect());
            ledger.take(false, (0..MAX_WANTS).map(|n| (None, want((20 + round) * MAX_WANTS + n, false))).collect());
        }
        assert_eq!((ledger.answers.len(), ledger.order.len(), ledger.missing.len()), (MAX_WANTS, MAX_WANTS, MAX_WANTS));
    }

    #[test]
    fn c8_wants_and_cancels_in_turn_leave_nothing_behind() {
        let mut ledger = Ledger::new(&Limits::default());
        for round in 0..100_000 {
            ledger.take(false, vec![(Some(9999), want(round % 3, false)), (None, cancel(round % 3))]);
            assert!(ledger.order.len() <= 2 * MAX_WANTS);
        }
        assert!(ledger.next().is_none() && !ledger.is_busy());
        // One that was taken back and is wanted again comes once.
        ledger.take(false, vec![(Some(9999), want(1, false)), (None, cancel(1)), (Some(9999), want(1, false))]);
        assert!(matches!(ledger.next(), Some(Job::Block(found)) if found == cid(1)));
        assert!(ledger.next().is_none());
    }
}
