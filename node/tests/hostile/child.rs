//! A node in a process of its own, so that its memory and descriptors can be counted.
//!
//! The test binary starts itself again, with the one ignored test that [`run`] is the body of.

use super::{File, loopback, silent};
use shipfs_node::add::Content;
use shipfs_node::config::Config;
use shipfs_node::node::Node;
use std::io::{BufRead as _, Read as _};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const DIRECTORY: &str = "SHIPFS_TEST_CHILD_DIRECTORY";
const SIZE: &str = "SHIPFS_TEST_CHILD_SIZE";
const READY: &str = "the child listens at ";

/// A serving node with one file of so many bytes and seed 1.
pub(crate) struct ChildNode {
    process: Child,
    pub(crate) address: String,
    _directory: TempDir,
}

impl ChildNode {
    pub(crate) fn start(size: usize) -> Self {
        let directory = super::directory();
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_child_that_serves", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(SIZE, size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = std::io::BufReader::new(process.stdout.take().expect("piped"));
        let address = output.lines().map_while(Result::ok).find_map(|line| {
            let at = line.find(READY)?;
            Some(line[at + READY.len()..].to_owned())
        });
        Self { process, address: address.expect("the child says where it listens"), _directory: directory }
    }

    /// Bytes of memory it holds now.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a running process has memory");
        let kilobytes: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kilobytes << 10
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count()
    }
}

impl Drop for ChildNode {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child does: serves until its input ends.
pub(crate) async fn run() {
    let (Ok(directory), Ok(size)) = (std::env::var(DIRECTORY), std::env::var(SIZE)) else { return };
    let file = File::new(size.parse().expect("a size"), 1);
    let node = Node::start(Config { network: loopback(), ..Config::offline(directory) }).await.expect("starts");
    let lease = node.lease();
    let content = Content::Bytes(file.bytes.clone());
    node.add(content, Some(file.expected), &lease, &silent).await.expect("added");
    drop(file);
    node.commit().await.expect("durable");
    node.serve(true).await.expect("serves");
    let net = node.net().await.expect("online");
    let address = net.listeners().await.expect("listens").remove(0);
    let line = format!("\n{READY}{address}/p2p/{}\n", net.peer());
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).expect("written");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.expect("read").expect("read");
}
