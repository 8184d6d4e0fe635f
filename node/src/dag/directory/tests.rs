//! Holds directories to the CIDs and listings of Kubo, and to names and tries that are attacks.

use std::fs;
use std::path::Path;

use futures::executor::block_on;
use proptest::prelude::*;

use super::*;
use crate::dag::samples::{Blocks, foreign, unixfs};
use crate::dag::{balanced, hash_file};

fn entry(name: &str, cid: Cid, size: u64) -> Entry {
    Entry { name: name.to_owned(), cid, size }
}

fn list(blocks: &Blocks, cid: &Cid, limit: usize) -> Result<Vec<Entry>, DirectoryError> {
    block_on(list_directory(blocks, cid, limit))
}

/// A directory node with links of any names.
fn node(kind: Kind, fanout: Option<u64>, links: &[(&[u8], Cid)]) -> Block {
    let links: Vec<Link> =
        links.iter().map(|(name, cid)| Link { cid: *cid, name: Bytes::copy_from_slice(name), size: 1 }).collect();
    let hash_type = fanout.map(|_| 0x22);
    Block::dag_pb(encode_node(&links, &encode_unixfs(&UnixFs { fanout, hash_type, ..unixfs(kind) })))
}

/// Encodes a folder of the disk, which the OCI layout among the test data is.
fn folder(path: &Path, blocks: &mut Blocks) -> (Cid, u64) {
    let mut entries = Vec::new();
    for item in fs::read_dir(path).expect("a folder") {
        let path = item.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let (cid, size) = if path.is_dir() {
            folder(&path, blocks)
        } else {
            let tree = balanced(&hash_file(&fs::File::open(&path).expect("a file"), 2).expect("read").leaves);
            (tree.root, tree.cumulative)
        };
        entries.push(Entry { name, cid, size });
    }
    let (block, size) = encode_directory(entries).expect("sound");
    (blocks.add(block), size)
}

/// What `ipfs add -r --cid-version=1` of Kubo says of the same folder.
#[test]
fn a_layout_has_the_cid_kubo_gives() {
    let mut blocks = Blocks::default();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/source-layout");
    let (root, _) = folder(&path, &mut blocks);
    assert_eq!(root.to_string(), "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze");
    let listed: Vec<(String, String, u64)> = list(&blocks, &root, 10)
        .expect("sound")
        .into_iter()
        .map(|entry| (entry.name, entry.cid.to_string(), entry.size))
        .collect();
    let expected = [
        ("blobs", "bafybeiabcpseeklfimcdw55q22kkh7jnbrmimlczgbbwfi45kkfa7pct4a", 33_143),
        ("index.json", "bafkreibmdg4aiosa7cj77pcqjkjkqkvpychmw3ww3tfjqrvf3r6iwnqcsi", 247),
        ("oci-layout", "bafkreiam33oaq2owbo2z4po6onxzsybf44brqgafq7qett5cf6anm6vi4u", 31),
    ];
    assert_eq!(listed, expected.map(|(name, cid, size)| (name.to_owned(), cid.to_owned(), size)));
    let sha256 = block_on(resolve_path(&blocks, &root, &["blobs", "sha256"])).expect("there");
    assert_eq!(sha256.to_string(), "bafybeihmqaa3sdzb5w7h3on7pw5lfehomvyswd6s3ieyfib5k6omni5x7u");
}

