//! The one owner of the swarm.
//!
//! It dials what mDNS, the table and the exchange ask for, keeps the list of connected peers, and carries out
//! [`Command`]s. It never waits for a peer: everything slow is a query whose answer comes as an event.

use super::behaviour::{Behaviour, BehaviourEvent};
use super::beside::Beside;
use super::known::{self, Known, Link};
use super::listening::{Listened, Listening};
use super::secured::Secured;
use super::{NetError, PeerInfo, Routing, peer_in};
use crate::block::Cid;
use crate::config::{Limits, NetworkConfig};
use crate::exchange::bitswap::{Exchange, Signal};
use futures::StreamExt as _;
use libp2p::kad::store::RecordStore as _;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, mdns, ping};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Named peers that are not connected are dialled again this often.
const REDIAL_INTERVAL: Duration = Duration::from_secs(5);
/// Peers found on the link that are dialled without being asked for: more would make a large LAN a full mesh.
const MAX_FOUND_PEERS: usize = 64;
/// Providers connected to for one search.
const MAX_PROVIDERS: usize = 16;
/// Peers found on the link that are dialled at once: whoever announces peers that do not exist must not use up the dials
/// that others wait for.
const MAX_FOUND_DIALS: usize = 16;

/// Addresses found by mDNS whose peers are told.
const MAX_TOLD: usize = 512;

/// What others ask of the swarm.
#[derive(Debug)]
pub(super) enum Command {
    Listeners(oneshot::Sender<Vec<Multiaddr>>),
    Listen(Multiaddr, Listened),
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    Routing(oneshot::Sender<Routing>),
    Revisit(Vec<Multiaddr>),
    Connect(Multiaddr, oneshot::Sender<Result<PeerId, NetError>>),
    Provide(Cid, oneshot::Sender<bool>),
    FindProviders(Cid, oneshot::Sender<Vec<PeerId>>),
}

struct Search {
    cid: Cid,
    found: HashSet<PeerId>,
    /// `None`: connect to whoever is found.
    reply: Option<oneshot::Sender<Vec<PeerId>>>,
}

pub(super) struct Actor {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) exchange: Exchange,
    commands: mpsc::Receiver<Command>,
    signals: mpsc::Receiver<Signal>,
    named: Vec<Multiaddr>,
    limits: Limits,
    /// Peers that delivered before.
    remembered: Vec<Multiaddr>,
    secured: Secured,
    pub(super) connected: HashMap<PeerId, Known>,
    /// Dials of peers that were found on the link.
    found_dials: HashSet<ConnectionId>,
    pub(super) beside: Beside,
    dials: HashMap<ConnectionId, (Multiaddr, oneshot::Sender<Result<PeerId, NetError>>)>,
    provides: HashMap<kad::QueryId, oneshot::Sender<bool>>,
    searches: HashMap<kad::QueryId, Search>,
    table_peers: watch::Sender<usize>,
    listening: Listening,
}

fn record_key(cid: &Cid) -> kad::RecordKey {
    kad::RecordKey::new(&cid.hash().to_bytes())
}

