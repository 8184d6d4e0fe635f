//! Threat C12 with Kubo: whoever holds the key gets in, from either end, and nobody else.

use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{run, said, shipfs};
use shipfs_tests::repository::Repository;
use std::path::PathBuf;
use tempfile::TempDir;

#[test]
fn interop_c12_kubo_and_shipfs_let_in_only_those_with_the_key() {
    const NAME: &str = "interop_c12_kubo_and_shipfs_let_in_only_those_with_the_key";
    let folder = TempDir::new().expect("a temporary directory");
    let key = |name: &str| {
        let path = folder.path().join(name);
        run(shipfs(folder.path()).args(["key", "gen", "--output"]).arg(&path));
        path
    };
    let keys = [None, Some(key("one.key")), Some(key("two.key"))];
    let options = |key: &Option<PathBuf>| -> Vec<String> {
        key.iter().flat_map(|key| ["--swarm-key".to_owned(), key.display().to_string()]).collect()
    };
    let mut kubos = Vec::new();
    for key in &keys {
        let kubo = Kubo::start(NAME, KuboOptions { swarm_key: key.as_deref(), ..KuboOptions::default() });
        let Some(kubo) = kubo else { return };
        kubos.push(kubo);
    }
    let ours: Vec<_> = (0..keys.len())
        .map(|at| {
            let said = options(&keys[at]);
            let mut options: Vec<_> = said.iter().map(String::as_str).collect();
            options.extend(["--listen", "/ip4/127.0.0.1/tcp/0"]);
            Repository::new(folder.path().join(format!("ours-{at}"))).serve_with(&options)
        })
        .collect();
    // All at once: who meets another kind of handshake waits for a while.
    std::thread::scope(|scope| {
        for (here, kubo) in kubos.iter().enumerate() {
            for (there, (_, address)) in ours.iter().enumerate() {
                let (options, folder) = (options(&keys[there]), folder.path());
                let (mut command, at) = (kubo.command(), kubo.addresses().remove(0));
                scope.spawn(move || {
                    let connect = command.args(["swarm", "connect", "--timeout", "30s", address]).output();
                    let connect = connect.expect("Kubo's command starts");
                    assert_eq!(
                        connect.status.success(),
                        here == there,
                        "Kubo {here}, ours {there}: {}",
                        said(&connect)
                    );
                });
                scope.spawn(move || {
                    let mut command = shipfs(&folder.join(format!("guest-{here}-{there}")));
                    command.arg("--no-mdns").args(options).args(["--peer", &at, "peers"]);
                    let peers = command.output().expect("it starts");
                    assert_eq!(peers.status.success(), here == there, "ours {there}, Kubo {here}: {}", said(&peers));
                });
            }
        }
    });
    for (kubo, (_, address)) in kubos.iter().zip(&ours) {
        let peer = address.rsplit('/').next().expect("a peer");
        assert!(kubo.ipfs(&["swarm", "peers"]).lines().all(|line| line.ends_with(peer)), "only its own kind");
    }
}
