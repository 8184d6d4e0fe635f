//! The verb that answers the clients of registries.
//!
//! Imports the registry and the node. It enters a network only when a client asks for what is not here.

use std::{io::Read as _, path::Path, sync::Arc};

use shipfs_node::{config::Network, node::Node};

use super::{Failure, FailureKind, Registry, explain::explain, local::LocalBlobs, online::Serving};
use crate::{
    blobs::{Blobs, embedded::EmbeddedBlobs},
    bring::blocking,
    event::{Event, EventSink},
    registry::{self, Options, Parts, RegistryError, Token},
};

/// Longest file that is read for a token.
const MAX_TOKEN_BYTES: u64 = 4096;
/// Where in the repository uploads lie, in files without names.
const UPLOADS: &str = "uploads";

/// Listens, and says where.
pub(super) async fn start(
    node: &Node,
    network: &Network,
    serving: &Serving,
    asked: Registry,
    events: &dyn EventSink,
) -> Result<registry::Registry, Failure> {
    let Registry { listen, read_timeout, read_retries, token_file } = asked;
    let token = match token_file {
        Some(path) => Some(blocking(move || token(&path)).await?),
        None => None,
    };
    let asks = *network != Network::Offline;
    let (for_storage, announcing) = (node.clone(), serving.clone());
    let storage = move || -> Box<dyn Blobs> {
        let embedded = EmbeddedBlobs::new(for_storage.clone());
        if asks { Box::new(embedded) } else { Box::new(LocalBlobs(embedded)) }
    };
    let parts = Parts {
        node: node.clone(),
        asks,
        storage: Arc::new(storage),
        published: Arc::new(move |images| announcing.announce(images)),
        uploads: node.config().repository.join(UPLOADS),
    };
    let has_token = token.is_some();
    let options = Options { listen, wait: read_timeout, retries: read_retries, token };
    let registry = registry::Registry::start(options, parts).await.map_err(|error| failed(&error))?;
    for address in registry.addresses() {
        events.emit(Event::Note(format!("registry: serving on {address}")));
    }
    if registry.is_open() && !has_token {
        let text = "others can reach the registry: they may pull all that is here, and nobody may push (--token-file)";
        events.emit(Event::Warning(text.to_owned()));
    }
    Ok(registry)
}

fn failed(error: &RegistryError) -> Failure {
    match error {
        RegistryError::Listen { .. } => Failure::from_error(FailureKind::Network, error)
            .hint("--listen-registry names another address; port 0 takes any that is free"),
        _ => explain(error),
    }
}

/// Reads the token that pushing needs.
fn token(path: &Path) -> Result<Token, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text));
    read.map_err(|error| {
        let what = format!("cannot read the token from `{}`", path.display());
        Failure::from_error(FailureKind::Usage, &error).while_doing(&what)
    })?;
    Token::new(&text).ok_or_else(|| {
        let message = format!("the token in `{}` is too short, at least 16 letters are expected", path.display());
        Failure::new(FailureKind::Usage, message).hint("`head -c 24 /dev/urandom | base64` makes one")
    })
}
