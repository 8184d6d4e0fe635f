//! The holder: a node, and the verbs it carries out for this process and for others.
//!
//! Imports the node and the verbs beside it. It enters a network only for verbs that need peers, and serves only while
//! somebody asked for that.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use shipfs_node::{
    config::{Config, DEFAULT_PATIENCE, Network, NetworkConfig},
    net::Net,
    node::{Node, StartError},
    store::OpenError,
};
use tokio::runtime::Handle;

use super::{
    Collected, Commit, Failure, FailureKind, Holder, Identity, NetworkChoice, Options, Order, Prepare, Prepared, Pull,
    PullPolicy, Push, Reply, Repository, Request, Role, Source, commit, doctor,
    explain::explain,
    foreign,
    images::{Images, pushed},
    local::LocalBlobs,
    network::chosen,
    online::{self, Serving},
    prepare::{self, Unpacking},
    registry,
    verify::verify,
    why::why,
};
use crate::{
    blobs::{Blobs, embedded::EmbeddedBlobs},
    crypt::Change,
    event::{Event, EventSink},
    names,
    reference::Reference,
    run::{keeper::Keeper, rootless::Helper},
    source::{Aside, IntoStore},
};

/// A repository on disk, with the options of the command that wants to hold it.
#[derive(Clone, Debug)]
pub struct NodeRepository {
    /// Where it lies; absolute.
    pub directory: PathBuf,
    /// What the command was told.
    pub options: Options,
    /// What works in user namespaces; without, only root unpacks layers.
    pub helper: Option<Helper>,
}

#[async_trait]
impl Repository for NodeRepository {
    type Holder = Host;

    fn directory(&self) -> &Path {
        &self.directory
    }

    async fn open(&self, role: Role) -> Result<Option<Host>, Failure> {
        // What the daemon of somebody else's does is not for the node that other verbs may need.
        let options = if self.options.daemon.is_some() { Options::default() } else { self.options.settled() };
        let network = match chosen(&options, None, &self.directory) {
            // Its own verb asks nobody; those of other processes may.
            Ok((network, _)) if role == Role::Command && network.network == Network::Offline => NetworkConfig::lan(),
            Ok((network, _)) => network,
            // A verb that asks nobody needs no swarm key; one that does is refused when it does.
            Err(failure) if role == Role::Command && failure.kind == FailureKind::Network => NetworkConfig::offline(),
            Err(failure) => return Err(failure),
        };
        let patience = options.patience.unwrap_or(DEFAULT_PATIENCE);
        let config = Config { repository: self.directory.clone(), network, patience };
        match Node::start(config).await {
            Ok(node) => {
                let (serving, helper) = (Serving::new(node.clone(), role), self.helper.clone());
                Ok(Some(Host { serving, node, role, unpacking: Arc::default(), helper }))
            }
            Err(StartError::Open(OpenError::Held { .. })) => Ok(None),
            Err(error) => Err(explain(&error)),
        }
    }
}

/// A node that carries verbs out.
pub struct Host {
    node: Node,
    role: Role,
    serving: Serving,
    /// Held while directories of layers are made or removed.
    unpacking: Arc<tokio::sync::Mutex<()>>,
    helper: Option<Helper>,
}

impl Host {
    /// Serves all images, as a daemon does; says who and where it is then.
    ///
    /// # Errors
    /// [`Failure`] when the network cannot be entered, or an address not be listened on.
    pub async fn serve_everything(&self, options: &Options, events: &dyn EventSink) -> Result<Identity, Failure> {
        let options = &options.settled();
        let network = self.network(self.node.net().await, options, events)?;
        if network.network != Network::Offline {
            let net = self.node.join(&network).await.map_err(|error| explain(&error))?;
            events.emit(Event::Note(online::joined(&net)));
            online::listen_on_defaults(&net, options, Role::Daemon).await?;
            self.serving.begin().await?.forever();
            let blobs = EmbeddedBlobs::new(self.node.clone());
            let images = names::list(blobs.records()).await.map_err(|error| explain(&error))?;
            self.serving.announce(images);
        }
        self.identity().await
    }

    /// Listens for the clients of registries, and says where. They are answered while the result runs.
    ///
    /// # Errors
    /// [`Failure`] when it cannot listen.
    pub async fn listen_registry(
        &self,
        asked: super::Registry,
        options: &Options,
        events: &dyn EventSink,
    ) -> Result<crate::registry::Registry, Failure> {
        let network = self.network(self.node.net().await, options, events)?;
        if network.network != Network::Offline {
            online::enter(&self.node, &network).await?;
        }
        registry::start(&self.node, &network.network, &self.serving, asked, events).await
    }

    /// Answers the clients of registries until it is dropped.
    async fn answer_registry(
        &self,
        asked: super::Registry,
        options: &Options,
        events: &dyn EventSink,
    ) -> Result<Reply, Failure> {
        let registry = self.listen_registry(asked, options, events).await?;
        tokio::join!(registry.run(events), online::tell_joined(&self.node, events));
        Err(Failure::new(FailureKind::Other, "the registry ended"))
    }

