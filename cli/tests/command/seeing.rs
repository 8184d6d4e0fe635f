//! What the command tells of the network and of itself: peers, why, doctor, settings.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use crate::support::{ABSENT_CID, HELLO_CID, Shipfs, hello, layout, until};

#[test]
fn a_running_holder_tells_why_an_image_did_not_come() {
    let server = Shipfs::new();
    server.run(&["key", "gen"]).ok();
    let (daemon, address) = server.daemon();
    let other = Shipfs::beside(&server);
    let (_holder, _) = other.daemon();
    let pull = ["pull", ABSENT_CID, "--peer", &address, "--timeout", "1s"];
    let failed = other.run(&pull);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains(&format!("`shipfs why {ABSENT_CID}` tells who was asked")), "{}", failed.stderr);
    // What the daemon remembers is told; nobody is asked again.
    let why = other.run(&["why", ABSENT_CID, "--json"]).json();
    assert_eq!(why["answer"], "it is not here; none of the 1 peers that were asked has it", "{why:#}");
    assert_eq!((&why["here"], &why["network"]), (&serde_json::Value::Null, &"private".into()));
    let fetches = why["fetches"].as_array().expect("a list");
    assert_eq!(fetches.len(), 1, "{why:#}");
    assert_eq!((&fetches[0]["outcome"], &fetches[0]["missing"]), (&"failed".into(), &ABSENT_CID.into()));
    let asked = &fetches[0]["peers"][0];
    assert_eq!((&asked["answer"], &asked["blocks"]), (&"dont-have".into(), &0.into()), "{why:#}");
    assert!(asked["agent"].as_str().is_some_and(|agent| agent.starts_with("shipfs/")), "{why:#}");
    let text = other.run(&["why", ABSENT_CID]);
    assert!(text.ok().contains("DONT_HAVE") && text.text().contains("mDNS: off"), "{}", text.text());
    // Asked again, it is there.
    let mine = layout(&server.path().join("layout"), 400_000, &serde_json::json!({}));
    let cid = server.run(&["push", "-q", &mine]).ok().trim().to_owned();
    let again = other.run(&["why", &cid, "--again", "--timeout", "5s", "--json"]).json();
    assert_eq!(again["answer"], "it is not here; the last attempt got it, so others have it", "{again:#}");
    other.run(&["pull", "-q", &cid, "--name", "x"]).ok();
    let here = other.run(&["why", "x", "--json"]).json();
    assert_eq!(here["answer"], "it is here", "{here:#}");
    let place = here["here"]["places"][0].as_str().expect("a place");
    assert!(place.starts_with("file sha256:") && place.ends_with("at byte 0"), "{place}");
    assert_eq!(here["here"]["images"], serde_json::json!([cid, "docker.io/library/x:latest"]));
    let (peers, table) = (other.run(&["peers", "--json"]).json(), other.run(&["peers"]));
    let peer = &peers[0];
    assert_eq!((&peer["transport"], &peer["outbound"]), (&"private tcp+tls".into(), &true.into()), "{peers:#}");
    assert_eq!(peer["protocols"][0], "/ipfs/bitswap/1.2.0");
    let bytes = |name: &str| peer[name].as_u64().expect("a number");
    assert!(bytes("received") > 400_000 && bytes("wire_received") > bytes("received"), "{peers:#}");
    assert!(bytes("wire_sent") > 0 && bytes("connected_ms") > 0, "{peers:#}");
    for word in ["TRANSPORT", "private tcp+tls", "out", "1.2.0", "KiB", "shipfs/"] {
        assert!(table.ok().contains(word), "{word}: {}", table.text());
    }
    drop(daemon);
    until("the peer is gone", || other.run(&["peers", "--json"]).json() == serde_json::json!([]));
}

