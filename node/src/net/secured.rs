//! Which way each peer's connection was secured: what the swarm does not tell.
//!
//! The transports write it down when they have authenticated a peer, and the actor reads it. Imports libp2p alone.

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Peers that are remembered: more than are ever connected at once. Whoever was authenticated and refused after that
/// stays until then.
const MAX_PEERS: usize = 1024;

/// The book; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Secured(Arc<Mutex<HashMap<PeerId, &'static str>>>);

impl Secured {
    /// A peer was authenticated by `tls` or `noise`.
    pub(super) fn note(&self, peer: PeerId, security: &'static str) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.len() >= MAX_PEERS {
            book.clear();
        }
        book.insert(peer, security);
    }

    /// A peer is gone.
    pub(super) fn forget(&self, peer: &PeerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// How a peer is connected: `tcp+tls`, `tcp+noise`, `quic`.
    pub(super) fn transport(&self, peer: &PeerId, address: &Multiaddr) -> String {
        let carrier = address.iter().find_map(|part| match part {
            Protocol::QuicV1 | Protocol::Quic => Some("quic"),
            Protocol::Ws(_) | Protocol::Wss(_) => Some("websocket"),
            _ => None,
        });
        if carrier == Some("quic") {
            return "quic".to_owned();
        }
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let security = book.get(peer).map(|security| format!("+{security}")).unwrap_or_default();
        format!("{}{security}", carrier.unwrap_or("tcp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_named_by_what_carries_and_what_secures() {
        let (book, peer) = (Secured::default(), PeerId::random());
        let named = |address: &str| book.transport(&peer, &address.parse().expect("an address"));
        assert_eq!(named("/ip4/10.0.0.1/tcp/4001"), "tcp");
        book.note(peer, "tls");
        assert_eq!(named("/ip4/10.0.0.1/tcp/4001"), "tcp+tls");
        assert_eq!(named("/ip4/10.0.0.1/udp/4001/quic-v1"), "quic");
        book.forget(&peer);
        assert_eq!(named("/ip4/10.0.0.1/tcp/4001"), "tcp");
        (0..3 * MAX_PEERS).for_each(|_| book.note(PeerId::random(), "noise"));
        assert!(book.0.lock().expect("sound").len() <= MAX_PEERS);
    }
}
