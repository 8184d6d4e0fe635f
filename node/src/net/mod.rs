//! The network half of a node: who it is, how it connects, whom it may dial.
//!
//! `actor` owns the swarm, alone; everybody else holds a [`Net`], which sends it commands. Nothing here runs before
//! [`Net::start`]: a node that needs no peer opens no socket.
//!
//! May import [`crate::config`], [`crate::exchange`] and libp2p. It never carries block data (streams go to the
//! exchange) and never touches the store.

mod actor;
mod behaviour;
mod beside;
mod frames;
pub mod gate;
mod hosts;
pub mod identity;
mod interfaces;
mod joined;
mod known;
mod listening;
mod muxer;
mod quic;
mod secured;
mod stopped;
mod tls;
pub mod transport;

pub use behaviour::AGENT;
pub use interfaces::{Interface, interfaces};

use crate::block::Cid;
use crate::config::{Network, NetworkConfig};
use crate::exchange::bitswap::{Exchange, Signal, Traffic};
use actor::{Actor, Command};
use gate::Gate;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Commands that may wait for the swarm's owner.
const MAX_COMMANDS: usize = 64;
/// A connection that nothing uses is closed after this long. Short enough to free a limit, long enough that the next
/// blob of an image finds it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// A handle to the swarm's owner; clones share it. Dropping all of them stops it.
#[derive(Clone, Debug)]
pub struct Net {
    commands: mpsc::Sender<Command>,
    table_peers: watch::Receiver<usize>,
    peer: PeerId,
    config: NetworkConfig,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its identity.
    pub peer: PeerId,
    /// The address it is connected by, as seen from here.
    pub address: Multiaddr,
    /// What it calls itself: foreign text, without control characters and at most 128 bytes. Empty until it said so.
    pub agent: String,
    /// Whether it was named by the user, rather than found.
    pub named: bool,
    /// How it is connected: `tcp+tls`, `tcp+noise`, `quic`.
    pub transport: String,
    /// Revisions of Bitswap that it speaks; foreign text, cleaned as `agent` is. Empty until it said so.
    pub protocols: Vec<String>,
    /// Whether this node opened the connection.
    pub outbound: bool,
    /// How long it has been connected.
    pub connected: Duration,
    /// An address by which it can be dialled again, if one is known.
    pub dialable: Option<Multiaddr>,
    /// What was exchanged with it.
    pub traffic: Traffic,
}

/// Where this node looks for peers, and how far that got.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// Peers that the user named, and whether they are connected.
    pub named: Vec<(Multiaddr, bool)>,
    /// Peers found by mDNS, at most some hundreds; `None` when it is off.
    pub found: Option<Vec<PeerId>>,
    /// Peers that have joined the routing table, the LAN's DHT, so far.
    pub table: usize,
    /// Addresses of peers that delivered before, and were dialled again.
    pub remembered: usize,
}

