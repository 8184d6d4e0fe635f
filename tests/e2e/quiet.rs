//! Threat C14: what leaves a host. In a LAN, nothing that is not for its own link, whatever peers say; offline, and for
//! verbs that need no peer, not even a socket is opened.

use crate::hosts::Hosts;
use shipfs_tests::image;
use shipfs_tests::netns::Lan;
use shipfs_tests::program::{self, Running, privileged, said, shipfs, shipfs_path, tool};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Counts what a host sends past its own link: all but its subnet, link-local addresses, broadcasts and multicast.
const RULES: &str = r#"
table inet c14 {
    counter away { }
    chain output {
        type filter hook output priority 0; policy accept;
        oifname != "eth0" return
        ip daddr { 10.77.0.0/24, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255 } return
        ip6 daddr { fe80::/10, ff00::/8 } return
        counter name away
    }
}
"#;
/// An address that is public as far as anybody can tell, and that host 2 has as well.
const PUBLIC: &str = "203.0.113.7";

/// Packets that a host has sent past its link.
fn away(lan: &Lan, host: usize) -> u64 {
    counted(lan, host)["away"]
}

/// Packets by counter.
fn counted(lan: &Lan, host: usize) -> BTreeMap<String, u64> {
    let counters = program::run(lan.on(host, Path::new("nft")).args(["--json", "list", "counters"]));
    let counters: serde_json::Value = serde_json::from_str(&counters).expect("JSON");
    let found = counters["nftables"].as_array().expect("a list").iter().filter_map(|item| item.get("counter"));
    let count = |counter: &serde_json::Value| {
        let name = counter["name"].as_str().expect("a name").to_owned();
        (name, counter["packets"].as_u64().expect("a number"))
    };
    found.map(count).collect()
}

fn count(lan: &Lan, host: usize) {
    rules(lan, host, RULES);
}

fn rules(lan: &Lan, host: usize, rules: &str) {
    let mut command = lan.on(host, Path::new("nft"));
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
    nft.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("it ends").success());
}

#[test]
fn privileged_c14_lan_sends_nothing_off_link() {
    const NAME: &str = "privileged_c14_lan_sends_nothing_off_link";
    if !privileged(NAME) || !tool(NAME, "nft") {
        return;
    }
    let hosts = Hosts::new(2);
    let (lan, folder) = (&hosts.lan, &hosts.folder);
    let on = |host: usize, arguments: &[&str]| hosts.on(host, arguments);
    count(lan, 1);
    count(lan, 2);
    // Host 2 says by mDNS, identify and the table that it is reached there, too. It is: host 1 would get an answer from
    // its gateway, were it to ask.
    lan.add_address(2, &format!("{PUBLIC}/32"));
    let layout = folder.path().join("layout");
    image::layout(&layout, &[3 << 20, 100], 9).expect("written");
    let source = format!("oci:{}", layout.display());
    let cid = program::run(&mut on(2, &["--quiet", "push", &source])).trim().to_owned();
    let everywhere = ["--listen", "/ip4/0.0.0.0/udp/0/quic-v1", "--listen", "/ip4/0.0.0.0/tcp/0", "daemon"];
    let (other, ready) = Running::start(&mut on(2, &everywhere), "ready").expect("host 2 serves");
    assert!(ready.contains(&format!("{PUBLIC}/tcp/")) && ready.contains(&format!("{PUBLIC}/udp/")), "{ready}");
    // A session with everything in it: found by mDNS, pulled, served on, pushed, served back.
    program::run(&mut on(1, &["pull", &cid]));
    let (daemon, _) = Running::start(&mut on(1, &["daemon"]), "ready").expect("host 1 serves");
    let own = program::run(&mut on(1, &["--quiet", "push", "--layout", &source])).trim().to_owned();
    program::run(&mut on(2, &["pull", &own]));
    let absent = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let nobody = on(1, &["--timeout", "3s", "pull", absent]).output().expect("it starts");
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
    let peers = program::run(&mut on(1, &["--json", "peers"]));
    // Of two transports, the faster one.
    assert!(peers.contains("/ip4/10.77.0.2/tcp/") && !peers.contains(PUBLIC), "{peers}");
    drop((daemon, other));
    // Named addresses are no exception, and names are not looked up.
    for peer in [
        format!("/ip4/{PUBLIC}/tcp/4001"),
        "/dns4/shipfs.example/tcp/4001".into(),
        "/ip6/2001:db8::7/tcp/1".into(),
        format!("/ip4/{PUBLIC}/udp/1/quic-v1"),
    ] {
        let refused = on(1, &["--peer", &peer, "--timeout", "2s", "peers"]).output().expect("it starts");
        assert_eq!(refused.status.code(), Some(1), "{peer}: {}", said(&refused));
        assert!(said(&refused).contains("only such addresses are dialled in a LAN"), "{peer}: {}", said(&refused));
        let starved = on(1, &["--peer", &peer, "--timeout", "1s", "pull", absent]).output().expect("it starts");
        assert_eq!(starved.status.code(), Some(1), "{peer}: {}", said(&starved));
    }
    assert_eq!((away(lan, 1), away(lan, 2)), (0, 0));
    // The counter counts.
    let packet = format!("echo > /dev/udp/{PUBLIC}/9");
    program::run(lan.on(1, Path::new("bash")).args(["-c", &packet]));
    assert_eq!(away(lan, 1), 1);
}

