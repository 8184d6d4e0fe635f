//! What was found out about the network, for people: peers, answers to `why`, the doctor's checks, settings.
//!
//! Pure; every cell that may hold foreign text is escaped here.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use shipfs_image::control::{Asked, Check, Dial, Doctor, Fetched, PeerRow, Verdict, Why};

use crate::{
    settings::Shown,
    tables::table,
    text::{escaped, size, time},
};

fn ago(milliseconds: u64) -> String {
    time(Duration::from_millis(milliseconds))
}

/// `PEER ADDRESS TRANSPORT WAY CONNECTED RECEIVED SENT BITSWAP AGENT`.
pub(crate) fn peers(peers: &[PeerRow]) -> String {
    let rows = peers.iter().map(|peer| {
        let spoken = peer.protocols.iter().map(|protocol| escaped(protocol.trim_start_matches("/ipfs/bitswap/")));
        let spoken = spoken.collect::<Vec<_>>().join(",");
        [
            peer.peer.clone(),
            escaped(&peer.address),
            escaped(&peer.transport),
            peer.outbound.map_or("-", |outbound| if outbound { "out" } else { "in" }).to_owned(),
            peer.connected_ms.map_or_else(|| "-".to_owned(), ago),
            size(peer.received),
            size(peer.sent),
            if spoken.is_empty() { "-".to_owned() } else { spoken },
            escaped(&peer.agent),
        ]
    });
    table(["PEER", "ADDRESS", "TRANSPORT", "WAY", "CONNECTED", "RECEIVED", "SENT", "BITSWAP", "AGENT"], rows)
}

/// Where something is, or why it did not come.
pub(crate) fn why(why: &Why) -> String {
    let mut text = format!("{}: {}\n", why.cid, escaped(&why.answer));
    if let Some(here) = &why.here {
        text.push_str(&format!("\nhere: {}\n", size(here.size)));
        here.places.iter().for_each(|place| text.push_str(&format!("  lies in {}\n", escaped(place))));
        here.images.iter().for_each(|image| text.push_str(&format!("  kept by image {}\n", escaped(image))));
        here.pins.iter().for_each(|pin| text.push_str(&format!("  pinned by {}\n", escaped(pin))));
        if here.images.is_empty() && here.pins.is_empty() {
            text.push_str("  kept by nothing: the next `shipfs gc` frees it\n");
        }
    }
    for fetch in &why.fetches {
        text.push_str(&fetched(fetch));
    }
    let network = why.network.as_deref().unwrap_or("none joined");
    text.push_str(&format!("\nnetwork: {network}, {} peers connected\n", why.connected));
    if let Some(routing) = &why.routing {
        match routing.mdns {
            Some(found) => text.push_str(&format!("  mDNS: {found} peers found\n")),
            None => text.push_str("  mDNS: off\n"),
        }
        text.push_str(&format!("  DHT of the LAN: {} peers in the table\n", routing.table));
        for (address, connected) in &routing.named {
            let state = if *connected { "connected" } else { "not connected" };
            text.push_str(&format!("  named: {} ({state})\n", escaped(address)));
        }
        if routing.remembered > 0 {
            text.push_str(&format!("  remembered: {} peers that delivered before\n", routing.remembered));
        }
    }
    if !why.failed_dials.is_empty() {
        text.push_str("\ndials that failed lately:\n");
        why.failed_dials.iter().for_each(|dial| text.push_str(&failed(dial)));
    }
    if !why.others.is_empty() {
        text.push_str("\nother fetches that failed lately:\n");
        for other in &why.others {
            text.push_str(&format!("  {}: {}\n", other.cid, escaped(&other.reason)));
        }
    }
    text
}