    /// The network that a verb is to use, with what is to be said about it.
    fn network(
        &self,
        running: Option<Net>,
        options: &Options,
        events: &dyn EventSink,
    ) -> Result<NetworkConfig, Failure> {
        let own = &self.node.config().network;
        // A daemon's network was chosen by whoever started it; that of another command is an accident, but for as long as
        // it is joined no other can be.
        let is_joined = running.is_some();
        let default = match running {
            Some(running) => Some(running.config().clone()),
            None if self.role == Role::Daemon => Some(own.clone()),
            None => None,
        };
        // What is configured is for whoever enters a network, which was done already, or is to be done here.
        let enters = self.role == Role::Command && !is_joined;
        let settled = if enters { options.settled() } else { options.clone() };
        let (network, warning) = chosen(&settled, default.as_ref(), &self.node.config().repository)?;
        warning.into_iter().for_each(|text| events.emit(Event::Warning(text)));
        Ok(network)
    }

    async fn identity(&self) -> Result<Identity, Failure> {
        let peer = self.node.identity().map_err(|error| explain(&error))?.public().to_peer_id();
        let net = self.node.net().await;
        let addresses = match &net {
            Some(net) => online::addresses(net).await?,
            None => Vec::new(),
        };
        Ok(Identity {
            peer: peer.to_string(),
            agent: shipfs_node::net::AGENT.to_owned(),
            network: net.map(|net| net.config().network.name().to_owned()),
            addresses,
            serving: self.serving.is_on(),
        })
    }

    async fn gc(&self) -> Result<Reply, Failure> {
        let report = self.node.gc().await.map_err(|error| explain(&error))?;
        let removed = prepare::collect(&self.node, &self.keeper(), &self.unpack().await).await?;
        let bytes = report.bytes + removed.bytes;
        Ok(Reply::Collected(Collected { files: report.files, blocks: report.blocks, bytes, layers: removed.layers }))
    }

    fn keeper(&self) -> Keeper {
        Keeper::of(&self.node.config().repository, self.helper.as_ref())
    }

    async fn unpack(&self) -> Unpacking {
        Arc::new(self.unpacking.clone().lock_owned().await)
    }

    /// Makes an image ready to be run.
    async fn prepare(&self, wanted: Prepare, options: Options, events: &dyn EventSink) -> Result<Reply, Failure> {
        let Prepare { image, pull, platforms, container, keys } = wanted;
        let keeper = self.keeper();
        let is_here = match pull {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => {
                Some(prepare::is_here(&self.node, &image, &platforms, &keeper).await)
            }
        };
        match is_here {
            Some(Ok(())) => {}
            Some(Err(failure)) if pull == PullPolicy::Never => {
                return Err(failure.hint("--pull missing, the default, fetches what is not here"));
            }
            _ => {
                let (image, platforms) = (image.clone(), platforms.clone());
                let pull = Pull { image, name: None, to: None, platforms, keys: keys.clone() };
                let order = Order { request: Request::Pull(pull), options, stream: None };
                match order.options.daemon.clone() {
                    Some(daemon) => foreign::execute(&self.node, &daemon, order, events).await?,
                    None => self.about_images(order, events).await?,
                };
            }
        }
        let held = (&keeper, &self.unpack().await);
        let wanted = prepare::Wanted { reference: &image, choice: &platforms, keys: &keys };
        let prepared = prepare::prepare(&self.node, wanted, &container, held, events).await?;
        Ok(Reply::Prepared(Prepared { cid: prepared.cid, name: prepared.name }))
    }

    /// Makes an image of a container.
    async fn commit(&self, wanted: Commit, events: &dyn EventSink) -> Result<Reply, Failure> {
        let image = commit::commit(&self.node, wanted, events).await?;
        let reply = Reply::Pushed(pushed(&image));
        self.serving.announce(vec![image]);
        Ok(reply)
    }

