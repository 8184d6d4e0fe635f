//! QUIC, beside TCP and after it.
//!
//! On a LAN it is slower than TCP with TLS (its cipher and its packets cost more CPU), so where a peer has both, TCP gets
//! a head start. It cannot carry a swarm key: a private network has none of it. Imports libp2p and the gate.

use super::gate::{Gate, Gated};
use super::stopped::Heard;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, quic};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long TCP has to be first: several times what a handshake takes on a LAN, and short enough not to be noticed where
/// there is only QUIC.
const HEAD_START: Duration = Duration::from_millis(50);
/// What a peer may send on one stream before it is read, in bytes: 1 Gbit/s over a round trip of 30 ms.
const MAX_STREAM_BYTES: u32 = 4 << 20;
/// What a peer may send on all streams before it is read, in bytes.
const MAX_CONNECTION_BYTES: u32 = 16 << 20;
/// Streams of one connection that a peer may have open at once, as over TCP.
const MAX_STREAMS: u32 = 128;
/// Silence after which a connection is given up, in milliseconds, and how often silence is broken: as Kubo does.
const IDLE_MILLISECONDS: u32 = 30_000;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn config(identity: &Keypair, handshake_timeout: Duration) -> quic::Config {
    let mut config = quic::Config::new(identity);
    config.handshake_timeout = handshake_timeout;
    config.max_stream_data = MAX_STREAM_BYTES;
    config.max_connection_data = MAX_CONNECTION_BYTES;
    config.max_concurrent_stream_limit = MAX_STREAMS;
    config.max_idle_timeout = IDLE_MILLISECONDS;
    config.keep_alive_interval = KEEP_ALIVE;
    config
}

/// The transport, behind the gate. It opens no socket before it listens or dials.
pub(super) fn build(identity: &Keypair, gate: Gate, handshake_timeout: Duration) -> Boxed<(PeerId, StreamMuxerBox)> {
    let quic = quic::tokio::Transport::new(config(identity, handshake_timeout));
    Second(Gated::new(quic, gate)).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Heard(muxer)))).boxed()
}

/// A transport whose dials begin after a while.
struct Second<T>(T);

impl<T> Transport for Second<T>
where
    T: Transport + Unpin,
    T::Dial: Send + 'static,
    T::Output: Send,
    T::Error: Send,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let dial = self.0.dial(address, options)?;
        Ok(async move {
            tokio::time::sleep(HEAD_START).await;
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(context)
    }
}
