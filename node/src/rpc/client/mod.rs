//! Has a Kubo daemon carry commands out.
//!
//! ```text
//! Kubo ── link (address file read anew, connection, credentials) ── Reply (trailer, lengths, deadlines)
//!   ├─ upload   add: a file, hashed here while it is sent            ├─ cat    bytes of a file, resumed where they broke off
//!   ├─ blocks   block/stat, block/get, block/put                     ├─ file   cat and block/get together: a file, checked
//!   ├─ pins     pin/add, pin/ls, pin/rm                              └─ import such a file into our own store
//!   └─ about    id, version, swarm/peers, swarm/connect
//! ```
//! Every command is a POST. What only reads is tried again when the daemon or the way to it goes away, until nothing has
//! come for as long as the caller has patience; the address file is read again each time, so that a daemon that starts
//! anew on another port is found. No redirect is followed, no proxy is used, and credentials go to the endpoint that they
//! were given for. Imports the address beside it and the pure half of this crate.

mod about;
mod blocks;
mod cat;
mod error;
mod file;
mod import;
mod link;
mod patience;
mod pins;
mod reply;
mod upload;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

pub use about::{Identity, KuboPeer};
pub use blocks::BlockGetError;
pub use error::RpcError;
pub use file::{AtHand, FileError, FileReader, Piece};
pub use import::ImportError;
pub use pins::Pinned;
pub use upload::UploadError;

use self::{
    link::Link,
    patience::Patience,
    reply::{MAX_JSON_BYTES, Reply},
};
use super::{Credentials, Place};

/// A daemon. Clones share its connections.
#[derive(Clone)]
pub struct Kubo(Arc<Inner>);

struct Inner {
    place: Place,
    credentials: Option<Credentials>,
    patience: Duration,
    offline: bool,
    link: Mutex<Option<Arc<Link>>>,
    /// Whether it ever answered.
    reached: AtomicBool,
}

impl std::fmt::Debug for Kubo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kubo").field("place", &self.0.place).field("patience", &self.0.patience).finish()
    }
}

/// The arguments of a command, in their order.
type Arguments<'a> = &'a [(&'a str, &'a str)];

impl Kubo {
    /// A daemon at a place. Nothing is sent yet. `patience` is how long to wait while nothing comes, for every command;
    /// credentials win over those of the address.
    pub fn new(place: Place, credentials: Option<Credentials>, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            place,
            credentials,
            patience,
            offline: false,
            link: Mutex::default(),
            reached: AtomicBool::default(),
        }))
    }

    /// The same daemon, told to ask no peers, and reached through a Unix socket or not at all: no network socket is opened
    /// for it.
    #[must_use]
    pub fn offline(self) -> Self {
        let Inner { place, credentials, patience, .. } = &*self.0;
        let (place, credentials, patience) = (place.clone(), credentials.clone(), *patience);
        Self(Arc::new(Inner {
            place,
            credentials,
            patience,
            offline: true,
            link: Mutex::default(),
            reached: AtomicBool::default(),
        }))
    }

    /// How long to wait while nothing comes.
    pub fn patience(&self) -> Duration {
        self.0.patience
    }

    /// Where it is, as far as known; for messages.
    pub async fn shown(&self) -> String {
        match (&self.0.place, &*self.0.link.lock().await) {
            (Place::At(endpoint), _) => endpoint.to_string(),
            (_, Some(link)) => link.shown.clone(),
            _ => "unknown".to_owned(),
        }
    }

    /// The connection to where the daemon is now.
    async fn link(&self) -> Result<Arc<Link>, RpcError> {
        let mut known = self.0.link.lock().await;
        let endpoint = link::locate(&self.0.place).await?;
        if let Some(link) = known.as_ref().filter(|link| link.endpoint == endpoint) {
            return Ok(link.clone());
        }
        if self.0.offline && !endpoint.is_unix() {
            return Err(RpcError::Offline { endpoint: endpoint.to_string() });
        }
        let link = Link::new(endpoint, self.0.credentials.clone(), self.0.patience).await?;
        Ok(known.insert(Arc::new(link)).clone())
    }

    /// Sends a command once, and waits at most `wait` for the beginning of its answer.
    async fn send(
        &self,
        command: &'static str,
        arguments: Arguments<'_>,
        body: Option<link::Form>,
        wait: Duration,
    ) -> Result<Reply, RpcError> {
        let link = self.link().await?;
        let offline = [("offline", "true")];
        let is_said = arguments.contains(&offline[0]);
        let extra: Arguments<'_> = if self.0.offline && !is_said { &offline } else { &[] };
        let sent = link.send(command, arguments.iter().chain(extra).copied(), body, wait).await;
        if sent.is_ok() {
            self.0.reached.store(true, Ordering::Relaxed);
        }
        sent
    }

    /// Carries out a command that changes nothing, or changes the same when it is carried out twice, and reads its answer:
    /// JSON values one after another.
    async fn ask<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Arguments<'_>,
    ) -> Result<Vec<T>, RpcError> {
        let mut patience = Patience::new(self);
        loop {
            let asked = async {
                let mut reply = self.send(command, arguments, None, patience.wait()).await?;
                let mut body = Vec::new();
                while let Some(bytes) = reply.next(patience.wait()).await? {
                    patience.progress();
                    reply::collect(&mut body, &bytes, MAX_JSON_BYTES, command)?;
                }
                reply.values(&body)
            };
            match asked.await {
                Ok(values) => return Ok(values),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// As [`Kubo::ask`], for one value.
    async fn ask_one<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Arguments<'_>,
    ) -> Result<T, RpcError> {
        let last = self.ask(command, arguments).await?.pop();
        match last {
            Some(value) => Ok(value),
            None => {
                Err(RpcError::Garbage { endpoint: self.shown().await, command, said: "it says nothing".to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