    async fn about_images(&self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure> {
        let Order { request, options, stream } = order;
        let network = match &request {
            // What is called by a name may lie with another program, and in part elsewhere.
            Request::Pull(_)
            | Request::Push(Push { source: Source::Stored(_), .. })
            | Request::Copy { from: Source::Stored(_), .. } => self.network(self.node.net().await, &options, events)?,
            _ => NetworkConfig::offline(),
        };
        // No network is entered for those before something is missing.
        let is_pull = matches!(request, Request::Pull(_));
        let is_reachable = network.network != Network::Offline;
        let asks = is_reachable && (is_pull || online::is_own(&self.node, &network));
        let patience = options.settled().patience.unwrap_or(self.node.config().patience);
        let embedded = EmbeddedBlobs::new(self.node.patient(patience));
        let blobs: Arc<dyn Blobs> = if asks {
            if is_pull {
                online::enter(&self.node, &network).await?;
            }
            Arc::new(embedded)
        } else {
            Arc::new(LocalBlobs(embedded))
        };
        let store = IntoStore { blobs: Arc::clone(&blobs), runtime: Handle::current(), wants_layouts: false };
        let (aside, spool, services) = (Aside::Store(store), &self.node.config().repository, &options.services);
        let is_offline = options.network == Some(NetworkChoice::Offline);
        let is_private = options.private_only || matches!(network.network, Network::Private(_));
        let images =
            Images { blobs: &*blobs, also: None, aside, spool, stream, services, is_offline, is_private, events };
        match request {
            Request::Push(push) => {
                // What was not for everybody is not offered to everybody.
                let is_secret = matches!(push.change, Change::Decrypt { .. });
                let pushing: BoxFuture<'_, _> = Box::pin(images.push(push));
                let (reply, image) = pushing.await?;
                if !is_secret {
                    self.serving.announce(vec![image]);
                }
                Ok(reply)
            }
            Request::Pull(pull) => {
                let pulling: BoxFuture<'_, _> = Box::pin(images.pull(pull));
                let (reply, image) =
                    if asks { online::watched(&self.node, &options, events, pulling).await? } else { pulling.await? };
                self.serving.announce(vec![image]);
                Ok(reply)
            }
            Request::Load { from } => {
                let (reply, loaded) = images.load(from).await?;
                self.serving.announce(loaded);
                Ok(reply)
            }
            Request::Copy { from, to, platforms } => {
                let copying: BoxFuture<'_, _> = Box::pin(images.copy(from, to, &platforms));
                copying.await
            }
            other => {
                let answering: BoxFuture<'_, _> = Box::pin(images.answer(other));
                answering.await
            }
        }
    }

    /// Tells what is known about a CID, an image's root, or the file of a digest.
    async fn why(
        &self,
        image: Reference,
        again: bool,
        options: &Options,
        events: &dyn EventSink,
    ) -> Result<Reply, Failure> {
        let blobs = EmbeddedBlobs::new(self.node.clone());
        let cid = match &image {
            Reference::Cid(cid) => *cid,
            other => names::resolve(blobs.records(), other).await.map_err(|error| explain(&error))?.root,
        };
        let network = self.network(self.node.net().await, options, events)?;
        why(&self.node, &network, cid, again, options, events).await
    }

    /// Serves until it is dropped.
    async fn serve(&self, root: Reference, options: &Options, events: &dyn EventSink) -> Result<Reply, Failure> {
        let blobs = EmbeddedBlobs::new(self.node.clone());
        let image = names::resolve(blobs.records(), &root).await.map_err(|error| explain(&error))?;
        let network = self.network(self.node.net().await, options, events)?;
        let net = online::join(&self.node, &network).await?;
        online::listen_on_defaults(&net, options, self.role).await?;
        let _while_it_runs = self.serving.begin().await?;
        let root = image.root.to_string();
        self.serving.announce(vec![image]);
        online::tell_where(&net, &root, events).await?;
        std::future::pending().await
    }
}

#[async_trait]
impl Holder for Host {
    async fn execute(&self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure> {
        // Boxed: their type alone is more than the compiler can see through.
        // What is run is unpacked here, wherever it comes from.
        if let Some(daemon) = order.options.daemon.clone()
            && !matches!(order.request, Request::Prepare(_))
        {
            let working: BoxFuture<'_, _> = Box::pin(foreign::execute(&self.node, &daemon, order, events));
            return working.await;
        }
        match order.request {
            Request::Gc => self.gc().await,
            Request::Verify { repair } => {
                let verifying: BoxFuture<'_, _> = Box::pin(verify(self.node.store().clone(), repair, events));
                verifying.await
            }
            Request::Prepare(wanted) => {
                let preparing: BoxFuture<'_, _> = Box::pin(self.prepare(wanted, order.options, events));
                preparing.await
            }
            Request::Commit(wanted) => {
                let making: BoxFuture<'_, _> = Box::pin(self.commit(wanted, events));
                making.await
            }
            Request::Serve { root } => self.serve(root, &order.options, events).await,
            Request::Registry(asked) => {
                let answering: BoxFuture<'_, _> = Box::pin(self.answer_registry(asked, &order.options, events));
                answering.await
            }
            Request::Id => self.identity().await.map(Reply::Identity),
            Request::Why { image, again } => {
                let asking: BoxFuture<'_, _> = Box::pin(self.why(image, again, &order.options, events));
                asking.await
            }
            Request::Doctor => {
                let network = self.network(self.node.net().await, &order.options, events);
                let checking: BoxFuture<'_, _> =
                    Box::pin(doctor::examine(&self.node, network, &order.options, self.role, events));
                Ok(Reply::Doctor(checking.await))
            }
            Request::Peers => {
                let network = self.network(self.node.net().await, &order.options, events)?;
                online::peers(&self.node, &network, events).await
            }
            _ => {
                let working: BoxFuture<'_, _> = Box::pin(self.about_images(order, events));
                working.await
            }
        }
    }

    async fn close(&self) {
        self.serving.close().await;
        if let Err(error) = self.node.clone().shutdown().await {
            tracing::error!(%error, "the repository was not closed cleanly");
        }
    }
}
