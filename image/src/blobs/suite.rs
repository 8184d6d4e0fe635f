//! What every storage behind the seam must do, as one suite.
//!
//! Imports its parent. Each implementation's tests call [`run`] with an empty store, and one that asks it as its peer.

use bytes::Bytes;

use super::{Added, Blobs, BlobsError, Content, Entry, Expected, Record, Want};
use crate::oci::Digest;

fn expected(bytes: &[u8]) -> Expected {
    let digest = Digest::of(bytes).sha256().expect("SHA-256");
    Expected { digest, size: bytes.len() as u64 }
}

/// Checks a store, and one that fetches from it.
pub(crate) async fn run(store: &dyn Blobs, other: &dyn Blobs) {
    let one_block = Bytes::from_static(b"one block");
    let many_blocks = Bytes::from(vec![7; 600_000]);
    add_and_find(store, &one_block, "bafkreibbsb67ymokzyss2wr4s2tkbynbvhdboy3wxszha7k7btdegu5b3q").await;
    add_and_find(store, &many_blocks, "bafybeid3a3lcmihd3ymli2ln4m3rha6djdrh5kenaz2zqgdlpau5hyesty").await;
    fetch_and_read(store, other, &one_block, &many_blocks).await;
    directories(store, other).await;
    records(store, &one_block).await;
}

async fn find(store: &dyn Blobs, bytes: &Bytes) -> Result<Option<Added>, BlobsError> {
    let Expected { digest, size } = expected(bytes);
    store.find(&digest, Some(size)).await
}

async fn add_and_find(store: &dyn Blobs, bytes: &Bytes, cid: &str) {
    let wrong = Expected { digest: [1; 32], ..expected(bytes) };
    let refused = store.add(Content::Bytes(bytes.clone()), Some(wrong), &|_| {}).await;
    assert!(matches!(refused, Err(BlobsError::Mismatch { .. })));
    let wrong = Expected { size: 3, ..expected(bytes) };
    let refused = store.add(Content::Bytes(bytes.clone()), Some(wrong), &|_| {}).await;
    assert!(matches!(refused, Err(BlobsError::Mismatch { .. })));
    assert_eq!(find(store, bytes).await.expect("finds"), None, "nothing was stored");

    let reader = Content::Reader(Box::new(std::io::Cursor::new(bytes.clone())));
    let added = store.add(reader, Some(expected(bytes)), &|_| {}).await.expect("adds");
    assert_eq!((added.cid.to_string().as_str(), added.size), (cid, bytes.len() as u64));
    assert!(!added.existed && added.cumulative >= added.size);
    let again = store.add(Content::Bytes(bytes.clone()), Some(expected(bytes)), &|_| {}).await.expect("adds");
    assert!(again.existed && again.cid == added.cid);
    let found = find(store, bytes).await.expect("finds").expect("is there");
    assert_eq!((found.cid, found.cumulative), (added.cid, added.cumulative));
}

async fn fetch_and_read(store: &dyn Blobs, other: &dyn Blobs, one_block: &Bytes, many_blocks: &Bytes) {
    for bytes in [one_block, many_blocks] {
        let cid = find(store, bytes).await.expect("finds").expect("is there").cid;
        let wrong = Expected { digest: [1; 32], ..expected(bytes) };
        assert!(matches!(other.fetch(&cid, Want::Exactly(wrong), &|_| {}).await, Err(BlobsError::Mismatch { .. })));
        let wrong = Expected { size: 5, ..expected(bytes) };
        assert!(matches!(other.fetch(&cid, Want::Exactly(wrong), &|_| {}).await, Err(BlobsError::Mismatch { .. })));
        let limit = bytes.len() as u64 - 1;
        assert!(matches!(other.read(&cid, limit).await, Err(BlobsError::TooLarge { .. })));
        assert!(matches!(other.fetch(&cid, Want::AtMost(limit), &|_| {}).await, Err(BlobsError::TooLarge { .. })));
        let fetched = other.fetch(&cid, Want::Exactly(expected(bytes)), &|_| {}).await.expect("fetches");
        assert!(!fetched.existed);
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut fetched.body.open().expect("opens"), &mut body).expect("reads");
        assert_eq!(body, bytes[..]);
        assert_eq!(other.read(&cid, bytes.len() as u64).await.expect("reads"), bytes);
        assert!(other.fetch(&cid, Want::Exactly(expected(bytes)), &|_| {}).await.expect("fetches").existed);
        assert!(find(other, bytes).await.expect("finds").is_some());
    }
    let absent = crate::link::cid_of_file(b"absent");
    assert!(matches!(store.fetch(&absent, Want::AtMost(10), &|_| {}).await, Err(BlobsError::NotFound { .. })));
    assert!(matches!(store.read(&absent, 10).await, Err(BlobsError::NotFound { .. })));
}

async fn directories(store: &dyn Blobs, other: &dyn Blobs) {
    let mut entries = Vec::new();
    for name in ["b", "a", "B"] {
        let added = store.add(Content::Bytes(name.into()), None, &|_| {}).await.expect("adds");
        entries.push(Entry { name: name.into(), cid: added.cid, size: added.cumulative });
    }
    let directory = store.add_directory(entries.clone()).await.expect("adds");
    entries.reverse();
    assert_eq!(store.add_directory(entries.clone()).await.expect("adds"), directory, "order does not count");
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(other.list(&directory.cid).await.expect("lists"), entries);
    assert!(matches!(other.list(&entries[0].cid).await, Err(BlobsError::NotADirectory { .. })));
    assert!(matches!(other.fetch(&directory.cid, Want::AtMost(1000), &|_| {}).await, Err(BlobsError::NotAFile { .. })));
    assert!(matches!(other.read(&directory.cid, 1000).await, Err(BlobsError::NotAFile { .. })));
    let twice = vec![entries[0].clone(), entries[0].clone()];
    assert!(store.add_directory(twice).await.is_err());
    for name in ["", ".", "..", "a/b"] {
        assert!(store.add_directory(vec![Entry { name: name.into(), ..entries[0].clone() }]).await.is_err(), "{name}");
    }
}

async fn records(store: &dyn Blobs, bytes: &Bytes) {
    let records = store.records();
    let root = find(store, bytes).await.expect("finds").expect("is there").cid;
    let record = |name: &str, note: &[u8]| Record {
        name: name.into(),
        root,
        members: vec![root],
        note: note.to_vec(),
        incomplete: false,
    };
    records.keep(record("b", b"1")).await.expect("keeps");
    records.keep(record("a", b"2")).await.expect("keeps");
    records.keep(record("b", b"3")).await.expect("keeps");
    assert_eq!(records.kept().await.expect("lists"), [record("a", b"2"), record("b", b"3")]);
    let absent = crate::link::cid_of_file(b"absent");
    let broken = Record { members: vec![absent], ..record("c", b"") };
    assert!(records.keep(broken.clone()).await.is_err(), "what is not here cannot be kept");
    records.keep(Record { incomplete: true, ..broken }).await.expect("keeps");
    for name in ["a", "b", "c"] {
        assert!(records.release(name).await.expect("releases"));
    }
    assert!(!records.release("a").await.expect("releases"));
    assert_eq!(records.kept().await.expect("lists"), []);
}
