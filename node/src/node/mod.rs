//! The node: everything wired together behind one handle.
//!
//! [`Node::start`] opens the repository and nothing else; the network is entered when a peer is first needed, or by
//! [`Node::join`]. Network tasks run on a runtime of the node's own with one worker (a second one costs more than it
//! gives), hashing and disk work on blocking threads beside it. Dropping the last handle stops everything.

mod read;
mod remember;
mod threads;

pub use read::Prefix;

use self::threads::Threads;
use crate::add::{self, AddError, Added, Content};
use crate::block::Cid;
use crate::config::{Config, Network, NetworkConfig};
use crate::exchange::bitswap::Exchange;
use crate::fetch::{Expected, FetchError, FileFetch, GoOnline};
use crate::net::identity::{self, IdentityError};
use crate::net::{Net, NetError, PeerInfo};
use crate::pin::{GcError, GcReport, Lease};
use crate::provide::Provider;
use crate::store::{Blockstore as _, FileInfo, OpenError, Store, StoreError, StoreOptions};
use crate::trace::Trace;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Threads for hashing and disk work at once. Each fetch of a file holds one while it runs.
const BLOCKING_THREADS: usize = 64;
/// Files that are fetched or taken in at once. The other threads are for what these wait for: hashing blocks, reading
/// what is served.
const FILES_AT_ONCE: usize = BLOCKING_THREADS / 2;
/// How long shutdown waits for tasks that were told to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The threads of the network runtime cannot be started.
    #[error("cannot start the node's threads")]
    Threads(#[source] std::io::Error),
}

struct Online {
    net: Net,
    exchange: Exchange,
    provider: Provider,
}

/// A file that is being fetched; the lock is held by whoever fetches it.
struct Flight {
    turn: Arc<tokio::sync::Mutex<()>>,
    progress: watch::Sender<u64>,
    /// Bytes from the start that lie in the partial file without a gap.
    prefix: watch::Sender<u64>,
}

struct Inner {
    // First, so that it ends before what its tasks use.
    runtime: Threads,
    config: Config,
    store: Store,
    identity: OnceLock<Keypair>,
    online: tokio::sync::Mutex<Option<Online>>,
    exchange: OnceLock<Exchange>,
    flights: Mutex<HashMap<Cid, Weak<Flight>>>,
    files: Semaphore,
    tasks: TaskTracker,
    token: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// An IPFS node. Clones share it; the second part is how patient the fetches of this handle are.
#[derive(Clone)]
pub struct Node(Arc<Inner>, Duration);

impl Node {
    /// Opens the repository. No socket is opened, whatever the configuration says of the network: that happens when a
    /// peer is first needed.
    ///
    /// # Errors
    /// [`StartError`]; [`OpenError::Held`] when another process owns the repository.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let runtime = Threads::start(BLOCKING_THREADS).map_err(StartError::Threads)?;
        let path = config.repository.clone();
        let opened = runtime.spawn_blocking(move || Store::open(&path, StoreOptions::default())).await;
        let store = match opened {
            Ok(store) => store,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let store = store?;
        let patience = config.patience;
        let inner = Inner {
            config,
            store,
            identity: OnceLock::new(),
            online: tokio::sync::Mutex::new(None),
            exchange: OnceLock::new(),
            flights: Mutex::default(),
            files: Semaphore::new(FILES_AT_ONCE),
            runtime,
            tasks: TaskTracker::new(),
            token: CancellationToken::new(),
        };
        Ok(Self(Arc::new(inner), patience))
    }

