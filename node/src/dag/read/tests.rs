//! Reads files of every shape: ours, those of other writers, and DAGs that are no file but an attack.

use std::sync::atomic::Ordering;

use cid::Version;
use futures::executor::block_on;
use proptest::prelude::*;

use super::*;
use crate::block::{CODEC_RAW, Multihash};
use crate::dag::samples::{Blocks, bytes, file_node, foreign, unixfs};
use crate::dag::{
    CHUNK_BYTES, CodecError, Kind, Leaf, Link, MAX_DEPTH, MAX_LINKS, balanced, encode_node, encode_unixfs,
};

/// Reads to the end, or to the first error; says what came before it.
fn read(blocks: &Arc<Blocks>, root: Cid, range: Range<u64>, size: Option<u64>) -> (Vec<u8>, Option<ReadError>) {
    let source: Arc<dyn BlockSource> = blocks.clone();
    block_on(async {
        let mut stream = std::pin::pin!(read_file(source, root, range, size));
        let mut out = Vec::new();
        while let Some(item) = stream.next().await {
            match item {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "the stream ends after an error");
                    return (out, Some(error));
                }
            }
        }
        (out, None)
    })
}

fn whole(blocks: &Arc<Blocks>, root: Cid, size: Option<u64>) -> Vec<u8> {
    let (data, error) = read(blocks, root, 0..u64::MAX, size);
    assert!(error.is_none(), "{error:?}");
    data
}

/// The file as this node writes it.
fn written(data: &[u8]) -> (Cid, Blocks) {
    let mut blocks = Blocks::default();
    let mut leaves: Vec<Leaf> = data
        .chunks(CHUNK_BYTES)
        .map(|chunk| Leaf { cid: blocks.add(Block::raw(Bytes::copy_from_slice(chunk))), size: chunk.len() as u64 })
        .collect();
    if leaves.is_empty() {
        leaves.push(Leaf { cid: blocks.add(Block::raw(Bytes::new())), size: 0 });
    }
    let tree = balanced(&leaves);
    for node in tree.nodes {
        blocks.add(node);
    }
    (tree.root, blocks)
}

/// Sizes where the shape changes: no byte; one leaf, full or not; a node over two leaves; a node that is full.
#[test]
fn what_is_written_is_read_back() {
    for size in
        [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, MAX_LINKS * CHUNK_BYTES, MAX_LINKS * CHUNK_BYTES + 1]
    {
        let data = bytes(size);
        let (root, blocks) = written(&data);
        let blocks = Arc::new(blocks);
        assert!(whole(&blocks, root, None) == data, "{size} bytes");
        assert!(whole(&blocks, root, Some(size as u64)) == data, "{size} bytes, expected");
    }
}

#[test]
fn files_of_other_writers_are_read() {
    for name in
        ["dag-pb-leaves", "trickle", "trickle-dag-pb-leaves", "inlined-leaf", "sha2-512", "mode-and-mtime", "wide"]
    {
        let (root, mut blocks) = foreign(name);
        blocks.late = 9;
        let blocks = Arc::new(blocks);
        let data = bytes(5017);
        assert!(whole(&blocks, root, None) == data, "{name}");
        assert!(whole(&blocks, root, Some(5017)) == data, "{name}, its size expected");
        for (start, end) in [(0, 1), (99, 101), (100, 200), (1234, 4321), (5016, 5017), (5000, 9000), (9000, 9001)] {
            let expected = &data[start.min(5017)..end.min(5017)];
            let (part, error) = read(&blocks, root, start as u64..end as u64, Some(5017));
            assert!(error.is_none() && part == expected, "{name}, {start}..{end}: {error:?}");
        }
    }
}