/// Counts what a host sends to where peers lie that they are, on whichever interface; and all that a tunnel gets but
/// multicast, which is how neighbours are looked for on every interface.
const LIES: &str = r#"
table inet lies {
    counter away { }
    counter tunnel { }
    counter names { }
    chain output {
        type filter hook output priority 0; policy accept;
        meta l4proto { tcp, udp } th dport 53 counter name names
        oifname "vpn0" ip daddr != 224.0.0.0/4 counter name tunnel
        oifname "vpn0" ip6 daddr != { fe80::/10, ff00::/8 } counter name tunnel
        oifname != "eth0" return
        ip daddr { 10.77.0.0/24, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255 } return
        ip6 daddr { fe80::/10, ff00::/8 } return
        counter name away
    }
}
"#;

/// A peer on the link that says, by every way there is, that others are at public addresses, at names, behind a tunnel and
/// on the tunnel's own subnet. Each lie reaches the node, which dials none of them and asks no name server, while it
/// fetches from a neighbour that mDNS found.
#[test]
fn privileged_c14_lies_about_where_peers_are_lead_nowhere() {
    const NAME: &str = "privileged_c14_lies_about_where_peers_are_lead_nowhere";
    const TUNNEL: &str = "ip tuntap add dev vpn0 mode tun && ip address add 10.8.0.2/24 dev vpn0 && ip link set vpn0 up \
                          && ip route add 10.99.0.0/16 via 10.8.0.1 dev vpn0";
    const ABSENT: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    if !privileged(NAME) || !tool(NAME, "nft") || !tool(NAME, "strace") {
        return;
    }
    let hosts = Hosts::new(3);
    let (lan, folder) = (&hosts.lan, &hosts.folder);
    let on = |host: usize, arguments: &[&str]| hosts.on(host, arguments);
    program::run(lan.on(1, Path::new("sh")).args(["-c", TUNNEL]));
    rules(lan, 1, LIES);
    let lies = [
        "/ip4/203.0.113.7/tcp/4001",
        "/ip6/2001:db8::7/tcp/4001",
        "/dns4/shipfs.example/tcp/4001",
        "/dnsaddr/shipfs.example",
        "/ip4/10.99.0.1/tcp/4001",
        "/ip4/10.8.0.77/tcp/4001",
    ];
    let liar = Path::new(env!("CARGO_BIN_EXE_liar"));
    let (liar, _) = Running::start(lan.on(3, liar).arg(ABSENT).args(lies), "ready").expect("it lies");
    let layout = folder.path().join("layout");
    image::layout(&layout, &[3 << 20, 100], 9).expect("written");
    let source = format!("oci:{}", layout.display());
    let cid = program::run(&mut on(2, &["--quiet", "--offline", "push", &source])).trim().to_owned();
    let (other, _) = Running::start(&mut on(2, &["daemon"]), "ready").expect("host 2 serves");
    let log = folder.path().join("strace");
    let mut command = lan.on(1, Path::new("strace"));
    command.args(["-D", "-f", "-qq", "-e", "trace=connect", "-o"]).arg(&log).arg(shipfs_path());
    command.arg("--repo").arg(folder.path().join("host1")).args(["daemon", "--timeout", "2s"]);
    let (daemon, _) = Running::start(command.stdin(Stdio::null()), "ready").expect("host 1 serves");
    // Found by mDNS, and whole.
    program::run(&mut on(1, &["pull", &cid]));
    // Until every lie was met.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let why = program::run(&mut on(1, &["--json", "why", ABSENT, "--again", "--timeout", "2s"]));
        let why: serde_json::Value = serde_json::from_str(&why).expect("JSON");
        let dials = why["failed_dials"].as_array().expect("a list").clone();
        let refused = |lie: &&&str| {
            dials.iter().any(|dial| {
                let address = dial["address"].as_str().unwrap_or_default();
                let reason = dial["reason"].as_str().unwrap_or_default();
                address.starts_with(**lie) && reason.contains("only such addresses are dialled in a LAN")
            })
        };
        let met = lies.iter().filter(refused).count();
        if met == lies.len() {
            assert!(why["routing"]["mdns"].as_u64().is_some_and(|found| found >= 2), "{why:#}");
            break;
        }
        assert!(Instant::now() < until, "{met} lies were met: {why:#}");
    }
    let counts = counted(lan, 1);
    assert!(counts.values().all(|packets| *packets == 0), "{counts:?}");
    drop((daemon, liar, other));
    let calls = std::fs::read_to_string(&log).expect("what strace saw");
    assert!(calls.contains("10.77.0."), "neighbours were dialled");
    for place in ["203.0.113.7", "2001:db8::7", "10.99.0.1", "10.8.0.77", "htons(53)"] {
        assert!(!calls.contains(place), "{place}");
    }
    // The counters count.
    program::run(
        lan.on(1, Path::new("bash")).args(["-c", "echo > /dev/udp/203.0.113.7/53; echo > /dev/udp/10.99.0.1/9"]),
    );
    let counts = counted(lan, 1);
    assert_eq!((counts["away"], counts["names"], counts["tunnel"]), (1, 1, 1), "{counts:?}");
}

