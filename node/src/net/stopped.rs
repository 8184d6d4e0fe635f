//! Streams that the other end opened and reads no more: what it says on them is still heard.
//!
//! libp2p agrees to a protocol by an answer, and a stream whose answer cannot be written is dropped with all that has come
//! on it. Kubo up to 0.22 or so puts its message on a new QUIC stream, right behind the name of the protocol, and stops
//! the stream for reading at once: none of its messages would arrive. So on a stream that was opened by the other end,
//! what it will not read is written nowhere, and that is no error. Imports libp2p's traits.

use futures::{AsyncRead, AsyncWrite, ready};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A muxer with such streams.
pub(super) struct Heard<M>(pub(super) M);

/// One of its streams.
pub(super) struct Stream<S> {
    inner: S,
    /// The other end opened it.
    inbound: bool,
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Heard<M>
where
    M::Substream: Unpin,
{
    type Substream = Stream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(Pin::new(&mut self.0).poll_inbound(context))?;
        Poll::Ready(Ok(Stream { inner, inbound: true }))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(Pin::new(&mut self.0).poll_outbound(context))?;
        Poll::Ready(Ok(Stream { inner, inbound: false }))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.0).poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<S> Stream<S> {
    /// What came of writing; `done` where the other end does not read.
    fn forgiven<T>(&self, written: io::Result<T>, done: T) -> io::Result<T> {
        match written {
            Err(error) if self.inbound && error.kind() == ErrorKind::ConnectionReset => Ok(done),
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes));
        Poll::Ready(self.forgiven(written, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(context));
        Poll::Ready(self.forgiven(flushed, ()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(Pin::new(&mut self.inner).poll_close(context));
        Poll::Ready(self.forgiven(closed, ()))
    }
}
