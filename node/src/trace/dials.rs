//! Connections that could not be opened, and why, address by address.
//!
//! Imports libp2p's dial errors. It keeps the last failure of each address, and the last addresses.

use super::shortened;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

/// Addresses whose last failure is kept.
const MAX_DIALS: usize = 64;
/// Longest chain of errors that is followed to the reason.
const MAX_DEPTH: usize = 16;

/// A connection that could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDial {
    /// Whom it was to reach, where that is known.
    pub peer: Option<PeerId>,
    /// The address; absent when there was none to dial.
    pub address: Option<Multiaddr>,
    /// Why, in the transport's or the gate's words.
    pub reason: String,
    /// How often in a row.
    pub times: u32,
    /// How long ago the last time was.
    pub ago: Duration,
}

#[derive(Debug)]
struct Failed {
    dial: FailedDial,
    at: Instant,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Dials(VecDeque<Failed>);

impl Dials {
    pub(super) fn failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        match error {
            DialError::Transport(addresses) => {
                for (address, error) in addresses {
                    self.note(peer, Some(address.clone()), innermost(error));
                }
            }
            // Nobody else's fault, and no address was tried.
            DialError::DialPeerConditionFalse(_) | DialError::Aborted => {}
            DialError::WrongPeerId { obtained, address } => {
                self.note(peer, Some(address.clone()), format!("another peer answers there: {obtained}"));
            }
            error => self.note(peer, None, innermost(error)),
        }
    }

    fn note(&mut self, peer: Option<PeerId>, address: Option<Multiaddr>, reason: String) {
        let same = |failed: &Failed| failed.dial.address == address && (address.is_some() || failed.dial.peer == peer);
        let times = match self.0.iter().position(same).and_then(|place| self.0.remove(place)) {
            Some(before) if before.dial.reason == reason => before.dial.times.saturating_add(1),
            _ => 1,
        };
        if self.0.len() >= MAX_DIALS {
            self.0.pop_front();
        }
        let dial = FailedDial { peer, address, reason, times, ago: Duration::ZERO };
        self.0.push_back(Failed { dial, at: Instant::now() });
    }

    /// Those since `since`, the latest first.
    pub(super) fn since(&self, since: Instant) -> Vec<FailedDial> {
        let recent = self.0.iter().rev().filter(|failed| failed.at >= since);
        recent.map(|failed| FailedDial { ago: failed.at.elapsed(), ..failed.dial.clone() }).collect()
    }
}

/// The reason at the bottom of a chain of errors; what wraps it says the same in more words.
fn innermost(error: &dyn Error) -> String {
    let (mut last, mut next) = (error.to_string(), error.source());
    for _ in 0..MAX_DEPTH {
        let Some(cause) = next else { break };
        let text = cause.to_string();
        if !text.is_empty() {
            last = text;
        }
        next = cause.source();
    }
    shortened(&last)
}
