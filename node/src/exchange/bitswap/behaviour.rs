//! Bitswap's streams inside the swarm: hands whole substreams to the exchange and carries no data itself.
//!
//! Kubo opens a new stream for every message, several at once, and also keeps some open: every inbound stream is given
//! to a reader of its own, none is replaced, and past `MAX_INBOUND_STREAMS` on one connection further ones are reset.

use super::Exchange;
use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, Stream, StreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, swarm::StreamUpgradeError};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready as poll_ready};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

/// Most inbound Bitswap streams read at once on one connection. Kubo's message queue opens a handful; each holds one
/// message in memory.
const MAX_INBOUND_STREAMS: usize = 32;
/// Requests for outbound streams that may wait on one connection: one for wants, one for replies, and a retry of each.
const MAX_WAITING_OPENS: usize = 4;
/// How long the negotiation of a stream may take. A LAN needs milliseconds; a far, busy peer a second or two.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection that is in use is looked at again. The last block may be done with after the last byte came, and
/// then nothing else tells the connection that it is idle.
const USE_CHECK: Duration = Duration::from_secs(1);

/// The revisions of the protocol that are spoken, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Blocks without prefixes, no presences.
    V1_0,
    /// Blocks with prefixes, no presences.
    V1_1,
    /// HAVE and DONT_HAVE.
    V1_2,
}

const PROTOCOLS: [(StreamProtocol, Version); 3] = [
    (StreamProtocol::new("/ipfs/bitswap/1.2.0"), Version::V1_2),
    (StreamProtocol::new("/ipfs/bitswap/1.1.0"), Version::V1_1),
    (StreamProtocol::new("/ipfs/bitswap/1.0.0"), Version::V1_0),
];

/// Negotiates one of `PROTOCOLS`.
#[derive(Clone, Copy, Debug)]
pub struct Protocol;

impl UpgradeInfo for Protocol {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Map<
        std::array::IntoIter<(StreamProtocol, Version), 3>,
        fn((StreamProtocol, Version)) -> StreamProtocol,
    >;
    fn protocol_info(&self) -> Self::InfoIter {
        PROTOCOLS.into_iter().map(|(name, _)| name)
    }
}

fn version_of(name: &StreamProtocol) -> Version {
    PROTOCOLS.iter().find(|(known, _)| known == name).map_or(Version::V1_0, |(_, version)| *version)
}

impl InboundUpgrade<Stream> for Protocol {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;
    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version_of(&name))))
    }
}

impl OutboundUpgrade<Stream> for Protocol {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;
    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version_of(&name))))
    }
}

/// Why no stream could be opened to a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection ended, or has too many opens waiting.
    #[error("the connection is closed or busy")]
    Closed,
    /// The peer speaks none of the protocol's revisions.
    #[error("the peer does not speak bitswap")]
    Unsupported,
    /// The peer did not answer in time, or the stream broke.
    #[error("bitswap negotiation failed: {reason}")]
    Failed {
        /// What the transport said.
        reason: String,
    },
}

type OpenReply = oneshot::Sender<Result<(Stream, Version), OpenError>>;

/// Opens outbound streams on one connection.
#[derive(Clone, Debug)]
pub struct Opener(mpsc::Sender<OpenReply>);

impl Opener {
    /// Opens a stream. Dropping the future abandons the stream.
    pub async fn open(&self) -> Result<(Stream, Version), OpenError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| OpenError::Closed)?;
        answer.await.map_err(|_| OpenError::Closed)?
    }
}

/// The behaviour: one handler a connection, each with a way in ([`Opener`]) and out (the exchange's readers).
pub struct Behaviour {
    exchange: Exchange,
}

impl Behaviour {
    /// A behaviour that feeds `exchange`.
    pub fn new(exchange: Exchange) -> Self {
        Self { exchange }
    }

    fn handler(&self, connection: ConnectionId, peer: PeerId) -> Handler {
        let (sender, opens) = mpsc::channel(MAX_WAITING_OPENS);
        Handler {
            peer,
            connection,
            exchange: self.exchange.clone(),
            opener: Some(Opener(sender)),
            opens,
            negotiating: VecDeque::new(),
            inbound: Arc::new(AtomicUsize::new(0)),
            in_use: AtomicBool::new(false),
            check: None,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.exchange.disconnected(closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's end of the behaviour.
pub struct Handler {
    peer: PeerId,
    connection: ConnectionId,
    exchange: Exchange,
    /// Until the connection is announced to the exchange, at its first poll: by then it has survived every limit.
    opener: Option<Opener>,
    opens: mpsc::Receiver<OpenReply>,
    negotiating: VecDeque<OpenReply>,
    inbound: Arc<AtomicUsize>,
    /// Whether the connection was in use when the swarm last asked.
    in_use: AtomicBool,
    check: Option<Pin<Box<Sleep>>>,
}

impl Handler {
    /// Makes sure that the swarm asks again whether a connection in use still is.
    fn poll_use(&mut self, context: &mut Context<'_>) {
        if !self.in_use.load(Ordering::Relaxed) {
            self.check = None;
            return;
        }
        let check = self.check.get_or_insert_with(|| Box::pin(tokio::time::sleep(USE_CHECK)));
        while check.as_mut().poll(context).is_ready() {
            check.as_mut().reset(tokio::time::Instant::now() + USE_CHECK);
        }
    }
}

/// Counts a stream for as long as its reader lives.
pub struct InboundSlot(Arc<AtomicUsize>);

impl Drop for InboundSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocol;
    type OutboundProtocol = Protocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Protocol> {
        SubstreamProtocol::new(Protocol, ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        let in_use = self.exchange.is_busy_with(&self.peer);
        self.in_use.store(in_use, Ordering::Relaxed);
        in_use
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocol, (), Infallible>> {
        if let Some(opener) = self.opener.take() {
            self.exchange.connected(self.peer, self.connection, opener);
        }
        self.poll_use(context);
        match poll_ready!(self.opens.poll_recv(context)) {
            Some(reply) => {
                self.negotiating.push_back(reply);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                    protocol: SubstreamProtocol::new(Protocol, ()).with_timeout(NEGOTIATION_TIMEOUT),
                })
            }
            None => Poll::Pending,
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocol, Protocol>) {
        match event {
            // Both ends keep their streams open; whether the connection is in use says `connection_keep_alive`.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (mut stream, _), .. }) => {
                stream.ignore_for_keep_alive();
                if self.inbound.fetch_add(1, Ordering::Relaxed) < MAX_INBOUND_STREAMS {
                    self.exchange.read(self.peer, stream, InboundSlot(self.inbound.clone()));
                } else {
                    self.inbound.fetch_sub(1, Ordering::Relaxed);
                    tracing::debug!(peer = %self.peer, "too many bitswap streams at once, one is reset");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (mut stream, version),
                ..
            }) => {
                stream.ignore_for_keep_alive();
                if let Some(reply) = self.negotiating.pop_front() {
                    let _ = reply.send(Ok((stream, version)));
                }
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                if let Some(reply) = self.negotiating.pop_front() {
                    let _ = reply.send(Err(match error {
                        StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                        error => OpenError::Failed { reason: error.to_string() },
                    }));
                }
            }
            _ => {}
        }
    }
}
