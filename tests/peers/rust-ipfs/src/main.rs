//! A rust-ipfs node on loopback: Bitswap over TCP.
//!
//! ```text
//! rust-ipfs serve <FILE            adds FILE, prints its CID and the node's address, runs until it is ended
//! rust-ipfs fetch PEER CID >FILE   dials PEER and writes the file CID
//! ```

use rust_ipfs::builder::DefaultIpfsBuilder;
use rust_ipfs::{Ipfs, IpfsPath, Multiaddr};
use std::error::Error;
use std::io::{Read as _, Write as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let node: Ipfs = DefaultIpfsBuilder::new()
        .with_default()
        .enable_tcp()
        .add_listening_addr("/ip4/127.0.0.1/tcp/0".parse()?)
        .start()
        .await?;
    match words.as_slice() {
        ["serve"] => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            let path: IpfsPath = node.add_unixfs(bytes).await?;
            println!("{}", path.root().cid().ok_or("a file has a CID")?);
            let address = loop {
                if let Some(address) = node.listening_addresses().await?.into_iter().next() {
                    break address;
                }
                tokio::task::yield_now().await;
            };
            println!("{address}/p2p/{}", node.identity(None).await?.peer_id);
            std::future::pending().await
        }
        ["fetch", peer, cid] => {
            node.connect(peer.parse::<Multiaddr>()?).await?;
            let bytes = node.cat_unixfs(format!("/ipfs/{cid}").parse::<IpfsPath>()?).await?;
            std::io::stdout().write_all(&bytes)?;
            Ok(())
        }
        _ => Err("usage: rust-ipfs serve | fetch PEER CID".into()),
    }
}
