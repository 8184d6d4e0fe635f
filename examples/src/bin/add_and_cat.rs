//! Embeds two nodes in one program: one adds a file, the other reads it.
//!
//! ```text
//! cargo run -p shipfs-examples --bin add_and_cat [FILE]
//! ```

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use shipfs_node::Protocol;
use shipfs_node::add::Content;
use shipfs_node::config::{Config, NetworkConfig};
use shipfs_node::node::Node;
use std::io::Write as _;

#[tokio::main]
async fn main() -> Result<()> {
    let content = match std::env::args_os().nth(1) {
        Some(path) => Content::File(path.into()),
        None => Content::Bytes("hello from a file that came over Bitswap\n".into()),
    };
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);

    // A node on the local network that listens on loopback alone. It opens no socket until it has to.
    let network = NetworkConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?], mdns: false, ..NetworkConfig::lan() };
    let giver = Node::start(Config { network, ..Config::offline(here.path()) }).await?;
    let lease = giver.lease();
    let added = giver.add(content, None, &lease, &|_| {}).await?;
    giver.pin(&added.cid, "example").await?;
    giver.serve(true).await?;

    // Another that is told where the first one is.
    let net = giver.net().await.context("serving has brought it online")?;
    let address = net.listeners().await?.remove(0).with(Protocol::P2p(net.peer()));
    let network = NetworkConfig { peers: vec![address], mdns: false, ..NetworkConfig::lan() };
    let reader = Node::start(Config { network, ..Config::offline(there.path()) }).await?;
    let mut bytes = Box::pin(reader.cat(&added.cid, 0..u64::MAX));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", added.cid)?;
    while let Some(piece) = bytes.try_next().await? {
        out.write_all(&piece)?;
    }
    reader.shutdown().await?;
    giver.shutdown().await?;
    Ok(())
}