#[test]
fn without_a_holder_why_asks_by_itself_and_within_its_time() {
    let shipfs = Shipfs::new();
    let offline = shipfs.run(&["--offline", "why", ABSENT_CID]);
    assert!(offline.ok().contains("it is not here, and offline nobody is asked"), "{}", offline.text());
    shipfs.run(&["key", "gen"]).ok();
    let began = Instant::now();
    let why = shipfs.run(&[
        "--network",
        "private",
        "why",
        ABSENT_CID,
        "--peer",
        "/ip4/127.0.0.1/tcp/1",
        "--timeout",
        "1s",
        "--json",
    ]);
    let why = why.json();
    assert!(began.elapsed().as_secs() < 10);
    assert_eq!(why["answer"], "it is not here; no peer could be asked: 1 dials failed", "{why:#}");
    let dial = &why["failed_dials"][0];
    assert_eq!(dial["address"], "/ip4/127.0.0.1/tcp/1");
    assert!(dial["reason"].as_str().is_some_and(|reason| reason.contains("refused")), "{why:#}");
    assert_eq!(why["routing"]["named"], serde_json::json!([["/ip4/127.0.0.1/tcp/1", false]]));
    let refused = shipfs.run(&["--network", "lan", "--no-mdns", "why", ABSENT_CID, "--peer", "/ip4/203.0.113.9/tcp/1"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("not on this host's own network"), "{}", refused.stderr);
    let unknown = shipfs.run(&["why", "nothing"]);
    assert_eq!(unknown.code, Some(1));
}

fn verdicts(doctor: &serde_json::Value) -> Vec<(String, String)> {
    let checks = doctor["checks"].as_array().expect("a list").iter();
    checks
        .map(|check| (check["name"].as_str().expect("a name").into(), check["verdict"].as_str().expect("one").into()))
        .collect()
}

fn verdict(doctor: &serde_json::Value, name: &str) -> String {
    verdicts(doctor).into_iter().find(|(other, _)| other == name).expect("was checked").1
}

#[test]
fn a_doctor_finds_a_healthy_node_healthy_and_leaves_nothing_behind() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    shipfs.run(&["push", "-q", &hello()]).ok();
    let alone = ["doctor", "--network", "private", "--listen", "/ip4/127.0.0.1/tcp/0", "--json"];
    let doctor = shipfs.run(&alone).json();
    for name in ["repository", "space", "index", "clock", "identity", "swarm-key", "network", "ports", "fetch"] {
        assert_eq!(verdict(&doctor, name), "ok", "{name}: {doctor:#}");
    }
    assert_eq!(verdict(&doctor, "mdns"), "skipped");
    assert!(!shipfs.repo().join("doctor.tmp").exists());
    assert_eq!(shipfs.run(&["images", "-q"]).ok(), format!("{HELLO_CID}\n"));
    // Through a daemon, a second node fetches from where the daemon listens.
    let (_daemon, address) = shipfs.daemon();
    let doctor = shipfs.run(&["doctor", "--json"]).json();
    assert_eq!(verdict(&doctor, "fetch"), "ok", "{doctor:#}");
    assert!(doctor.to_string().contains(&address), "{doctor:#}");
    // It serves on as before.
    assert_eq!(shipfs.run(&["id", "--json"]).json()["serving"], true);
}

