//! Threats C1 to C5: roots that are no images, and blobs whose DAG is deeper, wider, longer or shorter than their
//! descriptor says, crafted into one repository and pulled out of it by another.

use super::{Desk, Giver};
use bytes::Bytes;
use serde_json::{Value, json};
use shipfs_node::Cid;
use shipfs_node::block::Block;
use shipfs_node::dag::{CHUNK_BYTES, Kind, Link, UnixFs, encode_node, encode_unixfs};
use shipfs_tests::crafted::{
    CONFIG, Crafted, INDEX, LAYER, MANIFEST, config, descriptor, file_node, manifest, with_cid,
};

/// Something whose CID is pulled: what it is, and how it is made; gives the CID.
type Bad = (&'static str, fn(&Crafted) -> String);

fn refuse_all(desk: &mut Desk, roots: &[Bad]) {
    let mut cids = Vec::new();
    let giver = Giver::new(desk, |crafted| cids.extend(roots.iter().map(|(_, make)| make(crafted))));
    for ((what, _), cid) in roots.iter().zip(&cids) {
        let mut pull = giver.pull(desk, cid);
        // Whatever is asked for in vain must not make the test slow.
        desk.refuses(what, pull.args(["--timeout", "1s"]));
    }
}

/// A directory of these entries, whatever they are called.
fn directory(entries: &[(&str, Cid)]) -> Block {
    let unixfs = UnixFs {
        kind: Kind::Directory,
        data: Bytes::new(),
        file_size: None,
        block_sizes: Vec::new(),
        hash_type: None,
        fanout: None,
    };
    let link = |(name, cid): &(&str, Cid)| Link { cid: *cid, name: Bytes::from(name.to_string()), size: 1 };
    let links: Vec<_> = entries.iter().map(link).collect();
    Block::dag_pb(encode_node(&links, &encode_unixfs(&unixfs)))
}

/// Adds a directory; gives its CID.
fn folder(crafted: &Crafted, entries: &[(&str, Cid)]) -> Cid {
    let block = directory(entries);
    crafted.block(&block);
    *block.cid()
}

fn file(crafted: &Crafted, text: &str) -> Cid {
    crafted.file(CHUNK_BYTES, text.as_bytes())
}

/// A layout root with this index and these files under `blobs/sha256`.
fn layout(crafted: &Crafted, index: &Value, blobs: &[(&str, Cid)]) -> String {
    let files = folder(crafted, blobs);
    let blobs = folder(crafted, &[("sha256", files)]);
    let entries = [
        ("blobs", blobs),
        ("index.json", file(crafted, &index.to_string())),
        ("oci-layout", file(crafted, r#"{"imageLayoutVersion":"1.0.0"}"#)),
    ];
    folder(crafted, &entries).to_string()
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

#[test]
fn c1_roots_that_are_no_images_are_refused() {
    let roots: [Bad; 14] = [
        ("a directory of something else", |crafted| {
            folder(crafted, &[("README", file(crafted, "read me"))]).to_string()
        }),
        ("a layout without `blobs`", |crafted| {
            let entries = [("index.json", file(crafted, "{}")), ("oci-layout", file(crafted, "{}"))];
            folder(crafted, &entries).to_string()
        }),
        ("a layout of two images", |crafted| {
            let other = crafted.image(&[crafted.blob(LAYER, b"other")]);
            layout(crafted, &index(&[crafted.image(&[]), other]), &[])
        }),
        ("a layout of no image", |crafted| layout(crafted, &index(&[]), &[])),
        ("a layout whose index is none", |crafted| layout(crafted, &json!([1, 2]), &[])),
        ("a layout that lacks its manifest", |crafted| {
            layout(crafted, &index(&[crafted.image(&[])]), &[("nothing", file(crafted, "else"))])
        }),
        ("c1: a layout with a name that leads out", |crafted| {
            layout(crafted, &index(&[crafted.image(&[])]), &[("../../../version", file(crafted, "99"))])
        }),
        ("c1: a layout with a name that speaks to the terminal", |crafted| {
            layout(crafted, &index(&[crafted.image(&[])]), &[("\u{1b}[2J\u{202e}", file(crafted, "x"))])
        }),
        ("a file that is no descriptor", |crafted| file(crafted, "just a file").to_string()),
        ("a descriptor without a CID", |crafted| {
            file(crafted, &descriptor(MANIFEST, b"somewhere").to_string()).to_string()
        }),
        ("a descriptor whose URL is none", |crafted| {
            let mut top = crafted.image(&[]);
            top["urls"] = json!(["ipfs://../../version\u{1b}[2J"]);
            crafted.root(&top)
        }),
        ("c4: a descriptor whose CID cannot be checked", |crafted| {
            let mut top = crafted.image(&[]);
            top["urls"] = json!(["ipfs://f015512080102030405060708"]);
            crafted.root(&top)
        }),
        ("a manifest that is a directory", |crafted| {
            let top = crafted.image(&[]);
            crafted.root(&with_cid(top, &folder(crafted, &[])))
        }),
        ("c5: a root that is no node", |crafted| {
            let block = Block::dag_pb(Bytes::from_static(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f no node"));
            crafted.block(&block);
            block.cid().to_string()
        }),
    ];
    let mut desk = Desk::new();
    refuse_all(&mut desk, &roots);
    desk.expect(
        r#"
- a directory of something else: 1
error: `CID` is a directory without `oci-layout`, so it is not an image layout
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout without `blobs`: 1
error: `CID` is a directory without `blobs`, so it is not an image layout
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout of two images: 1
error: the layout `CID` holds 2 images, expected one
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout of no image: 1
error: the layout `CID` holds 0 images, expected one
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout whose index is none: 1
error: `CID` is not an image
  because: a value that is not an object at byte 0
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a layout that lacks its manifest: 1
error: content `sha256:HASH` is not in the layout
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c1: a layout with a name that leads out: 1
error: a directory entry is named `../../../version`
- c1: a layout with a name that speaks to the terminal: 1
error: a directory entry is named `\u{1b}[2J\u{202e}`
- a file that is no descriptor: 1
error: `CID` is not an image
  because: malformed JSON at byte 0
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a descriptor without a CID: 1
error: no CID is recorded in `sha256:HASH`
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a descriptor whose URL is none: 1
error: the CID recorded in `sha256:HASH`, `../../version\u{1b}[2J`, is not valid
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c4: a descriptor whose CID cannot be checked: 1
error: the CID recorded in `sha256:HASH`, `f015512080102030405060708`, is not valid
  because: a digest of 8 bytes is refused, 20 to 128 are accepted
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- a manifest that is a directory: 1
error: blob `sha256:HASH` cannot be had
  because: `CID` is not a file
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c5: a root that is no node: 1
error: block `CID` is no UnixFS node
  because: the message ends inside a field
"#,
    );
}

/// The root of an image whose layer, of these bytes, is said to be at this CID.
fn image_at(crafted: &Crafted, bytes: &[u8], cid: &Cid) -> String {
    let config = crafted.document(CONFIG, &config(&[]));
    let layer = with_cid(descriptor(LAYER, bytes), cid);
    crafted.root(&crafted.document(MANIFEST, &manifest(&config, &[layer])))
}

/// Adds nodes, children first; gives the CID of the last.
fn tree(crafted: &Crafted, nodes: &[Block]) -> Cid {
    nodes.iter().for_each(|node| crafted.block(node));
    *nodes.last().expect("a root").cid()
}

fn leaf(text: &'static str) -> Block {
    Block::raw(Bytes::from_static(text.as_bytes()))
}

/// A node of links to `below`, each of which is said to stand for `size` bytes.
fn over(below: &Block, size: u64, count: usize) -> Block {
    file_node(&vec![(*below.cid(), size); count])
}

#[test]
fn c2_c3_dags_that_are_not_what_their_descriptor_says_are_refused() {
    let roots: [Bad; 12] = [
        ("c2: deeper than any", |crafted| {
            let mut nodes = vec![leaf("deep")];
            for _ in 0..200 {
                nodes.push(over(nodes.last().expect("a leaf"), 4, 1));
            }
            image_at(crafted, b"deep", &tree(crafted, &nodes))
        }),
        ("c2: wider than any", |crafted| {
            let leaf = leaf("w");
            let root = over(&leaf, 1, 30_000);
            image_at(crafted, &[b'w'; 30_000], &tree(crafted, &[leaf, root]))
        }),
        ("c2: finer than any", |crafted| {
            let leaf = leaf("f");
            let middle = over(&leaf, 1, 100);
            let root = over(&middle, 100, 100);
            image_at(crafted, &[b'f'; 10_000], &tree(crafted, &[leaf, middle, root]))
        }),
        ("c2: a billion laughs", |crafted| {
            let (mut nodes, mut size) = (vec![leaf("laugh")], 5_u64);
            for _ in 0..8 {
                nodes.push(over(nodes.last().expect("a leaf"), size, 174));
                size = size.saturating_mul(174);
            }
            image_at(crafted, &[b'l'; 1 << 20], &tree(crafted, &nodes))
        }),
        ("c2: links for no bytes", |crafted| {
            let (leaf, end) = (leaf(""), leaf("end"));
            let mut children = vec![(*leaf.cid(), 0); 5000];
            children.push((*end.cid(), 3));
            let root = file_node(&children);
            image_at(crafted, b"end", &tree(crafted, &[leaf, end, root]))
        }),
        ("c3: longer than the descriptor says", |crafted| {
            let leaf = leaf("abcdefgh");
            let root = over(&leaf, 8, 2);
            image_at(crafted, b"abcdefgh", &tree(crafted, &[leaf, root]))
        }),
        ("c3: shorter than the descriptor says", |crafted| {
            let leaf = leaf("abcd");
            let root = over(&leaf, 4, 1);
            image_at(crafted, b"abcdefgh", &tree(crafted, &[leaf, root]))
        }),
        ("c3: a leaf longer than its parent says", |crafted| {
            let leaf = leaf("abcdefgh");
            let root = over(&leaf, 5, 1);
            image_at(crafted, b"abcde", &tree(crafted, &[leaf, root]))
        }),
        ("c3: a leaf shorter than its parent says", |crafted| {
            let leaf = leaf("ab");
            let root = over(&leaf, 5, 1);
            image_at(crafted, b"abcde", &tree(crafted, &[leaf, root]))
        }),
        ("c3: sizes that overflow", |crafted| {
            let leaf = leaf("x");
            let root = file_node(&[(*leaf.cid(), u64::MAX), (*leaf.cid(), 2)]);
            image_at(crafted, b"x", &tree(crafted, &[leaf, root]))
        }),
        ("c3: the right size, other bytes", |crafted| {
            let leaf = leaf("abcd");
            let root = over(&leaf, 4, 2);
            image_at(crafted, b"abcdefgh", &tree(crafted, &[leaf, root]))
        }),
        ("c5: a layer that is no node", |crafted| {
            let node = Block::dag_pb(Bytes::from_static(b"\x0a\x04\x08\x02\x18"));
            image_at(crafted, b"x", &tree(crafted, &[node]))
        }),
    ];
    let mut desk = Desk::new();
    refuse_all(&mut desk, &roots);
    desk.expect(
        r#"
- c2: deeper than any: 1
error: blob `sha256:HASH` cannot be had
  because: the DAG of file `CID` is refused
  because: file node `CID` lies more than 32 levels below the root
- c2: wider than any: 1
error: blob `sha256:HASH` cannot be had
  because: file `CID` of 30000 bytes has more than 4103 blocks
- c2: finer than any: 1
error: blob `sha256:HASH` cannot be had
  because: file `CID` of 10000 bytes has more than 4098 blocks
- c2: a billion laughs: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 4201109395759514880 bytes, expected `sha256:HASH` and 1048576 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c2: links for no bytes: 1
error: blob `sha256:HASH` cannot be had
  because: the DAG of file `CID` is refused
  because: file node `CID` has a link that stands for no bytes
- c3: longer than the descriptor says: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 16 bytes, expected `sha256:HASH` and 8 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c3: shorter than the descriptor says: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 4 bytes, expected `sha256:HASH` and 8 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c3: a leaf longer than its parent says: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 8 bytes, expected `sha256:HASH` and 5 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c3: a leaf shorter than its parent says: 1
error: blob `sha256:HASH` cannot be had
  because: blob has 2 bytes, expected `sha256:HASH` and 5 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c3: sizes that overflow: 1
error: blob `sha256:HASH` cannot be had
  because: the DAG of file `CID` is refused
  because: file node `CID` states sizes that no file can have
- c3: the right size, other bytes: 1
error: blob `sha256:HASH` cannot be had
  because: blob has `sha256:HASH` and 8 bytes, expected `sha256:HASH` and 8 bytes
hint: the image was made or copied wrongly: get another copy, or ask whoever made it; trying again does not help
- c5: a layer that is no node: 1
error: blob `sha256:HASH` cannot be had
  because: the DAG of file `CID` is refused
  because: block `CID` is no UnixFS node
  because: the message ends inside a field
"#,
    );
}
