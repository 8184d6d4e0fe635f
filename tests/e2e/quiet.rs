//! Threat C14: what leaves a host. In a LAN, nothing that is not for its own link, whatever peers say; offline, and for
//! verbs that need no peer, not even a socket is opened.

use shipfs_tests::image;
use shipfs_tests::netns::Lan;
use shipfs_tests::program::{self, Running, privileged, said, shipfs, shipfs_path, tool};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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
    let counters = program::run(lan.on(host, Path::new("nft")).args(["--json", "list", "counters"]));
    let counters: serde_json::Value = serde_json::from_str(&counters).expect("JSON");
    let found = counters["nftables"].as_array().expect("a list").iter().find_map(|item| item.get("counter"));
    found.expect("the counter")["packets"].as_u64().expect("a number")
}

fn count(lan: &Lan, host: usize) {
    let mut command = lan.on(host, Path::new("nft"));
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft starts");
    nft.stdin.take().expect("a pipe").write_all(RULES.as_bytes()).expect("nft reads");
    assert!(nft.wait().expect("it ends").success());
}

#[test]
fn privileged_c14_lan_sends_nothing_off_link() {
    const NAME: &str = "privileged_c14_lan_sends_nothing_off_link";
    if !privileged(NAME) || !tool(NAME, "nft") {
        return;
    }
    let (lan, folder) = (Lan::new(2), tempfile::tempdir().expect("a directory"));
    let repositories = [1, 2].map(|host| folder.path().join(format!("host{host}")));
    let on = |host: usize, arguments: &[&str]| {
        let mut command = lan.shipfs(host, &repositories[host - 1]);
        command.args(arguments);
        command
    };
    count(&lan, 1);
    count(&lan, 2);
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
    assert_eq!((away(&lan, 1), away(&lan, 2)), (0, 0));
    // The counter counts.
    let packet = format!("echo > /dev/udp/{PUBLIC}/9");
    program::run(lan.on(1, Path::new("bash")).args(["-c", &packet]));
    assert_eq!(away(&lan, 1), 1);
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
    let text = std::fs::read_to_string(log.path()).expect("what strace saw");
    let calls = text.lines().filter_map(|line| line.split_once("socket(").or_else(|| line.split_once("socketpair(")));
    let families = calls.filter_map(|(_, call)| call.split_once(',')).map(|(family, _)| family.to_owned()).collect();
    (said(&output), output.status.success(), families)
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
        let verbs: [&[&str]; 12] = [
            &["push", &source, "--name", "a:1"],
            &["push", "--layout", &source],
            &["pull", &cid],
            &["pull", &cid, "--to", &saved],
            &["images"],
            &["inspect", &cid],
            &["tag", &cid, "b:1"],
            &["save", &cid, "--output", &archive],
            &["verify"],
            &["rmi", "b:1"],
            &["gc"],
            &["id"],
        ];
        for verb in verbs {
            assert_eq!(sockets(&repository, &[offline, verb].concat()), unix, "{offline:?} {verb:?}");
            let _ = std::fs::remove_dir_all(path.join("saved"));
            let _ = std::fs::remove_file(path.join("saved.tar"));
        }
    }
    // What is missing is asked of nobody.
    let (told, succeeded, families) = traced(&repository, &["--offline", "pull", absent]);
    assert_eq!((succeeded, families), (false, unix), "{told}");
    // Whoever needs a peer does open sockets, so this would be seen.
    let (told, succeeded, families) = traced(&repository, &["--timeout", "500ms", "pull", absent]);
    assert!(!succeeded && families.contains("AF_INET"), "{families:?}: {told}");
}
