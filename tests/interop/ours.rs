//! A node of ours in this process, for peers that know files and no images.

use sha2::{Digest as _, Sha256};
use shipfs_node::Cid;
use shipfs_node::add::Content;
use shipfs_node::config::{Config, Network, NetworkConfig};
use shipfs_node::fetch::Expected;
use shipfs_node::node::Node;
use shipfs_tests::image::Noise;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Longest that a fetch may wait without a block.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node.
pub(crate) struct Ours {
    runtime: Runtime,
    node: Node,
    _folder: TempDir,
}

/// A file of noise.
pub(crate) fn noise(size: u64) -> Vec<u8> {
    Noise::new(size ^ 0x5eed).bytes(usize::try_from(size).expect("fits in memory"))
}

impl Ours {
    /// A node that listens at `listen`, if it is to be dialled, and dials `peers`.
    pub(crate) fn start(listen: Option<&str>, peers: &[&str], key: Option<[u8; 32]>) -> Self {
        let address = |text: &&str| text.parse().expect("an address");
        let network = NetworkConfig {
            network: key.map_or(Network::Lan, Network::private),
            listen: listen.iter().map(address).collect(),
            peers: peers.iter().map(address).collect(),
            ..NetworkConfig::offline()
        };
        let (runtime, folder) = (Runtime::new().expect("threads"), TempDir::new().expect("a temporary directory"));
        let config = Config { network, patience: PATIENCE, ..Config::offline(folder.path()) };
        let node = runtime.block_on(Node::start(config)).expect("starts");
        Self { runtime, node, _folder: folder }
    }

    /// Takes a file in and serves it; its CID, and where.
    pub(crate) fn serve(&self, bytes: &[u8]) -> (Cid, String) {
        self.runtime.block_on(async {
            let lease = self.node.lease();
            let content = Content::Bytes(bytes.to_vec().into());
            let added = self.node.add(content, None, &lease, &|_| {}).await.expect("added");
            self.node.pin(&added.cid, "interop").await.expect("pinned");
            self.node.serve(true).await.expect("serves");
            let net = self.node.net().await.expect("online");
            let listener = net.listeners().await.expect("listens").remove(0);
            (added.cid, format!("{listener}/p2p/{}", net.peer()))
        })
    }

    /// Fetches a file from its peers; how long that took.
    pub(crate) fn fetch(&self, cid: &str, bytes: &[u8]) -> Result<Duration, String> {
        let cid: Cid = cid.parse().expect("a CID");
        let expected = Expected { digest: Sha256::digest(bytes).into(), size: bytes.len() as u64 };
        let began = Instant::now();
        self.runtime.block_on(async {
            let lease = self.node.lease();
            let got =
                self.node.get(&cid, Some(expected), 0, &lease, &|_| {}).await.map_err(|error| error.to_string())?;
            self.node.commit().await.map_err(|error| error.to_string())?;
            let took = began.elapsed();
            assert!(std::fs::read(got.path).expect("there") == bytes, "{cid} differs");
            Ok(took)
        })
    }
}
