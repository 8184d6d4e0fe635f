//! A bare libp2p peer: real connections, whole Bitswap streams, and no Bitswap of its own.
//!
//! What it says, when, and whether it ever reads an answer is up to the test that owns it.

use futures::StreamExt as _;
use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, SwarmEvent,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, SwarmBuilder, identify, noise, tcp, yamux};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) const V1_2: &str = "/ipfs/bitswap/1.2.0";
pub(crate) const V1_1: &str = "/ipfs/bitswap/1.1.0";
pub(crate) const V1_0: &str = "/ipfs/bitswap/1.0.0";

/// A stream that was opened by a peer, or to one.
pub(crate) type Opened = (PeerId, Stream);
type OpenReply = oneshot::Sender<Result<Stream, String>>;

/// How the peer presents itself.
pub(crate) struct Looks {
    pub(crate) key: Keypair,
    pub(crate) protocols: Vec<StreamProtocol>,
    /// Speaks identify, and calls itself this.
    pub(crate) agent: Option<String>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { key: Keypair::generate_ed25519(), protocols: vec![StreamProtocol::new(V1_2)], agent: None }
    }
}

enum Order {
    Dial(Multiaddr, oneshot::Sender<Result<PeerId, String>>),
    Open(PeerId, OpenReply),
    Disconnect(PeerId),
}

/// A handle to the peer; dropping it ends it.
pub(crate) struct Bare {
    pub(crate) id: PeerId,
    orders: mpsc::Sender<Order>,
    /// Streams that others opened.
    pub(crate) inbound: mpsc::Receiver<Opened>,
    connected: watch::Receiver<HashMap<PeerId, usize>>,
}

impl Bare {
    pub(crate) async fn start() -> Self {
        Self::with(Looks::default()).await
    }

    pub(crate) async fn speaking(protocol: &'static str) -> Self {
        Self::with(Looks { protocols: vec![StreamProtocol::new(protocol)], ..Looks::default() }).await
    }

    pub(crate) async fn with(looks: Looks) -> Self {
        let (streams, inbound) = mpsc::channel(1024);
        let offer = Offer(looks.protocols);
        let mut swarm = SwarmBuilder::with_existing_identity(looks.key)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .expect("transports")
            .with_behaviour(|key| {
                let config = identify::Config::new("ipfs/0.1.0".into(), key.public());
                let identify = looks.agent.map(|agent| identify::Behaviour::new(config.with_agent_version(agent)));
                Both { bitswap: Streams { offer, streams, opens: VecDeque::new() }, identify: identify.into() }
            })
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        let id = *swarm.local_peer_id();
        let (orders, mut receiver) = mpsc::channel(64);
        let (present, connected) = watch::channel(HashMap::new());
        tokio::spawn(async move {
            let mut dials = HashMap::<ConnectionId, oneshot::Sender<Result<PeerId, String>>>::new();
            loop {
                tokio::select! {
                    order = receiver.recv() => match order {
                        None => return,
                        Some(Order::Dial(address, reply)) => {
                            let options = DialOpts::unknown_peer_id().address(address).build();
                            let id = options.connection_id();
                            match swarm.dial(options) {
                                Ok(()) => drop(dials.insert(id, reply)),
                                Err(error) => drop(reply.send(Err(error.to_string()))),
                            }
                        }
                        Some(Order::Open(peer, reply)) => swarm.behaviour_mut().bitswap.opens.push_back((peer, reply)),
                        Some(Order::Disconnect(peer)) => drop(swarm.disconnect_peer_id(peer)),
                    },
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                            present.send_modify(|peers| *peers.entry(peer_id).or_default() += 1);
                            if let Some(reply) = dials.remove(&connection_id) {
                                let _ = reply.send(Ok(peer_id));
                            }
                        }
                        SwarmEvent::ConnectionClosed { peer_id, .. } => present.send_modify(|peers| {
                            if let Some(count) = peers.get_mut(&peer_id) {
                                *count -= 1;
                            }
                            peers.retain(|_, count| *count > 0);
                        }),
                        SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                            if let Some(reply) = dials.remove(&connection_id) {
                                let _ = reply.send(Err(error.to_string()));
                            }
                        }
                        _ => {}
                    },
                }
            }
        });
        Self { id, orders, inbound, connected }
    }

    pub(crate) fn opener(&self) -> Doors {
        Doors { orders: self.orders.clone(), connected: self.connected.clone() }
    }

    pub(crate) async fn dial(&self, address: &str) -> Result<PeerId, String> {
        self.opener().dial(address).await
    }

    pub(crate) async fn open(&self, peer: PeerId) -> Result<Stream, String> {
        self.opener().open(peer).await
    }

    /// Waits until the other end is no longer connected.
    pub(crate) async fn until_gone(&self, peer: PeerId) {
        self.opener().until_gone(peer).await;
    }
}

