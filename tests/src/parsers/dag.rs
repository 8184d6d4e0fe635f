//! CIDs, nodes, and whole DAGs of nodes that an attacker made up.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::executor::block_on;
use shipfs_node::Cid;
use shipfs_node::block::{Block, check_cid};
use shipfs_node::dag::{
    At, BlockSource, BlockSourceError, Kind, Link, MAX_NODE_LINKS, Part, UnixFs, decode_node, decode_unixfs,
    encode_node, encode_unixfs, expand, links, list_directory, read_file,
};

/// Bytes of a file that are read before it is left: a small input may well stand for a file of exabytes.
const READ_BYTES: usize = 4 << 10;
/// Entries of a directory that are listed.
const ENTRIES: usize = 100;

/// A CID in binary, and its use to name a block.
pub(super) fn cid(input: &[u8]) -> bool {
    let Ok(cid) = Cid::try_from(input) else { return false };
    let accepted = check_cid(&cid).is_ok();
    if accepted {
        assert!(matches!(cid.hash().digest().len(), 0..=128), "an accepted digest is bounded");
        if let Ok(Some(block)) = Block::inline(&cid) {
            assert_eq!(block.data(), cid.hash().digest(), "an identity CID holds its block");
        }
    } else {
        assert!(Block::inline(&cid).is_err() && Block::verify(cid, Bytes::new()).is_err());
    }
    accepted
}

/// One block: dag-pb, the UnixFS message in it, and its place in a file.
pub(super) fn node(input: &[u8]) -> bool {
    let data = Bytes::copy_from_slice(input);
    if let Ok(node) = decode_node(&data) {
        assert!(node.links.len() <= MAX_NODE_LINKS && node.links.len() <= input.len() / 8);
        let again = decode_node(&encode_node(&node.links, &node.data)).expect("what we write, we read");
        assert_eq!(again, node);
        if let Ok(message) = decode_unixfs(&node.data) {
            assert!(message.block_sizes.len() <= MAX_NODE_LINKS);
            assert_eq!(decode_unixfs(&encode_unixfs(&message)).expect("what we write, we read"), message);
        }
    }
    let _ = decode_unixfs(&data);
    let block = Block::dag_pb(data);
    let mut accepted = links(&block).is_ok();
    for at in [At::root(None), At { offset: u64::MAX - 9, size: Some(10), depth: 32 }] {
        let Ok(parts) = expand(&block, &at) else { continue };
        accepted = true;
        let mut position = at.offset;
        for part in parts {
            let (offset, length) = match part {
                Part::Data { offset, bytes } => (offset, bytes.len() as u64),
                Part::Child { offset, size, .. } => (offset, size.expect("a child has a size")),
            };
            assert_eq!(offset, position, "no gap and no overlap");
            position = position.checked_add(length).expect("a file ends within 64 bits");
        }
        assert!(at.size.is_none_or(|size| position - at.offset == size), "exactly what was expected");
    }
    accepted
}

/// A DAG that the input describes, node by node, each over some of those before it; read as a file and as a directory.
pub(super) fn walk(input: &[u8]) -> bool {
    let mut script = Script(input);
    let (range, expected) = (script.byte() as u64 * 97, script.byte());
    let mut nodes = vec![Block::raw(Bytes::from_static(b"leaf"))];
    while !script.0.is_empty() && nodes.len() < 64 {
        let node = script.node(&nodes);
        nodes.push(node);
    }
    let root = *nodes.last().expect("there is a leaf").cid();
    let source: Arc<dyn BlockSource> = Arc::new(Nodes(nodes.into_iter().map(|node| (*node.cid(), node)).collect()));
    block_on(async {
        let size = (expected < 128).then_some(u64::from(expected));
        let mut stream = std::pin::pin!(read_file(source.clone(), root, range..u64::MAX, size));
        let mut length = 0;
        while let Some(Ok(bytes)) = stream.next().await {
            assert!(!bytes.is_empty());
            length += bytes.len();
            if length > READ_BYTES {
                break;
            }
        }
        assert!(size.is_none_or(|size| length as u64 <= size), "no byte past what was expected");
        let Ok(entries) = list_directory(&*source, &root, ENTRIES).await else { return length > 0 };
        assert!(entries.len() <= ENTRIES && entries.is_sorted_by(|a, b| a.name < b.name));
        assert!(entries.iter().all(|entry| !entry.name.contains(['/', '\0', '\x1b']) && entry.name != ".."));
        true
    })
}

/// The input, read as instructions. It never runs out: what is missing is zero.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn take(&mut self) -> Bytes {
        let length = usize::from(self.byte() % 8).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Bytes::copy_from_slice(taken)
    }

    /// Small sizes, and those at the end of what 64 bits hold.
    fn size(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte),
            byte @ 200..240 => 1 << (byte - 199),
            byte => u64::MAX - u64::from(byte - 240),
        }
    }

    fn node(&mut self, below: &[Block]) -> Block {
        let kinds = [Kind::File, Kind::Directory, Kind::HamtShard, Kind::Raw, Kind::Symlink, Kind::Metadata];
        let kind = match self.byte() {
            byte @ 0..160 => kinds[usize::from(byte % 3)],
            byte @ 160..200 => kinds[usize::from(byte) % kinds.len()],
            _ => return Block::raw(self.take()),
        };
        let (mut links, mut block_sizes) = (Vec::new(), Vec::new());
        for _ in 0..self.byte() % 12 {
            // One instruction may stand for many links, or the input would have to be as long as the DAG is wide.
            let (times, child) = (1 + usize::from(self.byte() % 64), usize::from(self.byte()) % below.len());
            let (name, size) = (self.take(), self.size());
            for _ in 0..times {
                links.push(Link { cid: *below[child].cid(), name: name.clone(), size });
                block_sizes.push(size);
            }
        }
        let fanout = (kind == Kind::HamtShard).then(|| 1 << (self.byte() % 12));
        let message =
            UnixFs { kind, data: self.take(), file_size: Some(self.size()), block_sizes, hash_type: None, fanout };
        Block::dag_pb(encode_node(&links, &encode_unixfs(&message)))
    }
}

struct Nodes(HashMap<Cid, Block>);

#[async_trait]
impl BlockSource for Nodes {
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError> {
        self.0.get(cid).cloned().ok_or_else(|| "not there".into())
    }
}
