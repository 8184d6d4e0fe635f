//! A wire between two peers: TCP forwarded byte by byte, as slow as told, and cut or frozen at will.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};

/// Pieces that are on the wire at once, each way: 64 MiB.
const MAX_UNDER_WAY: usize = 4096;

/// Dropping it cuts every connection.
pub(crate) struct Link {
    port: u16,
    frozen: watch::Sender<bool>,
    /// Bytes that went towards whoever dials.
    pub(crate) back: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Link {
    /// Forwards to `port` on loopback; answers come back at no more than `rate` bytes a second. Connections there come
    /// from `source`.
    pub(crate) async fn start(port: u16, rate: Option<u64>, source: Ipv4Addr) -> Self {
        Self::with(port, rate, source, Duration::ZERO).await
    }

    /// A link on which everything takes so long, each way.
    pub(crate) async fn far(port: u16, delay: Duration) -> Self {
        Self::with(port, None, Ipv4Addr::LOCALHOST, delay).await
    }

    async fn with(port: u16, rate: Option<u64>, source: Ipv4Addr, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let own = listener.local_addr().expect("bound").port();
        let (frozen, thaw) = watch::channel(false);
        let back = Arc::new(AtomicU64::new(0));
        let counter = back.clone();
        let task = tokio::spawn(async move {
            let mut wires = tokio::task::JoinSet::new();
            while let Ok((inner, _)) = listener.accept().await {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.bind((source, 0).into()).expect("binds");
                let Ok(outer) = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await else { continue };
                let ((from, to), (there, back)) = (inner.into_split(), outer.into_split());
                wires.spawn(forward(from, back, thaw.clone(), None, Arc::default(), delay));
                wires.spawn(forward(there, to, thaw.clone(), rate, counter.clone(), delay));
            }
        });
        Self { port: own, frozen, back, task }
    }

    /// The address at this end, for the peer at the other.
    pub(crate) fn address(&self, address: &str) -> String {
        let id = address.rsplit('/').next().expect("an identity");
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", self.port)
    }

    /// Holds every byte back, or lets them go again. Nobody is told.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn port_of(address: &str) -> u16 {
    address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a TCP address")
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
    rate: Option<u64>,
    count: Arc<AtomicU64>,
    delay: Duration,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_UNDER_WAY);
    let reading = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_micros(read as u64 * 1_000_000 / rate)).await;
            }
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    };
    tokio::join!(reading, writing);
}
