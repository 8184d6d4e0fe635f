//! Files whose DAG somebody else built, and an index that says something else than the nodes.

use super::{add, assert_whole, build, noise, open};
use crate::block::Block;
use crate::dag::{Kind, Link, UnixFs, encode_node, encode_unixfs};
use crate::store::Blockstore as _;
use crate::store::index::{Location, hash_bytes};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

fn node(links: &[(&Block, u64)], data: Bytes) -> Block {
    let sizes: Vec<u64> = links.iter().map(|(_, size)| *size).collect();
    let links: Vec<Link> =
        links.iter().map(|(block, size)| Link { cid: *block.cid(), name: Bytes::new(), size: *size }).collect();
    let file_size = Some(data.len() as u64 + sizes.iter().sum::<u64>());
    let unixfs = UnixFs { kind: Kind::File, data, file_size, block_sizes: sizes, hash_type: None, fanout: None };
    Block::dag_pb(encode_node(&links, &encode_unixfs(&unixfs)))
}

/// Bytes may lie in the nodes themselves (leaves that are dag-pb, as CIDv0 has them), beside raw leaves of any size.
#[test]
fn a_file_with_bytes_in_its_nodes_is_served_after_a_rebuild() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 9000);
    let inline = node(&[], data.slice(..4000));
    let raw = Block::raw(data.slice(4000..4100));
    let last = Block::raw(data.slice(4100..));
    let root = node(&[(&inline, 4000), (&raw, 100), (&last, 4900)], Bytes::new());
    let digest: [u8; 32] = Sha256::digest(&data).into();
    let incoming = store.receive(root.cid(), 9000, Some(digest)).expect("receive");
    store.put(&root).expect("put");
    store.put(&inline).expect("put");
    incoming.write_inline(0, &data[..4000]).expect("write");
    incoming.write(4000, &raw).expect("write");
    incoming.write(4100, &last).expect("write");
    assert_eq!(incoming.read_at(3990, 20).expect("read"), data[3990..4010]);
    let file = incoming.finish(digest, 9000).expect("finish");
    store.pin(root.cid(), "foreign").expect("pin");
    assert_eq!(std::fs::read(&file.path).expect("read"), data);
    store.close().expect("close");
    std::fs::remove_dir_all(directory.path().join("index")).expect("remove");
    let store = open(directory.path());
    for block in [&root, &inline, &raw, &last] {
        assert_eq!(store.get(block.cid()).expect("get").as_ref(), Some(block.data()));
    }
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    store.gc().expect("gc");
    assert_eq!(store.file(root.cid()), Some(file));
}

/// A chunk that a file holds many times needs one row.
#[test]
fn a_file_of_equal_chunks_is_whole() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let zeros = Bytes::from(vec![0; 50_000]);
    let file = add(&store, &zeros, 1000);
    store.pin(&file.cid, "zeros").expect("pin");
    assert_whole(&store, &zeros, 1000);
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    store.close().expect("close");
    std::fs::remove_dir_all(directory.path().join("index")).expect("remove");
    assert_whole(&open(directory.path()), &zeros, 1000);
}

#[test]
fn an_empty_file_is_a_file() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let empty = Block::raw(Bytes::new());
    let digest: [u8; 32] = Sha256::digest(b"").into();
    let incoming = store.receive(empty.cid(), 0, Some(digest)).expect("receive");
    incoming.write(0, &empty).expect("write");
    let file = incoming.finish(digest, 0).expect("finish");
    store.pin(empty.cid(), "").expect("pin");
    assert_eq!(std::fs::read(file.path).expect("read"), b"");
    assert_eq!(store.get(empty.cid()).expect("get"), Some(Bytes::new()));
}

#[test]
fn d5_verify_puts_wrong_rows_right() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 20_000);
    let file = add(&store, &data, 1000);
    store.pin(&file.cid, "x").expect("pin");
    let (blocks, ..) = build(&data, 1000);
    let index = store.inner.index().expect("index");
    let link = super::super::guard::read(&store.inner.facts).by_cid(&file.cid).expect("linked").id;
    let hash = |n: usize| hash_bytes(blocks[n].cid().hash());
    let wrong = Location::File { link, offset: 0, length: 1000 };
    index.insert(&wrong.key(&hash(3)), &wrong.value()).expect("insert");
    index.remove(&wrong.key(&hash(4))).expect("remove");
    let nowhere = Location::Pack { pack: 99, offset: 12, length: 10 };
    index.insert(&nowhere.key(&hash(5)), &nowhere.value()).expect("insert");
    let report = store.verify(false, &|_| ()).expect("verify");
    assert_eq!(report.wrong_rows, 3);
    assert_eq!(store.verify(true, &|_| ()).expect("verify").wrong_rows, 3);
    assert!(store.verify(false, &|_| ()).expect("verify").is_clean());
    assert_whole(&store, &data, 1000);
}

/// A received file must be the one that was announced.
#[test]
fn a_file_of_another_digest_or_size_is_refused_and_removed() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path());
    let data = noise(1, 3000);
    let (blocks, hashed, tree) = build(&data, 1000);
    for (digest, size) in [([9; 32], 3000), (hashed.digest, 2999)] {
        let incoming = store.receive(&tree.root, 3000, Some(hashed.digest)).expect("receive");
        for (n, block) in blocks.iter().enumerate() {
            incoming.write(n as u64 * 1000, block).expect("write");
        }
        incoming.finish(digest, size).expect_err("refused");
        assert_eq!(store.usage().expect("usage").partial_files, 0);
        assert!(store.file(&tree.root).is_none());
        assert_eq!(store.get(blocks[0].cid()).expect("get"), None);
    }
}
