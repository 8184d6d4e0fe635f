//! The holder: a node, and the verbs it carries out for this process and for others.
//!
//! Imports the node and the verbs beside it. It enters a network only for verbs that need peers, and serves only while
//! somebody asked for that.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::future::BoxFuture;
use shipfs_node::{
    config::{Config, DEFAULT_PATIENCE, Network, NetworkConfig},
    net::Net,
    node::{Node, StartError},
    store::OpenError,
};

use super::{
    Collected, Failure, FailureKind, Holder, Identity, Options, Order, Reply, Repository, Request, Role, doctor,
    explain::explain,
    images::Images,
    inspect::inspect,
    local::LocalBlobs,
    network::chosen,
    online::{self, Serving},
    verify::verify,
    why::why,
};
use crate::{
    blobs::{Blobs, embedded::EmbeddedBlobs},
    event::{Event, EventSink},
    names,
    reference::Reference,
};

/// A repository on disk, with the options of the command that wants to hold it.
#[derive(Clone, Debug)]
pub struct NodeRepository {
    /// Where it lies; absolute.
    pub directory: PathBuf,
    /// What the command was told.
    pub options: Options,
}

#[async_trait]
impl Repository for NodeRepository {
    type Holder = Host;

    fn directory(&self) -> &Path {
        &self.directory
    }

    async fn open(&self, role: Role) -> Result<Option<Host>, Failure> {
        let options = self.options.settled();
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
            Ok(node) => Ok(Some(Host { serving: Serving::new(node.clone(), role), node, role })),
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
        Ok(Reply::Collected(Collected { files: report.files, blocks: report.blocks, bytes: report.bytes }))
    }

    async fn about_images(&self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure> {
        let Order { request, options, stream } = order;
        let network = match request {
            Request::Pull(_) => self.network(self.node.net().await, &options, events)?,
            _ => NetworkConfig::offline(),
        };
        let asks = network.network != Network::Offline;
        let patience = options.settled().patience.unwrap_or(self.node.config().patience);
        let embedded = EmbeddedBlobs::new(self.node.patient(patience));
        let blobs: Box<dyn Blobs> = if asks {
            online::enter(&self.node, &network).await?;
            Box::new(embedded)
        } else {
            Box::new(LocalBlobs(embedded))
        };
        let images = Images { blobs: &*blobs, spool: &self.node.config().repository, stream, events };
        match request {
            Request::Push(push) => {
                let (reply, image) = images.push(push).await?;
                self.serving.announce(vec![image]);
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
            Request::Save { image, to, platforms } => images.save(image, to, platforms).await,
            Request::Images => images.list().await,
            Request::Tag { image, name } => images.tag(image, &name).await,
            Request::Remove { images: references } => images.remove(references).await,
            Request::Inspect { image } => {
                let image = images.resolve(&image).await?;
                inspect(&*blobs, &image).await
            }
            other => Err(Failure::new(FailureKind::Other, format!("{other:?} is not about images"))),
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
        match order.request {
            Request::Gc => self.gc().await,
            Request::Verify { repair } => {
                let verifying: BoxFuture<'_, _> = Box::pin(verify(self.node.store().clone(), repair, events));
                verifying.await
            }
            Request::Serve { root } => self.serve(root, &order.options, events).await,
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
