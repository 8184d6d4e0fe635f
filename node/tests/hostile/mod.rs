//! Peers that misbehave in every way this crate defends against, and honest ones beside them.
//!
//! [`peer`] is a bare libp2p peer, [`link`] a wire between two that can be slow or cut, [`child`] a node in a process of
//! its own, whose memory can be read. This module has the files they all exchange and the manners of holders.

pub(crate) mod child;
pub(crate) mod link;
pub(crate) mod peer;

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use peer::{Bare, Doors};
use sha2::{Digest as _, Sha256};
use shipfs_node::Cid;
use shipfs_node::add::Content;
use shipfs_node::block::Block;
use shipfs_node::block::Multihash;
use shipfs_node::config::{Config, NetworkConfig};
use shipfs_node::dag::{self, CHUNK_BYTES, Leaf};
use shipfs_node::exchange::bitswap::wire::{self, Want};
use shipfs_node::fetch::Expected;
use shipfs_node::node::Node;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) fn silent(_: u64) {}

/// Bytes that repeat nowhere, the same at every run.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// A file, and the blocks it is made of.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) root: Cid,
    pub(crate) expected: Expected,
    pub(crate) blocks: Arc<HashMap<Multihash, Block>>,
}

impl File {
    pub(crate) fn new(length: usize, seed: u64) -> Self {
        let bytes = Bytes::from(noise(length, seed));
        let chunks = (0..length.div_ceil(CHUNK_BYTES)).map(|n| n * CHUNK_BYTES);
        let leaves: Vec<_> = chunks.map(|at| Block::raw(bytes.slice(at..length.min(at + CHUNK_BYTES)))).collect();
        let tree = dag::balanced(
            &leaves.iter().map(|leaf| Leaf { cid: *leaf.cid(), size: leaf.data().len() as u64 }).collect::<Vec<_>>(),
        );
        let expected = Expected { digest: Sha256::digest(&bytes).into(), size: length as u64 };
        let blocks = leaves.into_iter().chain(tree.nodes).map(|block| (*block.cid().hash(), block)).collect();
        Self { bytes, root: tree.root, expected, blocks: Arc::new(blocks) }
    }

    /// Of its root, then of its other blocks.
    pub(crate) fn cids(&self) -> Vec<Cid> {
        let others = self.blocks.values().map(|block| *block.cid()).filter(|cid| *cid != self.root);
        [self.root].into_iter().chain(others).collect()
    }

    /// Fetches it with a node and compares.
    pub(crate) async fn arrives_at(&self, node: &Node) {
        let got = node.get(&self.root, Some(self.expected), 0, &node.lease(), &silent).await.expect("fetched");
        assert!(std::fs::read(&got.path).expect("there") == self.bytes, "the file differs");
    }
}

pub(crate) fn loopback() -> NetworkConfig {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    NetworkConfig { listen, mdns: false, ..NetworkConfig::lan() }
}

/// A node that listens, and the address it does so at.
pub(crate) async fn node(directory: &TempDir, patience: Duration) -> (Node, String) {
    let config = Config { network: loopback(), patience, ..Config::offline(directory.path()) };
    let node = Node::start(config).await.expect("starts");
    let net = node.go_online().await.expect("online");
    let address = net.listeners().await.expect("listens").remove(0);
    let address = format!("{address}/p2p/{}", net.peer());
    (node, address)
}

pub(crate) fn id_in(address: &str) -> PeerId {
    address.rsplit('/').next().and_then(|id| id.parse().ok()).expect("an address with an identity")
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Puts a file into a node.
pub(crate) async fn add(node: &Node, file: &File) {
    let content = Content::Bytes(file.bytes.clone());
    node.add(content, Some(file.expected), &node.lease(), &silent).await.expect("added");
    node.commit().await.expect("durable");
}

/// Files under a directory, as paths relative to it, with their sizes.
pub(crate) fn files_in(root: &std::path::Path) -> Vec<(String, u64)> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                found.push((name, metadata.len()));
            }
        }
    }
    found.sort();
    found
}

/// The next message of a stream, without its length prefix.
pub(crate) async fn read_message(stream: &mut Stream) -> Option<Bytes> {
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await.ok()?;
            return Some(message.into());
        }
    }
    None
}

