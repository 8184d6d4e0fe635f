//! Embeds two nodes in one program: one pushes an image out of an OCI layout, the other pulls it into another.
//!
//! ```text
//! cargo run -p shipfs-examples --bin push_and_pull [LAYOUT]
//! ```

use anyhow::{Context as _, Result};
use shipfs_image::blobs::embedded::EmbeddedBlobs;
use shipfs_image::pull::{PullOptions, pull};
use shipfs_image::push::{PushFrom, PushOptions, push};
use shipfs_image::{sink, source};
use shipfs_node::Protocol;
use shipfs_node::config::{Config, NetworkConfig};
use shipfs_node::node::Node;
use std::io::Write as _;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<()> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/hello");
    let layout = std::env::args().nth(1).unwrap_or_else(|| shipped.to_owned());
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);

    let network = NetworkConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?], mdns: false, ..NetworkConfig::lan() };
    let giver = Node::start(Config { network, ..Config::offline(here.path()) }).await?;
    let images = source::open(&format!("oci:{layout}").parse()?, None, here.path())?;
    let from = PushFrom::Source(Arc::from(images), None);
    let blobs = EmbeddedBlobs::new(giver.clone());
    let image = push(&blobs, &from, &PushOptions::default(), &()).await?;
    giver.serve(true).await?;

    let net = giver.net().await.context("serving has brought it online")?;
    let address = net.listeners().await?.remove(0).with(Protocol::P2p(net.peer()));
    let network = NetworkConfig { peers: vec![address], mdns: false, ..NetworkConfig::lan() };
    let taker = Node::start(Config { network, ..Config::offline(there.path()) }).await?;
    let target = there.path().join("layout");
    let sink = sink::open(&format!("oci:{}", target.display()).parse()?, None)?;
    pull(&EmbeddedBlobs::new(taker.clone()), &image.root, &PullOptions::default(), Some(sink), &()).await?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", image.root)?;
    for blob in std::fs::read_dir(target.join("blobs/sha256"))? {
        writeln!(out, "sha256:{}", blob?.file_name().to_string_lossy())?;
    }
    taker.shutdown().await?;
    giver.shutdown().await?;
    Ok(())
}
