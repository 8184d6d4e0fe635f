//! Why something is here, or did not come: where it lies, who was asked for it, what they said, what failed.
//!
//! Imports the node's trace and store. What is told of peers is what they say of themselves: whoever shows it escapes it.
//! A block that is missing is asked for once, without keeping it; what is here is asked of nobody.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shipfs_node::{
    Cid,
    block::CODEC_RAW,
    config::{Network, NetworkConfig},
    dag::BlockSource as _,
    net::PeerInfo,
    node::Node,
    store::{Lies, Whereabouts},
    trace::{End, FailedDial, FetchReport, PeerReport},
};

use super::{Failure, Options, Reply, explain::explain, online};
use crate::{bring::blocking, event::EventSink};

/// How long an attempt made for an answer waits, unless the user said: mDNS takes a second, a slow peer some more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Failed dials from before the question that are told: the last few minutes.
const DIALS_WITHIN: Duration = Duration::from_secs(300);
/// Other fetches that failed lately and are told.
const MAX_OTHERS: usize = 8;

/// What is known about one CID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked about.
    pub cid: String,
    /// The answer in one sentence.
    pub answer: String,
    /// Where it lies; absent when it is not here.
    pub here: Option<Here>,
    /// A block below it that is not here, if one was met.
    pub missing: Option<String>,
    /// The network that was asked; absent while none is joined.
    pub network: Option<String>,
    /// Peers that are connected now.
    pub connected: usize,
    /// Where peers are looked for.
    pub routing: Option<Routing>,
    /// The last fetches of it, the latest first.
    pub fetches: Vec<Fetched>,
    /// Dials that failed within the last minutes.
    pub failed_dials: Vec<Dial>,
    /// Other fetches that failed lately.
    pub others: Vec<Other>,
}

/// Where a block lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// Its size in bytes.
    pub size: u64,
    /// The places, in words: which file or pack, at which byte.
    pub places: Vec<String>,
    /// Images that contain it.
    pub images: Vec<String>,
    /// Pins that contain it.
    pub pins: Vec<String>,
}

/// Where peers are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Peers that the user named, and whether they are connected.
    pub named: Vec<(String, bool)>,
    /// Peers found by mDNS; absent when it is off.
    pub mdns: Option<usize>,
    /// Peers in the routing table of the LAN's DHT.
    pub table: usize,
    /// Peers that delivered before and were dialled again.
    pub remembered: usize,
}

/// One fetch from peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// How long ago it began, in milliseconds.
    pub began_ms: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// `running`, `arrived`, `failed` or `stopped`.
    pub outcome: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// The block that nobody delivered.
    pub missing: Option<String>,
    /// Blocks that came.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who was asked.
    pub peers: Vec<Asked>,
    /// Times that further peers were asked or answered.
    pub more_peers: usize,
    /// Searches of the routing table that ended.
    pub table_searches: u32,
    /// Most peers asked by one of those.
    pub table_asked: u32,
    /// Most providers found by one of those.
    pub providers: usize,
}

/// A peer that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its peer ID.
    pub peer: String,
    /// Its address, while it is connected.
    pub address: Option<String>,
    /// What it calls itself, while it is connected; foreign text.
    pub agent: Option<String>,
    /// `block`, `have`, `dont-have`, `wrong-data`, `unreachable` or `nothing`: the most that came of it.
    pub answer: String,
    /// How often it was asked whether it has a block.
    pub asked_have: u32,
    /// How often it was asked for a block.
    pub asked_block: u32,
    /// How often it said that it has one.
    pub have: u32,
    /// How often it said that it has not.
    pub dont_have: u32,
    /// Blocks that came from it.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it sent that was no answer.
    pub wrong: u32,
    /// Whether its connection ended meanwhile.
    pub lost: bool,
    /// Why it could not be asked.
    pub trouble: Option<String>,
    /// How long ago it answered last, in milliseconds.
    pub answered_ms: Option<u64>,
}

/// A dial that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// Whom it was to reach, if that is known.
    pub peer: Option<String>,
    /// The address, if there was one.
    pub address: Option<String>,
    /// Why it failed.
    pub reason: String,
    /// How often in a row.
    pub times: u32,
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
}

