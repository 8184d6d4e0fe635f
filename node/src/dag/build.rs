//! The tree over a file's leaves: Kubo's balanced layout, which is the only one this node writes.
//!
//! Imports `block` and `codec`. It never reads a leaf: hashes and sizes are enough. Equal leaves give an equal tree,
//! whatever machine and version builds it; literal CIDs in the tests hold it to that.

use bytes::Bytes;

use super::MAX_LINKS;
use super::codec::{Kind, Link, UnixFs, encode_node, encode_unixfs};
use crate::block::{Block, CODEC_RAW, Cid, cid_of};

/// A piece of a file: the bytes of one raw block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The raw block's CID.
    pub cid: Cid,
    /// Its bytes.
    pub size: u64,
}

/// A file's tree without its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// What names the file. A leaf's CID when there is only one.
    pub root: Cid,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of all blocks of the DAG, the `Tsize` of links to it; blocks that occur twice count twice.
    pub cumulative: u64,
    /// The dag-pb nodes, children before parents, so the root is the last; empty when the root is a leaf.
    pub nodes: Vec<Block>,
}

/// A node, or a leaf, that the next level links to.
struct Branch {
    cid: Cid,
    size: u64,
    cumulative: u64,
}

/// Builds the balanced tree over `leaves`: all of them at one depth, every node but the last of a level full.
///
/// No leaf at all is the empty file, whose root is the empty raw block.
pub fn balanced(leaves: &[Leaf]) -> Tree {
    let mut nodes = Vec::new();
    let mut level: Vec<Branch> =
        leaves.iter().map(|leaf| Branch { cid: leaf.cid, size: leaf.size, cumulative: leaf.size }).collect();
    while level.len() > 1 {
        level = level.chunks(MAX_LINKS).map(|children| join(children, &mut nodes)).collect();
    }
    let root = level.pop().unwrap_or_else(|| Branch { cid: cid_of(CODEC_RAW, &[]), size: 0, cumulative: 0 });
    Tree { root: root.cid, size: root.size, cumulative: root.cumulative, nodes }
}

/// Makes the node over `children`. Sizes are sums of what was hashed here, far below what 64 bits hold.
fn join(children: &[Branch], nodes: &mut Vec<Block>) -> Branch {
    let links: Vec<Link> =
        children.iter().map(|child| Link { cid: child.cid, name: Bytes::new(), size: child.cumulative }).collect();
    let size = children.iter().map(|child| child.size).sum();
    let data = encode_unixfs(&UnixFs {
        kind: Kind::File,
        data: Bytes::new(),
        file_size: Some(size),
        block_sizes: children.iter().map(|child| child.size).collect(),
        hash_type: None,
        fanout: None,
    });
    let block = Block::dag_pb(encode_node(&links, &data));
    let cumulative = block.data().len() as u64 + links.iter().map(|link| link.size).sum::<u64>();
    let branch = Branch { cid: *block.cid(), size, cumulative };
    nodes.push(block);
    branch
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;
    use crate::block::Block;
    use crate::dag::CHUNK_BYTES;

    fn tree(size: usize, pattern: fn(usize) -> u8) -> Tree {
        // Both patterns repeat every 256 bytes, so all full chunks are equal and one hash does for them.
        let leaf = |size: usize| Leaf {
            cid: *Block::raw((0..size).map(pattern).collect::<Vec<u8>>().into()).cid(),
            size: size as u64,
        };
        let mut leaves: Vec<Leaf> = repeat_n(leaf(CHUNK_BYTES), size / CHUNK_BYTES).collect();
        if !size.is_multiple_of(CHUNK_BYTES) {
            leaves.push(leaf(size % CHUNK_BYTES));
        }
        balanced(&leaves)
    }

    /// Kubo's CIDs of files of zeros and of files whose byte `i` is `i mod 256`.
    #[test]
    fn trees_have_the_cids_kubo_gives() {
        let zeros = |_| 0;
        let counting = |i| i as u8;
        for (size, z, p) in [
            (
                1,
                "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
                "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
            ),
            (
                262_144,
                "bafkreiekhhjkxu4ztk3tyng3er3ijhg56mb44oe3gwbgquhzu4afrg2ksa",
                "bafkreibdci4uxwmvixm54ey4etx3paphmwwbv3beh4xnsndvs6tzhjav5e",
            ),
            (
                262_145,
                "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki",
                "bafybeibp4affrl5svfd2wwp3l2srpu76awzmvyc37zmrtap5iqydfxffuy",
            ),
            (
                1_000_000,
                "bafybeidide6lpcdutn3we5vvypssfhlq2n265w6dygwj37fyeklhlmfi34",
                "bafybeia3gjdptbaeh5veyius2mvpegzwuhfi7rxd2capbhfiqavxvg22ia",
            ),
            (
                45_613_056,
                "bafybeibxsa3ioclowpaq7b6gxl65gzqneopfr3fnhedak6sqr4bjz5lnyq",
                "bafybeic6aphmw3ff6rusfv3xkhvt5hr5qukkef4uybaq2kr4gfurjdadwi",
            ),
            (
                45_613_057,
                "bafybeihqwzd3o6q6v3pmwhzjy22vokhr767burokmqemg63hptx2nqd7ym",
                "bafybeifesat4tfkoyjquv3u4ptxx43lfa3xewmq4wlbn6gmosvp7ov6nfy",
            ),
            (
                91_226_119,
                "bafybeieluemx6fadlgx6b5mdtsfanqz47f3hph2siwezo2acc4mr2sh3kq",
                "bafybeict3dqaspuxfxywidic5mjxx5p4pismat5qvwznhhpbu6a5ofynne",
            ),
        ] {
            assert_eq!(tree(size, zeros).root.to_string(), z, "{size} zeros");
            assert_eq!(tree(size, counting).root.to_string(), p, "{size} counting bytes");
            assert_eq!(tree(size, zeros).size, size as u64);
        }
        assert_eq!(tree(0, zeros).root.to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
    }

    #[test]
    fn cumulative_sizes_are_the_ones_kubo_states() {
        for (size, cumulative) in [
            (0, 0),
            (1, 1),
            (262_145, 262_249),
            (1_000_000, 1_000_208),
            (45_613_056, 45_621_766),
            (45_613_057, 45_621_926),
        ] {
            assert_eq!(tree(size, |_| 0).cumulative, cumulative, "{size} bytes");
        }
    }

    #[test]
    fn nodes_come_after_their_children_and_the_root_is_the_last() {
        let tree = tree(45_613_057, |_| 0);
        assert_eq!(tree.nodes.len(), 3, "174 leaves, one leaf, and the root over both");
        assert_eq!(tree.nodes.last().map(Block::cid), Some(&tree.root));
    }
}
