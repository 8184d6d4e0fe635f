//! Temporary nodes that do what others would: find a node by mDNS, and fetch a block from this one.
//!
//! Imports the node. The temporary repositories lie beside this one, and go away. They have nothing to
//! serve; where this node serves nobody either, it listens on loopback for the test, and dials nobody.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use shipfs_node::{
    Multiaddr, Protocol,
    add::Content,
    config::{Config, Network, NetworkConfig},
    net::Routing,
    node::Node,
};
use tokio::time::Instant;

use super::{Check, network};
use crate::event::{Event, EventSink};

/// What is fetched. Always the same, so that the test leaves one small file, which the next collection frees.
const CONTENT: &[u8] = b"shipfs doctor: a second node has fetched this block\n";
/// Where the temporary repositories lie, beside the repository's own directories.
const DIRECTORY: &str = "doctor.tmp";
/// How long two nodes of one host may take to find each other by mDNS; it takes a second.
const MDNS_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a block may take from one to the other; it takes milliseconds.
const FETCH_PATIENCE: Duration = Duration::from_secs(8);
/// Time between two looks.
const PACE: Duration = Duration::from_millis(50);
/// Where the test listens when nobody else is to be served.
const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";
/// Where a temporary node listens that is to be found: only addresses of an interface are told on it.
const EVERYWHERE: &str = "/ip4/0.0.0.0/tcp/0";

/// A directory that goes away.
struct Temporary(PathBuf);

impl Temporary {
    fn make(repository: &Path) -> std::io::Result<Self> {
        let directory = repository.join(DIRECTORY);
        if directory.exists() {
            // From a run that was killed.
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir(&directory)?;
        Ok(Self(directory))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "a temporary repository is not removed");
        }
    }
}

pub(super) async fn checks(node: &Node, config: &NetworkConfig, events: &dyn EventSink) -> Vec<Check> {
    let temporary = match Temporary::make(&node.config().repository) {
        Ok(temporary) => temporary,
        Err(error) => {
            let check = Check::fail("fetch", format!("cannot make a temporary repository: {error}"), "see `space`");
            return vec![Check::skipped("mdns", "no temporary repository"), check];
        }
    };
    let mdns = match config.mdns {
        true => mdns(config, &temporary.0).await,
        false => Check::skipped("mdns", format!("off in the {} network", config.network.name())),
    };
    // Before this node is joined for the self-test alone, without its peers.
    let named = match config.peers.is_empty() && node.net().await.is_none() {
        true => Check::skipped("peers", "none is named, and no network is joined"),
        false => network::peers(node, config).await,
    };
    events.emit(Event::Note("a second node fetches a block from this one".to_owned()));
    vec![mdns, named, fetch(node, config, &temporary.0).await]
}

fn loopback() -> Vec<Multiaddr> {
    LOOPBACK.parse().into_iter().collect()
}

async fn start(directory: &Path, network: NetworkConfig) -> Result<Node, String> {
    let config = Config { network, patience: FETCH_PATIENCE, ..Config::offline(directory) };
    let node = Node::start(config).await.map_err(|error| error.to_string())?;
    node.go_online().await.map_err(|error| error.to_string())?;
    Ok(node)
}

async fn end(node: Node) {
    if let Err(error) = node.shutdown().await {
        tracing::debug!(%error, "a temporary node did not end cleanly");
    }
}

/// Whether two nodes of this host find each other by multicast, and whom they find besides.
async fn mdns(config: &NetworkConfig, directory: &Path) -> Check {
    const NAME: &str = "mdns";
    let advice = "is multicast routed (`ip route add 224.0.0.0/4 dev INTERFACE`), does a firewall drop UDP port 5353? \
                  Without it, name peers with --peer";
    let network = |listen| NetworkConfig { listen, peers: Vec::new(), remember: false, ..config.clone() };
    let everywhere = EVERYWHERE.parse().into_iter().collect();
    let first = match start(&directory.join("first"), network(everywhere)).await {
        Ok(first) => first,
        Err(reason) => return Check::fail(NAME, reason, advice),
    };
    let second = match start(&directory.join("second"), network(Vec::new())).await {
        Ok(second) => second,
        Err(reason) => {
            end(first).await;
            return Check::fail(NAME, reason, advice);
        }
    };
    let wanted = first.net().await.map(|net| net.peer());
    let until = Instant::now() + MDNS_TIMEOUT;
    let (found, others) = loop {
        let routing = match second.net().await {
            Some(net) => net.routing().await.unwrap_or_default(),
            None => Routing::default(),
        };
        let peers = routing.found.unwrap_or_default();
        let found = wanted.is_some_and(|wanted| peers.contains(&wanted));
        if found || Instant::now() > until {
            break (found, peers.len() - usize::from(found));
        }
        tokio::time::sleep(PACE).await;
    };
    end(second).await;
    end(first).await;
    match (found, others) {
        (true, others) => Check::ok(NAME, format!("two nodes of this host find each other, and {others} others")),
        (false, 0) => Check::warn(NAME, "nothing is found by multicast, not even on this host", advice),
        (false, others) => Check::warn(NAME, format!("{others} others are found, but not this host itself"), advice),
    }
}

