//! The files' formats: pinned byte by byte, and read whatever they hold.

use super::noise;
use crate::block::{Block, cid_of};
use crate::pin::{Keep, Pin};
use crate::store::journal::{JournalError, Position, decode_records, encode_frames, encode_journal};
use crate::store::packs::{self, Tail, scan};
use crate::store::record::{Link, Record};
use bytes::Bytes;
use proptest::prelude::{ProptestConfig, any, prop, proptest};

fn records() -> Vec<Record> {
    let cid = |n: u8| cid_of(0x70, &[n]);
    vec![
        Record::Reserve(9),
        Record::Packed(Tail { pack: 2, length: 777 }),
        Record::Link(Link { id: 7, cid: cid(1), digest: [5; 32], size: 1 << 40, cumulative: Some(1 << 41), mtime: -3 }),
        Record::Link(Link { id: 8, cid: cid(2), digest: [6; 32], size: 0, cumulative: None, mtime: 1 << 60 }),
        Record::Unlink(7),
        Record::Pin(Pin { cid: cid(3), name: "größe".into() }),
        Record::Unpin(cid(3)),
        Record::Keep(Keep {
            name: "n".into(),
            root: cid(4),
            members: vec![cid(5), cid(6)],
            note: vec![0, 255],
            incomplete: true,
        }),
        Record::Keep(Keep { name: String::new(), root: cid(4), members: vec![], note: vec![], incomplete: false }),
        Record::Release("n".into()),
    ]
}

fn journal() -> Vec<u8> {
    let mut bytes = encode_journal(Some(Position { journal: 3, length: 500 }), &records()[..5]);
    for record in &records()[5..] {
        bytes.extend(encode_frames(bytes.len() as u64, std::slice::from_ref(record)));
    }
    bytes
}

fn pack() -> Vec<u8> {
    let blocks = [Block::raw(noise(1, 100)), Block::dag_pb(noise(2, 30)), Block::raw(Bytes::new())];
    let mut bytes = packs::header();
    blocks.iter().for_each(|block| bytes.extend(packs::encode_block(block).0));
    bytes
}

/// What version 1 wrote must stay readable, and what is written must stay version 1.
#[test]
fn journals_and_packs_are_what_they_were() {
    assert_eq!(journal(), include_bytes!("../../../tests/data/store/journal-1"));
    assert_eq!(pack(), include_bytes!("../../../tests/data/store/pack-1"));
}

#[test]
fn a_journal_says_what_was_written() {
    let decoded = decode_records(&journal()).expect("decodes");
    assert_eq!(decoded.records.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), records());
    assert_eq!(decoded.valid, journal().len() as u64);
    assert_eq!(decoded.previous, Some(Position { journal: 3, length: 500 }));
    assert_eq!(decoded.records[4].0, decoded.snapshot_end);
}

#[test]
fn a_journal_cut_anywhere_behind_its_snapshot_keeps_its_whole_frames() {
    let bytes = journal();
    let snapshot_end = usize::try_from(decode_records(&bytes).expect("decodes").snapshot_end).expect("small");
    for cut in 0..bytes.len() {
        let decoded = decode_records(&bytes[..cut]);
        if cut < snapshot_end {
            decoded.expect_err("the snapshot is never torn");
        } else {
            let decoded = decoded.expect("decodes");
            let whole: Vec<_> = decode_records(&bytes).expect("decodes").records;
            let kept = whole.into_iter().take_while(|(end, _)| *end <= cut as u64);
            assert_eq!(decoded.records, kept.collect::<Vec<_>>(), "cut at {cut}");
        }
    }
}

/// A damaged frame is torn when it is the last one, and bit rot when others follow.
#[test]
fn bit_rot_in_a_journal_is_refused() {
    let bytes = journal();
    let last = encode_frames(0, &records()[9..]).len();
    for at in 0..bytes.len() {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x10;
        match decode_records(&rotten) {
            Err(JournalError::Header) => assert!(at < 40, "{at}"),
            Err(JournalError::Damaged { .. }) => assert!((40..bytes.len() - last).contains(&at), "{at}"),
            Ok(decoded) => {
                assert!(at >= bytes.len() - last, "{at}");
                assert_eq!(decoded.records.len(), records().len() - 1);
            }
            Err(error) => panic!("{at}: {error}"),
        }
    }
}