#[test]
fn an_empty_directory_has_the_cid_kubo_gives() {
    let (block, size) = encode_directory(Vec::new()).expect("sound");
    assert_eq!(block.cid().to_string(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
    assert_eq!(size, 4);
}

#[test]
fn tries_of_kubo_list_what_its_plain_directory_does() {
    let (root, blocks) = foreign("plain-directory");
    let plain = list(&blocks, &root, 40).expect("sound");
    assert_eq!(plain.len(), 40);
    assert!((0..40).all(|number| plain.iter().any(|entry| entry.name == format!("entry-{number}"))));
    for name in ["hamt-8", "hamt-256"] {
        let (root, mut blocks) = foreign(name);
        blocks.late = 5;
        assert_eq!(list(&blocks, &root, 40).expect("sound"), plain, "{name}");
        assert!(matches!(list(&blocks, &root, 39), Err(DirectoryError::TooMany { limit: 39 })), "{name}");
        let seven = block_on(resolve_path(&blocks, &root, &["entry-7"])).expect("there");
        assert_eq!(Some(seven), plain.iter().find(|entry| entry.name == "entry-7").map(|entry| entry.cid));
    }
}

#[test]
fn a_path_that_leads_nowhere_says_where_it_ended() {
    let (root, blocks) = foreign("plain-directory");
    let error = block_on(resolve_path(&blocks, &root, &["entry-99"])).expect_err("not there");
    assert_eq!(error.to_string(), format!("directory `{root}` has no entry `entry-99`"));
    let error = block_on(resolve_path(&blocks, &root, &["entry-9", "below"])).expect_err("a file");
    assert!(matches!(error, DirectoryError::NotADirectory { .. }));
    assert_eq!(block_on(resolve_path(&blocks, &root, &[])).expect("nothing to follow"), root);
}

#[test]
fn c1_names_that_lead_elsewhere_or_upset_a_terminal_are_refused() {
    let leaf = *Block::raw(Bytes::new()).cid();
    let long = [b'x'; MAX_NAME_BYTES + 1];
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"/",
        b"../x",
        b"a/b",
        b"/etc",
        b"a\0b",
        b"\x1b[2J",
        b"a\nb",
        "a\u{9b}b".as_bytes(),
        b"\xff\xfe",
    ];
    for name in bad.into_iter().chain([&long[..]]) {
        let mut blocks = Blocks::default();
        let root = blocks.add(node(Kind::Directory, None, &[(b"good", leaf), (name, leaf)]));
        let error = list(&blocks, &root, 10).expect_err("a bad name");
        assert!(matches!(error, DirectoryError::Name { .. }), "{name:?}: {error:?}");
        assert!(!error.to_string().contains(char::is_control), "the message itself is harmless");
        if let Ok(name) = str::from_utf8(name) {
            assert!(matches!(encode_directory(vec![entry(name, leaf, 0)]), Err(DirectoryError::Name { .. })));
        }
        if !name.is_empty() {
            let name = [b"0F", name].concat();
            let root = blocks.add(node(Kind::HamtShard, Some(256), &[(&name, leaf)]));
            assert!(matches!(list(&blocks, &root, 10), Err(DirectoryError::Name { .. })), "in a trie");
        }
    }
    let longest = "x".repeat(MAX_NAME_BYTES);
    assert!(encode_directory(vec![entry(&longest, leaf, 0), entry("...", leaf, 0), entry("ü", leaf, 0)]).is_ok());
}

#[test]
fn c1_two_entries_of_one_name_are_refused() {
    let leaf = *Block::raw(Bytes::new()).cid();
    let mut blocks = Blocks::default();
    for root in [
        node(Kind::Directory, None, &[(b"a", leaf), (b"b", leaf), (b"a", leaf)]),
        node(Kind::HamtShard, Some(256), &[(b"00a", leaf), (b"01a", leaf)]),
    ] {
        let root = blocks.add(root);
        assert!(matches!(list(&blocks, &root, 10), Err(DirectoryError::Twice { .. })));
    }
    assert!(matches!(
        encode_directory(vec![entry("a", leaf, 0), entry("a", leaf, 0)]),
        Err(DirectoryError::Twice { .. })
    ));
}

#[test]
fn c3_sizes_that_overflow_are_refused() {
    let leaf = *Block::raw(Bytes::new()).cid();
    let entries = vec![entry("a", leaf, u64::MAX), entry("b", leaf, 1)];
    assert!(matches!(encode_directory(entries), Err(DirectoryError::Overflow)));
}

#[test]
fn c5_tries_of_impossible_fanout_are_refused() {
    let mut blocks = Blocks::default();
    for fanout in [None, Some(0), Some(1), Some(100), Some(2048), Some(1 << 40), Some(u64::MAX)] {
        let message = UnixFs { fanout, ..unixfs(Kind::HamtShard) };
        let root = blocks.add(Block::dag_pb(encode_node(&[], &encode_unixfs(&message))));
        assert!(matches!(list(&blocks, &root, 10), Err(DirectoryError::Fanout { .. })), "{fanout:?}");
    }
}

#[test]
fn c5_nodes_that_do_not_belong_into_a_trie_are_refused() {
    let leaf = *Block::raw(Bytes::new()).cid();
    let plain = node(Kind::Directory, None, &[(b"a", leaf)]);
    let narrow = node(Kind::HamtShard, Some(16), &[(b"Fa", leaf)]);
    for below in [plain, narrow] {
        let mut blocks = Blocks::default();
        let below = blocks.add(below);
        let root = blocks.add(node(Kind::HamtShard, Some(256), &[(b"00", below)]));
        assert!(matches!(list(&blocks, &root, 10), Err(DirectoryError::Trie { .. })));
    }
    let mut blocks = Blocks::default();
    for name in [&b""[..], b"0", b"\xc3\xbc", b"zza"] {
        let root = blocks.add(node(Kind::HamtShard, Some(256), &[(name, leaf)]));
        assert!(matches!(list(&blocks, &root, 10), Err(DirectoryError::Trie { .. })), "{name:?}");
    }
}

/// Nodes that hold nothing but links to one node below, a thousand times each.
#[test]
fn c2_a_trie_of_a_billion_laughs_is_left_early() {
    let mut blocks = Blocks::default();
    let mut cid = blocks.add(node(Kind::HamtShard, Some(1024), &[]));
    for _ in 0..20 {
        cid = blocks.add(node(Kind::HamtShard, Some(1024), &[(&b"000"[..], cid); 1000]));
    }
    assert!(matches!(list(&blocks, &cid, 5000), Err(DirectoryError::TooMany { .. })));
    assert!(blocks.asked() <= 20, "{}", blocks.asked());
}

#[test]
fn c2_a_trie_of_ten_thousand_levels_is_left_early() {
    let mut blocks = Blocks::default();
    let mut cid = blocks.add(node(Kind::HamtShard, Some(256), &[]));
    for _ in 0..10_000 {
        cid = blocks.add(node(Kind::HamtShard, Some(256), &[(b"00", cid)]));
    }
    assert!(matches!(list(&blocks, &cid, 1_000_000), Err(DirectoryError::Trie { .. })));
    assert_eq!(blocks.asked(), MAX_DEPTH + 2);
}

#[test]
fn files_are_no_directories() {
    let mut blocks = Blocks::default();
    for block in [Block::raw(Bytes::from_static(b"x")), node(Kind::File, None, &[]), node(Kind::Symlink, None, &[])] {
        let cid = blocks.add(block);
        assert!(matches!(list(&blocks, &cid, 10), Err(DirectoryError::NotADirectory { .. })));
    }
    let cid = blocks.add(Block::dag_pb(Bytes::from_static(b"\x0a\xff")));
    assert!(matches!(list(&blocks, &cid, 10), Err(DirectoryError::Malformed { .. })));
}

#[test]
fn a_directory_that_no_block_holds_is_not_written() {
    let leaf = *Block::raw(Bytes::new()).cid();
    let entries = (0..20_000).map(|number| entry(&format!("{number:0>200}"), leaf, 0)).collect();
    assert!(matches!(encode_directory(entries), Err(DirectoryError::TooLarge { .. })));
}

proptest! {
    /// Whatever the names and their order; the CID does not depend on the order.
    #[test]
    fn what_is_written_is_listed(names in prop::collection::btree_set("[^\\p{Cc}/]{1,40}", 0..30), sizes in any::<u32>()) {
        let names: Vec<String> = names.into_iter().filter(|name| name != "." && name != "..").collect();
        let entries: Vec<Entry> = names
            .iter()
            .map(|name| entry(name, *Block::raw(Bytes::copy_from_slice(name.as_bytes())).cid(), u64::from(sizes)))
            .collect();
        let mut blocks = Blocks::default();
        let (block, size) = encode_directory(entries.iter().rev().cloned().collect()).expect("sound");
        prop_assert_eq!(size, block.data().len() as u64 + u64::from(sizes) * names.len() as u64);
        prop_assert_eq!(&block, &encode_directory(entries.clone()).expect("sound").0);
        let root = blocks.add(block);
        prop_assert_eq!(list(&blocks, &root, names.len()).expect("sound"), entries);
    }
}