/// Builds a balanced tree of another chunk size, width and kind of leaf.
fn balanced_otherwise(data: &[u8], chunk: usize, width: usize, version: Version) -> (Cid, Blocks) {
    let mut blocks = Blocks::default();
    let mut add = |block: Block| match version {
        Version::V0 => {
            let cid = Cid::new_v0(*block.cid().hash()).expect("a dag-pb block has a CIDv0");
            blocks.add(Block::verify(cid, block.into_data()).expect("the same bytes"))
        }
        Version::V1 => blocks.add(block),
    };
    let mut level: Vec<(Cid, u64, u64)> = data
        .chunks(chunk)
        .map(|piece| {
            let block = match version {
                Version::V0 => {
                    let message = UnixFsLeaf(piece).encode();
                    Block::dag_pb(encode_node(&[], &message))
                }
                Version::V1 => Block::raw(Bytes::copy_from_slice(piece)),
            };
            let stored = block.data().len() as u64;
            (add(block), piece.len() as u64, stored)
        })
        .collect();
    while level.len() > 1 {
        level = level
            .chunks(width)
            .map(|children| {
                let links: Vec<Link> = children
                    .iter()
                    .map(|(cid, _, stored)| Link { cid: *cid, name: Bytes::new(), size: *stored })
                    .collect();
                let size = children.iter().map(|child| child.1).sum();
                let message = crate::dag::UnixFs {
                    file_size: Some(size),
                    block_sizes: children.iter().map(|child| child.1).collect(),
                    ..unixfs(Kind::File)
                };
                let block = Block::dag_pb(encode_node(&links, &encode_unixfs(&message)));
                let stored = block.data().len() as u64 + links.iter().map(|link| link.size).sum::<u64>();
                (add(block), size, stored)
            })
            .collect();
    }
    (level[0].0, blocks)
}

struct UnixFsLeaf<'a>(&'a [u8]);

impl UnixFsLeaf<'_> {
    fn encode(&self) -> Bytes {
        encode_unixfs(&crate::dag::UnixFs {
            data: Bytes::copy_from_slice(self.0),
            file_size: Some(self.0.len() as u64),
            ..unixfs(Kind::File)
        })
    }
}

/// Kubo's CIDs for the same three million bytes, so these are the shapes it writes; then they are read.
#[test]
fn large_chunks_and_dag_pb_leaves_are_read() {
    let data = bytes(3_000_000);
    for (version, width, cid) in [
        (Version::V1, 1024, "bafybeig7lakvjaunpfokukpd4p2qc4hgqp4245cx44wxb5ib4nqignf2oy"),
        (Version::V0, 174, "QmUcE35sL8JxUa3NaPS8E6GNJreHPs3pT8AWtuLGc5HuZQ"),
    ] {
        let (root, blocks) = balanced_otherwise(&data, 1 << 20, width, version);
        assert_eq!(root.to_string(), cid);
        assert!(whole(&Arc::new(blocks), root, Some(3_000_000)) == data, "{cid}");
    }
}

#[test]
fn a_range_asks_for_no_block_that_it_does_not_touch() {
    let data = bytes(20 * CHUNK_BYTES);
    let (root, blocks) = written(&data);
    let blocks = Arc::new(blocks);
    let range = 3 * CHUNK_BYTES + 5..5 * CHUNK_BYTES;
    let (part, error) = read(&blocks, root, range.start as u64..range.end as u64, None);
    assert!(error.is_none() && part == data[range]);
    assert_eq!(blocks.asked(), 3, "the root and two leaves");
    assert!(read(&blocks, root, 7..7, None).0.is_empty());
    assert_eq!(blocks.asked(), 3, "an empty range needs nothing");
}

/// The window: blocks are asked for ahead of the reader, several at a time, but never more than it holds.
#[test]
fn blocks_are_asked_for_ahead_and_boundedly() {
    let data = bytes(100 * CHUNK_BYTES);
    let (root, mut blocks) = written(&data);
    blocks.late = 50;
    let blocks = Arc::new(blocks);
    assert!(whole(&blocks, root, None) == data);
    assert_eq!(blocks.most_open.load(Ordering::Relaxed), WINDOW_BYTES as usize / CHUNK_BYTES);

    let source: Arc<dyn BlockSource> = blocks.clone();
    let before = blocks.asked();
    block_on(async {
        let mut stream = std::pin::pin!(read_file(source, root, 0..u64::MAX, None));
        stream.next().await.expect("a piece").expect("of the file");
    });
    let asked = blocks.asked() - before;
    assert!((2..=2 + WINDOW_BLOCKS).contains(&asked), "{asked} blocks for the first piece");
}

#[test]
fn what_comes_before_a_missing_block_is_read() {
    let data = bytes(5 * CHUNK_BYTES);
    let (root, mut blocks) = written(&data);
    let gone = *Block::raw(Bytes::copy_from_slice(&data[3 * CHUNK_BYTES..4 * CHUNK_BYTES])).cid();
    blocks.blocks.remove(&gone);
    blocks.late = 9;
    let (before, error) = read(&Arc::new(blocks), root, 0..u64::MAX, None);
    assert!(before == data[..3 * CHUNK_BYTES]);
    assert!(matches!(error, Some(ReadError::Load(LoadError::Source { cid, .. })) if cid == gone));
}

