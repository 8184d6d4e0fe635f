//! The bytes of a file, in order, resumed where they broke off.
//!
//! Imports its siblings. The bytes are unchecked: [`file`](super::file) checks them.

use crate::block::Cid;
use bytes::Bytes;

use super::{Kubo, RpcError, patience::Patience, reply::Reply};

const COMMAND: &str = "cat";

/// Part of a file while it arrives.
pub(super) struct Cat {
    kubo: Kubo,
    path: String,
    offset: u64,
    end: u64,
    reply: Option<Reply>,
    patience: Patience,
}

impl Cat {
    /// The bytes from `offset` up to `end`. A file that ends earlier is told by [`Cat::next`], as an end.
    pub(super) fn new(kubo: &Kubo, cid: &Cid, offset: u64, end: u64) -> Self {
        let patience = Patience::new(kubo);
        Self { kubo: kubo.clone(), path: format!("/ipfs/{cid}"), offset, end, reply: None, patience }
    }

    /// Where the next bytes lie.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; `None` at the end of the part, or of the file.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RpcError> {
        // However long the caller took for the last ones.
        self.patience.progress();
        while self.offset < self.end {
            match self.attempt().await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    self.reply = None;
                    self.patience.after(error).await?;
                }
            }
        }
        self.finish().await?;
        Ok(None)
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>, RpcError> {
        let wait = self.patience.wait();
        let reply = match &mut self.reply {
            Some(reply) => reply,
            None => {
                let (length, offset) = ((self.end - self.offset).to_string(), self.offset.to_string());
                let arguments = [("arg", self.path.as_str()), ("length", &length), ("offset", &offset)];
                let reply = self.kubo.send(COMMAND, &arguments, None, wait).await?;
                let asked = self.end - self.offset;
                if let Some(announced) = reply.announced.filter(|announced| *announced > asked) {
                    return Err(RpcError::Length { command: COMMAND, expected: asked, got: announced });
                }
                self.reply.insert(reply)
            }
        };
        let Some(bytes) = reply.next(wait).await? else { return Ok(None) };
        let (left, got) = (self.end - self.offset, bytes.len() as u64);
        if got > left {
            return Err(RpcError::Length { command: COMMAND, expected: left, got });
        }
        self.offset += got;
        Ok(Some(bytes))
    }

    /// Everything that was asked for is here: what is left is whether the daemon thinks so, too. A connection that breaks
    /// now has cost nothing.
    async fn finish(&mut self) -> Result<(), RpcError> {
        let Some(mut reply) = self.reply.take() else { return Ok(()) };
        match reply.next(self.patience.wait()).await {
            Ok(Some(bytes)) => Err(RpcError::Length { command: COMMAND, expected: 0, got: bytes.len() as u64 }),
            Ok(None) => Ok(()),
            Err(error) if error.is_passing() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
