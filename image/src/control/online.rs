//! What verbs do with the network: enter it, say so, wait for peers, serve.
//!
//! Imports the node. Whatever is entered, started or announced here was asked for by a verb.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use shipfs_node::{
    Cid,
    config::{Network, NetworkConfig},
    net::Net,
    node::Node,
};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, FailureKind, Options, PeerRow, Reply, Role, explain::explain, network::listen_defaults};
use crate::{
    event::{Event, EventSink},
    names::Image,
};

/// How often it is looked whether a verb made the node enter its network.
const JOIN_POLL: Duration = Duration::from_millis(20);

/// How long a peer that was just connected to may take to say what it is.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Sees to it that a verb which may need peers finds `network`: at once where it is not the one that the node enters by
/// itself when the first peer is needed.
pub(super) async fn enter(node: &Node, network: &NetworkConfig) -> Result<(), Failure> {
    if !is_own(node, network) {
        join(node, network).await?;
    }
    Ok(())
}

/// Whether `network` is the one that the node enters by itself when the first peer is needed.
pub(super) fn is_own(node: &Node, network: &NetworkConfig) -> bool {
    let own = &node.config().network;
    own.network == network.network
        && network.listen.iter().all(|address| own.listen.contains(address))
        && network.peers.iter().all(|peer| own.peers.contains(peer))
}

/// Enters a network, or adds to the one that is joined what is missing.
pub(super) async fn join(node: &Node, network: &NetworkConfig) -> Result<Net, Failure> {
    let mut network = network.clone();
    if let Some(net) = node.net().await {
        let listeners = net.listeners().await.map_err(|error| explain(&error))?;
        network.listen.retain(|address| !listeners.contains(address));
    }
    node.join(&network).await.map_err(|error| explain(&error))
}

/// Carries a verb out, says when the node entered a network for it, and ends it when nothing happens for as long as its
/// user wants to wait.
pub(super) fn watched<'w, T: Send + 'w>(
    node: &'w Node,
    options: &'w Options,
    events: &'w dyn EventSink,
    verb: BoxFuture<'w, Result<T, Failure>>,
) -> BoxFuture<'w, Result<T, Failure>> {
    Box::pin(watch(node, options, events, verb))
}

/// Says which network the node entered, once it did.
pub(super) async fn tell_joined(node: &Node, events: &dyn EventSink) {
    let net = loop {
        match node.net().await {
            Some(net) => break net,
            None => tokio::time::sleep(JOIN_POLL).await,
        }
    };
    events.emit(Event::Note(joined(&net)));
}

async fn watch<T: Send>(
    node: &Node,
    options: &Options,
    events: &dyn EventSink,
    mut verb: BoxFuture<'_, Result<T, Failure>>,
) -> Result<T, Failure> {
    let telling = tell_joined(node, events);
    // A fetch of its own is as patient as it should be, and says more; this ends the wait for one of somebody else.
    let own = node.config().patience;
    let patience = options.patience.map(|patience| patience * 3 / 2).filter(|patience| *patience < own);
    let starving = starved(node, patience);
    tokio::pin!(telling, starving);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            result = &mut verb => {
                // A fast verb may have entered it since the last look.
                if let (false, Some(net)) = (told, node.net().await) {
                    events.emit(Event::Note(joined(&net)));
                }
                return result;
            }
            () = &mut telling, if !told => told = true,
            () = &mut starving => {
                let peers = node.peers().await.len();
                let waited = patience.unwrap_or(own).as_secs_f32();
                let message = format!("nothing arrived for {waited:.1} s, with {peers} peers connected");
                return Err(Failure::new(FailureKind::Unavailable, message)
                    .hint("somebody must serve it on the same network, or be named with --peer"));
            }
        }
    }
}

