//! One holder, many processes: whoever owns the repository, every verb works.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    process::Stdio,
};

use rustix::process::Signal;

use crate::support::{ABSENT_CID, HELLO_CID, Shipfs, hello, layout, spawn, until};

#[test]
fn verbs_are_the_same_with_and_without_a_daemon() {
    let (alone, served) = (Shipfs::new(), Shipfs::new());
    served.run(&["key", "gen"]).ok();
    let (daemon, address) = served.daemon();
    let mode = fs::metadata(served.repo().join("control.sock")).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for args in [
        &["push", "-q", &hello(), "--name", "hello"][..],
        &["images"],
        &["tag", "hello", "other:1"],
        &["inspect", "other:1"],
        &["save", "hello"],
        &["rmi", "nothing"],
        &["verify"],
        &["rmi", "hello"],
        &["gc"],
        &["--offline", "pull", ABSENT_CID],
    ] {
        let (first, second) = (alone.run(args), served.run(args));
        assert_eq!((first.code, &first.stdout), (second.code, &second.stdout), "{args:?}: {first:?} {second:?}");
        let talk = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with("elapsed: ")).map(str::to_owned).collect()
        };
        assert_eq!(talk(&first.stderr), talk(&second.stderr), "{args:?}");
    }
    let pushed = served.run(&["push", &hello()]);
    assert!(pushed.stderr.contains("the shipfs that runs here serves it"), "{}", pushed.stderr);
    let id = served.run(&["id", "--json"]).json();
    assert_eq!((&id["addresses"][0], &id["serving"]), (&address.into(), &true.into()));
    let short = served.run(&["pull", ABSENT_CID, "--timeout", "300ms"]);
    assert_eq!(short.code, Some(1));
    assert!(short.stderr.contains("nothing came for 0.3 s"), "{}", short.stderr);
    let other = served.run(&["--network", "lan", "pull", ABSENT_CID]);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("part of the `private` network"), "{}", other.stderr);
    assert!(other.stderr.contains("hint: leave --network out"), "{}", other.stderr);
    let second = served.run(&["daemon", "--offline"]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("a daemon already runs"), "{}", second.stderr);
    daemon.signal(Signal::TERM);
    let ended = daemon.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "network: private\n"), "{ended:?}");
    assert!(!served.repo().join("control.sock").exists());
    assert_eq!(served.run(&["images", "-q"]).ok(), format!("{HELLO_CID}\n"));
}

#[test]
fn standard_streams_reach_a_daemon() {
    let shipfs = Shipfs::new();
    shipfs.run(&["push", "-q", &hello(), "--name", "hello:1"]).ok();
    let alone = shipfs.run(&["save", "hello:1"]);
    shipfs.run(&["key", "gen"]).ok();
    let (_daemon, _) = shipfs.daemon();
    let through = shipfs.run(&["save", "hello:1"]);
    assert_eq!(through.code, Some(0), "{through:?}");
    assert_eq!(alone.stdout, through.stdout);
    let loaded = shipfs.run_with(&["load", "-q"], &through.stdout);
    assert!(loaded.ok().starts_with("bafkrei"), "{loaded:?}");
    // Into a file that is appended to, at its end.
    let path = shipfs.path().join("file");
    fs::write(&path, "before").expect("writes");
    let file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
    let status = shipfs.command(&["save", "-q", "hello:1"]).stdout(Stdio::from(file)).status().expect("runs");
    assert!(status.success());
    assert_eq!(fs::read(&path).expect("reads"), [b"before", alone.stdout.as_slice()].concat());
}

#[test]
fn two_commands_that_want_one_image_fetch_it_once() {
    let seeder = Shipfs::new();
    seeder.run(&["key", "gen"]).ok();
    let size: u64 = 24 << 20;
    let source = layout(&seeder.path().join("image"), 24 << 20, &serde_json::json!({}));
    let (_seeding, address) = seeder.daemon();
    let cid = seeder.run(&["push", "-q", &source]).ok().trim_end().to_owned();
    let puller = Shipfs::beside(&seeder);
    let (_holding, _) = puller.daemon();
    let start = |to: &str| puller.spawn(&["pull", &cid, "--peer", &address, "--to", to]);
    let (first, second) = (start("oci:first"), start("oci:second"));
    for ran in [first.wait(), second.wait()] {
        assert_eq!(ran.ok(), format!("{cid}\n"));
        assert!(ran.stderr.contains("network: private"), "{}", ran.stderr);
        assert!(ran.stderr.contains("\nelapsed: "), "{}", ran.stderr);
    }
    for name in ["first", "second"] {
        assert!(puller.path().join(name).join("index.json").exists());
    }
    let peers = puller.run(&["peers", "--json"]).json();
    let received: u64 = peers.as_array().expect("a list").iter().filter_map(|peer| peer["received"].as_u64()).sum();
    assert!((size..size * 11 / 10).contains(&received), "{received} bytes were fetched: {peers}");
}

#[test]
fn a_pull_asks_nobody_for_what_is_here() {
    let seeder = Shipfs::new();
    seeder.run(&["key", "gen"]).ok();
    let (_seeding, address) = seeder.daemon();
    seeder.run(&["push", "-q", &hello()]).ok();
    let puller = Shipfs::beside(&seeder);
    let pull = ["--network", "private", "pull", HELLO_CID, "--peer", &address];
    let first = puller.run(&pull);
    assert_eq!(first.ok(), format!("{HELLO_CID}\n"));
    assert!(first.stderr.starts_with("network: private, 1 named\n"), "{}", first.stderr);
    assert_eq!(first.stderr.lines().filter(|line| line.ends_with("  fetched")).count(), 5, "{}", first.stderr);
    let second = puller.run(&pull);
    assert_eq!(second.ok(), first.text());
    assert!(!second.stderr.contains("network:"), "{}", second.stderr);
    let offline = puller.run(&["--offline", "pull", HELLO_CID, "--to", "oci:out"]);
    assert!(!offline.ok().is_empty() && !offline.stderr.contains("network:"), "{offline:?}");
}