    /// A handle on the same node whose fetches wait this long without a block, whatever those of others do. Where several
    /// ask for one file at the same time, whoever began decides first, and the next goes on after that.
    pub fn patient(&self, patience: Duration) -> Self {
        Self(self.0.clone(), patience)
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The repository, for what this handle has no method for. Its calls block.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The node's key; made at the first call on a new repository.
    ///
    /// # Errors
    /// [`IdentityError`] when the key file cannot be read or written.
    pub fn identity(&self) -> Result<&Keypair, IdentityError> {
        if let Some(identity) = self.0.identity.get() {
            return Ok(identity);
        }
        let loaded = identity::load_or_create(&self.0.config.repository.join("identity"))?;
        Ok(self.0.identity.get_or_init(|| loaded))
    }

    fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// Runs blocking work on the node's threads. A panic there goes on here.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
        let store = self.0.store.clone();
        match self.runtime().spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Enters the network of the node's configuration, unless the node is part of one already, whichever that is.
    ///
    /// # Errors
    /// As [`Node::join`].
    pub async fn go_online(&self) -> Result<Net, NetError> {
        if let Some(net) = self.net().await {
            return Ok(net);
        }
        let config = self.0.config.network.clone();
        self.join(&config).await
    }

    /// Enters a network, unless the node is part of it already; then what `config` adds (addresses to listen on, peers)
    /// is added to it.
    ///
    /// # Errors
    /// [`NetError::OtherNetwork`] when it is part of another one, [`NetError::Offline`] for no network.
    pub async fn join(&self, config: &NetworkConfig) -> Result<Net, NetError> {
        let mut online = self.0.online.lock().await;
        if let Some(running) = &*online {
            let net = &running.net;
            if net.config().network != config.network {
                return Err(NetError::OtherNetwork {
                    running: net.config().network.name(),
                    asked: config.network.name(),
                });
            }
            for address in config.listen.iter().filter(|address| !net.config().listen.contains(address)) {
                net.listen(address.clone()).await?;
            }
            for peer in config.peers.iter().filter(|peer| !net.config().peers.contains(peer)) {
                net.connect(peer.clone()).await?;
            }
            return Ok(net.clone());
        }
        if config.network == Network::Offline {
            return Err(NetError::Offline);
        }
        let identity = self.identity()?.clone();
        let (store, tasks, token) = (self.0.store.clone(), self.0.tasks.clone(), self.0.token.clone());
        let (config, handle) = (config.clone(), self.runtime().handle().clone());
        // On the node's own runtime: sockets and timers belong to the one that polls them.
        let start = async move {
            let (exchange, signals) =
                Exchange::new(Arc::new(store), handle, tasks.clone(), token.clone(), &config.limits);
            let net = Net::start(&config, &identity, exchange.clone(), signals, &tasks, token.clone()).await?;
            let (provider, announcing) = Provider::new(net.clone());
            tasks.spawn(async move {
                token.run_until_cancelled(announcing).await;
            });
            Ok::<_, NetError>(Online { net, exchange, provider })
        };
        let started = self.runtime().spawn(start).await.map_err(|_| NetError::Closed)??;
        let net = started.net.clone();
        let _ = self.0.exchange.set(started.exchange.clone());
        self.revisit(&net).await;
        *online = Some(started);
        Ok(net)
    }

    /// Lets other peers fetch what the repository holds, or no longer.
    ///
    /// # Errors
    /// As [`Node::go_online`]: serving needs a network.
    pub async fn serve(&self, serving: bool) -> Result<(), NetError> {
        self.go_online().await?;
        if let Some(exchange) = self.0.exchange.get() {
            exchange.set_serving(serving);
        }
        Ok(())
    }

    /// Whether other peers are served.
    pub fn is_serving(&self) -> bool {
        self.0.exchange.get().is_some_and(Exchange::is_serving)
    }

    /// Takes a file in. It is durable after [`Node::commit`], and safe from garbage collection while `lease` lives.
    ///
    /// Dropping the future stops the work; nothing is kept then.
    ///
    /// # Errors
    /// [`AddError`]; content that is not what `expected` says leaves no trace.
    pub async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        lease: &Lease,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Added, AddError> {
        let (sender, receiver) = watch::channel(0);
        let _place = self.0.files.acquire().await;
        let (stop, guard) = self.stop();
        let work = self.blocking(move |store| {
            add::add(store, content, expected, &stop, &|done| sender.send_modify(|seen| *seen = done))
        });
        let added = following(work, receiver, progress).await?;
        drop(guard);
        lease.hold(&added.cid);
        if let Some(exchange) = self.0.exchange.get() {
            exchange.announce_stored(&added.cid);
        }
        Ok(added)
    }

    /// Makes everything that was added or fetched so far durable.
    ///
    /// # Errors
    /// [`StoreError`] when the disk fails; what was durable before stays so.
    pub async fn commit(&self) -> Result<(), StoreError> {
        self.blocking(|store| store.commit()).await
    }

    /// Makes a file local: from the repository, else from peers.
    ///
    /// With `expected`, its digest and size are checked; without, it may be `limit` bytes long. However many ask for
    /// one CID at the same time, it is fetched once. Dropping the future stops the fetch unless others wait for it;
    /// what has arrived is kept and not asked for again.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(
        &self,
        cid: &Cid,
        expected: Option<Expected>,
        limit: u64,
        lease: &Lease,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<FileInfo, FetchError> {
        lease.hold(cid);
        let (wanted, flight) = (*cid, self.flight(cid));
        let mut watching = flight.progress.subscribe();
        let mut taking = std::pin::pin!(flight.turn.clone().lock_owned());
        let turn = loop {
            tokio::select! {
                turn = &mut taking => break turn,
                Ok(()) = watching.changed() => progress(*watching.borrow_and_update()),
            }
        };
        let _place = self.0.files.acquire().await;
        let (stop, guard) = self.stop();
        let (node, cid, reporting, growing) = (self.clone(), *cid, flight.progress.clone(), flight.prefix.clone());
        let work = self.blocking(move |store| {
            // A caller that goes away leaves this running until it sees that it was stopped; the next may only begin then.
            let _in_turn = (turn, flight);
            let fetch = FileFetch {
                store,
                online: &node,
                runtime: node.runtime().handle().clone(),
                patience: node.1,
                stop,
                cid,
                expected,
                limit,
                progress: &|done| reporting.send_modify(|seen| *seen = done),
                prefix: &|done| {
                    growing.send_if_modified(|seen| std::mem::replace(seen, done) != done);
                },
            };
            let fetched = fetch.run();
            // Whoever reads the beginning of this file next is told by the next fetch how much there is.
            growing.send_replace(0);
            fetched
        });
        let fetched = following(work, watching, progress).await;
        drop(guard);
        if let (Err(error), Some(trace)) = (&fetched, self.trace()) {
            trace.failed(&wanted, error);
        }
        fetched
    }

    fn flight(&self, cid: &Cid) -> Arc<Flight> {
        let mut flights = self.0.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(cid).and_then(Weak::upgrade) {
            return flight;
        }
        let (progress, prefix) = (watch::Sender::new(0), watch::Sender::new(0));
        let flight = Arc::new(Flight { turn: Arc::default(), progress, prefix });
        flights.insert(*cid, Arc::downgrade(&flight));
        flight
    }

    /// A token that stops work, and a guard that pulls it when its owner goes away.
    fn stop(&self) -> (CancellationToken, DropGuard) {
        let token = self.0.token.child_token();
        (token.clone(), token.drop_guard())
    }

    /// Whether the block is in the repository.
    pub async fn has(&self, cid: &Cid) -> bool {
        let cid = *cid;
        self.blocking(move |store| store.size(&cid).ok().flatten().is_some()).await
    }

    /// Keeps the whole DAG under `cid`, which must be here, until [`Node::unpin`]. Durable on return.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pin(&self, cid: &Cid, name: &str) -> Result<(), StoreError> {
        let (cid, name) = (*cid, name.to_owned());
        self.blocking(move |store| store.pin(&cid, &name)).await
    }

