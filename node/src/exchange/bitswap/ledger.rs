//! What one peer wants of us: bounded, and small while it is full.
//!
//! Hundreds of peers may fill theirs at a time, so a CID is kept in as many bytes as it has, and in trees, which give back
//! what they no longer need: in hash tables of whole [`Cid`]s, a thousand wants that came and went took more than a mebibyte.
//! Imports the wire's types. It knows nothing of streams and of the store.

use super::wire::Want;
use crate::block::Cid;
use crate::config::Limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// A block this small is sent in place of HAVE, as boxo does: the answer costs about the same.
const SMALL_BLOCK_BYTES: u64 = 1024;
/// Presences in one message: about 40 KiB.
const MAX_PRESENCES: usize = 1024;

/// Bytes of a CID that are kept in place: one of a version 1 with a hash of 256 bits has 36.
const SHORT_BYTES: usize = 38;

/// An answer to a want; the greater one answers the lesser ones, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    DontHave,
    Have,
    Block,
}

/// A CID in its own bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl Key {
    fn new(cid: &Cid) -> Self {
        let length = cid.encoded_len();
        let mut short = [0; SHORT_BYTES];
        match (u8::try_from(length), cid.write_bytes(&mut short[..])) {
            (Ok(length), Ok(_)) => Self::Short(length, short),
            _ => Self::Long(cid.to_bytes().into()),
        }
    }

    fn cid(&self) -> Cid {
        let bytes = match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        };
        Cid::try_from(bytes).expect("these are the bytes of a CID")
    }
}

/// A piece of work.
pub(super) enum Job {
    Block(Cid),
    Presences(Vec<(Cid, bool)>),
}

/// What one peer wants. It is dropped with the peer's last connection.
pub(super) struct Ledger {
    max_wants: usize,
    /// By the order in which they are sent.
    order: BTreeMap<u64, Key>,
    /// With their place in that order.
    answers: BTreeMap<Key, (u64, Answer)>,
    serial: u64,
    /// Wanted and not here: answered should it arrive. `true` when the block itself is wanted.
    missing: BTreeMap<Key, bool>,
    pub(super) wake: Arc<Notify>,
    pub(super) sending: bool,
}

impl Ledger {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_wants: limits.wants_per_peer,
            order: BTreeMap::new(),
            answers: BTreeMap::new(),
            serial: 0,
            missing: BTreeMap::new(),
            wake: Arc::default(),
            sending: false,
        }
    }

    fn push(&mut self, key: Key, answer: Answer) {
        if let Some((_, known)) = self.answers.get_mut(&key) {
            *known = answer.max(*known);
        } else if self.answers.len() < self.max_wants {
            self.serial += 1;
            self.order.insert(self.serial, key.clone());
            self.answers.insert(key, (self.serial, answer));
        }
    }

    fn cancel(&mut self, key: &Key) {
        self.missing.remove(key);
        if let Some((serial, _)) = self.answers.remove(key) {
            self.order.remove(&serial);
        }
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.answers.clear();
        self.missing.clear();
    }

    /// The next answer, if it is one that `fits`.
    fn pop(&mut self, fits: impl FnOnce(Answer) -> bool) -> Option<(Cid, Answer)> {
        let next = self.order.first_entry()?;
        let (_, answer) = *self.answers.get(next.get())?;
        if !fits(answer) {
            return None;
        }
        let key = next.remove();
        self.answers.remove(&key);
        Some((key.cid(), answer))
    }

    /// The next piece of work: all presences at the head, or one block.
    pub(super) fn next(&mut self) -> Option<Job> {
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

    /// Takes back a piece of work that could not be done.
    pub(super) fn again(&mut self, job: Job) {
        match job {
            Job::Block(cid) => self.push(Key::new(&cid), Answer::Block),
            Job::Presences(presences) => {
                for (cid, have) in presences {
                    self.push(Key::new(&cid), if have { Answer::Have } else { Answer::DontHave });
                }
            }
        }
    }

    /// Whether a block is to be sent, once those before it are.
    pub(super) fn is_due(&self, cid: &Cid) -> bool {
        self.answers.get(&Key::new(cid)).is_some_and(|(_, answer)| *answer == Answer::Block)
    }

    /// Answers if this block was waited for.
    pub(super) fn stored(&mut self, cid: &Cid) {
        if self.missing.is_empty() {
            return;
        }
        if let Some((key, block)) = self.missing.remove_entry(&Key::new(cid)) {
            self.push(key, if block { Answer::Block } else { Answer::Have });
            self.wake.notify_one();
        }
    }

    /// Takes wants in; each with the size of its block, if that is here and may be given.
    pub(super) fn take(&mut self, full: bool, wants: Vec<(Option<u64>, Want)>) {
        if full {
            self.clear();
        }
        for (size, Want { cid, cancel, have_only, send_dont_have }) in wants {
            let key = Key::new(&cid);
            match size {
                _ if cancel => self.cancel(&key),
                Some(size) if !have_only || size <= SMALL_BLOCK_BYTES => self.push(key, Answer::Block),
                Some(_) => self.push(key, Answer::Have),
                None => {
                    if let Some(block) = self.missing.get_mut(&key) {
                        *block |= !have_only;
                    } else if self.missing.len() < self.max_wants {
                        self.missing.insert(key.clone(), !have_only);
                    }
                    if send_dont_have {
                        self.push(key, Answer::DontHave);
                    }
                }
            }
        }
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;
    use crate::block::Block;
    use bytes::Bytes;

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
            assert!(ledger.order.len() <= 3);
        }
        assert!(ledger.next().is_none() && !ledger.is_busy());
        // One that was taken back and is wanted again comes once.
        ledger.take(false, vec![(Some(9999), want(1, false)), (None, cancel(1)), (Some(9999), want(1, false))]);
        assert!(matches!(ledger.next(), Some(Job::Block(found)) if found == cid(1)));
        assert!(ledger.next().is_none());
    }

    #[test]
    fn a_cid_of_any_length_is_kept_as_it_is() {
        let identity = crate::block::Multihash::wrap(0, &[7; 64]).expect("fits");
        let long = Cid::new_v1(0x55, identity);
        let old = Cid::new_v0(*cid(1).hash()).expect("SHA2-256");
        for cid in [long, old, cid(1), Cid::new_v1(u64::MAX, *cid(1).hash())] {
            assert_eq!(Key::new(&cid).cid(), cid);
        }
        assert!(matches!(Key::new(&cid(1)), Key::Short(36, _)));
        assert!(size_of::<Key>() <= 40);
    }
}
