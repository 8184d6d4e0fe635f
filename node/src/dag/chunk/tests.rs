//! Holds hashing to the plainest way of doing it, whatever the threads, the source and the sink do.

use std::io::{Cursor, Error, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::dag::balanced;
use crate::dag::samples::bytes;

/// The same by the plainest of means.
fn plain(data: &[u8]) -> Hashed {
    let mut leaves: Vec<Leaf> =
        data.chunks(CHUNK_BYTES).map(|chunk| leaf(Sha256::digest(chunk).into(), chunk.len())).collect();
    if leaves.is_empty() {
        leaves.push(leaf(Sha256::digest([]).into(), 0));
    }
    Hashed { leaves, digest: Sha256::digest(data).into(), size: data.len() as u64 }
}

/// A source that gives what `sizes` say, over and over.
struct Dribble<'a> {
    data: Cursor<&'a [u8]>,
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()].min(buffer.len());
        self.turn += 1;
        if size == 0 { Err(io::ErrorKind::Interrupted.into()) } else { self.data.read(&mut buffer[..size]) }
    }
}

fn ingested(source: &mut dyn Read, threads: usize) -> (Hashed, Vec<u8>) {
    let mut taken = Vec::new();
    let totals = Mutex::new(Vec::new());
    let hashed = ingest(
        source,
        &mut |offset, piece| {
            assert_eq!(offset, taken.len() as u64, "in order, without a gap");
            assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
            taken.extend_from_slice(piece);
            Ok(())
        },
        threads,
        &|total| totals.lock().expect("no panic").push(total),
    )
    .expect("nothing fails");
    let totals = totals.into_inner().expect("no panic");
    assert!(totals.is_sorted());
    assert_eq!(totals.last().copied().unwrap_or(0), hashed.size);
    (hashed, taken)
}

/// Sizes where something changes: nothing; one byte; a leaf, and one byte to either side, where the second pass begins;
/// two leaves; a piece to either side, where a second read begins; more pieces than are held at a time.
const SIZES: [usize; 11] = [
    0,
    1,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    2 * CHUNK_BYTES,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    IN_FLIGHT_BYTES + CHUNK_BYTES,
    2 * IN_FLIGHT_BYTES + 17,
];

#[test]
fn every_way_of_hashing_agrees_with_the_plain_one() {
    for size in SIZES {
        let data = bytes(size);
        let expected = plain(&data);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&data).expect("written");
        for threads in [0, 1, 2, 3, 64] {
            let (hashed, taken) = ingested(&mut Cursor::new(&data), threads);
            assert!(hashed == expected && taken == data, "ingest of {size} bytes on {threads} threads");
            assert!(hash_file(&file, threads).expect("hashed") == expected, "{size} bytes on {threads} threads");
            let leaves = hash_leaves(&file, threads).expect("hashed");
            assert!(leaves == expected.leaves, "leaves of {size} bytes on {threads} threads");
        }
    }
}

#[test]
fn a_file_becomes_the_tree_kubo_builds() {
    let zeros = || io::repeat(0).take(45_613_057);
    let hashed = ingest(&mut zeros(), &mut |_, _| Ok(()), 2, &|_| ()).expect("hashed");
    let root = balanced(&hashed.leaves).root;
    assert_eq!(root.to_string(), "bafybeihqwzd3o6q6v3pmwhzjy22vokhr767burokmqemg63hptx2nqd7ym");
    assert_eq!(hashed.size, 45_613_057);
}

/// For blobs of one leaf the CID holds the OCI digest.
#[test]
fn the_digest_of_one_leaf_is_in_its_cid() {
    let (hashed, _) = ingested(&mut Cursor::new(bytes(CHUNK_BYTES)), 2);
    assert_eq!(crate::block::sha256_of(&hashed.leaves[0].cid), Some(hashed.digest));
}

#[test]
fn an_error_of_the_sink_ends_the_work_and_is_returned() {
    for threads in [1, 2, 4] {
        let mut calls = 0;
        let error = ingest(
            &mut io::repeat(7),
            &mut |offset, _| {
                calls += 1;
                if offset >= 3 << 20 { Err(Error::other("disk full")) } else { Ok(()) }
            },
            threads,
            &|_| (),
        )
        .expect_err("the sink failed");
        assert_eq!(error.to_string(), "disk full");
        assert_eq!(calls, 4, "not called again");
    }
}

#[test]
fn an_error_of_the_source_ends_the_work_and_is_returned() {
    struct Torn(Cursor<Vec<u8>>);
    impl Read for Torn {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(Error::other("unplugged")),
                length => Ok(length),
            }
        }
    }
    for size in [0, CHUNK_BYTES, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 5] {
        for threads in [1, 2, 4] {
            let error = ingest(&mut Torn(Cursor::new(bytes(size))), &mut |_, _| Ok(()), threads, &|_| ())
                .expect_err("the source failed");
            assert_eq!(error.to_string(), "unplugged", "{size} bytes on {threads} threads");
        }
    }
}

/// A panic of the caller's code must reach the caller, not leave threads waiting for each other.
#[test]
fn a_panic_of_the_sink_reaches_the_caller() {
    for threads in [1, 2, 4] {
        let attempt =
            AssertUnwindSafe(|| ingest(&mut io::repeat(7), &mut |offset, _| panic!("at {offset}"), threads, &|_| ()));
        assert!(catch_unwind(attempt).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However little a source gives at a time, and however often a signal interrupts it.
    #[test]
    fn the_source_may_give_as_little_as_it_likes(
        size in 0..3 * PIECE_BYTES,
        mut sizes in prop::collection::vec(0..400_000_usize, 1..8),
        threads in 1..4_usize,
    ) {
        sizes.push(70_000);
        let data = bytes(size);
        let mut source = Dribble { data: Cursor::new(&data), sizes, turn: 0 };
        let (hashed, taken) = ingested(&mut source, threads);
        prop_assert!(hashed == plain(&data) && taken == data);
    }
}