/// Another fetch that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// What was fetched.
    pub cid: String,
    /// Why it failed.
    pub reason: String,
}

/// Tells what is known about `cid`, and makes an attempt when nothing is, or when it is to be made `again`.
pub(super) async fn why(
    node: &Node,
    network: &NetworkConfig,
    cid: Cid,
    again: bool,
    options: &Options,
    events: &dyn EventSink,
) -> Result<Reply, Failure> {
    let here = looked_up(node, cid).await?;
    // What a file lacks is what is to be asked for.
    let missing = here.as_ref().and_then(|found| found.missing);
    let wanted = missing.or(here.is_none().then_some(cid));
    let reports = |node: &Node| {
        let about = |cid: &Cid| node.trace().map(|trace| trace.of(cid)).unwrap_or_default();
        let mut reports = about(&cid);
        if let Some(missing) = missing {
            reports.extend(about(&missing).into_iter().filter(|report| report.cid != cid));
        }
        reports
    };
    let mut fetches = reports(node);
    let may_ask = network.network != Network::Offline;
    if let Some(wanted) = wanted.filter(|_| may_ask && (again || fetches.is_empty())) {
        attempt(node, network, wanted, options, events).await?;
        fetches = reports(node);
    }
    let peers = node.peers().await;
    let routing = match node.net().await {
        Some(net) => Some(net.routing().await.map_err(|error| explain(&error))?),
        None => None,
    };
    let trace = node.trace();
    let dials = trace.map(|trace| trace.failed_dials(DIALS_WITHIN)).unwrap_or_default();
    let others = trace.map(|trace| trace.failures()).unwrap_or_default();
    let answer = answered(&cid, here.as_ref(), wanted, may_ask, &fetches, dials.len());
    Ok(Reply::Why(Box::new(Why {
        cid: cid.to_string(),
        answer,
        missing: missing.map(|cid| cid.to_string()),
        here: here.map(told_here),
        network: node.net().await.map(|net| net.config().network.name().to_owned()),
        connected: peers.len(),
        routing: routing.map(|routing| Routing {
            named: routing.named.iter().map(|(address, connected)| (address.to_string(), *connected)).collect(),
            mdns: routing.found.map(|found| found.len()),
            table: routing.table,
            remembered: routing.remembered,
        }),
        fetches: fetches.iter().map(|report| told_fetch(report, &peers)).collect(),
        failed_dials: dials.iter().map(told_dial).collect(),
        others: others
            .into_iter()
            .filter(|(other, _)| *other != cid)
            .take(MAX_OTHERS)
            .map(|(cid, reason)| Other { cid: cid.to_string(), reason })
            .collect(),
    })))
}

async fn looked_up(node: &Node, cid: Cid) -> Result<Option<Whereabouts>, Failure> {
    let store = node.store().clone();
    blocking(move || store.whereabouts(&cid)).await.map_err(|error| explain(&error))
}

/// Asks for one block, for the sake of what that leaves in the trace.
async fn attempt(
    node: &Node,
    network: &NetworkConfig,
    cid: Cid,
    options: &Options,
    events: &dyn EventSink,
) -> Result<(), Failure> {
    online::enter(node, network).await?;
    let patient = node.patient(options.patience.unwrap_or(PATIENCE));
    let asking: BoxFuture<'_, Result<(), Failure>> = Box::pin(async move {
        match patient.block(&cid).await {
            // Nobody could even be asked: the network cannot be entered.
            Err(error) if patient.trace().is_none_or(|trace| trace.of(&cid).is_empty()) => Err(explain(&*error)),
            // Whether it came is what the trace tells, and so is why it did not.
            _ => Ok(()),
        }
    });
    online::watched(node, options, events, asking).await
}

