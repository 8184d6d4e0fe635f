//! A peer that tells where others are, and lies: for tests of what follows from that.
//!
//! ```text
//! liar CID ADDRESS...
//! ```
//! It is found by mDNS, serves the LAN's table, and says by every way there is (its own identification, closer peers,
//! provider records for the CID) that peers are at these addresses. It gives no block to anybody.

use futures::StreamExt as _;
use libp2p::kad::store::{MemoryStore, RecordStore as _};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, kad, mdns, noise, tcp, yamux};
use shipfs_node::Cid;
use std::io::Write as _;
use std::time::Duration;

/// Peers that are made up for each address: more than a search asks for.
const PEERS_EACH: usize = 4;

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    mdns: mdns::tokio::Behaviour,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let cid: Cid = words.next().ok_or_else(|| anyhow::anyhow!("liar CID ADDRESS..."))?.parse()?;
    let lies = words.map(|text| text.parse()).collect::<Result<Vec<Multiaddr>, _>>()?;
    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|key| {
            let me = key.public().to_peer_id();
            let protocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");
            let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), kad::Config::new(protocol));
            kad.set_mode(Some(kad::Mode::Server));
            Ok(Behaviour {
                identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), key.public())),
                kad,
                mdns: mdns::tokio::Behaviour::new(mdns::Config::default(), me)?,
            })
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    swarm.listen_on("/ip4/0.0.0.0/tcp/0".parse()?)?;
    let key = kad::RecordKey::new(&cid.hash().to_bytes());
    for lie in &lies {
        swarm.add_external_address(lie.clone());
        for _ in 0..PEERS_EACH {
            let peer = PeerId::random();
            let kad = &mut swarm.behaviour_mut().kad;
            kad.add_address(&peer, lie.clone());
            let record = kad::ProviderRecord::new(key.clone(), peer, vec![lie.clone()]);
            kad.store_mut().add_provider(record)?;
        }
    }
    let mut told = false;
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await
            && !std::mem::replace(&mut told, true)
        {
            let line = format!("ready: {} at {address}\n", swarm.local_peer_id());
            std::io::stdout().write_all(line.as_bytes())?;
        }
    }
}
