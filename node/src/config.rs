//! What a node is told when it starts.
//!
//! Plain structs with documented defaults; no environment, no home directory, no files but the repository.

use libp2p::Multiaddr;
use libp2p::pnet::PreSharedKey;
use std::path::PathBuf;
use std::time::Duration;

/// How long a fetch waits without a single block arriving before it gives up. Finding a peer by mDNS takes below a
/// second, a peer that pauses for a garbage collection some seconds.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a swarm key.
pub const SWARM_KEY_BYTES: usize = 32;

/// Everything a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the repository; it is made when it does not exist.
    pub repository: PathBuf,
    /// Which peers it may talk to.
    pub network: NetworkConfig,
    /// How long a fetch waits without a block before it gives up.
    pub patience: Duration,
}

impl Config {
    /// A node that opens no network socket.
    pub fn offline(repository: impl Into<PathBuf>) -> Self {
        Self { repository: repository.into(), network: NetworkConfig::offline(), patience: DEFAULT_PATIENCE }
    }

    /// A node on the local network, which finds others by mDNS.
    pub fn lan(repository: impl Into<PathBuf>) -> Self {
        Self { network: NetworkConfig::lan(), ..Self::offline(repository) }
    }
}

/// Which network, and how it is entered.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The kind of network.
    pub network: Network,
    /// Addresses to listen on. Empty: nobody can dial this node.
    pub listen: Vec<Multiaddr>,
    /// Peers to connect to and to stay connected with.
    pub peers: Vec<Multiaddr>,
    /// Find, and be found by, peers on the same link.
    pub mdns: bool,
    /// How connections are encrypted.
    pub security: Security,
    /// What peers may cost.
    pub limits: Limits,
    /// Dial peers that delivered before in this network, and remember those that deliver now.
    pub remember: bool,
}

/// What other peers may cost this node, all together and each. What the protocols themselves fix is not here: a message
/// is at most 4 MiB long, a block 2 MiB, a list of wants counts up to 1024 entries, an RSA key 4096 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all. With those that are still shaking hands and the store's files, 448 is well below the usual 1024
    /// file descriptors.
    pub connections: u32,
    /// Connections that others opened, 384: a LAN of three hundred hosts that all fetch from this one. The rest is for
    /// those that this node opens, which nobody else can use up.
    pub inbound_connections: u32,
    /// Connections with one peer, 4: both ends may dial at once, and one may be left from before a break.
    pub connections_per_peer: u32,
    /// Connections that one host opened, 128: a host with a hundred containers behind one address. Of IPv6, one network
    /// of 64 bits is a host.
    pub connections_per_host: usize,
    /// Connections from elsewhere that are still shaking hands: 128.
    pub half_open: u32,
    /// Those of one host: 64.
    pub half_open_per_host: usize,
    /// Connections of this node's own that are still shaking hands: 64.
    pub dials: u32,
    /// New inbound connections are refused while this process holds more memory than this, in bytes: 1 GiB.
    pub process_bytes: usize,
    /// Wants of one peer that are remembered, and again as many of what is not here: 1024, as Kubo does.
    pub wants_per_peer: usize,
    /// Messages of one peer that are acted upon each second, but for those with a block that somebody waits for: 2000.
    /// Kubo sends at most a thousand.
    pub messages_per_second: u32,
    /// What long messages of peers that were asked for nothing may take together while they are read, in bytes: 16 MiB.
    /// They are lists of a hundred wants and more; each takes 256 KiB at most.
    pub unasked_bytes: usize,
    /// Blocks that lie in memory before the one that is being sent to their peer is gone: 16. Without room for one more,
    /// a peer has to wait for the disk between two blocks.
    pub blocks_read_ahead: usize,
    /// Addresses of one peer that the routing table gets, as long as it is connected, 32: it may announce others all day.
    pub addresses_per_peer: usize,
    /// Provider records kept for others and for ourselves, 65536: entities, not blocks, so thousands of images.
    pub provider_records: usize,
    /// Provider records taken from one peer while it is connected, 16384: a quarter of all.
    pub provider_records_per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 448,
            inbound_connections: 384,
            connections_per_peer: 4,
            connections_per_host: 128,
            half_open: 128,
            half_open_per_host: 64,
            dials: 64,
            process_bytes: 1 << 30,
            wants_per_peer: 1024,
            messages_per_second: 2000,
            unasked_bytes: 16 << 20,
            blocks_read_ahead: 16,
            addresses_per_peer: 32,
            provider_records: 64 << 10,
            provider_records_per_peer: 16 << 10,
        }
    }
}

/// How connections are encrypted. Peers must share one; every libp2p implementation speaks both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// TLS 1.3 if the peer speaks it, else Noise.
    #[default]
    Any,
    /// TLS 1.3 alone.
    Tls,
    /// Noise alone.
    Noise,
}

impl NetworkConfig {
    /// No network at all.
    pub fn offline() -> Self {
        Self {
            network: Network::Offline,
            listen: Vec::new(),
            peers: Vec::new(),
            mdns: false,
            security: Security::Any,
            limits: Limits::default(),
            remember: true,
        }
    }

    /// The local network: mDNS, peers by address, nothing that is not on-link.
    pub fn lan() -> Self {
        Self { network: Network::Lan, mdns: true, ..Self::offline() }
    }

    /// A private swarm of those who hold `key`, entered by `peers`.
    pub fn private(key: PreSharedKey, peers: Vec<Multiaddr>) -> Self {
        Self { network: Network::Private(key), peers, ..Self::offline() }
    }
}

/// The kinds of network a node can be part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// No network socket is opened.
    #[default]
    Offline,
    /// Peers on this host's own links only.
    Lan,
    /// Those who hold this pre-shared key, wherever they are. (`Debug` shows its fingerprint, not the key.)
    Private(PreSharedKey),
}

impl Network {
    /// The private network of a key that was read from somewhere.
    pub fn private(key: [u8; SWARM_KEY_BYTES]) -> Self {
        Self::Private(PreSharedKey::new(key))
    }

    /// `offline`, `lan` or `private`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Lan => "lan",
            Self::Private(_) => "private",
        }
    }
}
