//! What is remembered of fetches, told as it was, and bounded.

use super::*;
use crate::block::Block;
use libp2p::core::transport::TransportError;

fn cid(n: usize) -> Cid {
    *Block::raw(bytes::Bytes::copy_from_slice(&n.to_le_bytes())).cid()
}

fn want(n: usize, have_only: bool) -> Want {
    Want { cid: cid(n), cancel: false, have_only, send_dont_have: true }
}

#[test]
fn a_fetch_tells_who_was_asked_and_what_they_said() {
    let trace = Trace::default();
    let [giver, denier, silent, liar] = std::array::from_fn(|_| PeerId::random());
    trace.begin(7);
    trace.about(7, cid(0));
    trace.wanted(7, &cid(1));
    for peer in [&giver, &denier, &silent, &liar] {
        trace.asked(peer, &[want(1, true), want(99, true)]);
    }
    trace.presences(&giver, &[(cid(1), true)]);
    trace.presences(&denier, &[(cid(1), false)]);
    trace.asked(&giver, &[want(1, false)]);
    trace.wrong(&liar);
    trace.searched(&cid(1), 3, 1);
    trace.arrived(&giver, &cid(1), 5);
    // What nobody waits for any more is nobody's.
    trace.presences(&silent, &[(cid(1), true)]);
    trace.lost(&liar);
    trace.end(7);
    let reports = trace.of(&cid(0));
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((&report.end, report.blocks, report.bytes), (&End::Arrived, 1, 5));
    assert_eq!(report.searched, Searched { table: 1, table_asked: 3, providers: 1 });
    let of = |peer| report.peers.iter().find(|told| told.peer == peer).expect("told");
    assert_eq!((of(giver).asked_have, of(giver).asked_block, of(giver).have, of(giver).blocks), (1, 1, 1, 1));
    assert_eq!((of(denier).dont_have, of(denier).answered.is_some()), (1, true));
    assert_eq!((of(silent).have, of(silent).answered), (0, None));
    assert_eq!((of(liar).wrong, of(liar).lost), (1, true));
}

#[test]
fn a_failure_is_told_with_its_reason_and_the_missing_block() {
    let trace = Trace::default();
    trace.begin(1);
    trace.about(1, cid(0));
    trace.wanted(1, &cid(5));
    trace.starved(1, &cid(5));
    trace.end(1);
    trace.failed(&cid(0), &std::io::Error::other("nobody came"));
    for asked in [0, 5] {
        let reports = trace.of(&cid(asked));
        assert_eq!(reports[0].end, End::Failed("nobody came".into()), "{asked}");
        assert_eq!(reports[0].missing, Some(cid(5)));
    }
    assert_eq!(trace.failures(), [(cid(0), "nobody came".to_owned())]);
    assert!(trace.of(&cid(6)).is_empty());
}

#[test]
fn memory_is_bounded_and_failures_stay_longest() {
    let trace = Trace::default();
    for session in 0..10 * MAX_FETCHES as u64 {
        trace.begin(session);
        trace.wanted(session, &cid(session as usize));
        for _ in 0..2 * MAX_PEERS {
            trace.asked(&PeerId::random(), &[want(session as usize, true)]);
        }
        trace.end(session);
        if session == 3 {
            trace.failed(&cid(3), &std::io::Error::other("x".repeat(10_000)));
        }
    }
    let state = trace.state();
    assert_eq!((state.fetches.len(), state.wanted.len()), (MAX_FETCHES, 0));
    assert!(state.fetches.iter().all(|fetch| fetch.peers.len() == MAX_PEERS && fetch.more_peers == MAX_PEERS));
    drop(state);
    let kept = trace.of(&cid(3));
    assert!(matches!(&kept[0].end, End::Failed(reason) if reason.len() == MAX_REASON_BYTES), "{kept:?}");
}

#[test]
fn failed_dials_say_why_for_each_address() {
    let trace = Trace::default();
    let peer = PeerId::random();
    let address = |n: usize| format!("/ip4/10.0.0.1/tcp/{n}").parse().expect("an address");
    let refused = |n| {
        let inner = std::io::Error::other("not on this host's own network");
        DialError::Transport(vec![(address(n), TransportError::Other(std::io::Error::other(inner)))])
    };
    for n in 0..200 {
        trace.dial_failed(Some(peer), &refused(n));
    }
    trace.dial_failed(Some(peer), &refused(199));
    trace.dial_failed(None, &DialError::Aborted);
    let dials = trace.failed_dials(std::time::Duration::from_secs(60));
    assert_eq!(dials.len(), 64);
    assert_eq!((dials[0].address.clone(), dials[0].times), (Some(address(199)), 2));
    assert_eq!(dials[0].reason, "not on this host's own network");
}
