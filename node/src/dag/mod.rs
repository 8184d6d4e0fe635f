//! Files and directories made of blocks: UnixFS over dag-pb.
//!
//! Reading order: `codec` (the bytes of one node), `chunk` (a file's leaves and its digest, hashed once), `build`
//! (the tree over the leaves: one shape, Kubo's default), `walk` (what one node of anybody's tree says), `read`
//! (a file as an ordered stream, its blocks from a `source`), `directory` (names).
//!
//! Written is one shape only: 256 KiB chunks, CIDv1, raw leaves, balanced, 174 links. Read is every shape. This module
//! imports `block` and nothing else of this crate. It never does I/O but for `chunk`, which reads what it is handed;
//! it never trusts a size that a node states, and never recurses on what somebody else built.

mod build;
mod chunk;
mod codec;
mod directory;
mod read;
#[cfg(test)]
mod samples;
mod source;
mod walk;

pub use build::{Leaf, Tree, balanced};
pub use chunk::{Hashed, IN_FLIGHT_BYTES, Sink, hash_file, hash_leaves, ingest};
pub use codec::{
    CodecError, Kind, Link, MAX_NODE_LINKS, PbNode, UnixFs, decode_node, decode_unixfs, encode_node, encode_unixfs,
};
pub use directory::{DirectoryError, Entry, MAX_NAME_BYTES, encode_directory, list_directory, resolve_path};
pub use read::{ReadError, read_file};
pub use source::{BlockSource, BlockSourceError, LoadError};
pub use walk::{At, Part, WalkError, expand, links};

/// Bytes of a chunk that this node cuts (Kubo's `size-262144`); the last one of a file is shorter.
pub const CHUNK_BYTES: usize = 262_144;
/// Links of a file node that this node builds (Kubo's default).
pub const MAX_LINKS: usize = 174;
/// Levels below the root that are followed in anybody's file: 174^5 leaves are already 42 PB, and a trickle DAG or a
/// narrow one may be somewhat deeper. A deeper DAG is a bomb.
pub const MAX_DEPTH: usize = 32;