/// Whether a second node gets a block from this one.
async fn fetch(node: &Node, config: &NetworkConfig, directory: &Path) -> Check {
    const NAME: &str = "fetch";
    match fetched(node, config, directory).await {
        Ok(found) => Check::ok(NAME, found),
        Err(reason) => Check::fail(
            NAME,
            format!("a second node got no block from this one: {reason}"),
            "`shipfs daemon --verbose` says more; does a firewall stop connections to this host itself?",
        ),
    }
}

async fn fetched(node: &Node, config: &NetworkConfig, directory: &Path) -> Result<String, String> {
    let (lease, silent) = (node.lease(), |_: u64| {});
    let added = node.add(Content::Bytes(Bytes::from_static(CONTENT)), None, &lease, &silent);
    let added = added.await.map_err(|error| error.to_string())?;
    let was_serving = node.is_serving();
    if node.net().await.is_none() {
        // Nobody else is to get anything: this is heard on loopback alone, and nobody is dialled.
        let alone =
            NetworkConfig { listen: loopback(), peers: Vec::new(), mdns: false, remember: false, ..config.clone() };
        node.join(&alone).await.map_err(|error| error.to_string())?;
    }
    let net = node.net().await.ok_or("the network was left")?;
    let mut listeners = net.listeners().await.map_err(|error| error.to_string())?;
    if listeners.is_empty() {
        let address = loopback().pop().ok_or("there is no loopback address")?;
        net.listen(address).await.map_err(|error| error.to_string())?;
        listeners = net.listeners().await.map_err(|error| error.to_string())?;
    }
    // What others dial, rather than loopback. Addresses of one link alone mean nothing without the name of it.
    let rank = |address: &&Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) if !ip.is_loopback() => 0,
        Some(Protocol::Ip6(ip)) if !ip.is_loopback() && !ip.is_unicast_link_local() => 1,
        Some(Protocol::Ip6(ip)) if ip.is_unicast_link_local() => 3,
        _ => 2,
    };
    let address = listeners.iter().min_by_key(rank);
    let address = address.ok_or("this node listens nowhere")?.clone().with(Protocol::P2p(net.peer()));
    if !was_serving {
        node.serve(true).await.map_err(|error| error.to_string())?;
    }
    let result = second(&address, config.network.clone(), &added.cid, directory).await;
    if !was_serving {
        node.serve(false).await.map_err(|error| error.to_string())?;
    }
    let took = result?;
    Ok(format!("a second node fetched a block from this one at {address} in {} ms", took.as_millis()))
}

/// Fetches a block with a node that has nothing.
async fn second(
    address: &Multiaddr,
    network: Network,
    cid: &shipfs_node::Cid,
    directory: &Path,
) -> Result<Duration, String> {
    let alone = NetworkConfig { network, remember: false, ..NetworkConfig::offline() };
    let second = start(&directory.join("third"), alone).await?;
    let began = Instant::now();
    let getting = async {
        second.connect(address.clone()).await.map_err(|error| error.to_string())?;
        let (lease, silent) = (second.lease(), |_: u64| {});
        let got = second.get(cid, None, CONTENT.len() as u64, &lease, &silent).await;
        let got = got.map_err(|error| error.to_string())?;
        let bytes = tokio::fs::read(&got.path).await.map_err(|error| error.to_string())?;
        if bytes == CONTENT { Ok(began.elapsed()) } else { Err("it has other bytes".to_owned()) }
    };
    let result = getting.await;
    end(second).await;
    result
}
