//! Reading through the node: streams of a file, entries of a directory, single blocks.
//!
//! Imports its parent and [`crate::dag`]. It never keeps what it reads from peers.

use super::{Flight, Node};
use crate::add::AddError;
use crate::block::{Block, Cid};
use crate::dag::{self, BlockSource, DirectoryError, Entry, ReadError};
use crate::fetch::{FetchError, unavailable};
use crate::net::NetError;
use crate::pin::Lease;
use crate::store::Blockstore as _;
use bytes::Bytes;
use futures::Stream;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// Most entries of a directory that is listed.
const MAX_ENTRIES: usize = 100_000;

/// How much of a file can be read from its start while it is being fetched; see [`Node::prefix`].
pub struct Prefix {
    _flight: Arc<Flight>,
    receiver: watch::Receiver<u64>,
}

impl Prefix {
    /// Bytes from the start that lie in [`Store::partial_path`](crate::store::Store::partial_path) without a gap, each
    /// checked against its CID. The digest
    /// of the whole is known only when the fetch ends. Zero before a fetch begins and after it ended.
    pub fn bytes(&self) -> u64 {
        *self.receiver.borrow()
    }

    /// Waits until it changes. Safe to drop at any time.
    pub async fn changed(&mut self) {
        // Its sender lives as long as this.
        let _ = self.receiver.changed().await;
    }
}

impl Node {
    /// Follows a fetch of this file, whoever asked for it by [`Node::get`], now or later: for those who want to read its
    /// beginning before its end is here.
    pub fn prefix(&self, cid: &Cid) -> Prefix {
        let flight = self.flight(cid);
        Prefix { receiver: flight.prefix.subscribe(), _flight: flight }
    }

    /// Takes a directory in. Returns its CID and its cumulative size.
    ///
    /// # Errors
    /// [`AddError::Directory`] for names that no directory may hold.
    pub async fn add_directory(&self, entries: Vec<Entry>, lease: &Lease) -> Result<(Cid, u64), AddError> {
        let (block, cumulative) = dag::encode_directory(entries)?;
        let cid = *block.cid();
        lease.hold(&cid);
        self.blocking(move |store| store.put(&block)).await?;
        Ok((cid, cumulative))
    }

    /// Reads part of a file, in order, from the repository or from peers, without keeping what comes from peers.
    pub fn cat(&self, cid: &Cid, range: Range<u64>) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
        dag::read_file(Arc::new(self.clone()), *cid, range, None)
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// [`DirectoryError`] when it is none, is too large, or has names that no directory may hold.
    pub async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, DirectoryError> {
        dag::list_directory(self, cid, MAX_ENTRIES).await
    }
}

#[async_trait::async_trait]
impl BlockSource for Node {
    async fn block(&self, cid: &Cid) -> Result<Block, dag::BlockSourceError> {
        let wanted = *cid;
        if let Some(block) = Block::inline(cid)? {
            return Ok(block);
        }
        let local = self.blocking(move |store| store.get(&wanted)).await?;
        if let Some(block) = local.and_then(|bytes| Block::verify(*cid, bytes).ok()) {
            return Ok(block);
        }
        self.go_online().await.map_err(|error| match error {
            NetError::Offline => FetchError::Offline { cid: *cid },
            other => other.into(),
        })?;
        let exchange = self.0.exchange.get().ok_or(NetError::Closed)?;
        let mut session = exchange.session();
        session.want([*cid]);
        // The session wants one block, so whatever comes is that one.
        loop {
            match session.next(self.1).await {
                Ok(block) => {
                    if let Some(block) = block.under(*cid) {
                        return Ok(block);
                    }
                }
                Err(starved) => {
                    session.starved(cid);
                    drop(session);
                    let error = unavailable(*cid, starved);
                    exchange.trace().failed(cid, &error);
                    return Err(error.into());
                }
            }
        }
    }
}
