//! The store's own files: written by us, but disks tear and strangers' bytes lie in them.

use shipfs_node::testing::{decode_records, encode_journal, scan};

/// A whole journal.
pub(super) fn journal(input: &[u8]) -> bool {
    let Ok(decoded) = decode_records(input) else { return false };
    assert!(decoded.valid as usize <= input.len() && decoded.snapshot_end <= decoded.valid);
    assert!(decoded.records.is_sorted_by_key(|(end, _)| *end), "in the order of the file");
    assert!(decoded.records.iter().all(|(end, _)| *end <= decoded.valid));
    let records: Vec<_> = decoded.records.into_iter().map(|(_, record)| record).collect();
    let again = decode_records(&encode_journal(decoded.previous, &records)).expect("what we write, we read");
    assert!(again.records.into_iter().map(|(_, record)| record).eq(records), "and it says the same");
    true
}

/// A whole pack.
pub(super) fn pack(input: &[u8]) -> bool {
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
