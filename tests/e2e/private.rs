//! Threat C12: private networks. Who is let in is tested in the node and with Kubo; here is what a user sees of the key.

use base64::Engine as _;
use shipfs_tests::image;
use shipfs_tests::program::{Running, privileged, run, said, shipfs, tool};
use shipfs_tests::repository::Repository;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const ABSENT: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
/// A key with no byte twice, so that any four of it in a row are seen.
const KEY: [u8; 32] = [
    0xd7, 0x3a, 0x91, 0x0c, 0xee, 0x58, 0x42, 0xb6, 0x1f, 0x85, 0xc3, 0x6d, 0xf9, 0x24, 0xa0, 0x7b, 0x13, 0xe4, 0x5f,
    0xca, 0x39, 0x96, 0x02, 0xdb, 0x67, 0xb8, 0x4e, 0x71, 0xfd, 0x8a, 0x30, 0xc5,
];

fn hex(bytes: &[u8]) -> String {
    image::hex(bytes)
}

fn base64() -> String {
    base64::engine::general_purpose::STANDARD.encode(KEY)
}

/// Puts a key file for the owner alone.
fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its own");
}

fn output(command: &mut Command) -> Output {
    command.output().expect("it starts")
}

/// Parts of the key in every form that somebody could print it in.
fn traces() -> Vec<Vec<u8>> {
    let mut traces = Vec::new();
    for part in KEY.chunks(4) {
        let listed: Vec<_> = part.iter().map(u8::to_string).collect();
        let hexed: Vec<_> = part.iter().map(|byte| format!("0x{byte:02x}")).collect();
        traces.extend([part.to_vec(), hex(part).into(), hex(part).to_uppercase().into()]);
        traces.extend([listed.join(", ").into(), listed.join(",").into(), hexed.join(", ").into()]);
    }
    traces.extend(base64().as_bytes().chunks(8).map(<[u8]>::to_vec));
    traces.retain(|trace| trace.len() >= 4);
    traces
}

fn assert_untold(what: &str, bytes: &[u8]) {
    for trace in traces() {
        let found = bytes.windows(trace.len()).any(|window| window == trace);
        assert!(!found, "{what} tells `{}`", String::from_utf8_lossy(&trace));
    }
}

#[test]
fn c12_the_key_is_told_to_nobody() {
    let folder = TempDir::new().expect("a directory");
    let layout = folder.path().join("layout");
    image::layout(&layout, &[300_000], 12).expect("a layout");
    let files = [
        ("base16", format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", hex(&KEY)).into_bytes()),
        ("base64", format!("/key/swarm/psk/1.0.0/\r\n/base64/\r\n{}", base64()).into_bytes()),
        ("bin", [b"/key/swarm/psk/1.0.0/\n/bin/\n", &KEY[..]].concat()),
        // A file that says so wrongly is no reason to tell it.
        ("bad", format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", &hex(&KEY)[..60]).into_bytes()),
        ("odd", format!("/key/swarm/psk/1.0.0/\n/base58/\n{}\n", hex(&KEY)).into_bytes()),
        ("bare", hex(&KEY).into_bytes()),
    ];
    let keys: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, content)) in keys.iter().zip(&files) {
        put(path, content);
    }
    let traced = |repository: &Path| {
        let mut command = shipfs(repository);
        command.env("SHIPFS_LOG", "trace").args(["--no-mdns", "-vv", "--timeout", "2s"]);
        command
    };
    let giver = Repository::new(folder.path().join("giver"));
    let cid = giver.run(&["push", "--all-platforms", &format!("oci:{}", layout.display())]);
    // Each end reads the key in a form of its own.
    let mut daemon = traced(giver.path());
    daemon.arg("--swarm-key").arg(&keys[1]).args(["--listen", TCP, "daemon"]);
    let (daemon, mut said_by_daemon) = Running::start_after(&mut daemon, "ready").expect("it serves");
    let address = said_by_daemon.last().and_then(|ready| ready.rsplit(' ').next()).expect("an address").to_owned();
    for (key, (name, _)) in keys.iter().zip(&files) {
        let is_sound = ["base16", "base64", "bin"].contains(name);
        for (at, verb) in
            [&["pull", "--all-platforms", &cid][..], &["--json", "peers"], &["pull", ABSENT]].iter().enumerate()
        {
            let mut command = traced(&folder.path().join(format!("taker-{name}")));
            let output = output(command.arg("--swarm-key").arg(key).args(["--peer", &address]).args(*verb));
            assert_eq!(output.status.success(), is_sound && at < 2, "{name} {verb:?}: {}", said(&output));
            assert_untold(&format!("{name} {verb:?}"), &[output.stdout, output.stderr].concat());
        }
    }
    let around =
        output(traced(&folder.path().join("quic")).arg("--swarm-key").arg(&keys[0]).args(["--listen", QUIC, "daemon"]));
    assert_untold("an address that goes around the key", &[around.stdout, around.stderr].concat());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.id().cast_signed()).expect("a process"),
        rustix::process::Signal::TERM,
    )
    .expect("it runs");
    let (_, rest) = daemon.end(Instant::now() + Duration::from_secs(20)).expect("it ends");
    said_by_daemon.push(rest);
    assert_untold("the daemon", said_by_daemon.join("\n").as_bytes());
    assert!(said_by_daemon.concat().contains("TRACE"), "it says a lot");
    // Nor does any of it lie anywhere but where it was put.
    for entry in walk(folder.path()).into_iter().filter(|path| !keys.contains(path)) {
        assert_untold(&entry.display().to_string(), &fs::read(&entry).expect("readable"));
    }
}

