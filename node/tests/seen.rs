//! What a node tells of itself: who is connected and how, why something did not come, whom it knows from before.

use bytes::Bytes;
use shipfs_node::add::Content;
use shipfs_node::config::{Config, NetworkConfig, Security};
use shipfs_node::fetch::FetchError;
use shipfs_node::net::NetError;
use shipfs_node::node::{Node, StartError};
use shipfs_node::store::{Lies, OpenError};
use shipfs_node::trace::{End, FetchReport};
use shipfs_node::{Cid, PreSharedKey, block::Block};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_millis(1500);

fn silent(_: u64) {}

fn loopback(network: NetworkConfig) -> NetworkConfig {
    NetworkConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")], mdns: false, ..network }
}

async fn node(path: &Path, network: NetworkConfig, peers: &[&str]) -> Node {
    let peers = peers.iter().map(|peer| peer.parse().expect("an address")).collect();
    let network = NetworkConfig { peers, ..network };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let config = Config { network: network.clone(), patience: PATIENCE, ..Config::offline(path) };
        match Node::start(config).await {
            Ok(node) => return node,
            // Threads of the one that was shut down may still be about to end.
            Err(StartError::Open(OpenError::Held { .. })) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn serving(path: &Path, network: NetworkConfig) -> (Node, String) {
    let node = node(path, loopback(network), &[]).await;
    node.serve(true).await.expect("serves");
    let net = node.net().await.expect("online");
    let address = net.listeners().await.expect("listens").remove(0);
    let address = format!("{address}/p2p/{}", net.peer());
    (node, address)
}

async fn add(node: &Node, bytes: Vec<u8>) -> Cid {
    let lease = node.lease();
    let added = node.add(Content::Bytes(bytes.into()), None, &lease, &silent).await.expect("added");
    node.pin(&added.cid, "test").await.expect("pinned");
    added.cid
}

async fn get(node: &Node, cid: &Cid) -> Result<(), FetchError> {
    let lease = node.lease();
    node.get(cid, None, 64 << 20, &lease, &silent).await?;
    node.commit().await.expect("durable");
    Ok(())
}

fn folders() -> [TempDir; 3] {
    [(); 3].map(|()| tempfile::tempdir().expect("a directory"))
}

fn traced(node: &Node, cid: &Cid) -> FetchReport {
    node.trace().expect("online").of(cid).into_iter().next().expect("a fetch")
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_told_with_how_they_are_connected_and_what_went_through() {
    for (security, transport) in [(Security::Tls, "tcp+tls"), (Security::Noise, "tcp+noise")] {
        let [here, there, _] = folders();
        let network = NetworkConfig { security, ..NetworkConfig::lan() };
        let (source, address) = serving(here.path(), network.clone()).await;
        let cid = add(&source, vec![7; 700_000]).await;
        let other = node(there.path(), loopback(network), &[&address]).await;
        get(&other, &cid).await.expect("fetched");
        let until = Instant::now() + Duration::from_secs(10);
        // What a peer speaks comes with its identification, a moment after the connection.
        let (mine, theirs) = loop {
            let (mine, theirs) = (other.peers().await.remove(0), source.peers().await.remove(0));
            if !mine.protocols.is_empty() && !theirs.protocols.is_empty() || Instant::now() > until {
                break (mine, theirs);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((mine.transport.as_str(), theirs.transport.as_str()), (transport, transport));
        assert_eq!(mine.protocols[0], "/ipfs/bitswap/1.2.0");
        assert_eq!((mine.outbound, theirs.outbound, mine.named), (true, false, true));
        let (got, gave) = (mine.traffic, theirs.traffic);
        assert!(got.received > 0 && got.wire_received > got.received && gave.wire_sent > gave.sent, "{got:?} {gave:?}");
        assert!(got.wire_sent > 0 && gave.wire_received > 0 && mine.connected < Duration::from_secs(60));
        assert!(mine.dialable.is_some() && theirs.dialable.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_failed_tells_who_was_asked_and_which_dials_failed() {
    let [here, there, _] = folders();
    let (source, address) = serving(here.path(), NetworkConfig::lan()).await;
    // A port that was free a moment ago, and an address that is nobody's in a LAN.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
    let closed = format!("/ip4/127.0.0.1/tcp/{closed}");
    let other = node(there.path(), loopback(NetworkConfig::lan()), &[&address, &closed]).await;
    let absent = *Block::raw(Bytes::from_static(b"nobody has this")).cid();
    assert!(matches!(get(&other, &absent).await, Err(FetchError::Unavailable { .. })));
    let report = traced(&other, &absent);
    assert!(matches!(&report.end, End::Failed(reason) if reason.contains("none of the 1 peers asked")), "{report:?}");
    assert_eq!(report.missing, Some(absent));
    let [peer] = &report.peers[..] else { panic!("{report:?}") };
    assert!(peer.asked_have >= 1 && peer.dont_have >= 1 && peer.blocks == 0, "{report:?}");
    assert_eq!(peer.peer, source.net().await.expect("online").peer());
    let dial = report.failed_dials.iter().find(|dial| dial.address == Some(closed.parse().expect("valid")));
    assert!(dial.is_some_and(|dial| dial.reason.contains("refused")), "{report:?}");
    assert!(report.searched.table >= 1, "{report:?}");
    let routing = other.net().await.expect("online").routing().await.expect("told");
    let named: Vec<_> = routing.named.iter().map(|(_, connected)| *connected).collect();
    assert_eq!((named, routing.found), (vec![true, false], None));
    // The next attempt succeeds, and is told first.
    add(&source, b"nobody has this".to_vec()).await;
    get(&other, &absent).await.expect("fetched");
    let report = traced(&other, &absent);
    assert_eq!((&report.end, report.blocks, report.bytes), (&End::Arrived, 1, 15));
    assert_eq!((report.peers[0].blocks, report.peers[0].wrong), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_handle_is_as_patient_as_it_says() {
    let [here, there, _] = folders();
    let (_source, address) = serving(here.path(), NetworkConfig::lan()).await;
    let other = node(there.path(), loopback(NetworkConfig::lan()), &[&address]).await;
    let absent = *Block::raw(Bytes::from_static(b"nor this")).cid();
    for (patience, least, most) in [(300, 300, 1400), (2500, 2500, 10_000)] {
        let began = Instant::now();
        assert!(get(&other.patient(Duration::from_millis(patience)), &absent).await.is_err());
        let took = began.elapsed();
        assert!((Duration::from_millis(least)..Duration::from_millis(most)).contains(&took), "{patience}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_here_tells_where_it_lies_and_what_keeps_it() {
    let [here, ..] = folders();
    let source = node(here.path(), NetworkConfig::offline(), &[]).await;
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let leaf = *Block::raw(Bytes::copy_from_slice(&bytes[262_144..524_288])).cid();
    let cid = add(&source, bytes).await;
    let found = source.store().whereabouts(&leaf).expect("reads").expect("is here");
    assert_eq!((found.size, found.pinned_by, found.kept_by), (262_144, vec!["test".to_owned()], Vec::<String>::new()));
    assert!(
        matches!(&found.lies[..], [Lies::File { cid: file, offset: 262_144, .. }] if *file == cid),
        "{:?}",
        found.lies
    );
    let found = source.store().whereabouts(&cid).expect("reads").expect("is here");
    assert!(matches!(&found.lies[..], [Lies::Pack { .. }]), "{:?}", found.lies);
    let absent = *Block::raw(Bytes::from_static(b"nor this")).cid();
    assert_eq!(source.store().whereabouts(&absent).expect("reads"), None);
}

/// A peer that delivered is found again without mDNS and without being named; in its own network only.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_delivered_is_dialled_again_in_the_same_network_only() {
    let key = PreSharedKey::new([7; 32]);
    let private = || NetworkConfig::private(key, Vec::new());
    for (network, stranger) in [(NetworkConfig::lan(), private()), (private(), NetworkConfig::lan())] {
        let [here, there, _] = folders();
        let (source, address) = serving(here.path(), network.clone()).await;
        let [first, second, third] = [1, 2, 3].map(|n| vec![n; 5000]);
        let [first, second, third] = [add(&source, first).await, add(&source, second).await, add(&source, third).await];
        let other = node(there.path(), loopback(network.clone()), &[&address]).await;
        get(&other, &first).await.expect("fetched");
        other.shutdown().await.expect("shuts down");
        // Nobody is named now.
        let other = node(there.path(), loopback(network.clone()), &[]).await;
        get(&other, &second).await.expect("fetched");
        assert!(!other.peers().await[0].named);
        other.shutdown().await.expect("shuts down");
        let other = node(there.path(), loopback(stranger), &[]).await;
        assert!(matches!(get(&other, &third).await, Err(FetchError::Unavailable { asked: 0, .. })));
        let trace = other.trace().expect("online").failed_dials(Duration::from_secs(60));
        assert!(trace.is_empty(), "nothing was dialled: {trace:?}");
        other.shutdown().await.expect("shuts down");
        // What another network knows is not lost by that.
        let other = node(there.path(), loopback(network), &[]).await;
        get(&other, &third).await.expect("fetched");
        other.shutdown().await.expect("shuts down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_there_is_nothing_to_tell() {
    let [here, ..] = folders();
    let alone = node(here.path(), NetworkConfig::offline(), &[]).await;
    assert!(alone.trace().is_none() && alone.peers().await.is_empty());
    assert!(matches!(alone.go_online().await, Err(NetError::Offline)));
}
