//! The storage seam over the node inside this process.
//!
//! Imports its parent and the node. One [`EmbeddedBlobs`] holds one lease, so that nothing it added or fetched is collected
//! before a record keeps it. It translates and nothing else: what is checked, the node checks.

use std::{error::Error, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use shipfs_node::{
    Cid,
    add::AddError,
    block::Block,
    dag::{self, BlockSource, BlockSourceError, DirectoryError, LoadError, WalkError},
    fetch::FetchError,
    node::Node,
    pin::{Keep, Lease},
    store::{Blockstore as _, FileInfo, Store, StoreError},
};

use super::{
    Added, BlobFile, Blobs, BlobsError, Body, Content, Directory, Entry, Expected, Progress, Record, Records, Want,
    convert::{MAX_ENTRIES, content_error, stored},
};

/// Storage by an embedded node, for one piece of work.
pub struct EmbeddedBlobs {
    node: Node,
    lease: Arc<Lease>,
}

impl EmbeddedBlobs {
    /// Begins a piece of work.
    pub fn new(node: Node) -> Self {
        let lease = Arc::new(node.lease());
        Self { node, lease }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What holds the work of this value.
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
        let store = self.node.store().clone();
        crate::bring::blocking(move || work(&store)).await
    }

    /// Makes a file lie here; says whether it did before.
    async fn get(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<(FileInfo, bool), BlobsError> {
        let ((expected, limit), wanted) = (want.bounds(), *cid);
        let existed = self.blocking(move |store| store.file(&wanted).is_some()).await;
        let fetched = self.node.get(cid, expected.map(Into::into), limit, &self.lease, progress).await;
        Ok((fetched.map_err(|error| fetch_error(*cid, expected, error))?, existed))
    }
}

#[async_trait]
impl Blobs for EmbeddedBlobs {
    async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: Progress<'_>,
    ) -> Result<Added, BlobsError> {
        let added = self.node.add(content.into(), expected.map(Into::into), &self.lease, progress).await;
        Ok(added.map_err(|error| add_error(expected, error))?.into())
    }

    async fn add_directory(&self, entries: Vec<Entry>) -> Result<Directory, BlobsError> {
        let entries = entries.into_iter().map(Into::into).collect();
        let (cid, cumulative) = self.node.add_directory(entries, &self.lease).await.map_err(other)?;
        Ok(Directory { cid, cumulative })
    }

    async fn find(&self, digest: &[u8; 32], size: Option<u64>) -> Result<Option<Added>, BlobsError> {
        let wanted = *digest;
        let there =
            self.blocking(move |store| store.file_by_digest(&wanted).iter().map(|info| info.size).collect::<Vec<_>>());
        let Some(size) = there.await.into_iter().find(|there| size.is_none_or(|size| size == *there)) else {
            return Ok(None);
        };
        let expected = Expected { digest: *digest, size };
        // The node knows its own DAG over bytes that are here, and makes it if need be. If they turn out damaged it looks
        // at the content instead, which is empty here and so is refused.
        match self.add(Content::Bytes(Bytes::new()), Some(expected), &|_| {}).await {
            Ok(added) => Ok(Some(added)),
            Err(BlobsError::Mismatch { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch(&self, cid: &Cid, want: Want, progress: Progress<'_>) -> Result<BlobFile, BlobsError> {
        let (info, existed) = self.get(cid, want, progress).await?;
        Ok(stored(*cid, info, existed))
    }

    async fn read(&self, cid: &Cid, limit: u64) -> Result<Bytes, BlobsError> {
        let (info, _) = self.get(cid, Want::AtMost(limit), &|_| {}).await?;
        crate::bring::blocking(move || Body::File(info.path).read(limit)).await.map_err(other)
    }

    async fn list(&self, cid: &Cid) -> Result<Vec<Entry>, BlobsError> {
        self.lease.hold(cid);
        let source = Storing { node: &self.node };
        let listed = dag::list_directory(&source, cid, MAX_ENTRIES).await;
        let entries = listed.map_err(|error| match error {
            DirectoryError::NotADirectory { cid } => BlobsError::NotADirectory { cid },
            DirectoryError::Load(LoadError::Source { cid, source }) => match source.downcast::<FetchError>() {
                Ok(error) => fetch_error(cid, None, *error),
                Err(source) => BlobsError::Other(source),
            },
            error => other(error),
        })?;
        Ok(entries.into_iter().map(Into::into).collect())
    }

    fn records(&self) -> &dyn Records {
        self
    }
}

#[async_trait]
impl Records for EmbeddedBlobs {
    async fn keep(&self, record: Record) -> Result<(), BlobsError> {
        let Record { name, root, members, note, incomplete } = record;
        let keep = Keep { name, root, members, note, incomplete };
        self.blocking(move |store| store.keep(keep)).await.map_err(other)
    }

    async fn release(&self, name: &str) -> Result<bool, BlobsError> {
        let name = name.to_owned();
        self.blocking(move |store| store.release(&name)).await.map_err(other)
    }

    async fn kept(&self) -> Result<Vec<Record>, BlobsError> {
        let record = |keep: Keep| {
            let Keep { name, root, members, note, incomplete } = keep;
            Record { name, root, members, note, incomplete }
        };
        // Images that lie with a daemon are listed by whoever works with that daemon.
        let own = |keep: &Keep| !super::foreign::is_foreign(&keep.name);
        Ok(self.blocking(|store| store.kept()).await.into_iter().filter(own).map(record).collect())
    }
}

/// Blocks from the node, which stay in its store.
struct Storing<'n> {
    node: &'n Node,
}

#[async_trait]
impl BlockSource for Storing<'_> {
    async fn block(&self, cid: &Cid) -> Result<Block, BlockSourceError> {
        let block = self.node.block(cid).await?;
        let (store, stored) = (self.node.store().clone(), block.clone());
        crate::bring::blocking(move || -> Result<(), StoreError> {
            if store.size(stored.cid())?.is_none() {
                store.put(&stored)?;
            }
            Ok(())
        })
        .await?;
        Ok(block)
    }
}

fn other(error: impl Error + Send + Sync + 'static) -> BlobsError {
    BlobsError::Other(Box::new(error))
}

fn add_error(expected: Option<Expected>, error: AddError) -> BlobsError {
    match error {
        AddError::Content(error) => content_error(expected, error),
        error => other(error),
    }
}

fn fetch_error(cid: Cid, expected: Option<Expected>, error: FetchError) -> BlobsError {
    match (error, expected) {
        (FetchError::Digest { got, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: Some(got), got_size: expected.size }
        }
        (FetchError::Size { got, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: None, got_size: got }
        }
        (FetchError::Dag { source: WalkError::Size { found, .. }, .. }, Some(expected)) => {
            BlobsError::Mismatch { expected, got_digest: None, got_size: found }
        }
        (FetchError::TooLong { limit, .. }, _) => BlobsError::TooLarge { cid, limit },
        (FetchError::Dag { source: WalkError::Directory { .. } | WalkError::NotAFile { .. }, .. }, _) => {
            BlobsError::NotAFile { cid }
        }
        (FetchError::Offline { .. }, _) => BlobsError::NotFound { cid, asked: super::OFFLINE.to_owned() },
        (FetchError::Unavailable { asked, holders, waited, .. }, _) => {
            let waited = waited.as_secs_f32();
            let asked = format!("{asked} peers asked, {} have it, nothing came for {waited:.1} s", holders.len());
            BlobsError::NotFound { cid, asked }
        }
        (error, _) => other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shipfs_node::config::{Config, NetworkConfig};

    use super::*;
    use crate::{
        blobs::suite,
        names::{self, Shape},
        oci::Platforms,
        pull::{self, PullOptions},
        push::{self, PushFrom, PushOptions},
        source,
    };

    /// A node that listens on loopback only, and one that knows it.
    async fn two(folder: &std::path::Path) -> (Node, Node) {
        let listen = NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")],
            mdns: false,
            ..NetworkConfig::lan()
        };
        let config = |name: &str, network: NetworkConfig| Config {
            network,
            patience: Duration::from_secs(3),
            ..Config::offline(folder.join(name))
        };
        let first = Node::start(config("first", listen.clone())).await.expect("starts");
        first.serve(true).await.expect("serves");
        let net = first.net().await.expect("is online");
        let address = net.listeners().await.expect("listens").into_iter().next().expect("an address");
        let peers = vec![address];
        let second = Node::start(config("second", NetworkConfig { peers, ..listen })).await.expect("starts");
        (first, second)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_embedded_node_does_what_storage_does() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (first, second) = two(folder.path()).await;
        suite::run(&EmbeddedBlobs::new(first.clone()), &EmbeddedBlobs::new(second.clone())).await;
        first.shutdown().await.expect("shuts down");
        second.shutdown().await.expect("shuts down");
    }

    fn data(path: &str) -> String {
        format!("{}/../tests/data/{path}", env!("CARGO_MANIFEST_DIR"))
    }

    fn push_from(path: &str) -> PushFrom {
        let location = format!("oci:{}", data(path)).parse().expect("location");
        let source = source::open(&location, None, std::path::Path::new("/nonexistent")).expect("opens");
        PushFrom::Source(source.into(), None)
    }

    async fn pull(node: &Node, root: &Cid, platforms: Platforms) -> Result<names::Image, pull::PullError> {
        let options = PullOptions { platforms, ..PullOptions::default() };
        pull::pull(&EmbeddedBlobs::new(node.clone()), root, &options, None, &()).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_travels_from_node_to_node_in_both_shapes() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (first, second) = two(folder.path()).await;
        for (shape, root) in [
            (Shape::Descriptor, "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4"),
            (Shape::Layout, "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze"),
        ] {
            let options = PushOptions { shape, ..PushOptions::default() };
            let blobs = EmbeddedBlobs::new(first.clone());
            let pushed = push::push(&blobs, &push_from("source-layout"), &options, &()).await.expect("pushes");
            assert_eq!(pushed.root.to_string(), root);
            let pulled = pull(&second, &pushed.root, Platforms::Host).await.expect("pulls");
            assert_eq!(pulled, pushed);
            // Only what nothing keeps is freed, and nothing of the image is.
            second.gc().await.expect("collects");
            assert_eq!(pull(&second, &pushed.root, Platforms::Host).await.expect("pulls"), pushed);
        }
        for entry in std::fs::read_dir(data("source-layout/blobs/sha256")).expect("lists") {
            let path = entry.expect("lists").path();
            let name = path.file_name().expect("a name");
            let theirs = std::fs::read(folder.path().join("second/blobs/sha256").join(name)).expect("the same blob");
            assert_eq!(std::fs::read(&path).expect("reads"), theirs);
        }
        first.shutdown().await.expect("shuts down");
        second.shutdown().await.expect("shuts down");
    }

    /// A layout of which one platform was pulled is kept, collected around and completed; and what is removed is freed.
    #[tokio::test(flavor = "multi_thread")]
    async fn part_of_a_layout_is_kept_and_completed() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (first, second) = two(folder.path()).await;
        let options = PushOptions { shape: Shape::Layout, platforms: Platforms::All, ..PushOptions::default() };
        let blobs = EmbeddedBlobs::new(first.clone());
        let root = push::push(&blobs, &push_from("parity/docker-list"), &options, &()).await.expect("pushes").root;
        let arm = Platforms::parse(&["linux/arm64"]).expect("platform");
        assert!(pull(&second, &root, arm.clone()).await.expect("pulls").incomplete);
        second.gc().await.expect("collects");
        first.serve(false).await.expect("stops serving");
        assert!(pull(&second, &root, arm).await.is_ok(), "all of it is here");
        assert!(pull(&second, &root, Platforms::All).await.is_err(), "the rest is not");
        first.serve(true).await.expect("serves");
        assert!(!pull(&second, &root, Platforms::All).await.expect("pulls").incomplete);
        let blobs = EmbeddedBlobs::new(second.clone());
        names::remove(blobs.records(), &crate::reference::Reference::Cid(root)).await.expect("removes");
        drop(blobs);
        assert!(second.gc().await.expect("collects").files > 10);
        let left = std::fs::read_dir(folder.path().join("second/blobs/sha256")).expect("lists").count();
        assert_eq!(left, 0);
        first.shutdown().await.expect("shuts down");
        second.shutdown().await.expect("shuts down");
    }
}
