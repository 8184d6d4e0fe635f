//! What a host tells of its network: its neighbours, whether it would be found, and why something did not come.

use crate::hosts::Hosts;
use serde_json::Value;
use shipfs_tests::image;
use shipfs_tests::program::{self, Running, privileged, tool};
use std::path::Path;

/// A firewall that lets no search for neighbours through.
const FIREWALL: &str = "nft 'add table inet deaf; add chain inet deaf in { type filter hook input priority 0 ; }; \
                        add rule inet deaf in udp dport 5353 drop'";

fn check(doctor: &Value, name: &str) -> (String, String) {
    let checks = doctor["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["name"] == name).expect("was checked");
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), format!("{} {}", text("found"), text("advice")))
}

#[test]
fn privileged_a_doctor_finds_neighbours_and_suspects_a_firewall() {
    const NAME: &str = "privileged_a_doctor_finds_neighbours_and_suspects_a_firewall";
    if !privileged(NAME) || !tool(NAME, "nft") {
        return;
    }
    let hosts = Hosts::new(2);
    let lan = &hosts.lan;
    let on = |host: usize, arguments: &[&str]| hosts.on(host, arguments);
    let (_other, _) = Running::start(&mut on(2, &["daemon"]), "ready").expect("host 2 serves");
    let examined = |arguments: &[&str]| {
        let text = program::run(&mut on(1, arguments));
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let doctor = examined(&["--json", "doctor"]);
    for name in ["interfaces", "ports", "mdns", "fetch"] {
        assert_eq!(check(&doctor, name).0, "ok", "{name}: {doctor:#}");
    }
    assert!(check(&doctor, "interfaces").1.contains("eth0 10.77.0.1/24"), "{doctor:#}");
    // The same through a daemon, which is reached at the address that others use.
    let (daemon, _) = Running::start(&mut on(1, &["daemon"]), "ready").expect("host 1 serves");
    let doctor = examined(&["--json", "doctor"]);
    assert!(check(&doctor, "fetch").1.contains("/ip4/10.77.0.1/tcp/4001"), "{doctor:#}");
    assert!(check(&doctor, "repository").1.contains("a daemon holds it"), "{doctor:#}");
    drop(daemon);
    program::run(lan.on(1, Path::new("sh")).args(["-c", FIREWALL]));
    let doctor = examined(&["--json", "doctor"]);
    let (verdict, told) = check(&doctor, "mdns");
    assert_eq!(verdict, "warn", "{doctor:#}");
    assert!(told.contains("nothing is found by multicast") && told.contains("UDP port 5353"), "{told}");
    assert_eq!(check(&doctor, "fetch").0, "ok", "{doctor:#}");
}

#[test]
fn privileged_neighbours_are_told_with_all_that_went_through() {
    if !privileged("privileged_neighbours_are_told_with_all_that_went_through") {
        return;
    }
    let hosts = Hosts::new(2);
    let (lan, folder) = (&hosts.lan, &hosts.folder);
    let on = |host: usize, arguments: &[&str]| hosts.on(host, arguments);
    let json = |host: usize, arguments: &[&str]| {
        let text = program::run(on(host, arguments).arg("--json"));
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let layout = folder.path().join("layout");
    image::layout(&layout, &[5 << 20, 100], 9).expect("written");
    let source = format!("oci:{}", layout.display());
    let cid = program::run(&mut on(2, &["--quiet", "--offline", "push", &source])).trim().to_owned();
    let (giver, _) = Running::start(&mut on(2, &["daemon"]), "ready").expect("host 2 serves");
    let (_taker, _) = Running::start(&mut on(1, &["daemon"]), "ready").expect("host 1 serves");
    program::run(&mut on(1, &["pull", &cid]));
    let (taken, given) = (json(1, &["peers"]), json(2, &["peers"]));
    let count = |rows: &Value, field: &str| rows[0][field].as_u64().expect("a number");
    assert!(
        count(&taken, "received") > 5 << 20 && count(&taken, "received") == count(&given, "sent"),
        "{taken:#}{given:#}"
    );
    // What one has sent has arrived at the other, but for the few bytes that say how long each message is.
    let (sent, arrived) = (count(&given, "wire_sent"), count(&taken, "wire_received"));
    assert!(arrived <= sent && sent < arrived + 1000, "{taken:#} {given:#}");
    assert!(count(&taken, "wire_received") < lan.traffic(1).received, "{taken:#}");
    assert!(taken[0]["address"].as_str().is_some_and(|address| address.contains("10.77.0.2")), "{taken:#}");
    let why = json(1, &["why", &cid]);
    assert_eq!(why["answer"], "it is here", "{why:#}");
    let fetch = &why["fetches"][0];
    assert_eq!((&fetch["outcome"], &fetch["peers"][0]["answer"]), (&"arrived".into(), &"block".into()), "{why:#}");
    assert_eq!(fetch["peers"][0]["peer"], taken[0]["peer"], "{why:#}");
    drop(giver);
}
