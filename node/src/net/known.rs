//! What is known of a connected peer, and what it may make us keep.
//!
//! Everything here is foreign text and foreign claims: bounded, and fit to be shown. Imports libp2p and the limits of the
//! configuration.

use crate::config::Limits;
use libp2p::identity::{KeyType, PublicKey};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, StreamProtocol, kad};
use std::time::Instant;

/// Longest agent name kept, in bytes.
const MAX_AGENT_BYTES: usize = 128;
/// Protocols of one peer that are kept: the revisions of Bitswap there are.
const MAX_PROTOCOLS: usize = 4;
/// Addresses kept with a provider record. A peer has a few for each of its interfaces.
const MAX_RECORD_ADDRESSES: usize = 8;
/// Longest encoding of a public RSA key, in bytes: 4096 bits take 550. Longer keys cost time at every handshake.
const MAX_RSA_BYTES: usize = 600;
/// Pings in a row that may go unanswered, with nothing else coming or going, before a connection counts as dead.
const MAX_LOST_PINGS: u32 = 2;

/// One connection to a peer.
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) address: Multiaddr,
    /// This node opened it.
    pub(super) outbound: bool,
    pub(super) since: Instant,
    lost_pings: u32,
    /// Bytes exchanged with the peer when a ping was last lost.
    exchanged: u64,
}

impl Link {
    pub(super) fn new(id: ConnectionId, address: Multiaddr, outbound: bool) -> Self {
        Self { id, address, outbound, since: Instant::now(), lost_pings: 0, exchanged: 0 }
    }

    /// Counts a ping; whether the connection is dead. `exchanged` counts the bytes that came and went: behind a slow link
    /// a ping waits for megabytes.
    pub(super) fn is_dead(&mut self, answered: bool, exchanged: u64) -> bool {
        if answered || exchanged != self.exchanged {
            self.lost_pings = 0;
        }
        self.exchanged = exchanged;
        if !answered {
            self.lost_pings += 1;
        }
        self.lost_pings >= MAX_LOST_PINGS
    }
}

/// A connected peer.
#[derive(Default)]
pub(super) struct Known {
    pub(super) links: Vec<Link>,
    pub(super) agent: String,
    /// Revisions of Bitswap that it speaks, newest first.
    pub(super) protocols: Vec<String>,
    /// Where it says it listens, on the address that it is connected by.
    pub(super) listens: Option<Multiaddr>,
    addresses: usize,
    provided: usize,
    /// It has joined the routing table.
    pub(super) in_table: bool,
}

impl Known {
    /// Takes note of what the peer calls itself.
    pub(super) fn set_agent(&mut self, agent: &str) {
        self.agent = printable(agent);
    }

    /// Takes note of the revisions of Bitswap that the peer speaks.
    pub(super) fn set_protocols(&mut self, protocols: &[StreamProtocol]) {
        let bitswap = protocols.iter().filter(|protocol| protocol.as_ref().starts_with("/ipfs/bitswap"));
        self.protocols = bitswap.take(MAX_PROTOCOLS).map(|protocol| printable(protocol.as_ref())).collect();
        // They come in no order.
        self.protocols.sort_unstable_by(|one, other| other.cmp(one));
    }

    /// Takes note of where the peer can be dialled: of all it announces, what is on the host that it is connected from.
    pub(super) fn set_listens(&mut self, announced: &[Multiaddr]) {
        let Some(host) = self.links.last().and_then(|link| link.address.iter().next()) else { return };
        self.listens = announced.iter().find(|address| address.iter().next().as_ref() == Some(&host)).cloned();
    }

    /// An address by which it can be dialled again, if one is known.
    pub(super) fn dialable(&self) -> Option<Multiaddr> {
        let dialled = self.links.iter().rev().find(|link| link.outbound).map(|link| link.address.clone());
        dialled.or_else(|| self.listens.clone())
    }