#[test]
fn a_source_that_gives_another_block_is_caught() {
    let (root, mut blocks) = written(&bytes(5));
    blocks.blocks.insert(root, Block::raw(Bytes::from_static(b"other")));
    let (_, error) = read(&Arc::new(blocks), root, 0..u64::MAX, None);
    assert!(matches!(error, Some(ReadError::Load(LoadError::Another { .. }))));
}

#[test]
fn c4_a_cid_that_cannot_be_checked_is_not_asked_for() {
    let unknown = Cid::new_v1(CODEC_RAW, Multihash::wrap(0x1e, &[1; 32]).expect("fits"));
    let mut blocks = Blocks::default();
    let root = blocks.add(file_node(b"", &[(unknown, 5)]));
    let blocks = Arc::new(blocks);
    let (_, error) = read(&blocks, root, 0..u64::MAX, None);
    assert!(matches!(error, Some(ReadError::Load(LoadError::Refused { .. }))));
    assert_eq!(blocks.asked(), 1);
}

#[test]
fn c2_a_chain_of_ten_thousand_nodes_is_left_at_the_depth_limit() {
    let mut blocks = Blocks::default();
    let mut cid = blocks.add(Block::raw(Bytes::from_static(b"x")));
    for _ in 0..10_000 {
        cid = blocks.add(file_node(b"", &[(cid, 1)]));
    }
    let blocks = Arc::new(blocks);
    let (data, error) = read(&blocks, cid, 0..u64::MAX, Some(1));
    assert!(data.is_empty() && matches!(error, Some(ReadError::Walk(WalkError::TooDeep { .. }))));
    assert_eq!(blocks.asked(), MAX_DEPTH + 2, "nothing below is fetched");
}

#[test]
fn c2_a_node_of_a_million_links_is_refused() {
    let mut blocks = Blocks::default();
    let leaf = blocks.add(Block::raw(Bytes::from_static(b"x")));
    let root = blocks.add(file_node(b"", &vec![(leaf, 1); 1_000_000]));
    let (_, error) = read(&Arc::new(blocks), root, 0..u64::MAX, None);
    let Some(ReadError::Walk(WalkError::Malformed { source, .. })) = error else { panic!("{error:?}") };
    assert!(matches!(*source, CodecError::TooManyLinks));
}

/// A million leaves under two levels are a file: it is read, whatever it costs its owner, in bounded memory.
#[test]
fn c2_a_million_leaves_are_read_with_a_bounded_queue() {
    let mut blocks = Blocks::default();
    let leaf = blocks.add(Block::raw(Bytes::from_static(b"x")));
    let inner = blocks.add(file_node(b"", &vec![(leaf, 1); 1000]));
    let root = blocks.add(file_node(b"", &vec![(inner, 1000); 1000]));
    let mut reader = Reader::new(Arc::new(blocks), root, 0..u64::MAX, Some(1_000_000));
    let mut length = 0;
    block_on(async {
        while let Some(bytes) = reader.next().await.expect("sound") {
            length += bytes.len();
            assert!(reader.parts <= PARTS_AHEAD + 1000 && reader.slots.len() <= 3 * WINDOW_BLOCKS);
        }
    });
    assert_eq!(length, 1_000_000);
}

/// Each level refers to the one below 1000 times: a few kilobytes that stand for 10^15 bytes.
fn laughs(blocks: &mut Blocks, levels: u32) -> Cid {
    let mut cid = blocks.add(Block::raw(Bytes::from_static(b"x")));
    for level in 0..levels {
        cid = blocks.add(file_node(b"", &vec![(cid, 1000_u64.pow(level)); 1000]));
    }
    cid
}

#[test]
fn c2_a_billion_laughs_end_at_the_size_that_was_expected() {
    let mut blocks = Blocks::default();
    let root = laughs(&mut blocks, 5);
    let blocks = Arc::new(blocks);
    let (data, error) = read(&blocks, root, 0..u64::MAX, Some(1000));
    assert!(data.is_empty());
    assert!(matches!(error, Some(ReadError::Walk(WalkError::Size { expected: 1000, .. }))));
    assert_eq!(blocks.asked(), 1);
    let (data, error) = read(&blocks, root, 999_999_999..1_000_000_100, None);
    assert!(error.is_none() && data == [b'x'; 101], "a range of it costs what a range of any file does");
}

