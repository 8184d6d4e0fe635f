//! Holds the codec to the bytes Kubo writes, to round trips, and to malformed input.

use proptest::prelude::*;

use super::*;
use crate::block::{Block, CODEC_RAW, Multihash};
use crate::dag::samples::{foreign, unixfs};

fn link(name: &[u8], size: u64) -> Link {
    Link { cid: *Block::raw(Bytes::copy_from_slice(name)).cid(), name: Bytes::copy_from_slice(name), size }
}

fn node(bytes: &[u8]) -> Result<PbNode, CodecError> {
    decode_node(&Bytes::copy_from_slice(bytes))
}

fn message(bytes: &[u8]) -> Result<UnixFs, CodecError> {
    decode_unixfs(&Bytes::copy_from_slice(bytes))
}

/// A field that holds `bytes`, with a length of at most 127.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
}

/// The bytes of the empty directory, and of a node with one nameless link, as `image-on-ipfs` 2 spells them out.
#[test]
fn nodes_are_written_links_first_with_names_always_present() {
    assert_eq!(&encode_node(&[], b"\x08\x01")[..], b"\x0a\x02\x08\x01");
    let link = link(b"", 300);
    let expected =
        [&[0x12, 43, 0x0a, 36][..], &link.cid.to_bytes(), &[0x12, 0, 0x18, 0xac, 0x02, 0x0a, 1, b'x']].concat();
    assert_eq!(encode_node(&[link], b"x"), expected);
}

/// Everything Kubo wrote is written again byte for byte: nothing of a node is lost or reordered.
#[test]
fn nodes_of_kubo_survive_reading_and_writing() {
    let mut nodes = 0;
    for name in ["dag-pb-leaves", "trickle", "inlined-leaf", "sha2-512", "hamt-8", "hamt-256", "plain-directory"] {
        let (_, blocks) = foreign(name);
        for block in blocks.blocks.values().filter(|block| block.cid().codec() != CODEC_RAW) {
            let node = decode_node(block.data()).expect("sound");
            assert_eq!(encode_node(&node.links, &node.data), block.data());
            let message = decode_unixfs(&node.data).expect("sound");
            assert_eq!(encode_unixfs(&message), node.data);
            nodes += 1;
        }
    }
    assert!(nodes > 100);
}

#[test]
fn fields_may_come_in_any_order_and_be_missing() {
    let cid = link(b"", 0).cid;
    let turned = [&field(1, b"data")[..], &field(2, &[&[0x18, 7][..], &field(1, &cid.to_bytes())].concat())].concat();
    let read = node(&turned).expect("sound");
    assert_eq!(&read.data[..], b"data");
    assert_eq!(read.links, [Link { cid, name: Bytes::new(), size: 7 }]);
    assert_eq!(node(b"").expect("sound"), PbNode::default());
}

#[test]
fn block_sizes_may_be_packed_and_later_fields_are_passed_over() {
    let packed = message(
        b"\x08\x02\x22\x03\x05\x80\x01\x20\x07\x38\xff\x03\x42\x02\x08\x01\x49\x01\x02\x03\x04\x05\x06\x07\x08",
    );
    assert_eq!(packed.expect("sound").block_sizes, [5, 128, 7]);
}

