//! Holds the walk to gapless layouts, and to nodes that lie about sizes.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::dag::samples::{Blocks, file_node, foreign, unixfs};
use crate::dag::{Link, UnixFs, encode_node, encode_unixfs};

fn leaf() -> Cid {
    *Block::raw(Bytes::from_static(b"x")).cid()
}

/// A file node that states sizes of its own for its links, and any `filesize`.
fn stating(file_size: Option<u64>, links: usize, block_sizes: &[u64]) -> Block {
    let links = vec![Link { cid: leaf(), name: Bytes::new(), size: u64::MAX }; links];
    let message = UnixFs { file_size, block_sizes: block_sizes.to_vec(), ..unixfs(Kind::File) };
    Block::dag_pb(encode_node(&links, &encode_unixfs(&message)))
}

#[test]
fn a_node_is_its_own_bytes_then_its_children_without_a_gap() {
    let at = At { offset: 100, size: Some(15), depth: 3 };
    let child = |offset, size| Part::Child { cid: leaf(), offset, size: Some(size), depth: 4 };
    assert_eq!(
        expand(&file_node(b"abc", &[(leaf(), 5), (leaf(), 7)]), &at).expect("sound"),
        [Part::Data { offset: 100, bytes: Bytes::from_static(b"abc") }, child(103, 5), child(108, 7)]
    );
    assert_eq!(expand(&file_node(b"", &[(leaf(), 15)]), &at).expect("sound"), [child(100, 15)]);
}

#[test]
fn a_raw_block_is_its_bytes() {
    let block = Block::raw(Bytes::from_static(b"hello"));
    let part = Part::Data { offset: 7, bytes: block.data().clone() };
    assert_eq!(expand(&block, &At { offset: 7, size: None, depth: MAX_DEPTH }).expect("sound"), [part]);
    assert!(matches!(expand(&block, &At::root(Some(6))), Err(WalkError::Size { expected: 6, found: 5, .. })));
    assert!(matches!(
        expand(&block, &At { offset: 0, size: None, depth: MAX_DEPTH + 1 }),
        Err(WalkError::TooDeep { .. })
    ));
}

#[test]
fn c3_only_the_sizes_that_place_children_count() {
    for file_size in [None, Some(0), Some(3), Some(u64::MAX)] {
        let parts = expand(&stating(file_size, 2, &[1, 2]), &At::root(Some(3))).expect("the rest is not looked at");
        assert_eq!(parts.len(), 2);
    }
}

#[test]
fn c3_sizes_that_lie_or_overflow_are_refused() {
    let root = At::root(None);
    assert!(matches!(expand(&stating(None, 2, &[u64::MAX, 1]), &root), Err(WalkError::Overflow { .. })));
    let late = At { offset: u64::MAX, size: None, depth: 1 };
    assert!(matches!(expand(&stating(None, 1, &[1]), &late), Err(WalkError::Overflow { .. })));
    assert!(matches!(expand(&stating(None, 2, &[1]), &root), Err(WalkError::BlockSizes { links: 2, sizes: 1, .. })));
    assert!(matches!(expand(&stating(None, 0, &[1]), &root), Err(WalkError::BlockSizes { .. })));
    assert!(matches!(expand(&stating(None, 2, &[5, 0]), &root), Err(WalkError::EmptyChild { .. })));
    for expected in [0, 2, 4, u64::MAX] {
        let refused = expand(&stating(Some(expected), 2, &[1, 2]), &At::root(Some(expected)));
        assert!(matches!(refused, Err(WalkError::Size { found: 3, .. })));
    }
}

#[test]
fn what_is_no_file_is_refused_by_its_kind() {
    let of = |kind| Block::dag_pb(encode_node(&[], &encode_unixfs(&unixfs(kind))));
    let root = At::root(None);
    assert!(matches!(expand(&of(Kind::Directory), &root), Err(WalkError::Directory { .. })));
    assert!(matches!(expand(&of(Kind::HamtShard), &root), Err(WalkError::Directory { .. })));
    assert!(matches!(expand(&of(Kind::Symlink), &root), Err(WalkError::NotAFile { kind: Kind::Symlink, .. })));
    assert!(matches!(expand(&of(Kind::Metadata), &root), Err(WalkError::NotAFile { .. })));
    assert!(expand(&of(Kind::Raw), &root).expect("an empty leaf").is_empty());
    let plain = Block::dag_pb(encode_node(&[], b""));
    assert!(matches!(expand(&plain, &root), Err(WalkError::Malformed { .. })), "dag-pb without UnixFS");
    assert!(links(&plain).expect("still dag-pb").is_empty());
}

#[test]
fn c4_unknown_codecs_are_refused() {
    let block = Block::raw(Bytes::from_static(b"x"));
    let cbor = Block::verify(Cid::new_v1(0x71, *block.cid().hash()), block.into_data()).expect("the same bytes");
    assert!(matches!(expand(&cbor, &At::root(None)), Err(WalkError::UnknownCodec { codec: 0x71, .. })));
    assert!(matches!(links(&cbor), Err(WalkError::UnknownCodec { .. })));
}

/// Walking the plain links of a DAG meets each of its blocks, whatever it is.
#[test]
fn links_lead_to_every_block() {
    for name in ["trickle-dag-pb-leaves", "hamt-8", "plain-directory"] {
        let (root, blocks) = foreign(name);
        let (mut seen, mut stack) = (Blocks::default(), vec![root]);
        while let Some(cid) = stack.pop() {
            let block = blocks.blocks[&cid].clone();
            stack.extend(links(&block).expect("sound"));
            seen.add(block);
        }
        assert_eq!(seen.blocks.len(), blocks.blocks.len(), "{name}");
    }
}

proptest! {
    /// Whatever sizes a node states: refused, or laid out in order, gapless, and exactly as long as was expected.
    #[test]
    fn c3_any_sizes_are_laid_out_gapless_or_refused(
        sizes in prop::collection::vec(prop_oneof![0..100_u64, any::<u64>()], 0..10),
        data in prop::collection::vec(any::<u8>(), 0..10),
        offset in prop_oneof![0..1000_u64, any::<u64>()],
        expected in prop::option::of(prop_oneof![0..300_u64, any::<u64>()]),
    ) {
        let children: Vec<(Cid, u64)> = sizes.iter().map(|size| (leaf(), *size)).collect();
        let node = file_node(&data, &children);
        let total = sizes.iter().map(|size| u128::from(*size)).sum::<u128>() + data.len() as u128;
        match expand(&node, &At { offset, size: expected, depth: 0 }) {
            Ok(parts) => {
                let mut position = offset;
                for part in parts {
                    let (start, length) = match part {
                        Part::Data { offset, bytes } => (offset, bytes.len() as u64),
                        Part::Child { offset, size, .. } => (offset, size.expect("always stated")),
                    };
                    prop_assert_eq!(start, position);
                    position = position.checked_add(length).expect("within 64 bits");
                }
                prop_assert_eq!(u128::from(position - offset), total);
                prop_assert!(expected.is_none_or(|size| u128::from(size) == total));
            }
            Err(_) => prop_assert!(
                sizes.contains(&0)
                    || u128::from(offset) + total > u128::from(u64::MAX)
                    || expected.is_some_and(|size| u128::from(size) != total)
            ),
        }
    }
}
