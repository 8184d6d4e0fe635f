//! What the node does on every connection.

use super::{hosts, peer_in};
use crate::config::{Network, NetworkConfig};
use crate::exchange::bitswap::{Exchange, behaviour as bitswap};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, allow_block_list, identify, kad, mdns, memory_connection_limits, ping};
use std::time::Duration;

/// What the node calls itself to peers.
pub const AGENT: &str = concat!("shipfs/", env!("CARGO_PKG_VERSION"));
/// The protocol family, as Kubo names it.
const IDENTIFY_PROTOCOL: &str = "ipfs/0.1.0";
/// On private addresses Kubo speaks only this one.
const LAN_KAD: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");

/// How often peers that this node is connected to are pinged.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long an answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// All behaviours together.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    hosts: hosts::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) banned: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) bitswap: bitswap::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(identity: &Keypair, exchange: Exchange, config: &NetworkConfig) -> std::io::Result<Self> {
        let me = identity.public().to_peer_id();
        let bounds = &config.limits;
        let limits = ConnectionLimits::default()
            .with_max_established(Some(bounds.connections))
            .with_max_established_incoming(Some(bounds.inbound_connections))
            .with_max_established_per_peer(Some(bounds.connections_per_peer))
            .with_max_pending_incoming(Some(bounds.half_open))
            .with_max_pending_outgoing(Some(bounds.dials));
        let mut limits = connection_limits::Behaviour::new(limits);
        for peer in config.peers.iter().filter_map(peer_in) {
            limits.bypass_peer_id(&peer);
        }
        let mut kad_config = kad::Config::new(LAN_KAD);
        kad_config.set_periodic_bootstrap_interval(None);
        let records = MemoryStoreConfig {
            max_provided_keys: bounds.provider_records,
            // Nothing but providers is kept for others: values could be 64 KiB each.
            max_records: 0,
            ..MemoryStoreConfig::default()
        };
        // The actor looks at each before it is kept.
        kad_config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let mut kad = kad::Behaviour::with_config(me, MemoryStore::with_config(me, records), kad_config);
        // A node that cannot be dialled asks the table and is no part of it.
        kad.set_mode(Some(if config.listen.is_empty() { kad::Mode::Client } else { kad::Mode::Server }));
        let mdns = (config.mdns && config.network != Network::Offline)
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), me))
            .transpose()?;
        Ok(Self {
            limits,
            hosts: hosts::Behaviour::new(bounds),
            memory: memory_connection_limits::Behaviour::with_max_bytes(bounds.process_bytes),
            banned: allow_block_list::Behaviour::default(),
            bitswap: bitswap::Behaviour::new(exchange),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY_PROTOCOL.into(), identity.public()).with_agent_version(AGENT.into()),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
            kad,
            mdns: mdns.into(),
        })
    }
}
