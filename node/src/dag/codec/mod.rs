//! The bytes of one node: dag-pb outside, UnixFS inside.
//!
//! Imports nothing of this crate. It never allocates for a length that the input only claims, never recurses, and never
//! lets a number overflow; sizes it returns are what the node says, no more.
//!
//! ```text
//! PBNode  Links = 2 (repeated PBLink)  Data = 1 (bytes)              links are written first
//! PBLink  Hash = 1 (CID)  Name = 2 (bytes)  Tsize = 3 (uint64)
//! UnixFS  Type = 1  Data = 2  filesize = 3  blocksizes = 4 (repeated)  hashType = 5  fanout = 6
//! ```

mod fields;

use crate::block::Cid;
use bytes::{BufMut as _, Bytes, BytesMut};

use self::fields::{Fields, bytes_length, put_bytes, put_number, put_varint, varint_length};

/// Links, or block sizes, of one node that are read. A block of 2 MiB holds at most 52 428 links with a SHA2-256 CID;
/// only links of a few bytes, which name nothing useful, could be more.
pub const MAX_NODE_LINKS: usize = 65_536;

/// A link of a dag-pb node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it points at.
    pub cid: Cid,
    /// The entry's name in a directory, empty in a file. Any bytes.
    pub name: Bytes,
    /// `Tsize`: the cumulative size of what it points at in bytes, as the node says. Not to be trusted.
    pub size: u64,
}

/// A dag-pb node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PbNode {
    /// The links, in the order of the node.
    pub links: Vec<Link>,
    /// `Data`, which UnixFS fills with a message of its own; empty when absent.
    pub data: Bytes,
}

/// What a UnixFS node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leaf of a file, in old DAGs.
    Raw,
    /// A directory whose links are its entries.
    Directory,
    /// A file, or a part of one.
    File,
    /// MIME type and such; obsolete.
    Metadata,
    /// A symbolic link, its target in the data.
    Symlink,
    /// A piece of a directory that is spread over a hash trie.
    HamtShard,
}

/// The UnixFS message in a node's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs {
    /// What the node is.
    pub kind: Kind,
    /// Bytes of the file that lie in the node itself, before those of its children; or a symlink's target.
    pub data: Bytes,
    /// Bytes of the file below and in this node, as it says. Not to be trusted.
    pub file_size: Option<u64>,
    /// Bytes of the file below each link, as the node says. Not to be trusted.
    pub block_sizes: Vec<u64>,
    /// Multihash code that a HAMT hashes names with.
    pub hash_type: Option<u64>,
    /// Slots of a HAMT node.
    pub fanout: Option<u64>,
}

/// Reads a dag-pb node. Links and data may come in any order; the names and the data share the input's bytes.
///
/// # Errors
/// [`CodecError`] for anything that is no dag-pb node, fields unknown to dag-pb included.
pub fn decode_node(data: &Bytes) -> Result<PbNode, CodecError> {
    let mut node = PbNode::default();
    let mut has_data = false;
    let mut fields = Fields::new(data);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 if has_data => return Err(CodecError::Repeated { field: "Data" }),
            1 => {
                node.data = value.bytes("Data")?;
                has_data = true;
            }
            2 if node.links.len() == MAX_NODE_LINKS => return Err(CodecError::TooManyLinks),
            2 => node.links.push(decode_link(&value.bytes("Links")?)?),
            number => return Err(CodecError::UnknownField { message: "PBNode", number }),
        }
    }
    Ok(node)
}

fn decode_link(data: &Bytes) -> Result<Link, CodecError> {
    let (mut cid, mut name, mut size) = (None, None, None);
    let mut fields = Fields::new(data);
    while let Some((number, value)) = fields.next()? {
        let field = match number {
            1 => cid.replace(decode_cid(&value.bytes("Hash")?)?).map(|_| "Hash"),
            2 => name.replace(value.bytes("Name")?).map(|_| "Name"),
            3 => size.replace(value.number("Tsize")?).map(|_| "Tsize"),
            number => return Err(CodecError::UnknownField { message: "PBLink", number }),
        };
        if let Some(field) = field {
            return Err(CodecError::Repeated { field });
        }
    }
    let cid = cid.ok_or(CodecError::Missing { field: "Hash" })?;
    Ok(Link { cid, name: name.unwrap_or_default(), size: size.unwrap_or(0) })
}

/// Reads a CID that fills `data` exactly.
fn decode_cid(data: &[u8]) -> Result<Cid, CodecError> {
    let mut rest = data;
    let cid = Cid::read_bytes(&mut rest)?;
    if rest.is_empty() { Ok(cid) } else { Err(CodecError::CidTail { length: rest.len() }) }
}