/// The answer in one sentence.
fn answered(
    cid: &Cid,
    here: Option<&Whereabouts>,
    wanted: Option<Cid>,
    may_ask: bool,
    fetches: &[FetchReport],
    failed_dials: usize,
) -> String {
    let Some(wanted) = wanted else {
        let is_one_block = cid.codec() == CODEC_RAW;
        return if is_one_block { "it is here" } else { "it is here, with every block below it" }.to_owned();
    };
    let what = match here {
        Some(_) => format!("its first block is here, block {wanted} of it is not"),
        None => "it is not here".to_owned(),
    };
    let Some(last) = fetches.first() else {
        let why = if may_ask { "nobody was asked" } else { "offline nobody is asked" };
        return format!("{what}, and {why}");
    };
    let count = |what: &dyn Fn(&PeerReport) -> bool| last.peers.iter().filter(|peer| what(peer)).count();
    let holders = count(&|peer| peer.have > 0 || peer.blocks > 0);
    let deniers = count(&|peer| peer.dont_have > 0 && peer.have == 0 && peer.blocks == 0);
    let asked = last.peers.len();
    let outcome = match (&last.end, asked, holders) {
        (End::Running, ..) => format!("a fetch runs: {asked} peers were asked, {holders} of them have it"),
        (End::Arrived, ..) => "the last attempt got it, so others have it".to_owned(),
        (_, 0, _) if failed_dials > 0 => format!("no peer could be asked: {failed_dials} dials failed"),
        (_, 0, _) => "no peer was found to ask".to_owned(),
        (_, asked, 0) if deniers == asked => format!("none of the {asked} peers that were asked has it"),
        (_, asked, 0) => format!("of {asked} peers that were asked, {deniers} do not have it, the others did not say"),
        (_, _, holders) => format!("{holders} peers say that they have it, but did not deliver it"),
    };
    format!("{what}; {outcome}")
}

fn told_here(found: Whereabouts) -> Here {
    let place = |lies: &Lies| match lies {
        Lies::Pack { pack, offset } => format!("pack {pack}, at byte {offset}"),
        Lies::File { cid, digest, offset } => {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("file sha256:{hex} ({cid}), at byte {offset}")
        }
        Lies::Partial { offset } => format!("a file that is not whole yet, at byte {offset}"),
        _ => "elsewhere".to_owned(),
    };
    Here {
        size: found.size,
        places: found.lies.iter().map(place).collect(),
        images: found.kept_by,
        pins: found.pinned_by,
    }
}

fn told_fetch(report: &FetchReport, peers: &[PeerInfo]) -> Fetched {
    let (outcome, reason) = match &report.end {
        End::Running => ("running", None),
        End::Arrived => ("arrived", None),
        End::Failed(reason) => ("failed", Some(reason.clone())),
        End::Stopped => ("stopped", None),
    };
    Fetched {
        began_ms: milliseconds(report.began),
        took_ms: milliseconds(report.took),
        outcome: outcome.to_owned(),
        reason,
        missing: report.missing.map(|cid| cid.to_string()),
        blocks: report.blocks,
        bytes: report.bytes,
        peers: report.peers.iter().map(|peer| told_peer(peer, peers)).collect(),
        more_peers: report.more_peers,
        table_searches: report.searched.table,
        table_asked: report.searched.table_asked,
        providers: report.searched.providers,
    }
}

fn told_peer(report: &PeerReport, peers: &[PeerInfo]) -> Asked {
    let info = peers.iter().find(|info| info.peer == report.peer);
    let answer = match report {
        PeerReport { blocks: 1.., .. } => "block",
        PeerReport { wrong: 1.., .. } => "wrong-data",
        PeerReport { have: 1.., .. } => "have",
        PeerReport { dont_have: 1.., .. } => "dont-have",
        PeerReport { trouble: Some(_), .. } => "unreachable",
        _ => "nothing",
    };
    Asked {
        peer: report.peer.to_string(),
        address: info.map(|info| info.address.to_string()),
        agent: info.map(|info| info.agent.clone()),
        answer: answer.to_owned(),
        asked_have: report.asked_have,
        asked_block: report.asked_block,
        have: report.have,
        dont_have: report.dont_have,
        blocks: report.blocks,
        bytes: report.bytes,
        wrong: report.wrong,
        lost: report.lost,
        trouble: report.trouble.clone(),
        answered_ms: report.answered.map(milliseconds),
    }
}

fn told_dial(dial: &FailedDial) -> Dial {
    Dial {
        peer: dial.peer.map(|peer| peer.to_string()),
        address: dial.address.as_ref().map(ToString::to_string),
        reason: dial.reason.clone(),
        times: dial.times,
        ago_ms: milliseconds(dial.ago),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
