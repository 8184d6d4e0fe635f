//! Helia, the JavaScript implementation: TCP, Noise, yamux, Bitswap.

use crate::ours::{Ours, noise};
use shipfs_tests::peers::script;
use shipfs_tests::program::{Running, run};
use shipfs_tests::table::{Row, Table};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn interop_matrix_of_helia() {
    const NAME: &str = "interop_matrix_of_helia";
    let Some(script) = script(NAME, "helia/node.mjs") else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let mut table = Table::default();
    for size in [1 << 10, 1 << 20, 64 << 20] {
        let bytes = noise(size);
        let row = |way: &str, took| Row {
            peer: "Helia".to_owned(),
            way: way.to_owned(),
            transport: "TCP",
            key: "no",
            size,
            result: Ok(took),
        };
        let node = |verb: &str| {
            let mut command = Command::new("node");
            command.arg(&script).args([verb, "0"]);
            command
        };
        let ours = Ours::start(Some("/ip4/127.0.0.1/tcp/0"), &[], None);
        let (cid, address) = ours.serve(&bytes);
        let dest = folder.path().join("dest");
        let began = Instant::now();
        let out = File::create(&dest).expect("a file");
        run(node("fetch").args([&address, &cid.to_string()]).stdin(Stdio::null()).stdout(out));
        table.add(row("ours -> Helia", began.elapsed()));
        assert!(std::fs::read(&dest).expect("there") == bytes, "{size} bytes differ");

        let file = folder.path().join("file");
        std::fs::write(&file, &bytes).expect("written");
        let mut serve = node("serve");
        serve.stdin(File::open(&file).expect("a file"));
        let (_serving, lines) = Running::start_after(&mut serve, "/p2p/").expect("serves");
        let [cid, peer] = lines.as_slice() else { panic!("it says {lines:?}") };
        let took = Ours::start(None, &[peer], None).fetch(cid, &bytes);
        table.add(row("Helia -> ours", took.unwrap_or_else(|error| panic!("{size}: {error}"))));
    }
    table.finish("helia");
}

/// A wire to a port of loopback on which everything takes so long, each way.
/// Gives its port, and counts the connections that were made.
fn far(port: u16, delay: Duration) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let own = listener.local_addr().expect("bound").port();
    let carry = move |mut from: TcpStream, mut to: TcpStream| {
        let (sender, pieces) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
        std::thread::spawn(move || {
            for (sent, piece) in pieces {
                std::thread::sleep((sent + delay).saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    return;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now(), buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    };
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    std::thread::spawn(move || {
        for near in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            let (Ok(near), Ok(far)) = (near, TcpStream::connect((Ipv4Addr::LOCALHOST, port))) else { return };
            let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else { return };
            std::thread::spawn(move || carry(near, far));
            std::thread::spawn(move || carry(far_again, near_again));
        }
    });
    (own, connections)
}

/// Newer versions of its muxer send as one frame what the window allows, and windows grow where an answer takes a while.
/// Our muxer takes frames of 1 MiB at most, and ended the connection at once when one was longer.
#[test]
fn interop_helia_may_send_frames_as_long_as_its_window() {
    let Some(script) = script("interop_helia_may_send_frames_as_long_as_its_window", "helia/node.mjs") else { return };
    let bytes = noise(32 << 20);
    let folder = TempDir::new().expect("a temporary directory");
    let file = folder.path().join("file");
    std::fs::write(&file, &bytes).expect("written");
    let mut serve = Command::new("node");
    serve.env("MAX_FRAME", (16 << 20).to_string()).arg(&script).args(["serve", "0"]);
    serve.stdin(File::open(&file).expect("a file"));
    let (_serving, lines) = Running::start_after(&mut serve, "/p2p/").expect("serves");
    let [cid, peer] = lines.as_slice() else { panic!("it says {lines:?}") };
    let port = peer.split('/').nth(4).expect("a port");
    let (there, connections) = far(port.parse().expect("a number"), Duration::from_millis(40));
    let peer = peer.replace(&format!("/tcp/{port}/"), &format!("/tcp/{there}/"));
    let ours = Ours::start(None, &[&peer], None);
    ours.fetch(cid, &bytes).expect("fetched");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "none ended on the way");
}