fn fetched(fetch: &Fetched) -> String {
    let mut text = format!("\nfetch, {} ago, took {}: {}", ago(fetch.began_ms), ago(fetch.took_ms), fetch.outcome);
    if fetch.blocks > 0 {
        text.push_str(&format!(", {} blocks of {}", fetch.blocks, size(fetch.bytes)));
    }
    text.push('\n');
    if let Some(reason) = &fetch.reason {
        text.push_str(&format!("  because: {}\n", escaped(reason)));
    }
    if fetch.peers.is_empty() {
        text.push_str("  no peer was asked\n");
    } else {
        let rows = table(["PEER", "ANSWER", "DETAILS"], fetch.peers.iter().map(asked));
        rows.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    if fetch.more_peers > 0 {
        text.push_str(&format!("  and {} times others, who are not told apart\n", fetch.more_peers));
    }
    if fetch.table_searches > 0 {
        let (searches, asked, found) = (fetch.table_searches, fetch.table_asked, fetch.providers);
        text.push_str(&format!("  DHT: {searches} searches, {asked} peers asked, {found} providers found\n"));
    }
    text
}

fn asked(peer: &Asked) -> [String; 3] {
    let mut details = Vec::new();
    let mut count = |number: u64, what: &str| {
        if number > 0 {
            details.push(format!("{what} {number}x"));
        }
    };
    count(peer.asked_have.into(), "asked whether it has it");
    count(peer.asked_block.into(), "asked for blocks");
    count(peer.have.into(), "said HAVE");
    count(peer.dont_have.into(), "said DONT_HAVE");
    count(peer.wrong.into(), "sent something else");
    if peer.blocks > 0 {
        details.push(format!("sent {} blocks of {}", peer.blocks, size(peer.bytes)));
    }
    if peer.lost {
        details.push("disconnected meanwhile".to_owned());
    }
    details.extend(peer.trouble.iter().map(|trouble| escaped(trouble)));
    details.extend(peer.address.iter().map(|address| format!("at {}", escaped(address))));
    details.extend(peer.agent.iter().filter(|agent| !agent.is_empty()).map(|agent| escaped(agent)));
    let answer = match peer.answer.as_str() {
        "block" => "sent blocks",
        "wrong-data" => "wrong data",
        "have" => "HAVE, no block",
        "dont-have" => "DONT_HAVE",
        "unreachable" => "not asked",
        _ => "nothing",
    };
    [peer.peer.clone(), answer.to_owned(), details.join(", ")]
}

fn failed(dial: &Dial) -> String {
    let address = dial.address.as_deref().or(dial.peer.as_deref()).unwrap_or("a peer");
    let times = if dial.times > 1 { format!(", {} times", dial.times) } else { String::new() };
    format!("  {}: {} ({} ago{times})\n", escaped(address), escaped(&dial.reason), ago(dial.ago_ms))
}

fn verdict(check: &Check) -> &'static str {
    match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skipped",
    }
}

/// Each check, and what to do.
pub(crate) fn doctor(doctor: &Doctor) -> String {
    let mut text = String::new();
    for check in &doctor.checks {
        text.push_str(&format!("{:<8} {:<11} {}\n", verdict(check), escaped(&check.name), escaped(&check.found)));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("{:<8} {:<11} -> {}\n", "", "", escaped(advice)));
        }
    }
    text
}

/// What is not as it should be, one name a line.
pub(crate) fn ailments(doctor: &Doctor) -> String {
    let ill = doctor.checks.iter().filter(|check| matches!(check.verdict, Verdict::Warn | Verdict::Fail));
    ill.map(|check| format!("{} {}\n", verdict(check), escaped(&check.name))).collect()
}

/// `SETTING VALUE FROM`.
pub(crate) fn settings(repository: &Path, shown: &[Shown]) -> String {
    let rows = shown.iter().map(|row| {
        let value = if row.value.is_empty() { "-".to_owned() } else { escaped(&row.value) };
        [row.name.to_owned(), value, escaped(&row.from)]
    });
    let place = ["repository".to_owned(), escaped(&repository.to_string_lossy()), String::new()];
    table(["SETTING", "VALUE", "FROM"], std::iter::once(place).chain(rows))
}

/// The same for programs.
pub(crate) fn settings_json(repository: &Path, shown: &[Shown]) -> Value {
    let rows: Vec<_> =
        shown.iter().map(|row| json!({ "setting": row.name, "value": row.value, "from": row.from })).collect();
    json!({ "repository": repository.to_string_lossy(), "settings": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d12_what_peers_and_dials_say_cannot_speak_to_the_terminal() {
        let evil = "\x1b[2J\u{202e}".to_owned();
        let asked = Asked {
            peer: "12D3".into(),
            address: Some("/ip4/10.0.0.1/tcp/1".into()),
            agent: Some(evil.clone()),
            answer: "have".into(),
            asked_have: 2,
            asked_block: 1,
            have: 1,
            dont_have: 0,
            blocks: 0,
            bytes: 0,
            wrong: 0,
            lost: true,
            trouble: Some(evil.clone()),
            answered_ms: None,
        };
        let fetch = Fetched {
            began_ms: 5000,
            took_ms: 1000,
            outcome: "failed".into(),
            reason: Some(evil.clone()),
            missing: None,
            blocks: 0,
            bytes: 0,
            peers: vec![asked],
            more_peers: 0,
            table_searches: 1,
            table_asked: 2,
            providers: 0,
        };
        let dial = Dial { peer: None, address: None, reason: evil.clone(), times: 2, ago_ms: 300 };
        let told = why(&Why { cid: "bafy".into(), fetches: vec![fetch], failed_dials: vec![dial], ..Why::default() });
        assert!(!told.contains(['\x1b', '\u{202e}']), "{told:?}");
        for line in [
            "fetch, 5.0 s ago, took 1.0 s: failed\n",
            "12D3   HAVE, no block   asked whether it has it 2x, asked for blocks 1x, said HAVE 1x, disconnected",
            "  DHT: 1 searches, 2 peers asked, 0 providers found\n",
            "(0.3 s ago, 2 times)",
        ] {
            assert!(told.contains(line), "{told}");
        }
        let check = Check { name: "x".into(), verdict: Verdict::Fail, found: evil.clone(), advice: Some(evil) };
        let told = doctor(&Doctor { checks: vec![check] });
        assert!(told.starts_with("FAIL     x           ") && !told.contains('\x1b'), "{told:?}");
    }
}
