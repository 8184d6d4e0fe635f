//! What the daemon keeps, and under which name.
//!
//! Imports its siblings. Kubo has one pin for a CID, with one name: pinning again renames it. Nothing here makes the
//! daemon ask its peers: what is to be kept is there already.

use std::collections::HashMap;

use crate::block::Cid;
use serde::Deserialize;

use super::{Kubo, RpcError};

/// CIDs that one command is told of: they stand in the request's line.
const CIDS_AT_ONCE: usize = 64;

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// What it is called; empty without a name.
    pub name: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Keys", default)]
    keys: Option<HashMap<String, Key>>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "Name", default)]
    name: String,
}

impl Kubo {
    /// Keeps the DAGs under `cids`, which must be there, under a name. Those that are kept already are renamed.
    ///
    /// # Errors
    /// [`RpcError`], of which [`RpcError::is_absence`] says whether a block was missing. Some may be kept then.
    pub async fn pin(&self, cids: &[Cid], name: &str) -> Result<(), RpcError> {
        for some in cids.chunks(CIDS_AT_ONCE) {
            let texts: Vec<_> = some.iter().map(Cid::to_string).collect();
            let mut arguments: Vec<_> = texts.iter().map(|text| ("arg", text.as_str())).collect();
            arguments.extend([("name", name), ("recursive", "true"), ("offline", "true"), ("progress", "true")]);
            self.ask::<serde_json::Value>("pin/add", &arguments).await?;
        }
        Ok(())
    }

    /// How a DAG is kept; `None` when it is not, or only as part of another.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn pinned(&self, cid: &Cid) -> Result<Option<Pinned>, RpcError> {
        let text = cid.to_string();
        let arguments = [("arg", text.as_str()), ("names", "true"), ("type", "recursive")];
        match self.ask_one::<Listed>("pin/ls", &arguments).await {
            Ok(listed) => {
                let key = listed.keys.unwrap_or_default().remove(&text);
                Ok(key.map(|key| Pinned { name: key.name }))
            }
            Err(RpcError::Refused { message, .. }) if message.contains("is not pinned") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets go of a DAG. One that is not kept is none the worse for it.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn unpin(&self, cid: &Cid) -> Result<(), RpcError> {
        let text = cid.to_string();
        match self.ask::<serde_json::Value>("pin/rm", &[("arg", &text)]).await {
            Err(RpcError::Refused { message, .. }) if message.contains("not pinned") => Ok(()),
            done => done.map(drop),
        }
    }
}
