//! Single blocks: whether one is there, reading it, storing one.
//!
//! Imports `block` and its siblings. What is read was hashed; what is stored is called there as it is here.

use async_trait::async_trait;
use serde::Deserialize;

use super::{Kubo, RpcError, link::Form, patience::Patience, reply, upload::multipart};
use crate::{
    block::{Block, BlockError, Cid, MAX_BLOCK_BYTES},
    dag::{self, BlockSource, BlockSourceError},
};

#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "Key")]
    key: String,
}

impl Kubo {
    /// Whether the daemon has a block; it asks nobody.
    ///
    /// # Errors
    /// [`RpcError`], but not for a block that is absent.
    pub async fn has_block(&self, cid: &Cid) -> Result<bool, RpcError> {
        let cid = cid.to_string();
        match self.ask_one::<serde_json::Value>("block/stat", &[("arg", &cid), ("offline", "true")]).await {
            Ok(_) => Ok(true),
            Err(error @ RpcError::Refused { .. }) if error.is_absence() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gets a block, which the daemon may have to fetch.
    ///
    /// # Errors
    /// [`BlockGetError`]; bytes that are not those of the CID are never handed out.
    pub async fn block(&self, cid: &Cid) -> Result<Block, BlockGetError> {
        if let Some(block) = Block::inline(cid).map_err(BlockError::from)? {
            return Ok(block);
        }
        let text = cid.to_string();
        let mut patience = Patience::new(self);
        loop {
            let getting = async {
                let mut reply = self.send("block/get", &[("arg", &text)], None, patience.wait()).await?;
                let mut body = Vec::new();
                while let Some(bytes) = reply.next(patience.wait()).await? {
                    patience.progress();
                    reply::collect(&mut body, &bytes, MAX_BLOCK_BYTES, "block/get")?;
                }
                Ok(body)
            };
            match getting.await {
                Ok(body) => return Ok(Block::verify(*cid, body.into())?),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Stores a dag-pb node.
    ///
    /// # Errors
    /// [`RpcError`]; [`RpcError::OtherCid`] when it is called otherwise there.
    pub async fn put_node(&self, block: &Block) -> Result<(), RpcError> {
        let mut patience = Patience::new(self);
        loop {
            let (content_type, head, tail) = multipart();
            let body = [head.as_bytes(), block.data(), tail.as_bytes()].concat();
            let form = Form { content_type, body: body.into() };
            let arguments = [("cid-codec", "dag-pb"), ("mhtype", "sha2-256"), ("pin", "false")];
            let putting = async {
                let mut reply = self.send("block/put", &arguments, Some(form), patience.wait()).await?;
                let mut said = Vec::new();
                while let Some(bytes) = reply.next(patience.wait()).await? {
                    reply::collect(&mut said, &bytes, reply::MAX_JSON_BYTES, "block/put")?;
                }
                let stored: Option<Stored> = reply.values(&said)?.pop();
                let key = stored.and_then(|stored| stored.key.parse::<Cid>().ok());
                key.ok_or_else(|| reply.garbage(&said))
            };
            match putting.await {
                Ok(got) if got == *block.cid() => return Ok(()),
                Ok(got) => return Err(RpcError::OtherCid { expected: *block.cid(), got }),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Lists a directory, which the daemon may have to fetch; every node of it is checked.
    ///
    /// # Errors
    /// As [`dag::list_directory`]; what the daemon failed with is a [`BlockGetError`] inside.
    pub async fn list(&self, cid: &Cid, limit: usize) -> Result<Vec<dag::Entry>, dag::DirectoryError> {
        dag::list_directory(self, cid, limit).await
    }
}

#[async_trait]
impl BlockSource for Kubo {
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError> {
        Ok(Self::block(self, cid).await?)
    }
}

/// Why a block could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockGetError {
    /// The daemon did not give it.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It gave something else.
    #[error("the IPFS daemon gave other bytes")]
    Block(#[from] BlockError),
}
