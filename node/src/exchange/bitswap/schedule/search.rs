//! Whom to ask whether they have something.
//!
//! Imports its siblings. It never asks for a block itself.

use super::Schedule;
use super::source::Source;
use super::want::Action;
use libp2p::PeerId;
use std::time::{Duration, Instant};

/// How often peers and routing are asked again for what nobody is known to hold.
pub(super) const SEEK_INTERVAL: Duration = Duration::from_secs(2);
/// Most peers asked whether they have a block, in one such interval: a bound on how loud a search is. The others have
/// their turn in the next one.
pub(super) const MAX_PROBES: usize = 128;

impl Schedule {
    /// Asks peers whether they have the first block of each session that nobody is known to have, or to deliver; all
    /// others, once, whether they have its root. Who says so later, when the root has come there, too, is fetching the
    /// same file, and has blocks to give.
    pub(super) fn search(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            let unheld = session.unheld.values().next().and_then(|hash| self.wants.get(hash));
            let missing = unheld.map(|wanted| wanted.cid).or(session.stuck);
            let Some(cid) = missing.or(session.root) else { continue };
            if missing.is_some() && session.last_seek.is_none_or(|at| now.duration_since(at) >= SEEK_INTERVAL) {
                session.last_seek = Some(now);
                session.probes = 0;
                self.actions.push(Action::Seek(cid));
                let is_left =
                    |(peer, source): (&PeerId, &Source)| !source.is_given_up(now) && !session.probed.contains(peer);
                if !self.sources.iter().any(is_left) {
                    session.probed.clear();
                }
            }
            for (peer, source) in &mut self.sources {
                if session.probes == MAX_PROBES {
                    break;
                }
                if missing.is_none() && session.holders.contains(peer) {
                    continue;
                }
                if !source.is_given_up(now) && session.probed.insert(*peer) {
                    session.probes += 1;
                    session.probe = Some(*cid.hash());
                    source.probe(cid);
                }
            }
        }
    }
}
