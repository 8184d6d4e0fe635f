//! Kubo: its nodes fetch what we serve, and we what they do, in every shape that they give it, by way of a third node, too.

use sha2::{Digest as _, Sha256};
use shipfs_tests::image::{self, Noise};
use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{run, shipfs};
use shipfs_tests::repository::Repository;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Layers of an image: small enough to lie in their CID, below and above a chunk of 256 KiB and of 1 MiB, and more than 174 chunks.
const LAYERS: [u64; 5] = [50, 262_144, 300_000, 3 << 20, 46 << 20];

fn made(folder: &Path, layers: &[u64]) -> PathBuf {
    let source = folder.join("source");
    image::layout(&source, layers, 1).expect("a layout");
    source
}

/// Pulls an image from a peer into a new repository; its blobs must be those of the layout.
fn pull(peer: &str, cid: &str, source: &Path) {
    let folder = TempDir::new().expect("a temporary directory");
    let out = folder.path().join("out");
    let repository = Repository::new(folder.path().join("repository"));
    run(&mut repository.online(peer, &["pull", "--all-platforms", cid, "--to", &format!("oci:{}", out.display())]));
    let (got, expected) = (image::check_blobs(&out), image::check_blobs(source));
    let got = got.expect("sound blobs");
    assert!(got.len() > 2 && got.iter().all(|blob| expected.as_ref().expect("sound").contains(blob)), "{cid}");
}

#[test]
fn interop_kubo_reads_a_root_that_we_serve() {
    let Some(kubo) = Kubo::start("interop_kubo_reads_a_root_that_we_serve", KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &[1000, 1 << 20]);
    let repository = Repository::new(folder.path().join("repository"));
    let cid = repository.run(&["push", "--all-platforms", &format!("oci:{}", source.display())]);
    let (_daemon, address) = repository.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    let root = kubo.ipfs(&["cat", "--timeout", "10s", cid.trim()]);
    assert!(root.contains("ipfs://"), "{root}");
}

/// Kubo walks the directory that a layout root is, keeps all of it, and reads each blob bit for bit.
#[test]
fn interop_kubo_pins_and_reads_a_layout_that_we_serve() {
    const NAME: &str = "interop_kubo_pins_and_reads_a_layout_that_we_serve";
    let Some(kubo) = Kubo::start(NAME, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &LAYERS);
    let repository = Repository::new(folder.path().join("repository"));
    let cid = repository.run(&["push", "--layout", "--all-platforms", &format!("oci:{}", source.display())]);
    let (_daemon, address) = repository.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    kubo.ipfs(&["pin", "add", "--timeout", "60s", &cid]);
    for blob in image::check_blobs(&source).expect("sound blobs") {
        let mut cat = kubo.command();
        let cat = cat.args(["--offline", "cat", &format!("{cid}/blobs/sha256/{blob}")]).output().expect("it starts");
        assert!(cat.status.success() && image::hex(&Sha256::digest(&cat.stdout)) == blob, "{blob}");
    }
}

/// Chunks, leaves and trees of every shape that `ipfs add` makes; only one of them is what we make ourselves.
#[test]
fn interop_we_pull_what_kubo_holds_in_any_shape() {
    const NAME: &str = "interop_we_pull_what_kubo_holds_in_any_shape";
    let Some(kubo) = Kubo::start(NAME, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &LAYERS);
    let place = source.display().to_string();
    let peer = kubo.addresses().remove(0);
    let shapes: [&[&str]; 9] = [
        &["--cid-version=1"],
        &["--cid-version=1", "--chunker=size-1048576"],
        &["--cid-version=0"],
        &["--cid-version=0", "--raw-leaves=true"],
        &["--cid-version=1", "--raw-leaves=false", "--chunker=size-100000"],
        &["--cid-version=1", "--trickle"],
        &["--cid-version=0", "--trickle", "--chunker=size-1048576"],
        &["--cid-version=1", "--chunker=rabin-10000-50000-200000"],
        &["--cid-version=1", "--inline", "--inline-limit=64", "--max-file-links=1024"],
    ];
    let mut cids = Vec::new();
    for shape in shapes {
        let cid = kubo.ipfs(&[&["add", "-r", "-Q", "--pin=false"], shape, &[place.as_str()]].concat());
        pull(&peer, &cid, &source);
        assert!(!cids.contains(&cid), "{shape:?} is a shape of its own");
        cids.push(cid);
    }
    // The first is the shape that we give it.
    let repository = Repository::new(folder.path().join("repository"));
    let own = repository.run(&["push", "--layout", "--all-platforms", &format!("oci:{place}")]);
    assert_eq!(own, cids[0]);
}