#[test]
fn a_doctor_says_what_fails_and_exits_with_1() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    shipfs.run(&["id"]).ok();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().expect("bound").port());
    for file in ["identity", "swarm.key"] {
        fs::set_permissions(shipfs.repo().join(file), fs::Permissions::from_mode(0o644)).expect("sets");
    }
    let ran = shipfs.run(&[
        "doctor",
        "--network",
        "private",
        "--listen",
        &listen,
        "--peer",
        "/ip4/127.0.0.1/tcp/1",
        "--json",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let doctor: serde_json::Value = serde_json::from_str(ran.text()).expect("JSON");
    for (name, expected) in [("identity", "warn"), ("swarm-key", "warn"), ("ports", "fail"), ("peers", "fail")] {
        assert_eq!(verdict(&doctor, name), expected, "{name}: {doctor:#}");
    }
    let text = shipfs.run(&["doctor", "--network", "private", "--listen", &listen]);
    assert!(text.text().contains("-> chmod 600 '") && text.text().contains("FAIL"), "{}", text.text());
    assert!(text.stderr.contains("failed"), "{}", text.stderr);
    // A repository that cannot be opened is what is found.
    fs::write(shipfs.repo().join("version"), "99\n").expect("writes");
    let ran = shipfs.run(&["doctor"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.text().starts_with("FAIL     repository") && ran.text().contains("-> a newer shipfs"), "{ran:?}");
}

#[test]
fn offline_a_doctor_skips_what_needs_a_socket() {
    let shipfs = Shipfs::new();
    let doctor = shipfs.run(&["--offline", "doctor", "--json"]).json();
    let skipped: Vec<_> = verdicts(&doctor).into_iter().filter(|(_, verdict)| verdict == "skipped").collect();
    assert_eq!(skipped.len(), 6, "{doctor:#}");
    assert!(shipfs.run(&["--offline", "doctor"]).ok().contains("skipped  fetch       offline: no socket is opened"));
}

#[test]
fn settings_come_from_options_the_environment_the_file_and_defaults_in_this_order() {
    let shipfs = Shipfs::new();
    shipfs.run(&["images"]).ok();
    let file = shipfs.repo().join("config.toml");
    let text = "network = \"private\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nmdns = true\ntimeout = \"2s\"\n";
    fs::write(&file, text).expect("writes");
    let mut command = shipfs.command(&["config", "--json", "--timeout", "3s"]);
    let output = command.env("SHIPFS_MDNS", "false").output().expect("runs");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |name: &str| {
        let row = shown["settings"].as_array().expect("a list").iter().find(|row| row["setting"] == name);
        let row = row.expect("is shown");
        (row["value"].as_str().expect("text").to_owned(), row["from"].as_str().expect("text").to_owned())
    };
    let line = |number| format!("{}:{number}", file.display());
    assert_eq!(of("network"), ("private".into(), line(1)));
    assert_eq!(of("listen"), ("/ip4/127.0.0.1/tcp/0".into(), line(2)));
    assert_eq!(of("mdns"), ("false".into(), "$SHIPFS_MDNS".into()));
    assert_eq!(of("timeout"), ("3.0 s".into(), "--timeout".into()));
    assert_eq!(of("peers"), (String::new(), "default".into()));
    let table = shipfs.run(&["config"]);
    assert!(table.ok().starts_with("SETTING ") && table.text().contains("config.toml:1"), "{}", table.text());
}

#[test]
fn the_file_counts_for_whoever_enters_a_network_and_not_for_those_who_work_through_a_daemon() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    let file = shipfs.repo().join("config.toml");
    fs::write(&file, "network = \"private\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n").expect("writes");
    let mut daemon = shipfs.spawn(&["daemon"]);
    let ready = daemon.line();
    assert!(
        ready.starts_with("ready: serving on the private network as ") && ready.contains("/ip4/127.0.0.1/"),
        "{ready}"
    );
    // It says another network now, which is no reason to quarrel with the daemon that runs.
    fs::write(&file, "network = \"lan\"\ntimeout = \"300ms\"\n").expect("writes");
    let pulled = shipfs.run(&["pull", ABSENT_CID]);
    assert!(
        pulled.stderr.contains("network: private") && pulled.stderr.contains("came for 0.3 s"),
        "{}",
        pulled.stderr
    );
    drop(daemon);
    fs::write(&file, "network = \"offline\"\npeers = [\"/ip4/127.0.0.1/tcp/1\"]\n").expect("writes");
    let pulled = shipfs.run(&["pull", ABSENT_CID]);
    assert!(pulled.stderr.contains("nobody was asked"), "{}", pulled.stderr);
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_line_and_what_was_meant() {
    let shipfs = Shipfs::new();
    shipfs.run(&["images"]).ok();
    fs::write(shipfs.repo().join("config.toml"), "mdns = true\nnetwrok = \"lan\"\n").expect("writes");
    for args in [&["images"][..], &["config"], &["pull", ABSENT_CID], &["doctor"]] {
        let ran = shipfs.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("config.toml`, line 2: there is no setting `netwrok`"), "{}", ran.stderr);
        assert!(ran.stderr.contains("hint: did you mean `network`?"), "{}", ran.stderr);
    }
    // What needs no repository works all the same.
    shipfs.run(&["version"]).ok();
    let mut wrong = shipfs.command(&["images"]);
    let output = wrong.env("SHIPFS_TIMEOUT", "soon").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_list_of_images_is_complete_and_has_no_row_too_many() {
    let shipfs = Shipfs::new();
    let source = layout(&shipfs.path().join("layout"), 4096, &serde_json::json!({}));
    shipfs.run(&["push", "-q", &source, "--name", "a:1"]).ok();
    let before = shipfs.run(&["images"]);
    assert!(
        before.ok().contains("linux/amd64"),
        "a single manifest's platform is that of its configuration: {before:?}"
    );
    shipfs.run(&["--offline", "pull", "a:1", "--platform", "linux/amd64", "--to", "oci:out"]).ok();
    assert_eq!(shipfs.run(&["images"]).stdout, before.stdout);
}

#[test]
fn a_guest_is_as_patient_as_it_says_and_not_as_its_holder() {
    let shipfs = Shipfs::new();
    shipfs.run(&["key", "gen"]).ok();
    let args = ["daemon", "--network", "private", "--listen", "/ip4/127.0.0.1/tcp/0", "--timeout", "300ms"];
    let mut daemon = shipfs.spawn(&args);
    assert!(daemon.line().starts_with("ready: "));
    for (timeout, says) in [("200ms", "came for 0.2 s"), ("2s", "came for 2.0 s")] {
        let ran = shipfs.run(&["pull", ABSENT_CID, "--timeout", timeout]);
        assert!(ran.stderr.contains(says), "{timeout}: {}", ran.stderr);
    }
}
