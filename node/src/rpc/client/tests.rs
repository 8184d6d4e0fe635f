//! The client against a daemon that behaves, and one that does not.

use std::{
    io::Cursor,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    add::{Content, ContentError},
    block::{Block, CODEC_DAG_PB, CODEC_RAW, cid_of},
    config::Config,
    fetch::Expected,
    node::Node,
    testing::kubo::{Blocks, FakeKubo, Fault, PEER},
};

/// Short enough for a test, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);

fn start() -> (FakeKubo, Kubo) {
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let kubo = client(&fake.multiaddress(), PATIENCE);
    (fake, kubo)
}

fn client(address: &str, patience: Duration) -> Kubo {
    Kubo::new(Place::At(address.parse().expect("an address")), None, patience)
}

/// Bytes that no two chunks have in common.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn expected(bytes: &[u8]) -> Expected {
    Expected { digest: Sha256::digest(bytes).into(), size: bytes.len() as u64 }
}

async fn read(kubo: &Kubo, cid: &crate::block::Cid) -> Result<Vec<u8>, FileError> {
    let mut reader = kubo.file(cid, None, 1 << 30).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next(&|_, _, _| None).await? {
        match piece {
            Piece::Node(_) => {}
            Piece::Leaf { offset, block } => {
                assert_eq!(offset, bytes.len() as u64);
                bytes.extend_from_slice(block.data());
            }
            Piece::Inline { offset, bytes: data } => {
                assert_eq!(offset, bytes.len() as u64);
                bytes.extend_from_slice(&data);
            }
        }
    }
    Ok(bytes)
}