/// Whoever has not asked to serve is heard of by nobody: no packet but the search for peers, and nobody gets a block.
#[test]
fn privileged_c14_nothing_is_served_or_announced_before_the_user_asks() {
    const NAME: &str = "privileged_c14_nothing_is_served_or_announced_before_the_user_asks";
    if !privileged(NAME) {
        return;
    }
    let hosts = Hosts::new(2);
    let (lan, folder) = (&hosts.lan, &hosts.folder);
    let on = |host: usize, arguments: &[&str]| hosts.on(host, arguments);
    let layout = folder.path().join("layout");
    image::layout(&layout, &[1 << 20, 100], 9).expect("written");
    let source = format!("oci:{}", layout.display());
    let quiet = lan.traffic(1);
    let cid = program::run(&mut on(1, &["--quiet", "push", &source])).trim().to_owned();
    for verb in [&["images"][..], &["verify"], &["why", &cid], &["pull", &cid], &["config"], &["id"], &["gc"]] {
        program::run(&mut on(1, verb));
    }
    // Neighbours say now and then that they exist, whatever runs; a push of a mebibyte would show.
    assert!(lan.traffic(1).sent - quiet.sent < 4096, "{:?} {quiet:?}", lan.traffic(1));
    // A pull that goes on for a while is connected to host 2, which gets nothing from it: neither block nor record.
    let (daemon, _) = Running::start(&mut on(2, &["daemon"]), "ready").expect("host 2 serves");
    let absent = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let mut pulling = Running::spawn(&mut on(1, &["pull", absent, "--timeout", "60s"])).expect("it starts");
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let peers = program::run(&mut on(2, &["--json", "peers"]));
        if peers.contains("10.77.0.1") {
            break;
        }
        assert!(Instant::now() < until, "they never met");
        std::thread::sleep(Duration::from_millis(50));
    }
    let why = program::run(&mut on(2, &["--json", "why", &cid, "--timeout", "3s"]));
    let why: serde_json::Value = serde_json::from_str(&why).expect("JSON");
    assert_eq!(why["answer"], "it is not here; none of the 1 peers that were asked has it", "{why:#}");
    assert_eq!(why["fetches"][0]["providers"], 0, "{why:#}");
    assert!(pulling.line(Instant::now()).is_ok(), "it still runs");
    pulling.kill();
    drop(daemon);
}

/// The families of the sockets that a verb and its threads open; the verb must succeed.
fn sockets(repository: &Path, arguments: &[&str]) -> BTreeSet<String> {
    let (told, succeeded, families) = traced(repository, arguments);
    assert!(succeeded, "{arguments:?}: {told}");
    families
}

