//! A registry in front of the store: any client of the distribution protocol pulls by CID or by name, and pushes.
//!
//! Reading order: `route` (what a path means), `range` (which part), `error` (what is told when it fails), `guard`
//! (who may), `answer` (what is sent), `image` (from a digest to what it names), `blob` (its bytes, from the first
//! block on), `repository` and `list` (images by name), `upload` and `publish` (how they come in), `handle` (one
//! request), `listen` (connections).
//!
//! `/v2/ipfs/CID/…` is the image with this root in either shape, whoever has it; `/v2/NAME/…` is what the store has under
//! this name. What is pushed becomes a layout root, so that every byte stays as it was sent. Imports the node, the storage
//! seam and the words for images; nothing here knows of the command, of sockets to other processes, or of configuration.

mod answer;
mod blob;
mod error;
mod guard;
mod handle;
mod image;
mod list;
mod listen;
mod publish;
mod range;
mod repository;
mod route;
#[cfg(test)]
mod tests;
mod upload;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use shipfs_node::node::Node;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::task::TaskTracker;

pub use self::guard::Token;
use self::{
    blob::{Deadlines, Fetches},
    guard::Guard,
    handle::Handler,
    image::Images,
    repository::Repositories,
    upload::Uploads,
};
use crate::{blobs::Blobs, event::Event, names};

/// Where it listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "localhost:5050";
/// Most retries that are taken for meant.
const MAX_RETRIES: u32 = 100;
/// What is said of images and not yet shown.
const MAX_EVENTS: usize = 256;

/// How a registry is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host and port to listen on; a host that is not loopback opens it to others.
    pub listen: String,
    /// How long to wait while nothing arrives from peers; the node's patience when absent.
    pub wait: Option<Duration>,
    /// How often a read that failed for want of an answer is tried again.
    pub retries: u32,
    /// Without it, nothing is pushed from anywhere but this host.
    pub token: Option<Token>,
}

/// What a registry works with.
pub struct Parts {
    /// The node that has, or fetches, the blobs.
    pub node: Node,
    /// Whether peers may be asked for what is not here.
    pub asks: bool,
    /// Makes the seam to storage for one piece of work.
    pub storage: Arc<dyn Fn() -> Box<dyn Blobs> + Send + Sync>,
    /// Told of images that are new, or have a new root; must not block.
    pub published: Arc<dyn Fn(Vec<names::Image>) + Send + Sync>,
    /// Folder for what is being uploaded, on the disk of the repository.
    pub uploads: PathBuf,
}

/// A registry that listens.
pub struct Registry {
    listeners: Vec<TcpListener>,
    handler: Arc<Handler>,
    events: mpsc::Receiver<Event>,
}

impl Registry {
    /// Listens. Nobody is answered before [`Registry::run`].
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn start(options: Options, parts: Parts) -> Result<Self, RegistryError> {
        let Parts { node, asks, storage, published, uploads } = parts;
        let listeners = listen::bind(&options.listen).await?;
        listen::raise_file_limit();
        let addresses = addresses(&listeners);
        let host = options.listen.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
        let guard = Guard {
            is_loopback: addresses.iter().all(|address| address.ip().is_loopback()),
            host,
            token: options.token,
        };
        let wait = options.wait.unwrap_or(node.config().patience);
        let deadlines = Deadlines { wait, retries: options.retries.min(MAX_RETRIES) };
        let folder = uploads.clone();
        let made = crate::bring::blocking(move || Uploads::new(folder)).await;
        let uploads = made.map_err(|source| RegistryError::Uploads { folder: uploads, source })?;
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let handler = Handler {
            guard,
            fetches: Arc::new(Fetches::new(node.clone(), asks, deadlines, TaskTracker::new())),
            repositories: Repositories::new(storage.clone(), Images::new(node, storage, deadlines)),
            uploads,
            published,
            events: sender,
        };
        Ok(Self { listeners, handler: Arc::new(handler), events })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.listeners)
    }

    /// Whether anybody but this host can reach it.
    pub fn is_open(&self) -> bool {
        !self.handler.guard.is_loopback
    }

    /// Answers until it is dropped; then every connection ends.
    pub async fn run(self, events: &dyn crate::event::EventSink) {
        let Self { listeners, handler, events: mut told } = self;
        let telling = async {
            while let Some(event) = told.recv().await {
                events.emit(event);
            }
        };
        tokio::join!(listen::serve(listeners, handler), telling);
    }
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The address cannot be listened on.
    #[error("the registry cannot listen on `{}`", .address.escape_debug())]
    Listen {
        /// What was asked for.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no place for what is uploaded.
    #[error("cannot make the folder `{}` for uploads", .folder.display())]
    Uploads {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
