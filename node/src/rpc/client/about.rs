//! Who the daemon is, and whom it is connected to.
//!
//! Imports its siblings. All of it is foreign text: whoever shows it escapes it.

use serde::Deserialize;

use super::{Kubo, RpcError};

/// Peers whose ledgers are looked at, one command each.
const MAX_LEDGERS: usize = 64;

/// Who the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// Its peer ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where peers reach it.
    #[serde(rename = "Addresses", default)]
    pub addresses: Option<Vec<String>>,
    /// What it calls itself.
    #[serde(rename = "AgentVersion", default)]
    pub agent: String,
}

/// A peer of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KuboPeer {
    /// Its peer ID.
    pub id: String,
    /// The address it is connected by.
    pub address: String,
    /// What it calls itself.
    pub agent: String,
    /// Bytes of blocks that came from it; zero when the daemon does not say.
    pub received: u64,
    /// Bytes of blocks that went to it; zero when the daemon does not say.
    pub sent: u64,
}

#[derive(Deserialize)]
struct Peers {
    #[serde(rename = "Peers", default)]
    peers: Option<Vec<Peer>>,
}

#[derive(Deserialize)]
struct Peer {
    #[serde(rename = "Peer")]
    id: String,
    #[serde(rename = "Addr", default)]
    address: String,
    #[serde(rename = "Identify", default)]
    identify: Option<Identified>,
}

#[derive(Deserialize)]
struct Identified {
    #[serde(rename = "AgentVersion", default)]
    agent: String,
}

#[derive(Deserialize)]
struct Ledger {
    #[serde(rename = "Sent", default)]
    sent: u64,
    #[serde(rename = "Recv", default)]
    received: u64,
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

impl Kubo {
    /// Who it is.
    ///
    /// # Errors
    /// [`RpcError`]; it is the first thing to ask, to learn whether there is a daemon at all.
    pub async fn identity(&self) -> Result<Identity, RpcError> {
        self.ask_one("id", &[]).await
    }

    /// Which version of its program it is.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn version(&self) -> Result<String, RpcError> {
        Ok(self.ask_one::<Version>("version", &[]).await?.version)
    }

    /// Whom it is connected to.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn peers(&self) -> Result<Vec<KuboPeer>, RpcError> {
        let listed = self.ask_one::<Peers>("swarm/peers", &[("identify", "true")]).await?.peers.unwrap_or_default();
        let mut peers = Vec::new();
        for (number, peer) in listed.into_iter().enumerate() {
            let ledger = if number < MAX_LEDGERS {
                self.ask_one::<Ledger>("bitswap/ledger", &[("arg", &peer.id)]).await.ok()
            } else {
                None
            };
            peers.push(KuboPeer {
                id: peer.id,
                address: peer.address,
                agent: peer.identify.map(|identify| identify.agent).unwrap_or_default(),
                received: ledger.as_ref().map_or(0, |ledger| ledger.received),
                sent: ledger.as_ref().map_or(0, |ledger| ledger.sent),
            });
        }
        Ok(peers)
    }

    /// Has it connect to a peer, by a multiaddress with a peer ID.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn connect(&self, address: &str) -> Result<(), RpcError> {
        self.ask::<serde_json::Value>("swarm/connect", &[("arg", address)]).await.map(drop)
    }
}