async fn add(kubo: &Kubo, bytes: &[u8]) -> Result<crate::add::Added, UploadError> {
    kubo.add(Content::Bytes(bytes.to_vec().into()), Some(expected(bytes)), &|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_is_called_as_here_and_read_back() {
    let (fake, kubo) = start();
    for length in [0, 1, 262_144, 262_145, 3_000_000] {
        let bytes = content(length);
        let added = add(&kubo, &bytes).await.expect("adds");
        assert_eq!(added.cid, Blocks::default().add(&bytes));
        assert_eq!(added.size, length as u64);
        assert_eq!(read(&kubo, &added.cid).await.expect("reads"), bytes, "{length} bytes");
    }
    let asked = fake.asked();
    let upload = asked.iter().find(|asked| asked.command == "add").expect("an upload");
    for (name, value) in [("cid-version", "1"), ("chunker", "size-262144"), ("raw-leaves", "true"), ("pin", "false")] {
        assert_eq!(upload.argument(name), Some(value));
    }
    assert!(upload.headers["user-agent"].starts_with("shipfs/"));
    assert!(!upload.headers.contains_key("authorization"));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_was_promised_makes_nothing() {
    let (fake, kubo) = start();
    for length in [9, 600_000, 3_000_000] {
        let bytes = content(length);
        let wrong = Expected { digest: [1; 32], ..expected(&bytes) };
        let refused = kubo.add(Content::Bytes(bytes.clone().into()), Some(wrong), &|_| {}).await;
        assert!(matches!(refused, Err(UploadError::Content(ContentError::Digest { .. }))), "{refused:?}");
        let wrong = Expected { size: 3, ..expected(&bytes) };
        let refused = kubo.add(Content::Reader(Box::new(Cursor::new(bytes))), Some(wrong), &|_| {}).await;
        assert!(matches!(refused, Err(UploadError::Content(ContentError::Size { .. }))), "{refused:?}");
    }
    let absent = kubo.add(Content::File(PathBuf::from("/nonexistent")), None, &|_| {}).await;
    assert!(matches!(absent, Err(UploadError::Content(ContentError::Read { .. }))), "{absent:?}");
    assert_eq!(fake.blocks().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cuts_files_otherwise_is_told_apart() {
    let (fake, kubo) = start();
    let other = r#"{"Name":"file","Hash":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku","Size":"1"}"#;
    let length = other.len();
    let raw = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{other}");
    fake.plan("add", Fault::Raw(raw.into_bytes()));
    let refused = add(&kubo, &content(10)).await;
    assert!(matches!(refused, Err(UploadError::Rpc(RpcError::OtherCid { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_it_broke_off() {
    let (fake, kubo) = start();
    let bytes = content(3_000_000);
    let cid = fake.blocks().add(&bytes);
    for fault in [Fault::DieAfter(1_000_000), Fault::DieAfter(0), Fault::DieAfter(2_999_999)] {
        fake.plan("cat", fault);
    }
    fake.plan("block/get", Fault::DieAfter(10));
    assert_eq!(read(&kubo, &cid).await.expect("reads"), bytes);
    let asked = fake.asked();
    let offsets: Vec<_> = asked.iter().filter(|asked| asked.command == "cat").collect();
    assert_eq!(offsets[0].argument("offset"), Some("0"));
    assert_eq!(offsets[1].argument("offset"), Some("1000000"));
    assert!(fake.sent() < 3_100_000, "{} bytes for 3000000", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_is_taken_up_again_within_the_time() {
    let (fake, kubo) = start();
    let bytes = content(3_000_000);
    let cid = fake.blocks().add(&bytes);
    fake.plan("cat", Fault::StallAfter(1_000_000));
    assert_eq!(read(&kubo, &cid).await.expect("reads"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_by_the_deadline() {
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let kubo = client(&fake.multiaddress(), Duration::from_millis(400));
    let cid = fake.blocks().add(&content(600_000));
    let begun = Instant::now();
    for command in ["id", "cat", "block/get", "add", "pin/add"] {
        for _ in 0..10 {
            fake.plan(command, Fault::Stall);
        }
    }
    let silent = |error: &RpcError| matches!(error, RpcError::Silent { .. });
    assert!(silent(&kubo.identity().await.expect_err("is silent")));
    assert!(matches!(read(&kubo, &cid).await, Err(FileError::Rpc(error)) if silent(&error)));
    assert!(matches!(add(&kubo, &content(9)).await, Err(UploadError::Rpc(error)) if silent(&error)));
    assert!(silent(&kubo.pin(&[cid], "a").await.expect_err("is silent")));
    fake.behave();
    for _ in 0..10 {
        fake.plan("cat", Fault::StallAfter(0));
    }
    assert!(matches!(read(&kubo, &cid).await, Err(FileError::Rpc(error)) if silent(&error)));
    for _ in 0..10 {
        fake.plan("add", Fault::ChokeAfter(1000));
    }
    assert!(matches!(add(&kubo, &content(30_000_000)).await, Err(UploadError::Rpc(error)) if silent(&error)));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_is_sent_again_if_it_can_be() {
    let (fake, kubo) = start();
    let bytes = content(3_000_000);
    fake.plan("add", Fault::HangUpAfter(1_000_000));
    assert_eq!(add(&kubo, &bytes).await.expect("adds").size, 3_000_000);
    fake.plan("add", Fault::HangUpAfter(1_000_000));
    let reader = Content::Reader(Box::new(Cursor::new(bytes.clone())));
    let broken = kubo.add(reader, Some(expected(&bytes)), &|_| {}).await;
    assert!(matches!(broken, Err(UploadError::Rpc(RpcError::Broken { .. }))), "{broken:?}");
    for _ in 0..10 {
        fake.plan("add", Fault::HangUpAfter(1_000_000));
    }
    assert!(add(&kubo, &bytes).await.is_err(), "not for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_and_trailers_are_checked() {
    let (fake, kubo) = start();
    let bytes = content(600_000);
    let cid = fake.blocks().add(&bytes);
    fake.plan("cat", Fault::EndAfter(500_000));
    let short = read(&kubo, &cid).await;
    assert!(matches!(short, Err(FileError::Rpc(RpcError::Length { .. }))), "{:?}", short.err());
    for announced in [599_999, 600_001] {
        fake.plan("cat", Fault::Announce(announced));
        let wrong = read(&kubo, &cid).await;
        assert!(matches!(wrong, Err(FileError::Rpc(RpcError::Length { .. }))), "{announced}: {:?}", wrong.err());
    }
    fake.plan("cat", Fault::GiveUpAfter(500_000));
    let gave_up = read(&kubo, &cid).await;
    let Err(FileError::Rpc(error @ RpcError::GaveUp { .. })) = gave_up else { panic!("{:?}", gave_up.err()) };
    assert!(error.to_string().contains("is on fire"), "{error}");
    // The daemon says that it failed, though all bytes are here.
    fake.plan("cat", Fault::GiveUpAfter(600_000));
    assert!(matches!(read(&kubo, &cid).await, Err(FileError::Rpc(RpcError::GaveUp { .. }))));
    fake.plan("id", Fault::GiveUpAfter(10));
    assert!(matches!(kubo.identity().await, Err(RpcError::GaveUp { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_answers_than_a_daemons_are_typed() {
    let (fake, kubo) = start();
    let page = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>\x1b[2J</html>   ";
    let told = [
        (page, "Garbage"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "Garbage"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "Redirected"),
        ("HTTP/1.1 307 Found\r\nLocation: /api/v0/id\r\nContent-Length: 0\r\n\r\n", "Redirected"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "Denied"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 15\r\n\r\n403 - Forbidden", "Denied"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n404 page not found", "Garbage"),
        (
            "HTTP/1.1 500 Error\r\nContent-Length: 43\r\n\r\n{\"Message\":\"no\\u001b[2J\",\"Code\":0,\"Type\":\"e\"}",
            "Refused",
        ),
    ];
    for (raw, kind) in told {
        fake.plan("id", Fault::Raw(raw.as_bytes().to_vec()));
        let error = kubo.identity().await.expect_err(raw);
        assert!(format!("{error:?}").starts_with(kind), "{raw}: {error:?}");
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
    // Nobody followed the redirects.
    assert_eq!(fake.asked().len(), told.len());
    fake.plan("id", Fault::Endless);
    assert!(matches!(kubo.identity().await, Err(RpcError::TooLong { .. })));
    let long = format!("HTTP/1.1 500 Error\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    fake.plan("id", Fault::Raw(long.into_bytes()));
    assert!(kubo.identity().await.expect_err("fails").to_string().len() < 1000);
    for _ in 0..100 {
        fake.plan("id", Fault::Raw(b"\x00\xffgarbage\r\n\r\n".to_vec()));
    }
    let kubo = client(&fake.multiaddress(), Duration::from_millis(400));
    assert!(matches!(kubo.identity().await, Err(RpcError::Broken { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_those_of_the_cid_are_never_handed_out() {
    let (fake, kubo) = start();
    let bytes = content(600_000);
    let cid = fake.blocks().add(&bytes);
    let leaf = cid_of(CODEC_RAW, &bytes[262_144..524_288]);
    fake.blocks().put(leaf, content(262_144).into_iter().rev().collect::<Vec<_>>().into());
    let falsified = read(&kubo, &cid).await;
    assert!(matches!(falsified, Err(FileError::Block { cid, .. }) if cid == leaf), "{:?}", falsified.err());
    let small = fake.blocks().add(b"small");
    fake.blocks().put(small, bytes::Bytes::from_static(b"large"));
    assert!(matches!(read(&kubo, &small).await, Err(FileError::Block { .. })));
    let node = Block::dag_pb(bytes::Bytes::from_static(b"\x0a\x02\x08\x01"));
    fake.blocks().put(*node.cid(), bytes::Bytes::from_static(b"\x0a\x02\x08\x02"));
    assert!(matches!(kubo.block(node.cid()).await, Err(BlockGetError::Block(_))));
    let absent = cid_of(CODEC_DAG_PB, b"absent");
    assert!(matches!(kubo.block(&absent).await, Err(BlockGetError::Rpc(error)) if error.is_absence()));
    let limited = kubo.file(&cid, None, 599_999).await.map(|_| ());
    assert!(matches!(limited, Err(FileError::TooLong { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_their_endpoint_and_nowhere_else() {
    let (fake, elsewhere) = (FakeKubo::start(Arc::default(), Vec::new()), FakeKubo::start(Arc::default(), Vec::new()));
    let address = format!("http://user:p%40ss@{}", fake.address());
    let kubo = client(&address, PATIENCE);
    kubo.identity().await.expect("answers");
    assert_eq!(fake.asked()[0].headers["authorization"], "Basic dXNlcjpwQHNz");
    let token = Some("bearer:secret".parse().expect("credentials"));
    let kubo = Kubo::new(Place::At(address.parse().expect("an address")), token, PATIENCE);
    let location =
        format!("HTTP/1.1 307 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", elsewhere.address());
    fake.plan("id", Fault::Raw(location.into_bytes()));
    let error = kubo.identity().await.expect_err("is sent elsewhere");
    assert_eq!(fake.asked()[1].headers["authorization"], "Bearer secret");
    assert_eq!(elsewhere.asked().len(), 0);
    let told = format!("{error} {error:?} {kubo:?}");
    assert!(!told.contains("secret") && !told.contains("p@ss") && !told.contains("p%40ss"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_restarts_on_another_port_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("api");
    let place = Place::Files(vec![folder.path().join("absent"), file.clone()]);
    let kubo = Kubo::new(place, None, PATIENCE);
    let impatient = Kubo::new(Place::Files(vec![file.clone()]), None, Duration::from_secs(60));
    assert!(matches!(impatient.identity().await, Err(RpcError::NoDaemon { .. })));
    let first = FakeKubo::start(Arc::default(), Vec::new());
    let bytes = content(3_000_000);
    let cid = first.blocks().add(&bytes);
    std::fs::write(&file, first.multiaddress()).expect("writes");
    first.plan("cat", Fault::DieAfter(1_000_000));
    let reading = read(&kubo, &cid);
    let restarting = async {
        while first.sent() < 1_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let blocks = first.blocks();
        drop(first);
        std::fs::remove_file(&file).expect("removes");
        let second = FakeKubo::start(blocks, Vec::new());
        std::fs::write(&file, second.multiaddress() + "\n").expect("writes");
        second
    };
    let (read, second) = tokio::join!(reading, restarting);
    assert_eq!(read.expect("reads"), bytes);
    let asked = second.asked();
    assert_ne!(asked.last().and_then(|asked| asked.argument("offset")), Some("0"), "it went on where it was");
    std::fs::write(&file, "nonsense").expect("writes");
    assert!(matches!(kubo.identity().await, Err(RpcError::ApiFileAddress { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_told_in_time() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let begun = Instant::now();
    let kubo = client(&format!("/ip4/127.0.0.1/tcp/{port}"), Duration::from_secs(60));
    let error = kubo.identity().await.expect_err("nobody is there");
    assert!(matches!(error, RpcError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let kubo = client("/unix/nonexistent/ipfs.sock", Duration::from_secs(60));
    assert!(matches!(kubo.identity().await, Err(RpcError::Connect { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_address_leads_to_the_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    let unix = FakeKubo::start_unix(&socket);
    let fake = FakeKubo::start(Arc::default(), Vec::new());
    let port = fake.address().port();
    for address in [
        format!("/ip4/127.0.0.1/tcp/{port}"),
        format!("/dns4/localhost/tcp/{port}/http"),
        format!("http://127.0.0.1:{port}/api/v0"),
        format!("/unix{}", socket.display()),
    ] {
        assert_eq!(client(&address, PATIENCE).identity().await.expect(&address).id, PEER);
    }
    assert_eq!((unix.asked().len(), fake.asked().len()), (1, 3));
    // A link-local address is dialled through its interface; loopback has none, so the dial itself must fail.
    let zoned = client(&format!("/ip6zone/lo/ip6/fe80::1/tcp/{port}"), Duration::from_millis(300));
    assert!(matches!(zoned.identity().await, Err(RpcError::Connect { .. } | RpcError::Silent { .. })));
    let nowhere = client(&format!("/ip6zone/nonexistent/ip6/fe80::1/tcp/{port}"), Duration::from_millis(300));
    let error = nowhere.identity().await.expect_err("no such interface");
    assert!(matches!(error, RpcError::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_tls_and_a_stranger_is_refused() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let listening = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut hello = [0; 3];
        stream.read_exact(&mut hello).expect("says something");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        hello
    });
    let kubo = client(&format!("/ip4/127.0.0.1/tcp/{port}/tls/http"), Duration::from_millis(500));
    assert!(matches!(kubo.identity().await, Err(RpcError::Connect { .. })));
    assert_eq!(listening.join().expect("no panic")[..2], [0x16, 0x03], "the beginning of a TLS handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_have_names_and_are_taken_back() {
    let (fake, kubo) = start();
    let cid = add(&kubo, &content(600_000)).await.expect("adds").cid;
    assert_eq!(kubo.pinned(&cid).await.expect("looks"), None);
    kubo.pin(&[cid], "one: name").await.expect("pins");
    assert_eq!(kubo.pinned(&cid).await.expect("looks"), Some(Pinned { name: "one: name".to_owned() }));
    kubo.unpin(&cid).await.expect("unpins");
    kubo.unpin(&cid).await.expect("is none the worse");
    assert!(fake.blocks().pins().is_empty());
    let absent = cid_of(CODEC_RAW, b"absent");
    assert!(kubo.pin(&[absent], "a").await.expect_err("is absent").is_absence());
    assert!(!kubo.has_block(&absent).await.expect("looks") && kubo.has_block(&cid).await.expect("looks"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_into_our_store_once_and_goes_on_where_it_was() {
    let (fake, kubo) = start();
    let folder = tempfile::tempdir().expect("a folder");
    let node = Node::start(Config::offline(folder.path())).await.expect("starts");
    let lease = node.lease();
    let bytes = content(3_000_000);
    let cid = fake.blocks().add(&bytes);
    let import = |kubo: Kubo, wanted: Option<Expected>| {
        let (node, lease) = (&node, &lease);
        async move { kubo.import(node.store(), &cid, wanted, 1 << 30, lease, &|_| {}).await }
    };
    let wrong = Expected { digest: [1; 32], ..expected(&bytes) };
    assert!(matches!(import(kubo.clone(), Some(wrong)).await, Err(ImportError::Digest { .. })));
    fake.plan("cat", Fault::GiveUpAfter(2_000_000));
    assert!(import(kubo.clone(), Some(expected(&bytes))).await.is_err());
    let before = fake.sent();
    let info = import(kubo.clone(), Some(expected(&bytes))).await.expect("fetches");
    assert!(fake.sent() - before < 1_400_000, "{} bytes for the last third", fake.sent() - before);
    assert_eq!(std::fs::read(&info.path).expect("reads"), bytes);
    assert_eq!((info.cid, info.digest, info.size), (cid, expected(&bytes).digest, 3_000_000));
    node.commit().await.expect("commits");
    node.pin(&cid, "whole").await.expect("every block of it is here");
    let small = fake.blocks().add(b"small");
    let info = kubo.import(node.store(), &small, None, 5, &lease, &|_| {}).await.expect("fetches");
    assert_eq!(info.size, 5);
    let limited = kubo.import(node.store(), &fake.blocks().add(b"smaller"), None, 5, &lease, &|_| {}).await;
    assert!(matches!(limited, Err(ImportError::File(FileError::TooLong { .. }))));
    node.shutdown().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_says_who_it_is_and_whom_it_knows() {
    let (fake, kubo) = start();
    assert_eq!(kubo.version().await.expect("answers"), "0.0.0");
    assert_eq!(kubo.identity().await.expect("answers").agent, "kubo/fake");
    let peers = kubo.peers().await.expect("answers");
    assert_eq!((peers[0].agent.as_str(), peers[0].sent, peers[0].received), ("other", 7, 9));
    kubo.connect("/ip4/127.0.0.1/tcp/1").await.expect("connects");
    let asked = fake.asked().len();
    assert!(matches!(kubo.offline().identity().await, Err(RpcError::Offline { .. })));
    assert_eq!(fake.asked().len(), asked, "no socket was opened");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    let unix = FakeKubo::start_unix(&socket);
    client(&format!("/unix{}", socket.display()), PATIENCE).offline().identity().await.expect("answers");
    assert_eq!(unix.asked()[0].argument("offline"), Some("true"));
}