/// The way to new connections and streams, for tasks.
#[derive(Clone)]
pub(crate) struct Doors {
    orders: mpsc::Sender<Order>,
    connected: watch::Receiver<HashMap<PeerId, usize>>,
}

impl Doors {
    pub(crate) async fn dial(&self, address: &str) -> Result<PeerId, String> {
        let (reply, answer) = oneshot::channel();
        let address = address.parse().expect("an address");
        self.orders.send(Order::Dial(address, reply)).await.map_err(|_| "gone".to_owned())?;
        answer.await.map_err(|_| "gone".to_owned())?
    }

    pub(crate) async fn open(&self, peer: PeerId) -> Result<Stream, String> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Open(peer, reply)).await.map_err(|_| "gone".to_owned())?;
        answer.await.map_err(|_| "closed".to_owned())?
    }

    pub(crate) async fn disconnect(&self, peer: PeerId) {
        let _ = self.orders.send(Order::Disconnect(peer)).await;
        self.until_gone(peer).await;
    }

    /// Waits until the other end is no longer connected.
    pub(crate) async fn until_gone(&self, peer: PeerId) {
        let mut connected = self.connected.clone();
        let _ = connected.wait_for(|peers| !peers.contains_key(&peer)).await;
    }

    /// Whether the other end stays connected, as far as a new stream shows.
    pub(crate) async fn stays(&self, peer: PeerId) -> bool {
        self.open(peer).await.is_ok()
    }
}

#[derive(NetworkBehaviour)]
struct Both {
    bitswap: Streams,
    identify: libp2p::swarm::behaviour::toggle::Toggle<identify::Behaviour>,
}

#[derive(Clone)]
struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;
    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;
    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;
    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

struct Streams {
    offer: Offer,
    streams: mpsc::Sender<Opened>,
    opens: VecDeque<(PeerId, OpenReply)>,
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, self))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.opens.pop_front() {
            Some((peer_id, reply)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: Open(reply) })
            }
            None => Poll::Pending,
        }
    }
}

#[derive(Debug)]
struct Open(OpenReply);

struct Handler {
    peer: PeerId,
    offer: Offer,
    streams: mpsc::Sender<Opened>,
    asked: VecDeque<OpenReply>,
    negotiating: VecDeque<OpenReply>,
}

impl Handler {
    fn new(peer: PeerId, streams: &Streams) -> Self {
        Self {
            peer,
            offer: streams.offer.clone(),
            streams: streams.streams.clone(),
            asked: VecDeque::new(),
            negotiating: VecDeque::new(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(self.offer.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, Open(reply): Open) {
        self.asked.push_back(reply);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, (), Infallible>> {
        match self.asked.pop_front() {
            Some(reply) => {
                self.negotiating.push_back(reply);
                let protocol = SubstreamProtocol::new(self.offer.clone(), ());
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                // One that nobody takes is dropped, which resets it.
                let _ = self.streams.try_send((self.peer, stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                if let Some(reply) = self.negotiating.pop_front() {
                    let _ = reply.send(Ok(stream));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                if let Some(reply) = self.negotiating.pop_front() {
                    let _ = reply.send(Err(error.to_string()));
                }
            }
            _ => {}
        }
    }
}