    /// Takes a pin back. Durable on return; `false` when there was none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpin(&self, cid: &Cid) -> Result<bool, StoreError> {
        let cid = *cid;
        self.blocking(move |store| store.unpin(&cid)).await
    }

    /// Protects what is held by it from garbage collection while it lives.
    pub fn lease(&self) -> Lease {
        self.0.store.lease()
    }

    /// Frees what no pin, keep or lease needs.
    ///
    /// # Errors
    /// [`GcError`]; it refuses to run when something that is kept does not resolve.
    pub async fn gc(&self) -> Result<GcReport, GcError> {
        self.blocking(|store| store.gc()).await
    }

    /// Announces that this node has something, and goes on announcing it to newcomers. Returns as soon as it is queued.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn provide(&self, cid: &Cid) -> Result<(), NetError> {
        self.go_online().await?;
        let provider = self.0.online.lock().await.as_ref().map(|online| online.provider.clone());
        provider.ok_or(NetError::Closed)?.announce(*cid).await
    }

    /// Peers that announced a block.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn find_providers(&self, cid: &Cid) -> Result<Vec<PeerId>, NetError> {
        self.go_online().await?.find_providers(*cid).await
    }

    /// Connects to a peer.
    ///
    /// # Errors
    /// [`NetError::Dial`] when it does not answer or may not be dialled.
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, NetError> {
        self.go_online().await?.connect(address).await
    }

    /// Connected peers; none while the network was not entered.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let net = self.0.online.lock().await.as_ref().map(|online| online.net.clone());
        match net {
            Some(net) => net.peers().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// What became of the last fetches from peers; `None` while the network was not entered.
    pub fn trace(&self) -> Option<&Trace> {
        self.0.exchange.get().map(Exchange::trace)
    }

    /// The network, if the node is part of one.
    pub async fn net(&self) -> Option<Net> {
        self.0.online.lock().await.as_ref().map(|online| online.net.clone())
    }

    /// Leaves the network, waits for what was told to stop, and makes everything durable.
    ///
    /// # Errors
    /// [`StoreError`] when the last commit fails.
    pub async fn shutdown(self) -> Result<(), StoreError> {
        self.remember().await;
        self.0.token.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.0.tasks.len(), "some tasks did not stop in time");
        }
        self.0.online.lock().await.take();
        self.commit().await
    }
}

impl GoOnline for Node {
    fn exchange(&self) -> Result<Exchange, NetError> {
        if let Some(exchange) = self.0.exchange.get() {
            return Ok(exchange.clone());
        }
        self.runtime().handle().block_on(self.go_online())?;
        self.0.exchange.get().cloned().ok_or(NetError::Closed)
    }
}

/// Waits for work and reports its progress meanwhile.
async fn following<T>(
    work: impl Future<Output = T>,
    mut watching: watch::Receiver<u64>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                progress(*watching.borrow_and_update());
                return done;
            }
            Ok(()) = watching.changed() => progress(*watching.borrow_and_update()),
        }
    }
}