/// Links for no bytes would fit any budget, however many there are.
#[test]
fn c2_links_for_no_bytes_are_refused() {
    let mut blocks = Blocks::default();
    let empty = blocks.add(file_node(b"", &[]));
    let root = blocks.add(file_node(b"", &vec![(empty, 0); 1000]));
    let (_, error) = read(&Arc::new(blocks), root, 0..u64::MAX, None);
    assert!(matches!(error, Some(ReadError::Walk(WalkError::EmptyChild { .. }))));
}

/// Levels of nodes as wide as they can be: more links than the queue holds are refused, not kept.
#[test]
fn c2_wide_nodes_on_many_levels_are_refused_before_they_fill_the_memory() {
    let tiny = Cid::new_v1(CODEC_RAW, Multihash::wrap(0, b"x").expect("fits"));
    let mut blocks = Blocks::default();
    let rest = |cid: Cid, size: u64| {
        let mut children = vec![(cid, size)];
        children.extend(vec![(tiny, 1); 60_000]);
        children
    };
    let (mut cid, mut size) = (tiny, 1);
    for _ in 0..10 {
        cid = blocks.add(file_node(b"", &rest(cid, size)));
        size += 60_000;
    }
    let (data, error) = read(&Arc::new(blocks), cid, 0..u64::MAX, Some(size));
    assert!(data.is_empty() && matches!(error, Some(ReadError::TooWide { .. })), "{error:?}");
}

#[test]
fn c3_a_child_of_another_size_than_its_parent_says_is_refused() {
    for claimed in [4, 6] {
        let mut blocks = Blocks::default();
        let leaf = blocks.add(Block::raw(Bytes::from_static(b"12345")));
        let root = blocks.add(file_node(b"abc", &[(leaf, claimed)]));
        let (data, error) = read(&Arc::new(blocks), root, 0..u64::MAX, None);
        assert_eq!(data, b"abc");
        assert!(matches!(error, Some(ReadError::Walk(WalkError::Size { found: 5, .. }))), "{error:?}");
    }
}

#[derive(Clone, Debug)]
enum Shape {
    Leaf(Vec<u8>, u8),
    Node(Vec<u8>, Vec<Shape>),
}

/// Files of any shape: leaves raw, dag-pb or old CIDv0 ones, inner nodes with bytes of their own or without.
fn shape() -> impl Strategy<Value = Shape> {
    let data = |least| prop::collection::vec(any::<u8>(), least..20);
    let leaf = (data(1), 0..3_u8).prop_map(|(data, kind)| Shape::Leaf(data, kind));
    leaf.prop_recursive(5, 60, 5, move |below| {
        (data(0), prop::collection::vec(below, 1..5)).prop_map(|(data, children)| Shape::Node(data, children))
    })
}

fn make(shape: &Shape, blocks: &mut Blocks, data: &mut Vec<u8>) -> (Cid, u64) {
    let before = data.len();
    let cid = match shape {
        Shape::Leaf(bytes, kind) => {
            data.extend_from_slice(bytes);
            match kind {
                0 => blocks.add(Block::raw(Bytes::copy_from_slice(bytes))),
                1 => blocks.add(file_node(bytes, &[])),
                _ => {
                    let block = file_node(bytes, &[]);
                    let cid = Cid::new_v0(*block.cid().hash()).expect("a dag-pb block has a CIDv0");
                    blocks.add(Block::verify(cid, block.into_data()).expect("the same bytes"))
                }
            }
        }
        Shape::Node(bytes, children) => {
            data.extend_from_slice(bytes);
            let children: Vec<(Cid, u64)> = children.iter().map(|child| make(child, blocks, data)).collect();
            blocks.add(file_node(bytes, &children))
        }
    };
    (cid, (data.len() - before) as u64)
}

proptest! {
    /// Whatever the shape, the range and the order of the answers.
    #[test]
    fn any_range_of_any_shape_is_read(shape in shape(), late in 0..20_usize, start in 0..400_u64, length in 0..400_u64) {
        let (mut blocks, mut data) = (Blocks::default(), Vec::new());
        blocks.late = late;
        let (root, size) = make(&shape, &mut blocks, &mut data);
        let blocks = Arc::new(blocks);
        let (part, error) = read(&blocks, root, start..start + length, Some(size));
        prop_assert!(error.is_none(), "{error:?}");
        let clip = |at: u64| at.min(size) as usize;
        prop_assert_eq!(part, &data[clip(start)..clip(start + length)]);
        prop_assert_eq!(whole(&blocks, root, None), data);
    }
}