pub(crate) fn block_message(block: &Block) -> Vec<u8> {
    [&wire::encode_block_head(block.cid(), block.data().len())[..], block.data()].concat()
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// How many a liar sends for each that is wanted.
pub(crate) const GARBAGE_BLOCKS: usize = 8;

/// What liars send; `number` counts what one of them has sent.
pub(crate) fn garbage(number: usize) -> Vec<u8> {
    noise(CHUNK_BYTES, number as u64 + 1_000_000)
}

/// How a holder answers those who want its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Honest, in an older protocol.
    Old(&'static str),
    /// Denies everything.
    Denies,
    /// HAVE, and then nothing.
    Stalls,
    /// HAVE to whoever asks whether, DONT_HAVE to whoever wants.
    FlipFlops,
    /// Half of a block at once, the rest byte by byte.
    Drips,
    /// Other bytes than those of the block, [`GARBAGE_BLOCKS`] times.
    Garbage,
    /// Blocks of the file, but others than those it is asked for.
    Unasked,
    /// Each block three times.
    Replays,
    /// The head and a part of each block, then it closes the stream.
    ClosesMidBlock,
    /// Closes the connection after so many blocks, and comes back.
    Vanishes(usize),
    /// Blocks of 2 MiB and a byte.
    Oversized,
}

/// Serves a file to `node`, whose `address` it has dialled, until the peer is dropped.
pub(crate) async fn hold(mut bare: Bare, address: &str, file: &File, manner: Manner) -> Holder {
    bare.dial(address).await.expect("connects");
    let served = Arc::new(AtomicUsize::new(0));
    let cancelled = Arc::new(AtomicUsize::new(0));
    let (doors, file, counter, taken_back) = (bare.opener(), file.clone(), served.clone(), cancelled.clone());
    let address = address.to_owned();
    let task = tokio::spawn(async move {
        while let Some((peer, stream)) = bare.inbound.recv().await {
            let (doors, blocks, counter) = (doors.clone(), file.blocks.clone(), counter.clone());
            let (address, cancelled) = (address.clone(), taken_back.clone());
            tokio::spawn(async move {
                let mut answering =
                    Answering { doors, peer, out: None, blocks, served: counter, cancelled, manner, address };
                let _ = answering.answer(stream).await;
            });
        }
    });
    Holder { served, cancelled, task }
}

pub(crate) struct Holder {
    served: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Holder {
    /// Blocks it was asked for, or would have sent.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Wants that were taken back.
    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answering {
    doors: Doors,
    peer: PeerId,
    out: Option<Stream>,
    blocks: Arc<HashMap<Multihash, Block>>,
    served: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
    manner: Manner,
    address: String,
}

impl Answering {
    async fn answer(&mut self, mut wants: Stream) -> Result<(), String> {
        while let Some(message) = read_message(&mut wants).await {
            for want in wire::decode(&message).map_err(|error| error.to_string())?.wants {
                if want.cancel {
                    self.cancelled.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.answer_one(&want).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.out.is_none() {
            self.out = Some(self.doors.open(self.peer).await?);
        }
        let stream = self.out.as_mut().expect("it was just opened");
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let sent: std::io::Result<()> = sent.await;
        if sent.is_err() {
            self.out = None;
        }
        sent.map_err(|error| error.to_string())
    }

    async fn say(&mut self, cid: &Cid, have: bool) -> Result<(), String> {
        self.send(&wire::encode_presences(&[(*cid, have)])).await
    }

    async fn answer_one(&mut self, want: &Want) -> Result<(), String> {
        let block = self.blocks.get(want.cid.hash()).filter(|_| self.manner != Manner::Denies).cloned();
        let Some(block) = block else { return self.say(&want.cid, false).await };
        if let Manner::Old(protocol) = self.manner {
            assert!(!want.have_only && !want.send_dont_have, "{protocol} knows no such want");
        }
        if want.have_only {
            return self.say(&want.cid, true).await;
        }
        let served = self.served.fetch_add(1, Ordering::Relaxed);
        match self.manner {
            Manner::Old(peer::V1_0) => {
                let head = wire::encode_legacy_block_head(block.data().len());
                self.send(&[&head[..], block.data()].concat()).await
            }
            Manner::Honest | Manner::Old(_) => self.send(&block_message(&block)).await,
            Manner::Denies | Manner::Stalls => Ok(()),
            Manner::FlipFlops => self.say(&want.cid, false).await,
            Manner::Drips => {
                let message = block_message(&block);
                let (now, later) = message.split_at(message.len() / 2);
                self.send(now).await?;
                for byte in later {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    self.send(&[*byte]).await?;
                }
                Ok(())
            }
            Manner::Garbage => {
                for copy in 0..GARBAGE_BLOCKS {
                    let block = Block::raw(garbage(served * GARBAGE_BLOCKS + copy).into());
                    self.send(&block_message(&block)).await?;
                }
                Ok(())
            }
            Manner::Unasked => {
                let other = self.blocks.values().nth(served % self.blocks.len()).expect("it has some").clone();
                self.send(&block_message(&other)).await
            }
            Manner::Replays => {
                let message = block_message(&block);
                self.send(&[&message[..], &message, &message].concat()).await
            }
            Manner::ClosesMidBlock => {
                let message = block_message(&block);
                self.send(&message[..message.len() / 3]).await?;
                let mut stream = self.out.take().expect("it was written to");
                stream.close().await.map_err(|error| error.to_string())
            }
            Manner::Vanishes(after) if served > 0 && served.is_multiple_of(after) => {
                self.doors.disconnect(self.peer).await;
                self.doors.dial(&self.address).await?;
                Err("vanished".into())
            }
            Manner::Vanishes(_) => self.send(&block_message(&block)).await,
            Manner::Oversized => {
                let bytes = noise(shipfs_node::block::MAX_BLOCK_BYTES + 1, served as u64);
                let cid = shipfs_node::block::cid_of(0x55, &bytes);
                self.send(&[&wire::encode_block_head(&cid, bytes.len())[..], &bytes].concat()).await
            }
        }
    }
}
