//! A second connection to a peer from which nothing comes any more.
//!
//! After a link was cut, TCP tries again after as long as the cut took, and more; if this host has another address now,
//! never. A new connection gets through as soon as there is a way. So one is tried beside the old one, and which of the two
//! is kept is seen when it is there: a peer that was only slow loses nothing.
//!
//! Imports its siblings. It never closes the only connection to a peer.

use super::actor::Actor;
use super::known::Known;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use std::collections::{HashMap, HashSet};

/// Dials at once of one peer: each goes on for ten seconds, and a new one begins every two.
const MAX_REDIALS: usize = 5;

/// What is under way.
#[derive(Default)]
pub(super) struct Beside {
    /// Dials, with what had come from the peer by then.
    dials: HashMap<ConnectionId, (PeerId, u64)>,
    /// Connections that are being closed in favour of a new one.
    given_up: HashSet<ConnectionId>,
}

impl Beside {
    pub(super) fn failed(&mut self, dial: ConnectionId) {
        self.dials.remove(&dial);
    }
}

impl Actor {
    /// Dials a peer that is connected and says nothing.
    pub(super) fn dial_beside(&mut self, peer: PeerId) {
        if self.beside.dials.values().filter(|(other, _)| *other == peer).count() >= MAX_REDIALS {
            return;
        }
        let Some(address) = self.connected.get(&peer).and_then(Known::dialable) else { return };
        let options = DialOpts::peer_id(peer).addresses(vec![address]).extend_addresses_through_behaviour();
        // From the port that it listens on, it may have this very connection.
        let options = options.condition(PeerCondition::Always).allocate_new_port().build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                tracing::debug!(%peer, "nothing comes from the peer, it is dialled again");
                self.beside.dials.insert(id, (peer, self.exchange.bytes_heard(&peer)));
            }
            Err(error) => tracing::debug!(%peer, %error, "a silent peer is not dialled again"),
        }
    }

    /// A connection is there. If it is one to a silent peer, and still nothing came over the others, they are dead, as far
    /// as anybody can tell; otherwise it is not needed.
    pub(super) fn choose(&mut self, peer: PeerId, new: ConnectionId) {
        let Some((_, heard)) = self.beside.dials.remove(&new) else { return };
        let is_alive = self.exchange.bytes_heard(&peer) != heard;
        let links = self.connected.get(&peer).map_or(&[][..], |known| &known.links);
        let others: Vec<_> = links.iter().map(|link| link.id).filter(|id| *id != new).collect();
        if is_alive && !others.is_empty() {
            self.swarm.close_connection(new);
        } else {
            // Dials that began before get through about now, too: this connection has had no time to prove itself.
            for (_, heard) in self.beside.dials.values_mut().filter(|(other, _)| *other == peer) {
                *heard = u64::MAX;
            }
            for id in others {
                self.beside.given_up.insert(id);
                self.swarm.close_connection(id);
            }
        }
    }

    /// A connection is gone. What was asked over one that was given up is asked again.
    pub(super) fn gone(&mut self, peer: PeerId, connection: ConnectionId) {
        if self.beside.given_up.remove(&connection) {
            self.exchange.ask_again(&peer);
        }
    }
}