#[test]
fn what_a_killed_holder_had_fetched_is_not_fetched_again() {
    let seeder = Shipfs::new();
    seeder.run(&["key", "gen"]).ok();
    let source = layout(&seeder.path().join("image"), 64 << 20, &serde_json::json!({}));
    let (_seeding, address) = seeder.daemon();
    let cid = seeder.run(&["push", "-q", &source]).ok().trim_end().to_owned();
    let puller = Shipfs::beside(&seeder);
    let pull = ["--network", "private", "pull", "-q", &cid, "--peer", &address];
    let (first, second) = (puller.spawn(&pull), puller.spawn(&pull));
    let bytes = || -> u64 {
        let Ok(list) = fs::read_dir(puller.repo().join("partial")) else { return 0 };
        list.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    };
    until("something was fetched", || bytes() > 1 << 20);
    // Whichever of them holds the repository, the other goes on.
    first.signal(Signal::KILL);
    assert_eq!(first.wait().code, None);
    assert_eq!(second.wait().ok(), format!("{cid}\n"));
    puller.run(&["verify"]).ok();
}

#[test]
fn a_command_that_serves_takes_in_others_and_hands_over_when_it_is_killed() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    let push = ["--network", "private", "push", "--serve", &hello(), "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut first = shipfs.spawn(&push);
    assert_eq!(first.line(), HELLO_CID);
    first.said("others get it with: shipfs pull");
    let mut second = shipfs.spawn(&push);
    assert_eq!(second.line(), HELLO_CID);
    second.said("others get it with: shipfs pull");
    let serving = |shipfs: &Shipfs| shipfs.run(&["id", "--json"]).json()["serving"] == true;
    assert!(serving(&shipfs));
    first.signal(Signal::KILL);
    assert_eq!(first.wait().code, None);
    // The second goes on as the holder.
    until("the second serves", || serving(&shipfs));
    assert!(second.is_running());
    second.signal(Signal::INT);
    let ended = second.wait();
    assert_eq!(ended.code, Some(0), "serving ends with Ctrl-C: {ended:?}");
    assert!(!serving(&shipfs));
}

#[test]
fn a_command_is_not_kept_by_another_that_serves_through_it() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    // Holds the repository for as long as it waits for a pipe.
    let mut load = shipfs.spawn(&["load"]);
    until("it holds the repository", || shipfs.repo().join("control.sock").exists());
    let push = ["--network", "private", "push", "--serve", &hello(), "--listen", "/ip4/127.0.0.1/tcp/0"];
    let mut serve = shipfs.spawn(&push);
    assert_eq!(serve.line(), HELLO_CID);
    serve.said("others get it with: shipfs pull");
    drop(load.0.stdin.take());
    let ended = load.wait();
    assert_eq!(ended.code, Some(1), "nothing is no archive: {ended:?}");
    // The one that serves goes on as the holder.
    until("it serves", || shipfs.run(&["id", "--json"]).json()["serving"] == true);
    assert!(serve.is_running());
}

#[test]
fn ctrl_c_ends_a_command_at_once_with_130() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    let mut pull = shipfs.spawn(&["--network", "private", "pull", ABSENT_CID, "--timeout", "10m"]);
    pull.said("network: private");
    // As the holder, and as the guest of one.
    let guest = shipfs.spawn(&["pull", ABSENT_CID, "--timeout", "10m"]);
    until("both pulls run", || pull.is_running() && shipfs.repo().join("control.sock").exists());
    for (child, signal) in [(guest, Signal::INT), (pull, Signal::TERM)] {
        std::thread::sleep(std::time::Duration::from_millis(100));
        child.signal(signal);
        let ended = child.wait();
        assert_eq!((ended.code, ended.text()), (Some(130), ""), "{ended:?}");
    }
    // So does one that waits for a pipe that nobody writes to.
    let mut waiting = shipfs.spawn(&["push", "-"]);
    until("it holds the repository", || shipfs.repo().join("control.sock").exists());
    let _pipe = waiting.0.stdin.take();
    waiting.signal(Signal::INT);
    assert_eq!(waiting.wait().code, Some(130));
    shipfs.run(&["images"]).ok();
}

#[test]
fn systemd_is_told_when_a_daemon_is_ready() {
    let shipfs = Shipfs::new();
    let socket = shipfs.path().join("notify");
    let receiver = UnixDatagram::bind(&socket).expect("binds");
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("sets");
    let mut daemon = spawn(shipfs.command(&["daemon", "--offline"]).env("NOTIFY_SOCKET", &socket));
    assert_eq!(daemon.line(), "ready: offline, working for other commands on this host alone");
    let said = || {
        let mut bytes = [0; 32];
        let length = receiver.recv(&mut bytes).expect("receives");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(said(), "READY=1");
    let pulled = shipfs.run(&["pull", ABSENT_CID]);
    assert!(pulled.stderr.contains("nobody was asked"), "its network is that of the daemon: {}", pulled.stderr);
    daemon.signal(Signal::TERM);
    assert_eq!(said(), "STOPPING=1");
    assert_eq!(daemon.wait().code, Some(0));
}
