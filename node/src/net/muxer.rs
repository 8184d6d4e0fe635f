//! yamux, with a bound on what the other end may leave unread.
//!
//! A stream's window grows while its reader keeps up, by the round-trip time that the *other* end pretends to have: a
//! peer that answers yamux's pings late, sends something that is quickly read, and then something that is not, may leave
//! a gibibyte in memory with the limit that libp2p's own wrapper sets and does not let anybody change. This is that
//! wrapper again, with limits. Imports libp2p's traits and yamux. It never looks at data.

use super::frames::Frames;
use futures::{AsyncRead, AsyncWrite, future, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Sleep;
use yamux::{Config, Connection, ConnectionError, Mode, Stream};

/// Streams of one connection at once. Bitswap takes 32 from a peer and Kademlia as many.
const MAX_STREAMS: usize = 128;
/// What each of them may have unread in any case, in bytes: yamux's specification says so.
const FIRST_WINDOW_BYTES: usize = 256 << 10;
/// What the windows of all streams of a connection may grow by, in bytes: one stream at 1 Gbit/s over a round trip of
/// 30 ms, and as much as one peer is asked for at a time.
const MAX_GROWTH_BYTES: usize = 4 << 20;
/// What the windows of all connections may grow by together, in bytes, if this node opened them: the first twenty-four get
/// all they may; for those that come while these are open, the first window has to do: on a link of 1 ms it carries 250 MB/s.
const ALL_GROWTH_BYTES: usize = 96 << 20;
/// The same for connections that others opened, who may be many, and whose wish it is.
const ALL_INBOUND_GROWTH_BYTES: usize = 16 << 20;
/// Streams that others have opened and that nobody has taken up yet; further ones are reset.
const MAX_WAITING_STREAMS: usize = MAX_STREAMS;

/// How long a connection may take to say that it ends. A dead one would do so for as long as TCP keeps trying.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The upgrade. Connections that clones of it make share two allowances.
#[derive(Clone, Debug)]
pub(super) struct Yamux {
    left: Arc<AtomicUsize>,
    inbound_left: Arc<AtomicUsize>,
}

impl Default for Yamux {
    fn default() -> Self {
        let [left, inbound_left] =
            [ALL_GROWTH_BYTES, ALL_INBOUND_GROWTH_BYTES].map(|bytes| Arc::new(AtomicUsize::new(bytes)));
        Self { left, inbound_left }
    }
}

/// What the windows of one connection may grow by; given back when the connection is gone.
struct Growth {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl Growth {
    fn take(left: &Arc<AtomicUsize>) -> Self {
        let rest = |left: usize| Some(left - left.min(MAX_GROWTH_BYTES));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).unwrap_or_default();
        Self { left: left.clone(), bytes: before.min(MAX_GROWTH_BYTES) }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Longest frame that is sent, in bytes: as long as those of Go's nodes, whose readers wake up once a frame.
const SEND_FRAME_BYTES: usize = 64 << 10;

fn config(growth: &Growth) -> Config {
    let mut config = Config::default();
    config.set_split_send_size(SEND_FRAME_BYTES);
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_STREAMS * FIRST_WINDOW_BYTES + growth.bytes));
    config
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;
    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;
    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Server, &self.inbound_left)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<io::Result<Muxer<C>>>;
    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Client, &self.left)))
    }
}

/// A connection cut into streams.
pub(super) struct Muxer<C> {
    connection: Connection<Frames<C>>,
    /// Streams that came while nobody asked for one: yamux goes on only by handing them out.
    waiting: VecDeque<Stream>,
    waker: Option<Waker>,
    closing: Option<Pin<Box<Sleep>>>,
    _growth: Growth,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, mode: Mode, left: &Arc<AtomicUsize>) -> Self {
        let growth = Growth::take(left);
        let connection = Connection::new(Frames::new(socket), config(&growth), mode);
        Self { connection, _growth: growth, waiting: VecDeque::new(), waker: None, closing: None }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let next = ready!(self.connection.poll_next_inbound(context));
        Poll::Ready(next.unwrap_or(Err(ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        if let Some(stream) = self.waiting.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(context) {
            return Poll::Ready(next);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.connection.poll_new_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_TIMEOUT)));
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.connection.poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let stream = ready!(self.poll_next(context))?;
        if self.waiting.len() < MAX_WAITING_STREAMS {
            self.waiting.push_back(stream);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        } else {
            tracing::debug!("too many streams wait on one connection, one is reset");
        }
        // More may be there; others have their turn first.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_all_connections_together_are_allowed_no_more_than_some() {
        let yamux = Yamux::default();
        let some: Vec<_> = (0..100).map(|_| Growth::take(&yamux.left)).collect();
        assert_eq!(some.iter().map(|growth| growth.bytes).sum::<usize>(), ALL_GROWTH_BYTES);
        assert_eq!(some[99].bytes, 0);
        drop(some);
        assert_eq!(Growth::take(&yamux.left).bytes, MAX_GROWTH_BYTES);
    }
}
