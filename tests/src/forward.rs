//! What stands between a client and a server: counts connections, breaks them, or is a proxy.
//!
//! It reaches nothing but the one address it was given.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Longest head of a request to a proxy, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Hands connections on to an address.
pub struct Forward {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes of one connection after which it breaks; once.
    cut: Option<u64>,
    was_cut: AtomicBool,
    connections: AtomicUsize,
    sent: AtomicU64,
    is_proxy: bool,
    heads: Mutex<Vec<String>>,
}

impl Forward {
    /// To `target`; the first connection that sends more than `cut` bytes there breaks.
    ///
    /// # Panics
    /// When the system gives no port.
    pub fn to(target: SocketAddr, cut: Option<u64>) -> Self {
        Self::begin(target, Shared { cut, ..Shared::default() })
    }

    /// A proxy that takes `CONNECT` to whatever host, and hands it all on to `target`.
    ///
    /// # Panics
    /// When the system gives no port.
    pub fn proxy(target: SocketAddr) -> Self {
        Self::begin(target, Shared { is_proxy: true, ..Shared::default() })
    }

    fn begin(target: SocketAddr, shared: Shared) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(shared);
        let counted = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), shared) = (stream, Arc::clone(&counted)) else { return };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                // A connection that breaks is the matter of both ends.
                thread::spawn(move || shared.serve(stream, target));
            }
        });
        Self { address, shared }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that were sent to the other side so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// What the proxy was asked.
    ///
    /// # Panics
    /// Never.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().expect("nobody panics with it").clone()
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
        if self.is_proxy {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
                client.read_exact(&mut byte)?;
                head.push(byte[0]);
            }
            self.heads.lock().expect("nobody panics with it").push(String::from_utf8_lossy(&head).into_owned());
            if !head.starts_with(b"CONNECT ") {
                return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
            }
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        }
        let mut server = TcpStream::connect(target)?;
        let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            drop(io::copy(&mut back, &mut to_client));
            drop(to_client.shutdown(Shutdown::Both));
        });
        let (mut piece, mut through) = (vec![0; 64 << 10], 0);
        loop {
            let length = client.read(&mut piece)?;
            if length == 0 {
                return server.shutdown(Shutdown::Write);
            }
            server.write_all(&piece[..length])?;
            through += length as u64;
            self.sent.fetch_add(length as u64, Ordering::Relaxed);
            if self.cut.is_some_and(|cut| through > cut) && !self.was_cut.swap(true, Ordering::Relaxed) {
                server.shutdown(Shutdown::Both)?;
                return client.shutdown(Shutdown::Both);
            }
        }
    }
}