impl Actor {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        exchange: Exchange,
        commands: mpsc::Receiver<Command>,
        signals: mpsc::Receiver<Signal>,
        config: &NetworkConfig,
        secured: Secured,
    ) -> Self {
        Self {
            swarm,
            exchange,
            commands,
            signals,
            named: config.peers.clone(),
            limits: config.limits.clone(),
            remembered: Vec::new(),
            secured,
            connected: HashMap::new(),
            found_dials: HashSet::new(),
            beside: Beside::default(),
            dials: HashMap::new(),
            provides: HashMap::new(),
            searches: HashMap::new(),
            table_peers: watch::Sender::new(0),
            listening: Listening::default(),
        }
    }

    /// Counts the peers that join the routing table.
    pub(super) fn table_peers(&self) -> watch::Receiver<usize> {
        self.table_peers.subscribe()
    }

    /// Binds every address and waits until the swarm says so.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<(), NetError> {
        for address in addresses {
            let (reply, mut listened) = oneshot::channel();
            self.begin_to_listen(address.clone(), reply);
            loop {
                if let Ok(result) = listened.try_recv() {
                    result?;
                    break;
                }
                let looking_again = wait_until(self.listening.next());
                tokio::select! {
                    event = self.swarm.select_next_some() => self.on_event(event),
                    () = looking_again => self.listening.tick(Instant::now()),
                }
            }
        }
        Ok(())
    }

    fn begin_to_listen(&mut self, address: Multiaddr, reply: Listened) {
        match self.swarm.listen_on(address.clone()) {
            Ok(id) => {
                // From now on it can be dialled, so it may be part of the table.
                self.swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Server));
                self.listening.begin(id, address, reply, Instant::now());
            }
            Err(error) => drop(reply.send(Err(NetError::Listen { address, reason: error.to_string() }))),
        }
    }

    pub(super) async fn run(mut self) {
        let mut redial = tokio::time::interval(REDIAL_INTERVAL);
        loop {
            let looking_again = wait_until(self.listening.next());
            tokio::select! {
                () = looking_again => self.listening.tick(Instant::now()),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(signal) = self.signals.recv() => self.on_signal(signal),
                _ = redial.tick() => self.redial(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listeners(reply) => drop(reply.send(self.swarm.listeners().cloned().collect())),
            Command::Listen(address, reply) => self.begin_to_listen(address, reply),
            Command::Peers(reply) => drop(reply.send(self.peers())),
            Command::Routing(reply) => drop(reply.send(self.routing())),
            Command::Revisit(addresses) => {
                self.remembered = addresses;
                self.dial_remembered();
            }
            Command::Connect(address, reply) => self.connect(address, reply),
            Command::Provide(cid, reply) => match self.swarm.behaviour_mut().kad.start_providing(record_key(&cid)) {
                Ok(query) => drop(self.provides.insert(query, reply)),
                Err(error) => {
                    tracing::warn!(%cid, %error, "too many announcements, this one is not kept");
                    let _ = reply.send(false);
                }
            },
            Command::FindProviders(cid, reply) => self.search(&cid, Some(reply)),
        }
    }

    fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<_> = self
            .connected
            .iter()
            .filter_map(|(peer, connected)| {
                let link = connected.links.last()?;
                let address = &link.address;
                let named = self.named.iter().any(|named| peer_in(named) == Some(*peer) || named == address);
                Some(PeerInfo {
                    peer: *peer,
                    address: address.clone(),
                    agent: connected.agent.clone(),
                    named,
                    transport: self.secured.transport(peer, address),
                    protocols: connected.protocols.clone(),
                    outbound: link.outbound,
                    connected: link.since.elapsed(),
                    dialable: connected.dialable(),
                    traffic: self.exchange.traffic(peer),
                })
            })
            .collect();
        peers.sort_by_key(|info| info.peer);
        peers
    }

    fn connect(&mut self, address: Multiaddr, reply: oneshot::Sender<Result<PeerId, NetError>>) {
        if let Some(peer) = peer_in(&address).filter(|peer| self.connected.contains_key(peer)) {
            let _ = reply.send(Ok(peer));
            return;
        }
        // A dial of its own, even if one is under way: that one may fail at another address.
        let options = dial_options(&address, PeerCondition::Disconnected);
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.dials.insert(id, (address, reply))),
            Err(error) => drop(reply.send(Err(NetError::Dial { address, reason: error.to_string() }))),
        }
    }

    fn is_connected(&self, address: &Multiaddr) -> bool {
        match peer_in(address) {
            Some(peer) => self.connected.contains_key(&peer),
            None => self.connected.values().any(|known| known.links.iter().any(|link| link.address == *address)),
        }
    }

    fn routing(&self) -> Routing {
        let named = self.named.iter().map(|address| (address.clone(), self.is_connected(address)));
        let mdns = self.swarm.behaviour().mdns.as_ref();
        Routing {
            named: named.collect(),
            found: mdns.map(|mdns| {
                // One address each.
                let found: HashSet<_> = mdns.discovered_nodes().take(MAX_TOLD).copied().collect();
                found.into_iter().collect()
            }),
            table: *self.table_peers.borrow(),
            remembered: self.remembered.len(),
        }
    }

    /// Dials peers that delivered before, as if they had been found on the link.
    fn dial_remembered(&mut self) {
        let room = MAX_FOUND_DIALS.saturating_sub(self.found_dials.len());
        let missing = self.remembered.iter().filter(|address| !self.is_connected(address)).take(room);
        for address in missing.cloned().collect::<Vec<_>>() {
            let options = dial_options(&address, PeerCondition::DisconnectedAndNotDialing);
            let id = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => drop(self.found_dials.insert(id)),
                Err(error) => tracing::debug!(%address, %error, "a peer from before is not dialled"),
            }
        }
    }

    fn redial(&mut self) {
        let missing: Vec<_> = self.named.iter().filter(|address| !self.is_connected(address)).cloned().collect();
        for address in missing {
            if let Err(error) = self.swarm.dial(dial_options(&address, PeerCondition::DisconnectedAndNotDialing)) {
                tracing::debug!(%address, %error, "a named peer cannot be dialled");
            }
        }
    }

    fn search(&mut self, cid: &Cid, reply: Option<oneshot::Sender<Vec<PeerId>>>) {
        let query = self.swarm.behaviour_mut().kad.get_providers(record_key(cid));
        self.searches.insert(query, Search { cid: *cid, found: HashSet::new(), reply });
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Seek(cid) => {
                // Connections that nothing used were closed; whoever is near is asked again.
                self.redial();
                self.dial_found();
                self.dial_remembered();
                let is_same = |search: &Search| search.reply.is_none() && search.cid == cid;
                if !self.searches.values().any(is_same) {
                    self.search(&cid, None);
                }
            }
            Signal::Redial(peer) => self.dial_beside(peer),
            Signal::Ban(peer) => {
                tracing::warn!(%peer, "a peer sends blocks that nobody asked for, it is cut off");
                self.cut_off(peer);
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listening.bound(listener_id, &address, Instant::now());
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let reason = reason.err().map_or("closed".to_owned(), |error| error.to_string());
                self.listening.closed(listener_id, &reason);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                tracing::debug!(peer = %peer_id, address = %endpoint.get_remote_address(), "connected");
                let link = Link::new(connection_id, endpoint.get_remote_address().clone(), endpoint.is_dialer());
                self.connected.entry(peer_id).or_default().links.push(link);
                if let Some((_, reply)) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer_id));
                }
                if self.found_dials.remove(&connection_id) {
                    self.dial_found();
                }
                self.choose(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                if let Some(known) = self.connected.get_mut(&peer_id) {
                    known.links.retain(|link| link.id != connection_id);
                    if known.links.is_empty() {
                        self.connected.remove(&peer_id);
                        self.secured.forget(&peer_id);
                    }
                }
                self.gone(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, peer_id } => {
                self.exchange.trace().dial_failed(peer_id, &error);
                tracing::debug!(%error, "a dial failed");
                self.found_dials.remove(&connection_id);
                self.beside.failed(connection_id);
                if let Some((address, reply)) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(NetError::Dial { address, reason: error.to_string() }));
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(_))) => self.dial_found(),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping)) => self.on_ping(ping),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                self.on_identified(peer_id, info);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result,
                step,
                stats,
            })) => {
                self.on_answer(id, result, step.last.then_some(stats.num_requests()));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            })) => {
                let known = self.connected.get_mut(&record.provider);
                if let Some(record) = known.and_then(|known| known.admit_record(record, &self.limits))
                    && let Err(error) = self.swarm.behaviour_mut().kad.store_mut().add_provider(record)
                {
                    tracing::debug!(%error, "a provider record is not kept");
                }
            }
            _ => {}
        }
    }

    /// Dials peers on the link that are not connected, some at a time.
    fn dial_found(&mut self) {
        let Some(mdns) = self.swarm.behaviour().mdns.as_ref() else { return };
        let found: HashSet<_> = mdns.discovered_nodes().filter(|peer| !self.connected.contains_key(peer)).collect();
        let outbound = self.connected.values().filter(|known| known.links.iter().any(|link| link.outbound)).count();
        let room = MAX_FOUND_PEERS.saturating_sub(outbound).min(MAX_FOUND_DIALS).saturating_sub(self.found_dials.len());
        for peer in found.into_iter().take(room).copied().collect::<Vec<_>>() {
            let options = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
            let id = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => drop(self.found_dials.insert(id)),
                Err(error) => tracing::debug!(%peer, %error, "a peer on the link is not dialled"),
            }
        }
    }

    fn on_ping(&mut self, ping: ping::Event) {
        let answered = match ping.result {
            Err(ping::Failure::Timeout) => false,
            Err(_) | Ok(_) => true,
        };
        let exchanged = self.exchange.bytes_exchanged(&ping.peer);
        let links = self.connected.get_mut(&ping.peer).map(|known| &mut known.links);
        let link = links.and_then(|links| links.iter_mut().find(|link| link.id == ping.connection));
        if link.is_some_and(|link| link.is_dead(answered, exchanged)) {
            tracing::debug!(peer = %ping.peer, "nothing comes or goes any more, the connection is given up");
            self.swarm.close_connection(ping.connection);
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        if !known::is_acceptable(&info.public_key) {
            tracing::warn!(%peer, "a peer has an RSA key of more than 4096 bits, it is cut off");
            self.cut_off(peer);
            return;
        }
        let Some(known) = self.connected.get_mut(&peer) else { return };
        known.set_agent(&info.agent_version);
        known.set_protocols(&info.protocols);
        known.set_listens(&info.listen_addrs);
        let kad = &mut self.swarm.behaviour_mut().kad;
        if info.protocols.iter().any(|protocol| kad.protocol_names().contains(protocol)) {
            for address in known.admit_addresses(info.listen_addrs, &self.limits) {
                kad.add_address(&peer, address);
            }
            // It says so again every few minutes.
            if !std::mem::replace(&mut known.in_table, true) {
                self.table_peers.send_modify(|count| *count += 1);
            }
        }
    }

    fn cut_off(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().banned.block_peer(peer);
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// `asked` counts the peers that were, with the last answer to a query.
    fn on_answer(&mut self, id: kad::QueryId, result: kad::QueryResult, asked: Option<u32>) {
        match result {
            kad::QueryResult::GetProviders(answer) => {
                let Some(search) = self.searches.get_mut(&id) else { return };
                let mut fresh = Vec::new();
                if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = answer {
                    for peer in providers {
                        if search.found.len() < MAX_PROVIDERS && search.found.insert(peer) {
                            fresh.push(peer);
                        }
                    }
                }
                if search.reply.is_none() {
                    for peer in fresh.into_iter().filter(|peer| !self.connected.contains_key(peer)) {
                        if let Err(error) = self.swarm.dial(peer) {
                            tracing::debug!(%peer, %error, "a provider is not dialled");
                        }
                    }
                }
                let Some(asked) = asked else { return };
                if let Some(Search { cid, found, reply }) = self.searches.remove(&id) {
                    self.exchange.trace().searched(&cid, asked, found.len());
                    if let Some(reply) = reply {
                        let _ = reply.send(found.into_iter().collect());
                    }
                }
            }
            kad::QueryResult::StartProviding(answer) => {
                if let Some(reply) = self.provides.remove(&id) {
                    let _ = reply.send(answer.is_ok());
                }
            }
            _ => {}
        }
    }
}

/// Waits until then; for ever, if that is never.
async fn wait_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}

fn dial_options(address: &Multiaddr, condition: PeerCondition) -> DialOpts {
    match peer_in(address) {
        Some(peer) => DialOpts::peer_id(peer).addresses(vec![address.clone()]).condition(condition).build(),
        None => DialOpts::unknown_peer_id().address(address.clone()).build(),
    }
}
