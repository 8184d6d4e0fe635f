//! Connections: how many, how slow, how long.
//!
//! Imports the handler beside it. No client holds a place by sending its request slowly, by sending nothing more, or by
//! not reading its answer; whoever comes when all places are taken waits in the kernel.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt as _;
use hyper::{header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, lookup_host},
    sync::Semaphore,
    task::JoinSet,
    time::Sleep,
};

use super::{RegistryError, answer::set, handle::Handler};

/// Connections at once. Each may have a file and a few buffers open.
const MAX_CONNECTIONS: usize = 512;
/// Time for the head of a request to arrive, and for the next request to begin.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a head, and headers in it: what clients send has below 2 KiB.
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 64;
/// How long a client may take nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to wait after an accept that failed, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// File descriptors that are asked for: two for each connection, and as many for the node.
const WANTED_FILES: u64 = 4096;

/// Listens on every address that a name stands for: `localhost` is two.
pub(super) async fn bind(address: &str) -> Result<Vec<TcpListener>, RegistryError> {
    let failed = |source| RegistryError::Listen { address: address.to_owned(), source };
    let found: Vec<SocketAddr> = lookup_host(address).await.map_err(failed)?.collect();
    let mut listeners = Vec::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in found {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // A host without IPv6 has one address less; one that is taken is not passed over.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => last = error,
            Err(error) => return Err(failed(error)),
        }
    }
    if listeners.is_empty() { Err(failed(last)) } else { Ok(listeners) }
}

/// Lets the process have more files open, where it may.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < WANTED_FILES) {
        let current = Some(maximum.map_or(WANTED_FILES, |maximum| maximum.min(WANTED_FILES)));
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

/// Serves until it is dropped; then every connection ends.
pub(super) async fn serve(listeners: Vec<TcpListener>, handler: Arc<Handler>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepting = listeners.iter().map(|listener| listener.accept().boxed());
        let accepted = futures::future::select_all(accepting).await.0;
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (handler, places) = (handler.clone(), places.clone());
        connections.spawn(async move {
            converse(stream, handler, places).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, handler: Arc<Handler>, places: Arc<Semaphore>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (handler, places) = (handler.clone(), places.clone());
        async move {
            let mut answer = handler.handle(request).await;
            // Somebody waits for a place: a connection that is kept for later does not hold one.
            if places.available_permits() == 0 {
                set(&mut answer, header::CONNECTION, "close");
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES.max(64 << 10))
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Paced { stream, stalled: None }), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection that ends when its client takes nothing for too long.
struct Paced {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn watched<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watched(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
