//! A daemon with Kubo's RPC, in memory, that misbehaves on demand.
//!
//! Imports `block` and `dag`; speaks HTTP/1.1 by hand, so that every way to break it can be said.
//! It does what this project asks of Kubo and nothing else. Its threads end with it.

mod http;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, BufReader},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

pub use self::http::Asked;
use self::http::{Stream, body, part, request};
use crate::{
    block::{Block, CODEC_RAW, Cid},
    dag::{self, At, CHUNK_BYTES, Part},
};

/// What it calls itself.
pub const PEER: &str = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
/// Longest that a stalled answer is held open.
const STALL: Duration = Duration::from_secs(30);

/// How it misbehaves in answer to one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Says nothing.
    Stall,
    /// Says nothing more after so many bytes of the body.
    StallAfter(usize),
    /// Breaks the connection after so many bytes of the body.
    DieAfter(usize),
    /// Ends the body after so many bytes, as if that were all.
    EndAfter(usize),
    /// After so many bytes of the body, says in the trailer that it failed.
    GiveUpAfter(usize),
    /// Says in the header that the body has so many bytes.
    Announce(u64),
    /// Sends this in place of an answer, and breaks the connection.
    Raw(Vec<u8>),
    /// Sends a body without end.
    Endless,
    /// Takes so many bytes of the request's body, and breaks the connection.
    HangUpAfter(usize),
    /// Takes so many bytes of the request's body, and no more.
    ChokeAfter(usize),
}

/// The daemon. Dropping it ends it.
pub struct FakeKubo {
    state: Arc<State>,
    address: Option<SocketAddr>,
}

/// What survives a restart.
#[derive(Default)]
pub struct Blocks {
    blocks: Mutex<HashMap<Cid, Bytes>>,
    pins: Mutex<BTreeMap<Cid, String>>,
}

struct State {
    blocks: Arc<Blocks>,
    peers: Vec<Arc<Blocks>>,
    faults: Mutex<VecDeque<(String, Fault)>>,
    asked: Mutex<Vec<Asked>>,
    connections: Mutex<Vec<TcpStream>>,
    sent: AtomicU64,
    closed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeKubo {
    /// A daemon on a port that the system chooses, that asks `peers` for what it lacks.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(blocks: Arc<Blocks>, peers: Vec<Arc<Blocks>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State::new(blocks, peers);
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(other) = stream.try_clone() else { continue };
                lock(&serving.connections).extend(stream.try_clone());
                let state = serving.clone();
                std::thread::spawn(move || state.serve(other, stream));
            }
        });
        Self { state, address: Some(address) }
    }

    /// As [`FakeKubo::start`], on a Unix socket, until the process ends.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start_unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let state = State::new(Arc::default(), Vec::new());
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(other) = stream.try_clone() else { continue };
                let state = serving.clone();
                std::thread::spawn(move || state.serve(other, stream));
            }
        });
        Self { state, address: None }
    }

    /// Its address, as a multiaddress.
    ///
    /// # Panics
    /// When it listens on a Unix socket.
    pub fn multiaddress(&self) -> String {
        let address = self.address.expect("it listens on TCP");
        format!("/ip4/{}/tcp/{}", address.ip(), address.port())
    }

    /// The host and port it listens on.
    ///
    /// # Panics
    /// When it listens on a Unix socket.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("it listens on TCP")
    }

    /// Has it misbehave at the next request of a command for which nothing else is planned.
    pub fn plan(&self, command: &str, fault: Fault) {
        lock(&self.state.faults).push_back((command.to_owned(), fault));
    }

    /// Forgets what was planned.
    pub fn behave(&self) {
        lock(&self.state.faults).clear();
    }

    /// Everything it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// Bytes of bodies that it sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// What it holds, for another one.
    pub fn blocks(&self) -> Arc<Blocks> {
        self.state.blocks.clone()
    }
}

