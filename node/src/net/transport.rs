//! The stack under every connection: gate, TCP, private-network cipher, security, muxer; beside it QUIC, which has all of
//! that inside, and can have no swarm key.
//!
//! TLS before Noise (it is faster, and every libp2p speaks both); a read buffer under the cipher, since rustls reads
//! at most 4 KiB at a time (31 000 system calls for 256 MiB, 4 300 with it); joined writes above it.

use super::gate::{Gate, Gated};
use super::joined::Join;
use super::muxer::Yamux;
use super::quic;
use super::secured::Secured as Book;
use super::tls::{Tls, TlsError};
use crate::config::Security;
use futures::future::{BoxFuture, Either};
use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use futures_rustls::TlsStream;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport, noise, tcp};
use std::io;
use std::time::Duration;

/// Bytes read from the socket at a time: the size that took the system calls from 31 000 to 4 300; more gains nothing.
const READ_BUFFER_BYTES: usize = 64 << 10;
/// How long a connection may take from TCP to muxer: three round trips and a handshake, generously.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the transports cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportSetupError {
    /// The TLS certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The Noise keys.
    #[error("cannot make the Noise keys of this node's identity")]
    Noise(#[source] noise::Error),
    /// The system's resolver configuration.
    #[error("cannot read the system's name server configuration")]
    Resolver(#[source] io::Error),
}

/// Builds the stack. Names are resolved only with `names`, before the gate looks at what they stand for.
pub(super) fn build(
    identity: &Keypair,
    key: Option<PreSharedKey>,
    gate: Gate,
    names: bool,
    security: Security,
    book: Book,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, TransportSetupError> {
    let secure = Secure {
        security,
        tls: Tls::new(identity)?,
        noise: noise::Config::new(identity).map_err(TransportSetupError::Noise)?,
        book,
    };
    let tcp = Gated::new(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), gate.clone());
    let transport = match key {
        Some(key) => secured(tcp.and_then(move |socket, _| PnetConfig::new(key).handshake(socket)), secure),
        None => {
            let either = secured(tcp, secure).or_transport(quic::build(identity, gate, HANDSHAKE_TIMEOUT));
            either.map(|either, _| either.into_inner()).boxed()
        }
    };
    if !names {
        return Ok(transport);
    }
    let named = libp2p::dns::tokio::Transport::system(transport).map_err(TransportSetupError::Resolver)?;
    Ok(named.boxed())
}

fn secured<T, C>(transport: T, secure: Secure) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: Transport<Output = C> + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    transport
        .map(|socket, _| BufReader::with_capacity(READ_BUFFER_BYTES, socket))
        .upgrade(Version::V1Lazy)
        .authenticate(secure)
        .multiplex(Join(Yamux::default()))
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed()
}

/// TLS or Noise, in that order.
#[derive(Clone)]
struct Secure {
    security: Security,
    tls: Tls,
    noise: noise::Config,
    book: Book,
}

type Secured<C> = (PeerId, Either<TlsStream<C>, noise::Output<C>>);

impl UpgradeInfo for Secure {
    type Info = &'static str;
    type InfoIter = std::vec::IntoIter<&'static str>;
    fn protocol_info(&self) -> Self::InfoIter {
        let tls = self.tls.protocol_info().filter(|_| self.security != Security::Noise);
        let noise = self.noise.protocol_info().filter(|_| self.security != Security::Tls);
        tls.chain(noise).collect::<Vec<_>>().into_iter()
    }
}

impl Secure {
    fn is_tls(&self, name: &str) -> bool {
        self.tls.protocol_info().any(|tls| tls == name)
    }
}

fn tls<C>(done: io::Result<(PeerId, TlsStream<C>)>) -> io::Result<Secured<C>> {
    done.map(|(peer, io)| (peer, Either::Left(io)))
}

fn noise<C>(done: Result<(PeerId, noise::Output<C>), noise::Error>) -> io::Result<Secured<C>> {
    done.map(|(peer, io)| (peer, Either::Right(io))).map_err(io::Error::other)
}

/// Writes down how a peer was authenticated.
fn noted<C>(
    upgrade: impl Future<Output = io::Result<Secured<C>>> + Send + 'static,
    book: Book,
    security: &'static str,
) -> BoxFuture<'static, io::Result<Secured<C>>> {
    let note = move |done: &io::Result<Secured<C>>| {
        if let Ok((peer, _)) = done {
            book.note(*peer, security);
        }
    };
    upgrade.inspect(note).boxed()
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Secure {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;
    fn upgrade_inbound(self, socket: C, name: &'static str) -> Self::Future {
        if self.is_tls(name) {
            noted(self.tls.upgrade_inbound(socket, name).map(|done| tls(done)), self.book, "tls")
        } else {
            noted(self.noise.upgrade_inbound(socket, name).map(|done| noise(done)), self.book, "noise")
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Secure {
    type Output = Secured<C>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;
    fn upgrade_outbound(self, socket: C, name: &'static str) -> Self::Future {
        if self.is_tls(name) {
            noted(self.tls.upgrade_outbound(socket, name).map(|done| tls(done)), self.book, "tls")
        } else {
            noted(self.noise.upgrade_outbound(socket, name).map(|done| noise(done)), self.book, "noise")
        }
    }
}