/// Every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("there").file_type();
        if kind.is_dir() {
            files.extend(walk(&path));
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files
}

#[test]
fn c12_key_files_are_for_their_owner() {
    let folder = TempDir::new().expect("a directory");
    let (repository, path) = (folder.path().join("repository"), folder.path().join("copy.key"));
    // However open what others make is.
    let mut make = Command::new("sh");
    make.args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(shipfs(&repository).get_program())
        .arg("--repo")
        .arg(&repository);
    run(make.args(["key", "gen", "--output"]).arg(&path));
    run(shipfs(&repository).args(["key", "gen"]));
    for key in [&path, &repository.join("swarm.key")] {
        assert_eq!(fs::metadata(key).expect("there").permissions().mode() & 0o777, 0o600);
    }
    for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own");
        let mut daemon = shipfs(&repository);
        daemon.arg("--swarm-key").arg(&path).args(["--listen", TCP, "daemon"]);
        let (_daemon, lines) = Running::start_after(&mut daemon, "ready").expect("it serves");
        let told = lines.iter().any(|line| line.contains("others on this host can read the swarm key"));
        assert_eq!(told, warned, "{mode:o}: {lines:?}");
    }
}

#[test]
fn c12_a_demanded_private_network_is_the_only_one() {
    let folder = TempDir::new().expect("a directory");
    let repository = folder.path().join("repository");
    let forced = |arguments: &[&str]| {
        let mut command = shipfs(&repository);
        command.env("LIBP2P_FORCE_PNET", "1").args(["--no-mdns", "--timeout", "300ms"]).args(arguments);
        command
    };
    // What asks nobody needs no key.
    for verb in [&["images"][..], &["id"], &["--offline", "gc"]] {
        assert!(output(&mut forced(verb)).status.success(), "{verb:?}");
    }
    for verb in [&["--listen", TCP, "daemon"][..], &["pull", ABSENT], &["--peer", TCP, "peers"]] {
        let refused = output(&mut forced(verb));
        assert_eq!(refused.status.code(), Some(1), "{verb:?}: {}", said(&refused));
        assert!(said(&refused).contains("swarm key"), "{verb:?}: {}", said(&refused));
        let refused = output(&mut forced(&[&["--network", "lan"], verb].concat()));
        assert_eq!(refused.status.code(), Some(2), "{verb:?}: {}", said(&refused));
    }
    run(shipfs(&repository).args(["key", "gen"]));
    let (daemon, ready) = Running::start(&mut forced(&["--listen", TCP, "daemon"]), "ready").expect("it serves");
    assert!(ready.contains("on the private network"), "{ready}");
    drop(daemon);
    // A repository with a key is private without being told, and local when told.
    for (options, network) in [(&[][..], "private"), (&["--network", "lan"], "lan")] {
        let mut daemon = shipfs(&repository);
        daemon.arg("--no-mdns").args(options).args(["--listen", TCP, "daemon"]);
        let (_daemon, ready) = Running::start(&mut daemon, "ready").expect("it serves");
        assert!(ready.contains(&format!("on the {network} network")), "{ready}");
    }
}

/// A configuration that cannot work is refused before any socket is opened.
#[test]
fn privileged_c12_what_goes_around_the_key_opens_no_socket() {
    const NAME: &str = "privileged_c12_what_goes_around_the_key_opens_no_socket";
    if !privileged(NAME) || !tool(NAME, "strace") {
        return;
    }
    let folder = TempDir::new().expect("a directory");
    let repository = folder.path().join("repository");
    run(shipfs(&repository).args(["key", "gen"]));
    let traced = |arguments: &[&str]| {
        let log = folder.path().join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=socket", "-o"]).arg(&log).arg(shipfs(&repository).get_program());
        let output = output(command.arg("--repo").arg(&repository).args(arguments));
        let text = fs::read_to_string(log).expect("what strace saw");
        (output, text.lines().filter(|line| line.contains("AF_INET")).count())
    };
    for around in [QUIC, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport", "/ip4/127.0.0.1/udp/0/quic-v1/ws"] {
        for verb in [&["--listen", TCP, "--listen", around, "daemon"][..], &["--peer", around, "pull", ABSENT]] {
            let (refused, sockets) = traced(verb);
            assert_eq!((refused.status.code(), sockets), (Some(1), 0), "{verb:?}: {}", said(&refused));
            assert!(said(&refused).contains("the swarm key protects TCP only"), "{verb:?}: {}", said(&refused));
        }
    }
    // Without a key in the way, they would be.
    let (starved, sockets) =
        traced(&["--timeout", "300ms", "--no-mdns", "--network", "lan", "--listen", TCP, "pull", ABSENT]);
    assert!(!starved.status.success() && sockets > 0, "{}", said(&starved));
}