    /// Of the addresses that the peer announces, those that may be kept.
    pub(super) fn admit_addresses(&mut self, announced: Vec<Multiaddr>, limits: &Limits) -> Vec<Multiaddr> {
        let room = limits.addresses_per_peer.saturating_sub(self.addresses);
        let admitted: Vec<_> = announced.into_iter().take(room).collect();
        self.addresses += admitted.len();
        admitted
    }

    /// The provider record, with as much of it as may be kept.
    pub(super) fn admit_record(
        &mut self,
        mut record: kad::ProviderRecord,
        limits: &Limits,
    ) -> Option<kad::ProviderRecord> {
        self.provided += 1;
        record.addresses.truncate(MAX_RECORD_ADDRESSES);
        (self.provided <= limits.provider_records_per_peer).then_some(record)
    }
}

/// Foreign text without what a terminal would act upon, or turn around.
fn printable(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut out: String = text.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).take(MAX_AGENT_BYTES).collect();
    out.truncate(out.floor_char_boundary(MAX_AGENT_BYTES));
    out
}

/// Whether a peer's key is one that is accepted.
pub(super) fn is_acceptable(key: &PublicKey) -> bool {
    key.key_type() != KeyType::RSA || key.encode_protobuf().len() <= MAX_RSA_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[test]
    fn d12_what_a_peer_calls_itself_cannot_move_the_cursor() {
        let mut known = Known::default();
        known.set_agent("kubo/0.43\x1b[2J\x07\u{202e}evil\r\n");
        assert_eq!(known.agent, "kubo/0.43\u{fffd}[2J\u{fffd}\u{fffd}evil\u{fffd}\u{fffd}");
        known.set_agent(&"é".repeat(1000));
        assert!(known.agent.len() <= MAX_AGENT_BYTES && known.agent.starts_with('é'));
    }

    #[test]
    fn c11_addresses_and_records_of_one_peer_come_to_an_end() {
        let (mut known, limits) = (Known::default(), Limits::default());
        let address = |n: usize| format!("/ip4/10.0.0.1/tcp/{n}").parse().expect("an address");
        let kept: usize = (0..50).map(|n| known.admit_addresses(vec![address(n); 20], &limits).len()).sum();
        assert_eq!(kept, limits.addresses_per_peer);
        let record = |n: usize| {
            let key = kad::RecordKey::new(&n.to_le_bytes());
            kad::ProviderRecord::new(key, PeerId::random(), (0..500).map(address).collect())
        };
        assert_eq!(known.admit_record(record(0), &limits).expect("taken").addresses.len(), MAX_RECORD_ADDRESSES);
        let admitted = (1..20_000).filter(|n| known.admit_record(record(*n), &limits).is_some()).count();
        assert_eq!(admitted, limits.provider_records_per_peer - 1);
    }

    /// A handshake checks keys of up to 8192 bits; the identity that comes after it ends a connection with more than 4096.
    #[test]
    fn c11_huge_rsa_keys_are_refused() {
        let key = |spki: &[u8]| {
            let length = [(spki.len() & 0x7f) as u8 | 0x80, (spki.len() >> 7) as u8];
            let encoded = [&[0x08, 0, 0x12][..], &length, spki].concat();
            PublicKey::try_decode_protobuf(&encoded).expect("a public key")
        };
        assert!(is_acceptable(&key(include_bytes!("../../tests/data/net/rsa-4096.der"))));
        assert!(!is_acceptable(&key(include_bytes!("../../tests/data/net/rsa-8192.der"))));
        assert!(is_acceptable(&libp2p::identity::Keypair::generate_ed25519().public()));
    }

    #[test]
    fn a_connection_that_carries_anything_is_alive() {
        let mut link = Link::new(ConnectionId::new_unchecked(1), "/ip4/10.0.0.1/tcp/1".parse().expect("valid"), true);
        assert!(!link.is_dead(false, 1000) && !link.is_dead(false, 2000) && !link.is_dead(true, 2000));
        assert!(!link.is_dead(false, 2000) && link.is_dead(false, 2000));
    }
}