/// As many bytes as a CID may hold lie in it: whole files, and what is left of one after its last full chunk.
#[test]
fn interop_we_pull_what_kubo_inlines() {
    const NAME: &str = "interop_we_pull_what_kubo_inlines";
    let Some(kubo) = Kubo::start(NAME, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &[110, (512 << 10) + 100, 65, 1]);
    let place = source.display().to_string();
    let add = ["add", "-r", "-Q", "--pin=false", "--cid-version=1", "--inline", "--inline-limit=120", &place];
    let cid = kubo.ipfs(&add);
    let inlined = |text: String| text.lines().filter(|line| line.starts_with("bafkq") && line.len() > 110).count();
    assert_eq!(inlined(kubo.ipfs(&["refs", "--recursive", "--unique", &cid])), 3, "two files and a tail");
    pull(&kubo.addresses().remove(0), &cid, &source);
    // And from its RPC, into our store and past it.
    let repository = Repository::new(folder.path().join("repository"));
    let through = |arguments: &[&str]| {
        run(shipfs(repository.path()).args(["--quiet", "--ipfs-address", &kubo.api()]).args(arguments))
    };
    let out = folder.path().join("out");
    through(&["pull", "--all-platforms", &cid, "--to", &format!("oci:{}", out.display())]);
    assert_eq!(image::check_blobs(&out).expect("a layout"), image::check_blobs(&source).expect("a layout"));
    through(&["pull", "--all-platforms", &cid]);
    repository.run(&["gc"]);
    repository.run(&["verify"]);
    // What lies in names is served and pulled on like everything else.
    let (_daemon, address) = repository.serve();
    pull(&address, &cid, &source);
}

/// Kubo makes a directory with thousands of entries a tree of hashes.
#[test]
fn interop_we_pull_an_image_out_of_a_sharded_directory() {
    const NAME: &str = "interop_we_pull_an_image_out_of_a_sharded_directory";
    let Some(kubo) = Kubo::start(NAME, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &[1000, 300_000]);
    let mut noise = Noise::new(5);
    for _ in 0..5000 {
        let bytes = noise.bytes(10);
        std::fs::write(source.join("blobs/sha256").join(image::hex(&Sha256::digest(&bytes))), bytes).expect("written");
    }
    let place = source.display().to_string();
    let peer = kubo.addresses().remove(0);
    for version in ["--cid-version=1", "--cid-version=0"] {
        let cid = kubo.ipfs(&["add", "-r", "-Q", "--pin=false", version, &place]);
        let node = kubo.ipfs(&["dag", "get", &format!("{cid}/blobs/sha256")]);
        // What names two hexadecimal digits and more is a tree.
        assert!(node.contains("\"Name\":\"00\"") || node.contains("\"Name\":\"01\""), "not sharded: {:.300}", node);
        pull(&peer, &cid, &source);
    }
}

/// A third node, with which both are connected, has the table of who holds what.
fn third(test: &str) -> Option<(Kubo, Kubo, String)> {
    let options = KuboOptions { dht: true, ..KuboOptions::default() };
    let (third, kubo) = (Kubo::start(test, options)?, Kubo::start(test, options)?);
    let address = third.addresses().remove(0);
    kubo.ipfs(&["swarm", "connect", &address]);
    Some((third, kubo, address))
}

#[test]
fn interop_kubo_finds_us_in_the_table_of_a_third_node() {
    let Some((_third, kubo, address)) = third("interop_kubo_finds_us_in_the_table_of_a_third_node") else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &[1000, 300_000]);
    let repository = Repository::new(folder.path().join("repository"));
    let cid = repository.run(&["push", "--layout", "--all-platforms", &format!("oci:{}", source.display())]);
    let (_daemon, _) = repository.serve_with(&["--listen", "/ip4/127.0.0.1/tcp/0", "--peer", &address]);
    kubo.ipfs(&["pin", "add", "--timeout", "60s", &cid]);
}

#[test]
fn interop_we_find_kubo_in_the_table_of_a_third_node() {
    let Some((third, kubo, address)) = third("interop_we_find_kubo_in_the_table_of_a_third_node") else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = made(folder.path(), &[1000, 300_000]);
    let cid = kubo.ipfs(&["add", "-r", "-Q", "--cid-version=1", &source.display().to_string()]);
    // It says so by itself, in its own time.
    let end = Instant::now() + Duration::from_secs(60);
    let known = || third.command().args(["routing", "findprovs", "--timeout", "2s", &cid]).output().expect("it starts");
    while known().stdout.is_empty() {
        assert!(Instant::now() < end, "Kubo announces nothing");
    }
    let peers = run(shipfs(&folder.path().join("other")).args(["--no-mdns", "--peer", &address, "peers"]));
    assert!(peers.contains(&address[..address.rfind("/p2p/").expect("a peer")]), "{peers}");
    pull(&address, &cid, &source);
}
