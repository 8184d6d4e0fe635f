//! Which networks a node is part of, and by which transports: QUIC beside TCP, a private network, and who is let in.

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Multiaddr, SwarmBuilder};
use shipfs_node::Cid;
use shipfs_node::add::Content;
use shipfs_node::config::{Config, Network, NetworkConfig};
use shipfs_node::net::NetError;
use shipfs_node::node::Node;
use std::time::Duration;
use tempfile::TempDir;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

fn lan(listen: &[&str]) -> NetworkConfig {
    let listen = listen.iter().map(|text| text.parse().expect("an address")).collect();
    NetworkConfig { listen, mdns: false, ..NetworkConfig::lan() }
}

fn private(key: u8, listen: &[&str]) -> NetworkConfig {
    NetworkConfig { network: Network::private([key; 32]), ..lan(listen) }
}

async fn node(directory: &TempDir, network: NetworkConfig) -> Node {
    let config = Config { network, patience: Duration::from_secs(5), ..Config::offline(directory.path()) };
    Node::start(config).await.expect("starts")
}

/// A node that serves, and where.
async fn serving(directory: &TempDir, network: NetworkConfig) -> (Node, Vec<Multiaddr>) {
    let node = node(directory, network).await;
    node.serve(true).await.expect("serves");
    let net = node.net().await.expect("online");
    let named = |address: Multiaddr| address.with_p2p(net.peer()).expect("has no peer yet");
    let listeners = net.listeners().await.expect("listens").into_iter().map(named).collect();
    (node, listeners)
}

async fn add(node: &Node, bytes: &[u8]) -> Cid {
    let lease = node.lease();
    let added = node.add(Content::Bytes(Bytes::copy_from_slice(bytes)), None, &lease, &|_| {}).await.expect("added");
    node.pin(&added.cid, "test").await.expect("pinned");
    added.cid
}

async fn bytes_of(node: &Node, cid: &Cid) -> Vec<u8> {
    let lease = node.lease();
    let file = node.get(cid, None, u64::MAX, &lease, &|_| {}).await.expect("fetched");
    std::fs::read(file.path).expect("there")
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_over_quic() {
    let (here, there) = (directory(), directory());
    let (source, addresses) = serving(&here, lan(&[QUIC])).await;
    assert!(addresses[0].to_string().contains("/udp/") && addresses[0].to_string().contains("/quic-v1/p2p/"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cid = add(&source, &bytes).await;
    let other = node(&there, NetworkConfig { peers: addresses.clone(), ..lan(&[]) }).await;
    assert!(bytes_of(&other, &cid).await == bytes);
    let peers = other.peers().await;
    assert_eq!(peers[0].address, addresses[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_the_dial_gate_is_before_quic_too() {
    let there = directory();
    let node = node(&there, lan(&[QUIC])).await;
    let away: Multiaddr = "/ip4/203.0.113.7/udp/4001/quic-v1".parse().expect("an address");
    let refused = node.connect(away).await.expect_err("is not on-link").to_string();
    assert!(refused.contains("only such addresses are dialled in a LAN"), "{refused}");
}

/// Nothing but TCP can carry a swarm key, and what cannot must not be there beside it.
#[tokio::test(flavor = "multi_thread")]
async fn c12_a_private_network_has_no_other_transport() {
    let around = [
        QUIC,
        "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
        "/ip4/127.0.0.1/udp/0/webrtc-direct",
        "/ip4/127.0.0.1/tcp/0/ws",
        "/ip4/127.0.0.1/udp/0/quic-v1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    ];
    for address in around {
        let here = directory();
        let listening = node(&here, private(1, &[TCP, address])).await.go_online().await;
        assert!(matches!(listening, Err(NetError::NotPrivate { .. })), "{address}: {listening:?}");
        let peers = vec![address.parse().expect("an address")];
        let there = directory();
        let dialling = node(&there, NetworkConfig { peers, ..private(1, &[]) }).await.go_online().await;
        assert!(matches!(dialling, Err(NetError::NotPrivate { .. })), "{address}: {dialling:?}");
        // Nor later.
        let late = directory();
        let running = node(&late, private(1, &[TCP])).await;
        let net = running.go_online().await.expect("TCP alone works");
        let address: Multiaddr = address.parse().expect("an address");
        for result in [net.listen(address.clone()).await, net.connect(address.clone()).await.map(drop)] {
            assert!(matches!(result, Err(NetError::NotPrivate { .. })), "{address}: {result:?}");
        }
        assert_eq!(net.listeners().await.expect("listens").len(), 1);
    }
}

/// A network by name.
type Kind = (&'static str, fn(&[&str]) -> NetworkConfig);

/// The guest tries to enter the host's network.
async fn try_to_enter((inside, host): Kind, (outside, guest): Kind) {
    let (here, there) = (directory(), directory());
    let (source, addresses) = serving(&here, host(&[TCP])).await;
    let cid = add(&source, b"for those with the key").await;
    let other = node(&there, guest(&[])).await;
    let entered = other.connect(addresses[0].clone()).await;
    if inside == outside {
        entered.expect("the same network");
        assert_eq!(bytes_of(&other, &cid).await, b"for those with the key");
    } else {
        assert!(matches!(entered, Err(NetError::Dial { .. })), "{outside} at {inside}: {entered:?}");
        assert!(other.peers().await.is_empty() && source.peers().await.is_empty(), "{outside} at {inside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_only_those_with_the_key_get_in() {
    let kinds: [Kind; 3] =
        [("no key", lan), ("key 1", |listen| private(1, listen)), ("key 2", |listen| private(2, listen))];
    // At once: whoever expects another kind of handshake waits for it.
    let pairs = kinds.iter().flat_map(|host| kinds.iter().map(|guest| try_to_enter(*host, *guest)));
    futures::future::join_all(pairs).await;
}

/// The limits do not care for the transport: what one host may have open is counted over QUIC as well.
#[tokio::test(flavor = "multi_thread")]
async fn c11_one_host_cannot_use_up_the_connections_over_quic() {
    /// Inbound connections of one host that are taken.
    const TAKEN: usize = 128;
    let here = directory();
    let (node, addresses) = serving(&here, lan(&[QUIC])).await;
    let mut dialers = Vec::new();
    for _ in 0..TAKEN + 12 {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_quic()
            .with_behaviour(|_| dummy::Behaviour)
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        swarm.dial(addresses[0].clone()).expect("may be dialled");
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } | SwarmEvent::OutgoingConnectionError { .. } => break,
                _ => {}
            }
        }
        dialers.push(tokio::spawn(async move { while swarm.next().await.is_some() {} }));
    }
    // The last of them were let in as far as the handshake, and then refused.
    let mut open = node.peers().await.len();
    for _ in 0..1000 {
        open = node.peers().await.len();
        if open == TAKEN {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(open, TAKEN);
    dialers.iter().for_each(tokio::task::JoinHandle::abort);
}