/// A note may hold anything, also what looks like a journal.
#[test]
fn a_torn_frame_that_quotes_a_frame_is_torn() {
    let keep = |note: Vec<u8>| {
        Record::Keep(Keep { name: "n".into(), root: cid_of(0x55, b""), members: vec![], note, incomplete: false })
    };
    let start = encode_journal(None, &[]);
    let quoting =
        encode_frames(start.len() as u64, &[keep(encode_frames(0, &[Record::Unlink(1)])), keep(vec![1; 100])]);
    let torn = [&start[..], &quoting[..quoting.len() - 50]].concat();
    assert_eq!(decode_records(&torn).expect("torn, not rotten").valid, start.len() as u64);
    let zeroed = [&start[..], &quoting[..quoting.len() - 50], &[0; 50]].concat();
    assert_eq!(decode_records(&zeroed).expect("torn, not rotten").valid, start.len() as u64);
}

#[test]
fn bit_rot_in_a_pack_costs_the_damaged_block_only() {
    let bytes = pack();
    let whole = scan(&bytes);
    assert_eq!((whole.blocks.len(), whole.valid), (3, bytes.len()));
    assert!(whole.damaged.is_empty());
    for block in &whole.blocks {
        assert!(Block::verify(block.cid, Bytes::copy_from_slice(&bytes[block.data.clone()])).is_ok());
    }
    for at in 12..bytes.len() {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x10;
        let scanned = scan(&rotten);
        let hit = whole.blocks.iter().position(|block| block.record.contains(&at)).expect("in a block");
        let mut rest = whole.blocks.clone();
        rest.remove(hit);
        assert_eq!(scanned.blocks, rest, "{at}");
    }
}

/// A block that a stranger made may hold what looks like a record of another block, with a checksum that fits. Once the
/// head of the block around it is damaged, the scan walks through its inside.
#[test]
fn d5_a_record_forged_inside_a_damaged_block_is_not_believed() {
    let (forged_cid, lie) = (cid_of(0x55, b"the real bytes"), b"others");
    let mut forged = packs::encode_block(&Block::raw(Bytes::from_static(lie))).0;
    let head = forged.len() - lie.len() - 4 - forged_cid.to_bytes().len();
    let end = forged.len() - 4;
    forged[head..head + forged_cid.to_bytes().len()].copy_from_slice(&forged_cid.to_bytes());
    let checksum = crc32fast::hash(&forged[..end]).to_le_bytes();
    forged[end..].copy_from_slice(&checksum);
    assert_eq!(packs::scan_from(&forged, 0).blocks.len(), 1, "the forgery is well-formed");
    let honest = packs::encode_block(&Block::raw(Bytes::from_static(b"honest"))).0;
    let around = packs::encode_block(&Block::raw(forged.into())).0;
    let mut bytes = [packs::header(), around, honest].concat();
    bytes[packs::header().len() + 1] ^= 1;
    let blocks = scan(&bytes).blocks;
    assert_eq!(blocks.iter().map(|block| block.cid).collect::<Vec<_>>(), [cid_of(0x55, b"honest")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_are_too_odd_for_the_readers(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_records(&bytes);
        let _ = scan(&bytes);
        let _ = Record::decode(&mut &bytes[..]);
    }

    #[test]
    fn nor_are_changed_ones(at in any::<prop::sample::Index>(), new in prop::collection::vec(any::<u8>(), 1..20)) {
        for mut bytes in [journal(), pack()] {
            let at = at.index(bytes.len());
            bytes.splice(at..bytes.len().min(at + new.len()), new.iter().copied());
            let _ = decode_records(&bytes);
            let scanned = scan(&bytes);
            assert!(scanned.blocks.iter().all(|block| block.record.end <= bytes.len()));
        }
    }
}
