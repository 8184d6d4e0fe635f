//! Peers that delivered are dialled again next time.
//!
//! Imports its parent. What is known of one network is never used in another, and the gate still stands before every
//! dial. A hint that is lost or stale costs nothing but that dial.

use super::Node;
use crate::config::{Network, NetworkConfig};
use crate::net::Net;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Names the network in the journal: all local ones are one (the gate tells them apart), private ones are told apart by
/// the fingerprint of their key. `None`: nothing is remembered.
fn name(config: &NetworkConfig) -> Option<Vec<u8>> {
    match &config.network {
        _ if !config.remember => None,
        Network::Offline => None,
        Network::Lan => Some(b"lan".to_vec()),
        Network::Private(key) => Some(format!("private/{}", key.fingerprint()).into_bytes()),
    }
}

fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

impl Node {
    /// Dials those who delivered in this network before.
    pub(super) async fn revisit(&self, net: &Net) {
        let Some(network) = name(net.config()) else { return };
        let addresses: Vec<_> = self
            .blocking(move |store| store.remembered_peers(&network))
            .await
            .into_iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes).ok())
            .collect();
        if !addresses.is_empty()
            && let Err(error) = net.revisit(addresses).await
        {
            tracing::debug!(%error, "peers from before are not dialled");
        }
    }

    /// Writes down who delivered: those that are connected now first, then those that were known before.
    pub(super) async fn remember(&self) {
        let Some(net) = self.net().await else { return };
        let Some(network) = name(net.config()) else { return };
        let peers = net.peers().await.unwrap_or_default();
        let delivered = peers.into_iter().filter(|peer| peer.traffic.received > 0);
        let mut addresses: Vec<Multiaddr> = delivered
            .filter_map(|peer| {
                let address = peer.dialable?;
                Some(if peer_in(&address).is_some() { address } else { address.with(Protocol::P2p(peer.peer)) })
            })
            .collect();
        if addresses.is_empty() {
            return;
        }
        let remembering = self.blocking(move |store| {
            let before = store.remembered_peers(&network);
            for address in before.into_iter().filter_map(|bytes| Multiaddr::try_from(bytes).ok()) {
                if !addresses.iter().any(|known| peer_in(known) == peer_in(&address)) {
                    addresses.push(address);
                }
            }
            store.remember_peers(&network, addresses.iter().map(Multiaddr::to_vec).collect())
        });
        if let Err(error) = remembering.await {
            tracing::info!(%error, "who delivered is not written down");
        }
    }
}