impl Drop for FakeKubo {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        for connection in lock(&self.state.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(address) = self.address {
            // Wakes the one who waits for connections.
            let _ = TcpStream::connect(address);
        }
    }
}

impl Blocks {
    /// Adds a file, cut as this project does.
    ///
    /// # Panics
    /// Never: bytes in memory can be read.
    pub fn add(&self, bytes: &[u8]) -> Cid {
        let hashed = dag::ingest(&mut &*bytes, &mut |_, _| Ok(()), 1, &|_| {}).expect("memory can be read");
        let tree = dag::balanced(&hashed.leaves);
        let mut blocks = lock(&self.blocks);
        let mut chunks = bytes.chunks(CHUNK_BYTES);
        for leaf in &hashed.leaves {
            blocks.insert(leaf.cid, Bytes::copy_from_slice(chunks.next().unwrap_or_default()));
        }
        blocks.extend(tree.nodes.iter().map(|node| (*node.cid(), node.data().clone())));
        tree.root
    }

    /// Puts a block, whatever its bytes are.
    pub fn put(&self, cid: Cid, bytes: Bytes) {
        lock(&self.blocks).insert(cid, bytes);
    }

    /// Forgets a block.
    pub fn forget(&self, cid: &Cid) {
        lock(&self.blocks).remove(cid);
    }

    /// Whether it has a block.
    pub fn has(&self, cid: &Cid) -> bool {
        lock(&self.blocks).contains_key(cid)
    }

    /// How many blocks it has.
    pub fn count(&self) -> usize {
        lock(&self.blocks).len()
    }

    /// What is pinned, and how it is called.
    pub fn pins(&self) -> BTreeMap<Cid, String> {
        lock(&self.pins).clone()
    }

    /// Pins, as somebody else does.
    pub fn pin(&self, cid: Cid, name: &str) {
        lock(&self.pins).insert(cid, name.to_owned());
    }

    /// The bytes of a block, whatever they are.
    pub fn get(&self, cid: &Cid) -> Option<Bytes> {
        lock(&self.blocks).get(cid).cloned()
    }
}

/// What a command comes to: a body, or a status and a message.
type Done = Result<Body, (u16, String)>;

struct Body {
    bytes: Vec<u8>,
    is_stream: bool,
}

fn json(text: String) -> Done {
    Ok(Body { bytes: (text + "\n").into_bytes(), is_stream: false })
}

fn absent(cid: &Cid) -> (u16, String) {
    (500, format!("block was not found locally (offline): ipld: could not find {cid}"))
}

