//! A node in a process of its own, so that its memory and descriptors can be counted.
//!
//! The test binary starts itself again, with an ignored test: [`run`] is the body of the one that serves, [`run_pull`] of
//! the one that fetches.

use super::{File, loopback, silent};
use shipfs_node::add::Content;
use shipfs_node::config::Config;
use shipfs_node::fetch::Expected;
use shipfs_node::node::Node;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const DIRECTORY: &str = "SHIPFS_TEST_CHILD_DIRECTORY";
const SIZE: &str = "SHIPFS_TEST_CHILD_SIZE";
const ROOT: &str = "SHIPFS_TEST_CHILD_ROOT";
const DIGEST: &str = "SHIPFS_TEST_CHILD_DIGEST";
const FETCHED: &str = "the child fetched it, in seconds: ";
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
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let address = output.lines().map_while(Result::ok).find_map(|line| {
            let at = line.find(READY)?;
            Some(line[at + READY.len()..].to_owned())
        });
        Self { process, address: address.expect("the child says where it listens"), _directory: directory }
    }

    /// Bytes of memory it holds now.
    pub(crate) fn resident(&self) -> usize {
        memory(&self.process, "VmRSS")
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

/// A line of what the system says of a process's memory, in bytes.
fn memory(process: &Child, what: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a running process has memory");
    let kilobytes: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kilobytes << 10
}

/// A node that listens, and fetches one file when told to.
pub(crate) struct ChildPuller {
    process: Child,
    pub(crate) address: String,
    output: BufReader<ChildStdout>,
    pub(crate) directory: TempDir,
}

impl ChildPuller {
    pub(crate) fn start(file: &File) -> Self {
        let directory = super::directory();
        let digest: String = file.expected.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_child_that_fetches", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(SIZE, file.expected.size.to_string())
            .env(ROOT, file.root.to_string())
            .env(DIGEST, digest)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut child = Self { process, address: String::new(), output, directory };
        child.address = child.line(READY);
        child
    }

    /// What follows these words in what it says next.
    fn line(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).expect("text") > 0, "the child ended");
            if let Some(at) = line.find(words) {
                return line[at + words.len()..].trim().to_owned();
            }
        }
    }

    /// Makes it fetch the file; how long that took, and the most memory it ever held, in bytes. Blocks.
    pub(crate) fn fetch(&mut self) -> (Duration, usize) {
        let mut input = self.process.stdin.as_ref().expect("piped");
        std::io::Write::write_all(&mut input, b"go\n").expect("it listens");
        let seconds = self.line(FETCHED).parse().expect("a number");
        (Duration::from_secs_f64(seconds), memory(&self.process, "VmHWM"))
    }
}

impl Drop for ChildPuller {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the fetching child does: fetches at the first line of its input, and stays until the input ends.
pub(crate) async fn run_pull() {
    let of = |name| std::env::var(name).ok();
    let (Some(directory), Some(size), Some(root), Some(digest)) = (of(DIRECTORY), of(SIZE), of(ROOT), of(DIGEST))
    else {
        return;
    };
    let byte = |at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).expect("hexadecimal");
    let expected = Expected { digest: std::array::from_fn(byte), size: size.parse().expect("a size") };
    let node = Node::start(Config { network: loopback(), ..Config::offline(directory) }).await.expect("starts");
    let net = node.go_online().await.expect("online");
    let address = net.listeners().await.expect("listens").remove(0);
    say(&format!("{READY}{address}/p2p/{}", net.peer()));
    let line = || std::io::stdin().read_line(&mut String::new()).expect("text");
    tokio::task::spawn_blocking(line).await.expect("read");
    let begun = std::time::Instant::now();
    let root = root.parse().expect("a CID");
    node.get(&root, Some(expected), 0, &node.lease(), &silent).await.expect("fetched");
    node.commit().await.expect("durable");
    say(&format!("{FETCHED}{}", begun.elapsed().as_secs_f64()));
    tokio::task::spawn_blocking(line).await.expect("read");
}

fn say(line: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("\n{line}\n").as_bytes()).expect("written");
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
    say(&format!("{READY}{address}/p2p/{}", net.peer()));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.expect("read").expect("read");
}
