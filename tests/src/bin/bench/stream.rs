//! The halves that run in processes of their own: yardsticks, and the library without its store.

use super::{say, yardstick};
use bytes::Bytes;
use shipfs_node::Cid;
use shipfs_node::block::{Block, CODEC_RAW, cid_of};
use shipfs_node::config::{Config, Limits, NetworkConfig, Security};
use shipfs_node::dag;
use shipfs_node::exchange::bitswap::Exchange;
use shipfs_node::net::Net;
use shipfs_node::node::Node;
use shipfs_node::store::{Blockstore, StoreError};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a block may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blocks wanted at once: as a fetch does.
const WANTED: usize = 32;
/// Blocks asked for one at a time, for latency.
const SINGLES: usize = 200;

/// Runs one half.
pub(crate) fn child(arguments: &[&str]) {
    match arguments {
        ["tcp-serve", file] => yardstick::serve(Path::new(file)),
        ["tcp-fetch", address, "drop", _] => yardstick::receive_and_drop(address),
        ["tcp-fetch", address, "write", target] => yardstick::receive_and_write(address, Path::new(target)),
        ["hash", file] => yardstick::one_pass(Path::new(file)),
        ["index", file] => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let leaves = dag::hash_leaves(&File::open(file).expect("the file is there"), threads).expect("it is read");
            say(&dag::balanced(&leaves).root.to_string());
        }
        ["bitswap-serve", file] => serve(Path::new(file)),
        ["bitswap-fetch", security, address, file] => {
            let security = if *security == "noise" { Security::Noise } else { Security::Tls };
            say(&fetch(security, address, Path::new(file)).as_secs_f64().to_string());
        }
        ["bitswap-latency", address, file] => latency(address, Path::new(file)),
        ["noise-pull", address, cid, repository] => pull(address, cid, Path::new(repository)),
        other => panic!("no child `{other:?}`"),
    }
}

/// Chunks of a file, by CID: what a store is to the exchange.
struct Chunks {
    file: File,
    places: HashMap<Cid, (u64, usize)>,
}

impl Chunks {
    fn of(path: &Path) -> (Self, Vec<Cid>) {
        let file = File::open(path).expect("the file is there");
        let size = file.metadata().expect("it has a size").len();
        let (mut places, mut order, mut offset) = (HashMap::new(), Vec::new(), 0);
        while offset < size {
            let length = (size - offset).min(dag::CHUNK_BYTES as u64) as usize;
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, offset).expect("it can be read");
            let cid = cid_of(CODEC_RAW, &piece);
            places.insert(cid, (offset, length));
            order.push(cid);
            offset += length as u64;
        }
        (Self { file, places }, order)
    }
}

impl Blockstore for Chunks {
    fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        Ok(self.places.get(cid).map(|(offset, length)| {
            let mut piece = vec![0; *length];
            self.file.read_exact_at(&mut piece, *offset).expect("it can be read");
            piece.into()
        }))
    }
    fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        Ok(self.places.get(cid).map(|(_, length)| *length as u64))
    }
    fn put(&self, _: &Block) -> Result<(), StoreError> {
        Ok(())
    }
}

async fn network(store: Chunks, listen: bool, security: Security) -> (Net, Exchange) {
    let identity = shipfs_node::net::identity::generate();
    let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
    let handle = tokio::runtime::Handle::current();
    let (exchange, signals) = Exchange::new(Arc::new(store), handle, tasks.clone(), token.clone(), &Limits::default());
    let listen = listen.then(|| "/ip4/127.0.0.1/tcp/0".parse().expect("an address")).into_iter().collect();
    let config = NetworkConfig { listen, mdns: false, security, ..NetworkConfig::lan() };
    let net = Net::start(&config, &identity, exchange.clone(), signals, &tasks, token).await.expect("it starts");
    (net, exchange)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn serve(file: &Path) {
    let (chunks, _) = Chunks::of(file);
    let runtime = runtime();
    let (_net, _exchange) = runtime.block_on(async {
        let (net, exchange) = network(chunks, true, Security::Any).await;
        exchange.set_serving(true);
        let address = net.listeners().await.expect("it listens").remove(0);
        say(&format!("{address}/p2p/{}", net.peer()));
        (net, exchange)
    });
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

fn connected(
    runtime: &tokio::runtime::Runtime,
    security: Security,
    address: &str,
    file: &Path,
) -> (Net, Exchange, Vec<Cid>) {
    let (mut nothing, order) = Chunks::of(file);
    nothing.places.clear();
    let (net, exchange) = runtime.block_on(async {
        let (net, exchange) = network(nothing, false, security).await;
        net.connect(address.parse().expect("an address")).await.expect("it connects");
        (net, exchange)
    });
    (net, exchange, order)
}

/// Fetches every chunk, checked and dropped; the time from the first want to the last block.
fn fetch(security: Security, address: &str, file: &Path) -> Duration {
    let runtime = runtime();
    let (_net, exchange, order) = connected(&runtime, security, address, file);
    let mut session = exchange.session();
    let (start, mut next, mut wanted) = (Instant::now(), order.into_iter(), 0);
    loop {
        let batch: Vec<_> = next.by_ref().take(WANTED - wanted).collect();
        wanted += batch.len();
        if wanted == 0 {
            return start.elapsed();
        }
        session.want(batch);
        runtime.block_on(session.next(PATIENCE)).expect("a block arrives");
        wanted -= 1;
    }
}

/// Fetches a file into a store over Noise, durably: a pull, as far as the node goes.
fn pull(address: &str, cid: &str, repository: &Path) {
    let peers = vec![address.parse().expect("an address")];
    let network = NetworkConfig { peers, mdns: false, security: Security::Noise, ..NetworkConfig::lan() };
    let config = Config { network, ..Config::offline(repository) };
    runtime().block_on(async {
        let node = Node::start(config).await.expect("it starts");
        let cid = cid.parse().expect("a CID");
        node.get(&cid, None, u64::MAX, &node.lease(), &|_| {}).await.expect("it arrives");
        node.shutdown().await.expect("it is durable");
    });
}

/// Fetches chunks one after the other.
fn latency(address: &str, file: &Path) {
    let runtime = runtime();
    let (_net, exchange, order) = connected(&runtime, Security::Any, address, file);
    let mut session = exchange.session();
    let mut times = Vec::new();
    for cid in order.into_iter().take(SINGLES) {
        let start = Instant::now();
        session.want([cid]);
        runtime.block_on(session.next(PATIENCE)).expect("a block arrives");
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[times.len() * part / 100];
    say(&format!("first {first:.2} ms, median {:.2} ms, 99 % {:.2} ms", at(50), at(99)));
}
