//! Kubo: its nodes fetch what we serve, and we what they do.

use shipfs_tests::image;
use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::repository::Repository;
use tempfile::TempDir;

#[test]
fn interop_kubo_reads_a_root_that_we_serve() {
    let Some(kubo) = Kubo::start("interop_kubo_reads_a_root_that_we_serve", KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let source = folder.path().join("source");
    image::layout(&source, &[1000, 1 << 20], 1).expect("a layout");
    let repository = Repository::new(folder.path().join("repository"));
    let cid = repository.run(&["push", "--all-platforms", &format!("oci:{}", source.display())]);
    let (_daemon, address) = repository.serve();
    kubo.ipfs(&["swarm", "connect", &address]);
    let root = kubo.ipfs(&["cat", "--timeout", "10s", cid.trim()]);
    assert!(root.contains("ipfs://"), "{root}");
}