/// Writes a dag-pb node: links first, each with its name even when that is empty, then the data unless that is empty.
pub fn encode_node(links: &[Link], data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(links.len() * 64 + data.len() + 16);
    for link in links {
        let cid = link.cid.to_bytes();
        let length = bytes_length(cid.len()) + bytes_length(link.name.len()) + 1 + varint_length(link.size);
        out.put_u8(0x12);
        put_varint(&mut out, length as u64);
        put_bytes(&mut out, 1, &cid);
        put_bytes(&mut out, 2, &link.name);
        put_number(&mut out, 3, link.size);
    }
    if !data.is_empty() {
        put_bytes(&mut out, 1, data);
    }
    out.freeze()
}

/// Reads the UnixFS message of a node. Fields that UnixFS 1.5 added (mode, mtime) and later ones are passed over.
///
/// # Errors
/// [`CodecError`] for anything that is no UnixFS message, or one of a kind that does not exist.
pub fn decode_unixfs(data: &Bytes) -> Result<UnixFs, CodecError> {
    let mut kind = None;
    let mut unixfs = UnixFs {
        kind: Kind::Raw,
        data: Bytes::new(),
        file_size: None,
        block_sizes: Vec::new(),
        hash_type: None,
        fanout: None,
    };
    let mut fields = Fields::new(data);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => kind = Some(kind_of(value.number("Type")?)?),
            2 => unixfs.data = value.bytes("Data")?,
            3 => unixfs.file_size = Some(value.number("filesize")?),
            4 => value.numbers("blocksizes", &mut unixfs.block_sizes)?,
            5 => unixfs.hash_type = Some(value.number("hashType")?),
            6 => unixfs.fanout = Some(value.number("fanout")?),
            _ => {}
        }
    }
    unixfs.kind = kind.ok_or(CodecError::Missing { field: "Type" })?;
    Ok(unixfs)
}

fn kind_of(number: u64) -> Result<Kind, CodecError> {
    Ok(match number {
        0 => Kind::Raw,
        1 => Kind::Directory,
        2 => Kind::File,
        3 => Kind::Metadata,
        4 => Kind::Symlink,
        5 => Kind::HamtShard,
        kind => return Err(CodecError::UnknownKind { kind }),
    })
}

/// Writes the UnixFS message of a node; optional fields that are absent, and data that is empty, are left out.
pub fn encode_unixfs(unixfs: &UnixFs) -> Bytes {
    let mut out = BytesMut::with_capacity(unixfs.data.len() + unixfs.block_sizes.len() * 4 + 24);
    put_number(&mut out, 1, unixfs.kind as u64);
    if !unixfs.data.is_empty() {
        put_bytes(&mut out, 2, &unixfs.data);
    }
    if let Some(size) = unixfs.file_size {
        put_number(&mut out, 3, size);
    }
    for size in &unixfs.block_sizes {
        put_number(&mut out, 4, *size);
    }
    if let Some(code) = unixfs.hash_type {
        put_number(&mut out, 5, code);
    }
    if let Some(fanout) = unixfs.fanout {
        put_number(&mut out, 6, fanout);
    }
    out.freeze()
}

/// Why bytes are no dag-pb node, or no UnixFS message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A length or a number goes past the end.
    #[error("the message ends inside a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    VarintTooLong,
    /// A protobuf wire type that is obsolete or does not exist.
    #[error("wire type {wire_type} does not exist")]
    UnknownWireType {
        /// The wire type, 3, 4, 6 or 7.
        wire_type: u64,
    },
    /// A field of a known number has the wrong type.
    #[error("field `{field}` has the wrong wire type")]
    WireType {
        /// The field's name.
        field: &'static str,
    },
    /// A field that dag-pb does not have.
    #[error("field {number} does not exist in `{message}`")]
    UnknownField {
        /// The message.
        message: &'static str,
        /// The field's number.
        number: u64,
    },
    /// A field that must be there is not.
    #[error("field `{field}` is missing")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A field that may be there once is there again.
    #[error("field `{field}` is there twice")]
    Repeated {
        /// The field's name.
        field: &'static str,
    },
    /// More links or block sizes than a node may have.
    #[error("the node has more than {MAX_NODE_LINKS} links")]
    TooManyLinks,
    /// The bytes of a link are no CID.
    #[error("a link's CID cannot be read")]
    Cid(#[from] cid::Error),
    /// Bytes after a link's CID.
    #[error("a link's CID is followed by {length} bytes")]
    CidTail {
        /// How many.
        length: usize,
    },
    /// A UnixFS type that does not exist.
    #[error("UnixFS type {kind} does not exist")]
    UnknownKind {
        /// The type's number.
        kind: u64,
    },
}

#[cfg(test)]
mod tests;