impl State {
    fn new(blocks: Arc<Blocks>, peers: Vec<Arc<Blocks>>) -> Arc<Self> {
        Arc::new(Self {
            blocks,
            peers,
            faults: Mutex::default(),
            asked: Mutex::default(),
            connections: Mutex::default(),
            sent: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    fn serve<S: Stream>(&self, input: S, mut output: S) {
        let mut input = BufReader::new(input);
        while let Ok(Some(asked)) = request(&mut input) {
            lock(&self.asked).push(asked.clone());
            let mut faults = lock(&self.faults);
            let planned = faults.iter().position(|(command, _)| *command == asked.command);
            let fault = planned.and_then(|index| faults.remove(index)).map(|(_, fault)| fault);
            drop(faults);
            if asked.headers.contains_key("expect") {
                let _ = output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let limit = match fault {
                Some(Fault::HangUpAfter(limit) | Fault::ChokeAfter(limit)) => limit,
                _ => usize::MAX,
            };
            let body = body(&mut input, &asked, limit);
            if matches!(fault, Some(Fault::ChokeAfter(_))) {
                std::thread::sleep(STALL);
            }
            let Ok(body) = body else {
                output.end();
                return;
            };
            let is_over = self.answer(&mut output, &asked, &body, fault).is_err();
            if is_over {
                output.end();
                return;
            }
        }
    }

    fn answer<S: Stream>(&self, output: &mut S, asked: &Asked, body: &[u8], fault: Option<Fault>) -> io::Result<()> {
        match &fault {
            Some(Fault::Stall) => std::thread::sleep(STALL),
            Some(Fault::Raw(bytes)) => {
                output.write_all(bytes)?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        let done = match self.carry_out(asked, body) {
            Ok(done) => done,
            Err((status, message)) => {
                let text = serde_json::json!({ "Message": message, "Code": 0, "Type": "error" }).to_string();
                let head = format!(
                    "HTTP/1.1 {status} Error\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                return output.write_all(head.as_bytes());
            }
        };
        let announced = match &fault {
            Some(Fault::Announce(length)) => *length,
            _ => done.bytes.len() as u64,
        };
        let mut head = "HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n".to_owned();
        head += match done.is_stream {
            true => "Content-Type: text/plain\r\nX-Stream-Output: 1\r\n",
            false => "Content-Type: application/json\r\nX-Chunked-Output: 1\r\n",
        };
        if done.is_stream {
            head += &format!("X-Content-Length: {announced}\r\n");
        }
        output.write_all((head + "\r\n").as_bytes())?;
        let end = match &fault {
            Some(Fault::StallAfter(end) | Fault::DieAfter(end) | Fault::EndAfter(end) | Fault::GiveUpAfter(end)) => {
                (*end).min(done.bytes.len())
            }
            _ => done.bytes.len(),
        };
        for chunk in done.bytes[..end].chunks(32 << 10) {
            write!(output, "{:x}\r\n", chunk.len())?;
            output.write_all(chunk)?;
            output.write_all(b"\r\n")?;
            self.sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::StallAfter(_)) => std::thread::sleep(STALL),
            Some(Fault::DieAfter(_)) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Fault::GiveUpAfter(_)) => {
                return output.write_all(b"0\r\nX-Stream-Error: the disk is on fire\r\n\r\n");
            }
            Some(Fault::Endless) => loop {
                output.write_all(b"10\r\n{\"a\":\"aaaaaaaa\"}\r\n")?;
            },
            _ => {}
        }
        output.write_all(b"0\r\n\r\n")
    }

    fn carry_out(&self, asked: &Asked, body: &[u8]) -> Done {
        let bad = |what: &str| (400, format!("argument {what} is missing or malformed"));
        let cid = || -> Result<Cid, (u16, String)> {
            let text = asked.argument("arg").ok_or_else(|| bad("arg"))?;
            text.trim_start_matches("/ipfs/").parse().map_err(|_| bad("arg"))
        };
        let number = |name: &str| asked.argument(name).map(|text| text.parse::<usize>().map_err(|_| bad(name)));
        let is_offline = asked.argument("offline") == Some("true");
        match asked.command.as_str() {
            "id" => json(format!(
                r#"{{"ID":"{PEER}","Addresses":["/ip4/127.0.0.1/tcp/1/p2p/{PEER}"],"AgentVersion":"kubo/fake"}}"#
            )),
            "version" => json(r#"{"Version":"0.0.0","Commit":"","Repo":"18"}"#.to_owned()),
            "swarm/peers" => json(format!(
                r#"{{"Peers":[{{"Addr":"/ip4/127.0.0.1/tcp/2","Peer":"{PEER}","Identify":{{"AgentVersion":"other"}}}}]}}"#
            )),
            "bitswap/ledger" => json(r#"{"Sent":7,"Recv":9}"#.to_owned()),
            "swarm/connect" => json(r#"{"Strings":["connect success"]}"#.to_owned()),
            "add" => {
                let bytes = part(body).ok_or_else(|| bad("file"))?;
                let cid = self.blocks.add(bytes);
                json(format!(r#"{{"Name":"file","Hash":"{cid}","Size":"{}"}}"#, bytes.len()))
            }
            "block/put" => {
                let block = Block::dag_pb(Bytes::copy_from_slice(part(body).ok_or_else(|| bad("file"))?));
                self.blocks.put(*block.cid(), block.data().clone());
                json(format!(r#"{{"Key":"{}","Size":{}}}"#, block.cid(), block.data().len()))
            }
            "block/stat" => {
                let cid = cid()?;
                let bytes = self.block(&cid, is_offline)?;
                json(format!(r#"{{"Key":"{cid}","Size":{}}}"#, bytes.len()))
            }
            "block/get" => Ok(Body { bytes: self.block(&cid()?, is_offline)?.to_vec(), is_stream: true }),
            "cat" => {
                let whole = self.file(&cid()?, is_offline)?;
                let start = number("offset").transpose()?.unwrap_or(0).min(whole.len());
                let length = number("length").transpose()?.unwrap_or(usize::MAX);
                let end = start.saturating_add(length).min(whole.len());
                Ok(Body { bytes: whole[start..end].to_vec(), is_stream: true })
            }
            "pin/add" => {
                let name = asked.argument("name").unwrap_or_default();
                for (_, text) in asked.arguments.iter().filter(|(key, _)| key == "arg") {
                    let cid: Cid = text.parse().map_err(|_| bad("arg"))?;
                    self.walk(&cid, is_offline)?;
                    lock(&self.blocks.pins).insert(cid, name.to_owned());
                }
                json("{\"Progress\":1}\n{\"Pins\":[]}".to_owned())
            }
            "pin/ls" => {
                let cid = cid()?;
                match lock(&self.blocks.pins).get(&cid) {
                    Some(name) => json(
                        serde_json::json!({ "Keys": { cid.to_string(): { "Type": "recursive", "Name": name } } })
                            .to_string(),
                    ),
                    None => Err((500, format!("path '{cid}' is not pinned"))),
                }
            }
            "pin/rm" => match lock(&self.blocks.pins).remove(&cid()?) {
                Some(_) => json(r#"{"Pins":[]}"#.to_owned()),
                None => Err((500, "not pinned or pinned indirectly".to_owned())),
            },
            other => Err((404, format!("{other} is no command"))),
        }
    }

    fn block(&self, cid: &Cid, is_offline: bool) -> Result<Bytes, (u16, String)> {
        if let Some(bytes) = self.blocks.get(cid) {
            return Ok(bytes);
        }
        let peers = if is_offline { &[][..] } else { &self.peers[..] };
        let found = peers.iter().find_map(|peer| peer.get(cid)).ok_or_else(|| absent(cid))?;
        self.blocks.put(*cid, found.clone());
        Ok(found)
    }

    fn file(&self, cid: &Cid, is_offline: bool) -> Result<Vec<u8>, (u16, String)> {
        let (mut bytes, mut stack) = (Vec::new(), vec![(*cid, At::root(None))]);
        while let Some((cid, at)) = stack.pop() {
            let data = self.block(&cid, is_offline)?;
            if cid.codec() == CODEC_RAW {
                // Unchecked, so that a test can falsify it.
                bytes.extend_from_slice(&data);
                continue;
            }
            let wrong = |_| (500, "this dag node is not a regular file".to_owned());
            let block = Block::verify(cid, data).map_err(|_| (500, "malformed".to_owned()))?;
            let mut children = Vec::new();
            for part in dag::expand(&block, &at).map_err(wrong)? {
                match part {
                    Part::Data { bytes: data, .. } => bytes.extend_from_slice(&data),
                    Part::Child { cid, offset, size, depth } => children.push((cid, At { offset, size, depth })),
                }
            }
            stack.extend(children.into_iter().rev());
        }
        Ok(bytes)
    }

    /// Visits every block under `cid`.
    fn walk(&self, cid: &Cid, is_offline: bool) -> Result<(), (u16, String)> {
        let mut stack = vec![*cid];
        while let Some(cid) = stack.pop() {
            let data = self.block(&cid, is_offline)?;
            let block = Block::verify(cid, data).map_err(|_| (500, "malformed".to_owned()))?;
            stack.extend(dag::links(&block).map_err(|error| (500, error.to_string()))?);
        }
        Ok(())
    }
}