fn traced(repository: &Path, arguments: &[&str]) -> (String, bool, BTreeSet<String>) {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=socket,socketpair", "-o"]).arg(log.path()).arg(shipfs_path());
    let output = command.arg("--repo").arg(repository).args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("strace starts");
    (said(&output), output.status.success(), families_in(log.path()))
}

fn families_in(log: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(log).expect("what strace saw");
    let calls = text.lines().filter_map(|line| line.split_once("socket(").or_else(|| line.split_once("socketpair(")));
    calls.filter_map(|(_, call)| call.split_once(',')).map(|(family, _)| family.to_owned()).collect()
}

#[test]
fn privileged_c14_verbs_that_need_no_peer_open_no_network_socket() {
    const NAME: &str = "privileged_c14_verbs_that_need_no_peer_open_no_network_socket";
    if !privileged(NAME) || !tool(NAME, "strace") {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path();
    let repository = path.join("repository");
    image::layout(&path.join("layout"), &[300_000, 100], 9).expect("written");
    let [source, saved] = ["layout", "saved"].map(|name| format!("oci:{}", path.join(name).display()));
    let archive = path.join("saved.tar").display().to_string();
    let cid = program::run(shipfs(&repository).args(["--offline", "--quiet", "push", &source])).trim().to_owned();
    let unix = BTreeSet::from(["AF_UNIX".to_owned()]);
    let absent = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    for offline in [&["--offline"][..], &[]] {
        let verbs: [&[&str]; 15] = [
            &["push", &source, "--name", "a:1"],
            &["push", "--layout", &source],
            &["pull", &cid],
            &["pull", &cid, "--to", &saved],
            &["images"],
            &["inspect", &cid],
            &["tag", &cid, "b:1"],
            &["save", &cid, "--output", &archive],
            &["load", "--input", &archive],
            &["peers"],
            &["why", &cid],
            &["verify"],
            &["rmi", "b:1"],
            &["gc"],
            &["id"],
        ];
        for verb in verbs {
            assert_eq!(sockets(&repository, &[offline, verb].concat()), unix, "{offline:?} {verb:?}");
            let _ = std::fs::remove_dir_all(path.join("saved"));
            if verb[0] == "load" {
                std::fs::remove_file(path.join("saved.tar")).expect("was loaded");
            }
        }
    }
    // What needs no repository opens none but what signals come through.
    for verb in [&["config"][..], &["version"], &["key", "gen", "--output", "-"], &["completion", "bash"]] {
        assert!(sockets(&repository, &[&["--offline"], verb].concat()).is_subset(&unix), "{verb:?}");
    }
    // What only makes sense with a network says so, and opens none.
    for verb in [&["doctor"][..], &["why", absent]] {
        assert_eq!(sockets(&repository, &[&["--offline"], verb].concat()), unix, "{verb:?}");
    }
    let serving = ["--offline", "push", "--serve", &source];
    let (told, succeeded, families) = traced(&repository, &serving);
    assert_eq!((succeeded, &families), (false, &unix), "{told}");
    assert!(told.contains("this node is offline"), "{told}");
    // What is missing is asked of nobody, and that is said at once.
    let began = Instant::now();
    let (told, succeeded, families) = traced(&repository, &["--offline", "pull", absent]);
    assert_eq!((succeeded, &families), (false, &unix), "{told}");
    assert!(told.contains("is not here, and no peer gave it (nobody was asked)"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The same of a daemon, and of those who work through it.
    let log = path.join("strace");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-e", "trace=socket,socketpair", "-o"]).arg(&log).arg(shipfs_path());
    command.arg("--repo").arg(&repository).args(["--offline", "daemon"]).stdin(Stdio::null());
    let (daemon, ready) = Running::start(&mut command, "ready").expect("a daemon starts");
    assert!(ready.contains("offline"), "{ready}");
    for (verb, code) in
        [(&["pull", absent][..], 1), (&["images"], 0), (&["doctor"], 0), (&["why", absent], 0), (&["peers"], 0)]
    {
        let output = shipfs(&repository).args(verb).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{verb:?}: {}", said(&output));
    }
    drop(daemon);
    assert_eq!(families_in(&log), unix);
    // Whoever needs a peer does open sockets, so this would be seen.
    let (told, succeeded, families) = traced(&repository, &["--timeout", "500ms", "pull", absent]);
    assert!(!succeeded && families.contains("AF_INET"), "{families:?}: {told}");
}
