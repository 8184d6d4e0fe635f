//! What a verb has to say once it is done, as plain data.
//!
//! Imports [`Shape`]. Text in here may come from other people: whoever shows it on a terminal escapes it.

use serde::{Deserialize, Serialize};

use super::{Doctor, Why};
use crate::names::Shape;

/// The result of a verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "result", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reply {
    /// An image is here and has a CID.
    Pushed(Pushed),
    /// An image is here.
    Pulled(Pulled),
    /// An image is ready to be run.
    Prepared(Prepared),
    /// The images that are here.
    Images(Vec<ImageRow>),
    /// Everything known about an image.
    Inspected(serde_json::Value),
    /// An image has one more name.
    Tagged(Tagged),
    /// What is no longer kept.
    Removed(Removed),
    /// An image was written to a place.
    Saved(Saved),
    /// An image was copied from a place to another.
    Copied(Copied),
    /// The images that were taken in.
    Loaded(Vec<Pushed>),
    /// What was freed.
    Collected(Collected),
    /// What was checked.
    Verified(Verified),
    /// Who this node is.
    Identity(Identity),
    /// The peers that are connected.
    Peers(Vec<PeerRow>),
    /// What is known about a CID.
    Why(Box<Why>),
    /// What was checked of this node.
    Doctor(Doctor),
}

/// Result of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// CID of the root, in base32.
    pub cid: String,
    /// The name it is kept under, if it has one.
    pub name: Option<String>,
    /// Digest of its top document.
    pub digest: String,
    /// Bytes of all its blobs.
    pub size: u64,
}

/// Result of a pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// CID of the root, in base32.
    pub cid: String,
    /// The name it is kept under, if it has one.
    pub name: Option<String>,
    /// Digest of its top document.
    pub digest: String,
    /// Bytes of all its blobs.
    pub size: u64,
    /// Where it was written, as the user named the place.
    pub to: Option<String>,
}

/// Result of making an image ready to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// CID of the root, in base32.
    pub cid: String,
    /// The name it is kept under, if it has one.
    pub name: Option<String>,
}

/// One image that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    /// Its name; absent when it is known by its CID alone.
    pub name: Option<String>,
    /// CID of the root, in base32.
    pub cid: String,
    /// Digest of its top document.
    pub digest: String,
    /// What its root is, when that is known.
    pub shape: Option<Shape>,
    /// The platforms it is here for.
    pub platforms: Vec<String>,
    /// Bytes of all its blobs that are here.
    pub size: u64,
    /// Whether parts of what its root names are not here, since they were not asked for.
    pub incomplete: bool,
}

/// Result of giving a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged {
    /// CID of the root.
    pub cid: String,
    /// The new name.
    pub name: String,
}

/// Result of letting go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The names and CIDs that are gone from the list.
    pub removed: Vec<String>,
}

/// Result of writing an image to a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// CID of the root.
    pub cid: String,
    /// Where it was written.
    pub to: String,
    /// Bytes of all its blobs.
    pub size: u64,
}

/// Result of copying an image from a place to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Digest of its top document.
    pub digest: String,
    /// Where it was written.
    pub to: String,
    /// Bytes of all its parts.
    pub size: u64,
}

/// Result of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Files removed.
    pub files: u64,
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes given back to the disk.
    pub bytes: u64,
    /// Unpacked layers removed; their bytes are among the others.
    #[serde(default)]
    pub layers: u64,
}

/// Result of a check of the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Files whose bytes were hashed.
    pub files: u64,
    /// Blocks whose bytes were hashed.
    pub blocks: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What is not as its name says, in words.
    pub damaged: Vec<String>,
    /// Images and pins that are not whole, in words.
    pub broken: Vec<String>,
    /// Whether what was damaged is out of the way now.
    pub repaired: bool,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its peer ID.
    pub peer: String,
    /// What it calls itself to others.
    pub agent: String,
    /// The network it is part of; absent while it is part of none.
    pub network: Option<String>,
    /// Addresses by which others reach it, its identity included.
    pub addresses: Vec<String>,
    /// Whether others are served.
    pub serving: bool,
}

/// One connected peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Its peer ID.
    pub peer: String,
    /// The address it is connected by.
    pub address: String,
    /// How it is connected: `tcp+tls`, `tcp+noise`, `quic`; `private` before it in a private network.
    pub transport: String,
    /// Whether this node opened the connection; not known of the peers of another daemon.
    pub outbound: Option<bool>,
    /// How long it has been connected, in milliseconds; not known of the peers of another daemon.
    pub connected_ms: Option<u64>,
    /// What it calls itself; foreign text.
    pub agent: String,
    /// Revisions of Bitswap that it speaks, newest first; foreign text.
    pub protocols: Vec<String>,
    /// Whether the user named it, rather than the network.
    pub named: bool,
    /// Bytes of blocks that came from it.
    pub received: u64,
    /// Bytes of blocks that went to it.
    pub sent: u64,
    /// Bytes of blocks that came twice, or unasked; not known of the peers of another daemon, as those below.
    pub wasted: Option<u64>,
    /// Bytes of all Bitswap messages that came from it.
    pub wire_received: Option<u64>,
    /// Bytes of all Bitswap messages that went to it.
    pub wire_sent: Option<u64>,
}

impl Reply {
    /// The result alone, as `--json` shows it.
    pub fn to_json(&self) -> serde_json::Value {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut fields)) => fields.remove("result").unwrap_or_default(),
            _ => serde_json::Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_the_result_alone() {
        let reply = Reply::Tagged(Tagged { cid: "bafy".into(), name: "a".into() });
        assert_eq!(reply.to_json().to_string(), r#"{"cid":"bafy","name":"a"}"#);
        assert_eq!(Reply::Images(Vec::new()).to_json().to_string(), "[]");
        let text = serde_json::to_string(&reply).expect("serialises");
        assert_eq!(serde_json::from_str::<Reply>(&text).expect("parses"), reply);
    }
}
