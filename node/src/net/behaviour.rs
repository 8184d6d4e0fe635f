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

/// Connections in all. With those that are still shaking hands and the store's files, well below the usual 1024 file
/// descriptors.
const MAX_CONNECTIONS: u32 = 448;
/// Connections that others opened: a LAN of three hundred hosts that all fetch from this one. The rest is for those
/// that this node opens, which nobody else can use up.
const MAX_INBOUND: u32 = 384;
/// Connections from elsewhere that are still shaking hands.
const MAX_HALF_OPEN: u32 = 128;
/// Connections of this node's own that are still shaking hands.
const MAX_DIALS: u32 = 64;
/// Connections with one peer: both ends may dial at once, and one may be left from before a break.
const MAX_PER_PEER: u32 = 4;
/// New inbound connections are refused while this process holds more memory than this, in bytes.
const MAX_PROCESS_BYTES: usize = 1 << 30;
/// Provider records kept for others and for ourselves: entities, not blocks, so thousands of images.
const MAX_RECORDS: usize = 64 << 10;
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
        let limits = ConnectionLimits::default()
            .with_max_established(Some(MAX_CONNECTIONS))
            .with_max_established_incoming(Some(MAX_INBOUND))
            .with_max_established_per_peer(Some(MAX_PER_PEER))
            .with_max_pending_incoming(Some(MAX_HALF_OPEN))
            .with_max_pending_outgoing(Some(MAX_DIALS));
        let mut limits = connection_limits::Behaviour::new(limits);
        for peer in config.peers.iter().filter_map(peer_in) {
            limits.bypass_peer_id(&peer);
        }
        let mut kad_config = kad::Config::new(LAN_KAD);
        kad_config.set_periodic_bootstrap_interval(None);
        let records = MemoryStoreConfig {
            max_provided_keys: MAX_RECORDS,
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
            hosts: hosts::Behaviour::default(),
            memory: memory_connection_limits::Behaviour::with_max_bytes(MAX_PROCESS_BYTES),
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
