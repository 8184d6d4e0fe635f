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
    /// Dial peers that delivered before in this network, and remember those that deliver now.
    pub remember: bool,
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