/// Waits until no block came for `patience`; for ever without one.
async fn starved(node: &Node, patience: Option<Duration>) {
    let Some(patience) = patience else { return std::future::pending().await };
    let (mut seen, mut since) = (received(node).await, Instant::now());
    while since.elapsed() < patience {
        tokio::time::sleep((patience / 4).max(JOIN_POLL)).await;
        let now = received(node).await;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// Bytes of blocks that came from the peers that are connected.
async fn received(node: &Node) -> u64 {
    node.peers().await.iter().map(|peer| peer.traffic.received).sum()
}

/// The line that says which network was entered.
pub(super) fn joined(net: &Net) -> String {
    let how = if net.config().mdns { ", peers found by mDNS" } else { "" };
    let named = match net.config().peers.len() {
        0 => String::new(),
        count => format!(", {count} named"),
    };
    format!("network: {}{how}{named}", net.config().network.name())
}

/// Listens on the default addresses, unless the user named some or somebody listens already. The first must work.
pub(super) async fn listen_on_defaults(net: &Net, options: &Options, role: Role) -> Result<(), Failure> {
    let listeners = net.listeners().await.map_err(|error| explain(&error))?;
    if !options.listen.is_empty() || !listeners.is_empty() {
        return Ok(());
    }
    let mut defaults = listen_defaults(role).listen.into_iter();
    if let Some(first) = defaults.next() {
        net.listen(first).await.map_err(|error| explain(&error))?;
    }
    for other in defaults {
        if let Err(error) = net.listen(other).await {
            tracing::info!(%error, "not listening on a second address");
        }
    }
    Ok(())
}

/// Where others reach this node.
pub(super) async fn addresses(net: &Net) -> Result<Vec<String>, Failure> {
    let listeners = net.listeners().await.map_err(|error| explain(&error))?;
    Ok(listeners.iter().map(|address| format!("{address}/p2p/{}", net.peer())).collect())
}

/// Says how others get what is served.
pub(super) async fn tell_where(net: &Net, root: &str, events: &dyn EventSink) -> Result<(), Failure> {
    events.emit(Event::Note(joined(net)));
    let addresses = addresses(net).await?;
    // Loopback is of use to nobody else, and one address is enough for a command line.
    let best = addresses.iter().find(|address| !address.contains("/127.0.0.1/") && !address.contains("/ip6/"));
    let peer = match best.or(addresses.first()) {
        Some(address) if !net.config().mdns => format!(" --peer {address}"),
        _ => String::new(),
    };
    events.emit(Event::Note(format!("serving at {}", addresses.join(", "))));
    let network = match &net.config().network {
        Network::Private(_) => " --network private",
        _ => "",
    };
    events.emit(Event::Note(format!("others get it with: shipfs pull {root}{network}{peer}")));
    Ok(())
}

/// The peers that are connected, after those that the user named were.
pub(super) async fn peers(node: &Node, network: &NetworkConfig, events: &dyn EventSink) -> Result<Reply, Failure> {
    if !network.peers.is_empty() {
        let net = join(node, network).await?;
        events.emit(Event::Note(joined(&net)));
        for peer in &network.peers {
            net.connect(peer.clone()).await.map_err(|error| explain(&error))?;
        }
        // What they call themselves comes a moment after the connection.
        let until = Instant::now() + IDENTIFY_TIMEOUT;
        while Instant::now() < until && node.peers().await.iter().any(|peer| peer.agent.is_empty()) {
            tokio::time::sleep(JOIN_POLL).await;
        }
    }
    let private = node.net().await.is_some_and(|net| matches!(net.config().network, Network::Private(_)));
    let rows = node.peers().await.into_iter().map(|peer| PeerRow {
        peer: peer.peer.to_string(),
        address: peer.address.to_string(),
        transport: if private { format!("private {}", peer.transport) } else { peer.transport },
        outbound: Some(peer.outbound),
        connected_ms: Some(u64::try_from(peer.connected.as_millis()).unwrap_or(u64::MAX)),
        agent: peer.agent,
        protocols: peer.protocols,
        named: peer.named,
        received: peer.traffic.received,
        sent: peer.traffic.sent,
        wasted: Some(peer.traffic.wasted),
        wire_received: Some(peer.traffic.wire_received),
        wire_sent: Some(peer.traffic.wire_sent),
    });
    Ok(Reply::Peers(rows.collect()))
}

/// Whether others are served, and what is announced to them.
#[derive(Clone)]
pub(super) struct Serving(Arc<Inner>);

struct Inner {
    node: Node,
    role: Role,
    /// How many want it.
    wanted: AtomicUsize,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Serves for as long as it lives.
pub(super) struct Served(Serving, bool);

impl Serving {
    pub(super) fn new(node: Node, role: Role) -> Self {
        Self(Arc::new(Inner {
            node,
            role,
            wanted: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.wanted.load(Ordering::SeqCst) > 0
    }

    /// Begins to serve.
    pub(super) async fn begin(&self) -> Result<Served, Failure> {
        self.0.node.serve(true).await.map_err(|error| explain(&error))?;
        self.0.wanted.fetch_add(1, Ordering::SeqCst);
        Ok(Served(self.clone(), false))
    }

    /// Announces the parts of images, if this node serves; in the background, for each waits its turn.
    pub(super) fn announce(&self, images: Vec<Image>) {
        if !self.is_on() {
            return;
        }
        let serving = self.clone();
        let parts = |image: Image| std::iter::once(image.root).chain(image.members);
        let parts: Vec<Cid> = images.into_iter().flat_map(parts).collect();
        self.0.tasks.spawn(async move {
            let announcing = async {
                for cid in &parts {
                    if let Err(error) = serving.0.node.provide(cid).await {
                        tracing::info!(%error, %cid, "not announced");
                        return;
                    }
                }
            };
            serving.0.stop.run_until_cancelled(announcing).await;
        });
    }

    pub(super) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Served {
    /// Serves until the node stops.
    pub(super) fn forever(mut self) {
        self.1 = true;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.1 {
            return;
        }
        let serving = &self.0.0;
        if serving.wanted.fetch_sub(1, Ordering::SeqCst) == 1 && serving.role == Role::Command {
            let serving = self.0.clone();
            self.0.0.tasks.spawn(async move {
                // Somebody else may want it by now.
                if !serving.is_on()
                    && let Err(error) = serving.0.node.serve(false).await
                {
                    tracing::debug!(%error, "serving did not end");
                }
            });
        }
    }
}
