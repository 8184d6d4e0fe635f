//! The registry as its clients see it: one program, plain HTTP, everything on loopback.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shipfs_tests::http::{self, Answer};
use shipfs_tests::image::{self, Noise, hex};
use shipfs_tests::program::{Running, memory_kib, run, shipfs};
use shipfs_tests::repository::Repository;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// A repository with an image of noise; its CID as pushed with these arguments.
fn image(folder: &TempDir, layers: &[u64], arguments: &[&str]) -> (Repository, String) {
    let source = folder.path().join("source");
    if !source.exists() {
        image::layout(&source, layers, 7).expect("a layout");
    }
    let repository = Repository::new(folder.path().join("repository"));
    let source = format!("oci:{}", source.display());
    let cid = repository.run(&[&["push", "--all-platforms"], arguments, &[source.as_str()]].concat());
    (repository, cid)
}

fn manifest(address: SocketAddr, path: &str) -> Value {
    let (status, body) = http::get(address, path).expect("an answer");
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// Pulls an image as a client does; bytes of its layers.
fn pull(address: SocketAddr, base: &str) -> Vec<Vec<u8>> {
    let mut top = manifest(address, &format!("{base}/manifests/latest"));
    if let Some(first) = top["manifests"][0]["digest"].as_str() {
        top = manifest(address, &format!("{base}/manifests/{first}"));
    }
    let layers = top["layers"].as_array().expect("layers").iter().chain([&top["config"]]);
    let blob = |layer: &Value| {
        let name = layer["digest"].as_str().expect("a digest");
        let (status, body) = http::get(address, &format!("{base}/blobs/{name}")).expect("an answer");
        assert_eq!((status, digest(&body).as_str()), (200, name));
        body
    };
    layers.map(blob).collect()
}

#[test]
fn images_are_pulled_alone_and_from_a_daemon_by_cid_and_by_name() {
    let folder = TempDir::new().expect("a folder");
    let (repository, descriptor) = image(&folder, &[1000, 700_000], &[]);
    let (_, layout) = image(&folder, &[], &["--layout", "--name", "some/name"]);
    let check = |address| {
        let expected = pull(address, &format!("/v2/ipfs/{descriptor}"));
        assert_eq!(expected.len(), 3);
        for base in
            [format!("/v2/ipfs/{layout}"), format!("/v2/ipfs/{}", layout.to_uppercase()), "/v2/some/name".into()]
        {
            assert!(pull(address, &base) == expected, "{base}");
        }
    };
    let (registry, address) = repository.registry(&["--offline"], &[]);
    check(address);
    // Other commands work through it meanwhile.
    assert!(repository.run(&["images"]).contains(&layout));
    drop(registry);
    // With nerdctl's words and variables, through a daemon that holds the repository.
    let (daemon, _) = repository.serve();
    let mut command = shipfs(repository.path());
    command.args(["ipfs", "registry", "serve"]).env("IPFS_REGISTRY_SERVE_LISTEN_REGISTRY", "localhost:0");
    command.env("IPFS_REGISTRY_SERVE_READ_TIMEOUT", "1m30s").env("IPFS_REGISTRY_SERVE_READ_RETRY_NUM", "-1");
    let (registry, ready) = Running::start(&mut command, "registry: serving on").expect("it serves");
    check(ready.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address"));
    drop((registry, daemon));
    // As part of a daemon.
    let mut command = repository.daemon();
    command.args(["--listen-registry", "127.0.0.1:0"]);
    let (_daemon, line) = Running::start(&mut command, "registry: serving on").expect("it serves");
    check(line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address"));
}

/// What the units for systemd start, starts, and says so to systemd.
#[test]
fn the_units_start_a_daemon_that_tells_when_it_is_ready() {
    for unit in ["shipfs.service", "shipfs-user.service"] {
        let folder = TempDir::new().expect("a folder");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd").join(unit);
        let text = fs::read_to_string(path).expect("a unit");
        let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        let (_, arguments) = line.split_once("/shipfs ").expect("the program");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let mut command = shipfs(&folder.path().join("repository"));
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.args(["--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.args(arguments.replace("localhost:5050", "localhost:0").split(' '));
        let (_daemon, ready) = Running::start(&mut command, "registry: serving on").expect("it serves");
        let mut told = [0; 64];
        let length = socket.recv(&mut told).expect("systemd is told");
        assert_eq!(&told[..length], b"READY=1");
        let address = ready.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address");
        assert_eq!(http::get(address, "/v2/").expect("an answer").0, 200);
    }
}

#[test]
fn what_only_a_peer_has_is_served_from_its_first_block_on() {
    let (here, there) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (first, cid) = image(&there, &[48 << 20], &[]);
    let (_daemon, peer) = first.serve();
    let second = Repository::new(here.path().join("repository"));
    let (_registry, address) = second.registry(&["--no-mdns", "--peer", &peer], &[]);
    let base = format!("/v2/ipfs/{cid}");
    let index = manifest(address, &format!("{base}/manifests/latest"));
    let top = match index["manifests"][0]["digest"].as_str() {
        Some(one) => manifest(address, &format!("{base}/manifests/{one}")),
        None => index,
    };
    let layer = top["layers"][0]["digest"].as_str().expect("a layer");
    let began = Instant::now();
    let mut answer = http::request(address, "GET", &format!("{base}/blobs/{layer}"), &[], &[]).expect("an answer");
    let mut byte = [0];
    assert_eq!(answer.some(&mut byte).expect("a byte"), 1);
    let first_byte = began.elapsed();
    // Nothing of it is named before its digest was found right, and one byte is not sent before that.
    let name = second.path().join("blobs/sha256").join(&layer[7..]);
    let is_whole = name.exists();
    let mut body = byte.to_vec();
    let mut piece = vec![0; 1 << 20];
    loop {
        match answer.some(&mut piece).expect("bytes") {
            0 => break,
            length => body.extend_from_slice(&piece[..length]),
        }
    }
    assert_eq!(digest(&body), layer);
    assert!(name.is_file(), "it is in the store, too");
    assert!(!is_whole && first_byte < Duration::from_secs(2), "{first_byte:?}");
}

/// Sends an upload's beginning; the path where it goes on.
fn begin(address: SocketAddr) -> String {
    let answer = http::request(address, "POST", "/v2/a/b/blobs/uploads/", &[], &[]).expect("an answer");
    assert_eq!(answer.status, 202);
    answer.header("location").to_owned()
}

fn status(address: SocketAddr, location: &str) -> (u16, String) {
    let answer = http::request(address, "GET", location, &[], &[]).expect("an answer");
    (answer.status, answer.header("range").to_owned())
}

/// Uploads a blob at once.
fn upload(address: SocketAddr, bytes: &[u8]) {
    let path = format!("/v2/a/b/blobs/uploads/?digest={}", digest(bytes));
    assert_eq!(http::request(address, "POST", &path, &[], bytes).expect("an answer").status, 201);
}

/// Pushes a manifest over uploaded blobs; the manifest, and the CID of its image.
fn put(address: SocketAddr, tag: &str, layers: &[Value], subject: Option<&str>) -> (String, String) {
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 });
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    if let Some(subject) = subject {
        manifest["subject"] =
            json!({ "mediaType": MANIFEST, "digest": digest(subject.as_bytes()), "size": subject.len() });
    }
    let (text, path) = (manifest.to_string(), format!("/v2/a/b/manifests/{tag}"));
    let answer = http::request(address, "PUT", &path, &[("Content-Type", MANIFEST)], text.as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 201);
    let cid = answer.header("x-ipfs-path").strip_prefix("/ipfs/").expect("a CID").to_owned();
    (text, cid)
}

#[test]
fn what_is_pushed_here_is_pulled_there_with_its_signature() {
    let (here, there) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let first = Repository::new(here.path().join("repository"));
    let mut command = first.daemon();
    command.args(["--listen-registry", "127.0.0.1:0"]);
    let (mut daemon, mut lines) = Running::start_after(&mut command, "registry: serving on").expect("it serves");
    let last = |line: &String| line.rsplit(' ').next().expect("an address").to_owned();
    let address = lines.last().map(last).and_then(|address| address.parse().ok()).expect("an address");
    // The two lines come by two pipes, in any order.
    let end = Instant::now() + Duration::from_secs(20);
    while !lines.iter().any(|line| line.contains("ready")) {
        lines.push(daemon.line(end).expect("it is ready").expect("it runs"));
    }
    let peer = lines.iter().find(|line| line.contains("ready")).map(last).expect("an address");
    upload(address, b"{}");
    let (image, unsigned) = put(address, "one", &[], None);
    let (signature, _) = put(address, "signature", &[], Some(&image));
    let head = http::request(address, "HEAD", "/v2/a/b/manifests/one", &[], &[]).expect("an answer");
    let signed = head.header("x-ipfs-path").strip_prefix("/ipfs/").expect("a CID").to_owned();
    assert_ne!(signed, unsigned, "the signature travels inside");
    let second = Repository::new(there.path().join("repository"));
    let (_registry, address) = second.registry(&["--no-mdns", "--peer", &peer], &[]);
    let base = format!("/v2/ipfs/{signed}");
    assert_eq!(http::get(address, &format!("{base}/manifests/latest")).expect("an answer").1, image.as_bytes());
    let referrers = manifest(address, &format!("{base}/referrers/{}", digest(image.as_bytes())));
    let found = referrers["manifests"][0]["digest"].as_str().expect("a referrer");
    assert_eq!(found, digest(signature.as_bytes()));
    let (_, got) = http::get(address, &format!("{base}/manifests/{found}")).expect("an answer");
    assert_eq!(got, signature.as_bytes());
    // The whole of it is an image like every other one.
    assert_eq!(run(&mut second.online(&peer, &["pull", &signed])).trim(), signed);
}

/// Sends a piece that breaks off half-way.
fn broken(address: SocketAddr, location: &str, sent: &[u8], announced: usize) {
    let mut stream = http::connect(address).expect("connects");
    let length = announced.to_string();
    let head = http::head(address, "PATCH", location, &[("Content-Length", length.as_str())]);
    stream.write_all(head.as_bytes()).expect("sends");
    stream.write_all(sent).expect("sends");
}

#[test]
fn an_upload_that_breaks_off_goes_on_and_one_that_is_killed_leaves_nothing() {
    let folder = TempDir::new().expect("a folder");
    let repository = Repository::new(folder.path().join("repository"));
    repository.run(&["images"]);
    let before = repository.contents();
    let bytes = Noise::new(3).bytes(3_000_000);
    let name = digest(&bytes);
    let (registry, address) = repository.registry(&["--offline"], &[]);
    let location = begin(address);
    broken(address, &location, &bytes[..2_000_000], bytes.len());
    let end = Instant::now() + Duration::from_secs(20);
    while status(address, &location).1 != "0-1999999" {
        assert!(Instant::now() < end, "{:?}", status(address, &location));
    }
    registry.kill();
    assert!(repository.contents().keeps(&before));
    let left: Vec<_> = fs::read_dir(repository.path().join("uploads")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    let (_registry, address) = repository.registry(&["--offline"], &[]);
    assert_eq!(status(address, &location).0, 404, "cleanly gone");
    assert_eq!(http::get(address, &format!("/v2/a/b/blobs/{name}")).expect("an answer").0, 404);
    // The same again, and this time the client comes back.
    let location = begin(address);
    broken(address, &location, &bytes[..1_000_000], bytes.len());
    let end = Instant::now() + Duration::from_secs(20);
    while status(address, &location).1 != "0-999999" {
        assert!(Instant::now() < end, "{:?}", status(address, &location));
    }
    let send = |method: &str, path: &str, range: &str, body: &[u8]| {
        let answer = http::request(address, method, path, &[("Content-Range", range)], body).expect("an answer");
        (answer.status, answer.header("range").to_owned())
    };
    assert_eq!(send("PATCH", &location, "5-9", b"wrong").0, 416);
    let last = (202, "0-2999999".to_owned());
    assert_eq!(send("PATCH", &location, "1000000-2999999", &bytes[1_000_000..]), last);
    assert_eq!(send("PUT", &format!("{location}?digest={name}"), "3000000-2999999", &[]).0, 201);
    assert!(http::get(address, &format!("/v2/a/b/blobs/{name}")).expect("an answer").1 == bytes);
    assert!(repository.contents().keeps(&before), "no image yet");
    let config =
        http::request(address, "POST", &format!("/v2/a/b/blobs/uploads/?digest={}", digest(b"{}")), &[], b"{}");
    assert_eq!(config.expect("an answer").status, 201);
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": name, "size": bytes.len() });
    let (_, cid) = put(address, "one", &[layer], None);
    let images = run(shipfs(repository.path()).args(["--offline", "images"]));
    assert!(images.contains("a/b:one") && images.contains(&cid), "{images}");
}

#[test]
fn a_thousand_parallel_parts_are_answered_in_bounded_memory() {
    raise_file_limit();
    let folder = TempDir::new().expect("a folder");
    let (repository, cid) = image(&folder, &[32 << 20], &[]);
    let (registry, address) = repository.registry(&["--offline"], &[]);
    let top = manifest(address, &format!("/v2/ipfs/{cid}/manifests/latest"));
    let top = match top["manifests"][0]["digest"].as_str() {
        Some(one) => manifest(address, &format!("/v2/ipfs/{cid}/manifests/{one}")),
        None => top,
    };
    let layer = top["layers"][0]["digest"].as_str().expect("a layer");
    let path = format!("/v2/ipfs/{cid}/blobs/{layer}");
    let whole = http::get(address, &path).expect("an answer").1;
    let right = AtomicUsize::new(0);
    let ready = std::sync::Barrier::new(1000);
    std::thread::scope(|scope| {
        for at in 0..1000_usize {
            let (path, whole, right, ready) = (&path, &whole, &right, &ready);
            let work = move || {
                let start = at * 30_011;
                let range = format!("bytes={start}-{}", start + 99_999);
                ready.wait();
                let answer = http::request(address, "GET", path, &[("Range", range.as_str())], &[]).expect("an answer");
                assert_eq!(answer.status, 206);
                assert!(answer.body().expect("a body") == whole[start..start + 100_000]);
                right.fetch_add(1, Ordering::SeqCst);
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).expect("a thread");
        }
    });
    assert_eq!(right.into_inner(), 1000);
    let peak = memory_kib(registry.id(), "VmHWM:").expect("it runs") >> 10;
    // 512 connections, each with two pieces of the blob and its socket's buffer.
    assert!(peak < 512, "{peak} MiB");
}

/// Lets this process have a connection for each of its threads.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit is ours to set");
}

#[test]
fn b10_slow_clients_do_not_keep_others_out() {
    raise_file_limit();
    let folder = TempDir::new().expect("a folder");
    let (repository, cid) = image(&folder, &[1000], &[]);
    let (registry, address) = repository.registry(&["--offline"], &[]);
    // More than there are places for; each sends the beginning of a request and then nothing.
    let slow: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut stream = http::connect(address).expect("connects");
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localh").expect("sends");
            stream
        })
        .collect();
    let began = Instant::now();
    let path = format!("/v2/ipfs/{cid}/manifests/latest");
    assert_eq!(http::get(address, &path).expect("an answer").0, 200);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    drop(slow);
    // A body that never ends, a head that never ends, and a hundred ranges: each is told no.
    let mut stream = http::connect(address).expect("connects");
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n").expect("sends");
    let line = format!("X: {}\r\n", "x".repeat(1000));
    while stream.write_all(line.as_bytes()).is_ok() {
        if began.elapsed() > Duration::from_secs(60) {
            panic!("a head without end is read");
        }
    }
    let _ = stream.read(&mut [0; 100]);
    let ranges = format!("bytes={}", (0..100).map(|at| format!("{0}-{0}", at * 2)).collect::<Vec<_>>().join(","));
    let answer = http::request(address, "GET", &path, &[("Range", ranges.as_str())], &[]).expect("an answer");
    assert_eq!(answer.status, 416);
    let answer: Answer = http::request(address, "GET", "/v2/", &[("Host", "x")], &[]).expect("an answer");
    assert!(matches!(answer.status, 400 | 421), "two hosts");
    assert!(memory_kib(registry.id(), "VmHWM:").expect("it runs") < 256 << 10);
}