/// Why a network cannot be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// This node is offline.
    #[error("this node is offline")]
    Offline,
    /// The node is part of another network already.
    #[error("this node is part of the `{running}` network, it cannot also join `{asked}`")]
    OtherNetwork {
        /// The network it is part of.
        running: &'static str,
        /// The network that was asked for.
        asked: &'static str,
    },
    /// A private network carries nothing but TCP.
    #[error("`{address}` cannot be used in a private network: the swarm key protects TCP only")]
    NotPrivate {
        /// The address.
        address: Multiaddr,
    },
    /// The address is refused or cannot be listened on.
    #[error("cannot listen on `{address}`: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the transport said.
        reason: String,
    },
    /// The address is refused or nobody answers there.
    #[error("cannot connect to `{address}`: {reason}")]
    Dial {
        /// The address.
        address: Multiaddr,
        /// What the transport said.
        reason: String,
    },
    /// The node has no identity to show.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The transports cannot be set up.
    #[error(transparent)]
    Setup(#[from] transport::TransportSetupError),
    /// mDNS cannot be set up.
    #[error("cannot search the local network by mDNS")]
    Mdns(#[source] std::io::Error),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Closed,
}

impl Net {
    /// Enters the network: binds what is to be listened on (waiting until that is done), dials the named peers (not
    /// waiting for them). Must be called on the runtime that is to drive the network.
    ///
    /// # Errors
    /// [`NetError`]; then nothing runs.
    pub async fn start(
        config: &NetworkConfig,
        identity: &Keypair,
        exchange: Exchange,
        signals: mpsc::Receiver<Signal>,
        tasks: &TaskTracker,
        token: CancellationToken,
    ) -> Result<Self, NetError> {
        let (gate, key) = match &config.network {
            Network::Offline => return Err(NetError::Offline),
            Network::Lan => (Gate::on_link(), None),
            Network::Private(key) => (Gate::Open, Some(*key)),
        };
        config.listen.iter().chain(&config.peers).try_for_each(|address| suits(&config.network, address))?;
        for address in &config.peers {
            gate.check(address)
                .map_err(|refused| NetError::Dial { address: address.clone(), reason: refused.to_string() })?;
        }
        let secured = secured::Secured::default();
        let transport = transport::build(identity, key, gate, key.is_some(), config.security, secured.clone())?;
        let behaviour = behaviour::Behaviour::new(identity, exchange.clone(), config).map_err(NetError::Mdns)?;
        let peer = identity.public().to_peer_id();
        let swarm_config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
        let swarm = libp2p::Swarm::new(transport, behaviour, peer, swarm_config);
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let mut actor = Actor::new(swarm, exchange, receiver, signals, config, secured);
        actor.listen(&config.listen).await?;
        let table_peers = actor.table_peers();
        tasks.spawn(async move {
            token.run_until_cancelled(actor.run()).await;
        });
        Ok(Self { commands, table_peers, peer, config: config.clone() })
    }

    /// This node's identity.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The network it is part of.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| NetError::Closed)?;
        answer.await.map_err(|_| NetError::Closed)
    }

    /// Addresses this node listens on, without its identity.
    pub async fn listeners(&self) -> Result<Vec<Multiaddr>, NetError> {
        self.ask(Command::Listeners).await
    }

    /// Listens on one more address; returns once it is bound, on every interface if it stands for all of them.
    ///
    /// # Errors
    /// [`NetError::Listen`], [`NetError::NotPrivate`].
    pub async fn listen(&self, address: Multiaddr) -> Result<(), NetError> {
        suits(&self.config.network, &address)?;
        self.ask(|reply| Command::Listen(address, reply)).await?
    }

    /// How many peers have joined the routing table so far.
    pub(crate) fn table_peers(&self) -> watch::Receiver<usize> {
        self.table_peers.clone()
    }

    /// Where this node looks for peers.
    pub async fn routing(&self) -> Result<Routing, NetError> {
        self.ask(Command::Routing).await
    }

    /// Dials peers that delivered before, once, not waiting for them. Those that the gate would refuse are left out.
    pub(crate) async fn revisit(&self, addresses: Vec<Multiaddr>) -> Result<(), NetError> {
        let gate = if self.config.network == Network::Lan { Gate::on_link() } else { Gate::Open };
        let addresses = addresses.into_iter().filter(|address| gate.check(address).is_ok()).collect();
        self.commands.send(Command::Revisit(addresses)).await.map_err(|_| NetError::Closed)
    }

    /// Connected peers.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NetError> {
        self.ask(Command::Peers).await
    }

    /// Connects to a peer and waits until that is done. Dropping the future does not stop the attempt.
    ///
    /// # Errors
    /// [`NetError::Dial`], [`NetError::NotPrivate`].
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, NetError> {
        suits(&self.config.network, &address)?;
        self.ask(|reply| Command::Connect(address, reply)).await?
    }

    /// Announces that this node has a block, and keeps doing so while it runs. Returns once the record is placed;
    /// `false` when nobody took it.
    pub async fn provide(&self, cid: Cid) -> Result<bool, NetError> {
        self.ask(|reply| Command::Provide(cid, reply)).await
    }

    /// Peers that announced this block, at most a few dozen.
    pub async fn find_providers(&self, cid: Cid) -> Result<Vec<PeerId>, NetError> {
        self.ask(|reply| Command::FindProviders(cid, reply)).await
    }
}

/// The peer that an address names.
fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// Whether an address can be used in a network: a private one has no other transport than TCP, so that nothing goes
/// around its key.
fn suits(network: &Network, address: &Multiaddr) -> Result<(), NetError> {
    match network {
        Network::Private(_) if !is_tcp(address) => Err(NetError::NotPrivate { address: address.clone() }),
        _ => Ok(()),
    }
}

/// Whether an address is plain TCP, the only transport that a swarm key protects.
fn is_tcp(address: &Multiaddr) -> bool {
    use libp2p::multiaddr::Protocol;
    let mut parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
    let host = matches!(
        parts.next(),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_))
    );
    host && matches!(parts.next(), Some(Protocol::Tcp(_))) && parts.next().is_none()
}