#[test]
fn c5_malformed_nodes_are_refused() {
    let cid = link(b"", 0).cid.to_bytes();
    let linked = |body: &[u8]| node(&field(2, body));
    assert!(matches!(node(b"\x0a"), Err(CodecError::Truncated)), "a length that is missing");
    assert!(matches!(node(b"\x0a\x05abc"), Err(CodecError::Truncated)), "a length past the end");
    assert!(matches!(node(b"\x12\xff\xff\xff\xff\x0f"), Err(CodecError::Truncated)), "four gigabytes");
    assert!(
        matches!(node(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Err(CodecError::Truncated)),
        "2^64 - 1 bytes"
    );
    assert!(matches!(node(&[0x0a, 0x80]), Err(CodecError::Truncated)), "half a number");
    assert!(matches!(node(&[0xff; 11]), Err(CodecError::VarintTooLong)));
    assert!(matches!(node(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), Err(CodecError::VarintTooLong)), "65 bits");
    assert!(matches!(node(b"\x0b"), Err(CodecError::UnknownWireType { wire_type: 3 })), "a group");
    assert!(matches!(node(b"\x08\x01"), Err(CodecError::WireType { field: "Data" })));
    assert!(matches!(node(b"\x10\x01"), Err(CodecError::WireType { field: "Links" })));
    assert!(matches!(node(b"\x0d\0\0\0\0"), Err(CodecError::WireType { field: "Data" })));
    assert!(matches!(node(b"\x1a\x00"), Err(CodecError::UnknownField { message: "PBNode", number: 3 })));
    assert!(matches!(node(b"\x0a\x00\x0a\x00"), Err(CodecError::Repeated { field: "Data" })));
    assert!(matches!(linked(b""), Err(CodecError::Missing { field: "Hash" })), "CVE-2022-2584");
    assert!(matches!(linked(b"\x0a\x00"), Err(CodecError::Cid(_))), "CVE-2022-2584");
    assert!(matches!(linked(&field(1, &cid[..35])), Err(CodecError::Cid(_))));
    assert!(matches!(linked(&field(1, &[&cid[..], &[0]].concat())), Err(CodecError::CidTail { length: 1 })));
    assert!(matches!(linked(&field(1, &cid).repeat(2)), Err(CodecError::Repeated { field: "Hash" })));
    assert!(matches!(
        linked(&[&field(1, &cid)[..], b"\x20\x01"].concat()),
        Err(CodecError::UnknownField { number: 4, .. })
    ));
}

#[test]
fn c5_malformed_messages_are_refused() {
    assert!(matches!(message(b""), Err(CodecError::Missing { field: "Type" })));
    assert!(matches!(message(b"\x08\x06"), Err(CodecError::UnknownKind { kind: 6 })));
    assert!(matches!(message(b"\x0a\x01\x02"), Err(CodecError::WireType { field: "Type" })));
    assert!(matches!(message(b"\x08\x02\x21\0\0\0\0\0\0\0\0"), Err(CodecError::WireType { field: "blocksizes" })));
    assert!(matches!(message(b"\x08\x02\x22\x02\x05\x80"), Err(CodecError::Truncated)), "half a packed number");
    assert!(matches!(message(b"\x08\x02\x12\x05a"), Err(CodecError::Truncated)));
}

/// As many as a block can hold with useful CIDs are read, and one more than the limit is not.
#[test]
fn c5_links_and_sizes_are_bounded() {
    let tiny = Cid::new_v1(CODEC_RAW, Multihash::wrap(0, b"").expect("fits"));
    let links = |count| vec![Link { cid: tiny, name: Bytes::new(), size: 0 }; count];
    assert_eq!(decode_node(&encode_node(&links(MAX_NODE_LINKS), b"")).expect("sound").links.len(), MAX_NODE_LINKS);
    assert!(matches!(decode_node(&encode_node(&links(MAX_NODE_LINKS + 1), b"")), Err(CodecError::TooManyLinks)));

    let sizes = |count| UnixFs { block_sizes: vec![1; count], ..unixfs(Kind::File) };
    assert!(decode_unixfs(&encode_unixfs(&sizes(MAX_NODE_LINKS))).is_ok());
    assert!(matches!(decode_unixfs(&encode_unixfs(&sizes(MAX_NODE_LINKS + 1))), Err(CodecError::TooManyLinks)));
    let mut packed = vec![0x08, 0x02, 0x22, 0x81, 0x80, 0x04];
    packed.extend([1; MAX_NODE_LINKS + 1]);
    assert!(matches!(message(&packed), Err(CodecError::TooManyLinks)));
}

fn links() -> impl Strategy<Value = Vec<Link>> {
    prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<u64>()), 0..20)
        .prop_map(|links| links.iter().map(|(name, size)| link(name, *size)).collect())
}

proptest! {
    #[test]
    fn nodes_survive_writing_and_reading(links in links(), data in prop::collection::vec(any::<u8>(), 0..300)) {
        let read = decode_node(&encode_node(&links, &data)).expect("sound");
        prop_assert_eq!(read, PbNode { links, data: data.into() });
    }

    #[test]
    fn messages_survive_writing_and_reading(
        kind in 0..6_u64,
        data in prop::collection::vec(any::<u8>(), 0..300),
        block_sizes in prop::collection::vec(any::<u64>(), 0..20),
        file_size in any::<Option<u64>>(),
        hash_type in any::<Option<u64>>(),
        fanout in any::<Option<u64>>(),
    ) {
        let kind = kind_of(kind).expect("exists");
        let message = UnixFs { kind, data: data.into(), file_size, block_sizes, hash_type, fanout };
        prop_assert_eq!(decode_unixfs(&encode_unixfs(&message)).expect("sound"), message);
    }

    /// Neither noise nor a sound node with some bytes changed makes the readers panic, and whatever they accept is no
    /// larger than what it was read from allows.
    #[test]
    fn c5_any_bytes_are_read_or_refused(
        links in links(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut sound = encode_node(&links, &encode_unixfs(&UnixFs {
            block_sizes: links.iter().map(|link| link.size).collect(),
            ..unixfs(Kind::File)
        })).to_vec();
        for (index, byte) in changes {
            let index = index.index(sound.len());
            sound[index] = byte;
        }
        for bytes in [Bytes::from(noise), Bytes::from(sound)] {
            if let Ok(node) = decode_node(&bytes) {
                prop_assert!(node.links.len() * 8 <= bytes.len() && node.data.len() <= bytes.len());
                let _ = decode_unixfs(&node.data);
            }
            if let Ok(message) = decode_unixfs(&bytes) {
                prop_assert!(message.block_sizes.len() <= bytes.len());
            }
        }
    }
}
