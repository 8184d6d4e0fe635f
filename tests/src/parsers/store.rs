//! The store's own files: written by us, but disks tear and strangers' bytes lie in them.
//!
//! Checksums keep a fuzzer's changes out, so each input is also taken for what stands behind them.

use flate2::Crc;
use shipfs_node::testing::{Record, decode_records, encode_journal, scan};

/// A whole journal; and the records of a frame whose checksum is right.
pub(super) fn journal(input: &[u8]) -> bool {
    let mut accepted = false;
    if let Ok(decoded) = decode_records(input) {
        assert!(decoded.valid as usize <= input.len() && decoded.snapshot_end <= decoded.valid);
        assert!(decoded.records.is_sorted_by_key(|(end, _)| *end), "in the order of the file");
        assert!(decoded.records.iter().all(|(end, _)| *end <= decoded.valid));
        let records: Vec<_> = decoded.records.into_iter().map(|(_, record)| record).collect();
        let again = decode_records(&encode_journal(decoded.previous, &records)).expect("what we write, we read");
        assert!(again.records.into_iter().map(|(_, record)| record).eq(records), "and it says the same");
        accepted = true;
    }
    let mut rest = input;
    while let Some(record) = Record::decode(&mut rest) {
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        assert_eq!(Record::decode(&mut &encoded[..]), Some(record), "what we write, we read");
        accepted = true;
    }
    accepted
}

/// A whole pack; and one block whose checksum is right, whatever its CID and its lengths.
pub(super) fn pack(input: &[u8]) -> bool {
    let mut accepted = scanned(input);
    if let Some((head, body)) = input.split_at_checked(8) {
        let mut pack = b"shipfs-p\x01\0\0\0blk1".to_vec();
        pack.extend([head, body].concat());
        let crc = {
            let mut crc = Crc::new();
            crc.update(&pack[12..]);
            crc.sum()
        };
        pack.extend(crc.to_le_bytes());
        accepted |= scanned(&pack);
    }
    accepted
}

fn scanned(input: &[u8]) -> bool {
    let scanned = scan(input);
    assert!(scanned.valid <= input.len());
    let mut end = 0;
    for packed in &scanned.blocks {
        assert!(end <= packed.record.start && packed.record.start < packed.data.start, "records do not overlap");
        assert!(packed.data.end < packed.record.end && packed.record.end <= scanned.valid);
        end = packed.record.end;
    }
    assert!(scanned.damaged.iter().all(|damaged| damaged.start <= damaged.end && damaged.end <= input.len()));
    !scanned.blocks.is_empty()
}
