//! The schedule against peers that hold, deny, stall, drip, lie and vanish; time is passed in, so nothing waits.

use super::source::{PATIENCE, SLOW, USUAL_BLOCK_BYTES, WINDOW_BYTES};
use super::*;
use bytes::Bytes;

struct Bench {
    schedule: Schedule,
    now: Instant,
    session: SessionId,
    blocks: mpsc::UnboundedReceiver<Block>,
}

impl Bench {
    fn new(peers: &[PeerId]) -> Self {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        for peer in peers {
            schedule.peer_connected(*peer, Arc::default(), now);
        }
        let (sender, blocks) = mpsc::unbounded_channel();
        let session = schedule.open_session(sender, now);
        Self { schedule, now, session, blocks }
    }

    fn want(&mut self, blocks: &[Block]) {
        self.schedule.want(self.session, blocks.iter().map(|block| *block.cid()), self.now);
    }

    /// The blocks themselves that a peer is asked for in its next message, cancelled ones taken out.
    fn asked(&mut self, peer: &PeerId) -> Vec<Cid> {
        let mut asked = Vec::new();
        for want in self.schedule.take_outbox(peer) {
            match want {
                Want { cancel: true, cid, .. } => asked.retain(|other| *other != cid),
                Want { have_only: false, cid, .. } => asked.push(cid),
                _ => {}
            }
        }
        asked
    }

    fn probed(&mut self, peer: &PeerId) -> Vec<Cid> {
        let wants = self.schedule.take_outbox(peer);
        wants.into_iter().filter(|want| want.have_only).map(|want| want.cid).collect()
    }

    fn have(&mut self, peer: PeerId, block: &Block, have: bool) {
        self.schedule.on_presence(peer, block.cid(), have, self.now);
    }

    fn deliver(&mut self, peer: PeerId, block: &Block) -> Arrival {
        self.schedule.on_block(peer, block, self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.schedule.tick(self.now);
    }

    fn arrived(&mut self) -> usize {
        std::iter::from_fn(|| self.blocks.try_recv().ok()).count()
    }
}

fn blocks(count: u32) -> Vec<Block> {
    (0..count).map(|n| Block::raw(Bytes::copy_from_slice(&n.to_le_bytes()))).collect()
}

fn peers(count: usize) -> Vec<PeerId> {
    (0..count).map(|_| PeerId::random()).collect()
}

#[test]
fn everybody_is_asked_who_has_it_and_one_that_does_delivers() {
    let (peers, blocks) = (peers(3), blocks(5));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    for peer in &peers {
        assert_eq!(bench.probed(peer), [*blocks[0].cid()]);
    }
    assert_eq!(bench.schedule.take_actions(), [Action::Seek(*blocks[0].cid())]);
    bench.have(peers[1], &blocks[0], true);
    let asked = bench.asked(&peers[1]);
    assert_eq!(asked, blocks.iter().map(|block| *block.cid()).collect::<Vec<_>>());
    assert!(bench.asked(&peers[0]).is_empty());
    for block in &blocks {
        assert_eq!(bench.deliver(peers[1], block), Arrival::Wanted);
    }
    assert_eq!(bench.arrived(), 5);
    assert_eq!(bench.deliver(peers[1], &blocks[0]), Arrival::Duplicate);
    assert_eq!(bench.arrived(), 0);
}

#[test]
fn a_window_bounds_what_one_peer_is_asked_for() {
    let (peers, blocks) = (peers(1), blocks(200));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), WINDOW_BYTES / USUAL_BLOCK_BYTES);
}

/// Eight peers could each be asked for a window; together they are asked for what may lie in memory.
#[test]
fn what_sessions_do_not_take_is_not_asked_for() {
    let (peers, blocks) = (peers(8), blocks(400));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    for peer in &peers {
        bench.have(*peer, &blocks[0], true);
    }
    let asked: usize = peers.iter().map(|peer| bench.asked(peer).len()).sum();
    assert_eq!(asked, MAX_BYTES / USUAL_BLOCK_BYTES);
    // The pretended size of each is the usual one; none of the first is taken, so nothing more is asked for.
    bench.schedule.held = MAX_BYTES;
    for block in &blocks[..asked / 2] {
        for peer in &peers {
            bench.deliver(*peer, block);
        }
    }
    assert_eq!(peers.iter().map(|peer| bench.asked(peer).len()).sum::<usize>(), 0);
    bench.schedule.taken(MAX_BYTES, bench.now);
    assert!(peers.iter().map(|peer| bench.asked(peer).len()).sum::<usize>() > 0);
}

#[test]
fn two_holders_share_the_work_and_nothing_is_asked_twice() {
    let (peers, blocks) = (peers(2), blocks(32));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    bench.have(peers[1], &blocks[0], true);
    let (first, second) = (bench.asked(&peers[0]), bench.asked(&peers[1]));
    assert_eq!((first.len(), second.len()), (16, 16));
    assert!(first.iter().all(|cid| !second.contains(cid)));
}

/// A peer that says DONT_HAVE after HAVE is not asked again at once; another one is.
#[test]
fn c9_a_denied_block_is_asked_elsewhere_at_once() {
    let (peers, blocks) = (peers(2), blocks(1));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 1);
    bench.have(peers[1], &blocks[0], true);
    bench.have(peers[0], &blocks[0], false);
    assert_eq!(bench.asked(&peers[1]), [*blocks[0].cid()]);
    assert!(bench.asked(&peers[0]).is_empty());
    // The denial is forgotten: it may be fetching the block itself.
    bench.have(peers[1], &blocks[0], false);
    bench.pass(DENIAL_LIFETIME + TICK);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len() + bench.asked(&peers[1]).len(), 1);
}

const TICK: Duration = Duration::from_millis(200);

#[test]
fn c9_a_peer_that_stalls_after_have_is_passed_over() {
    let (peers, blocks) = (peers(2), blocks(4));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 4);
    bench.have(peers[1], &blocks[0], true);
    bench.pass(PATIENCE.0 + TICK);
    assert_eq!(bench.asked(&peers[1]).len(), 4);
    for block in &blocks {
        assert_eq!(bench.deliver(peers[1], block), Arrival::Wanted);
    }
    // What the first sends now comes too late, and is no attack.
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Duplicate);
    assert_eq!(bench.arrived(), 4);
}

#[test]
fn the_only_holder_is_asked_again_after_a_stall() {
    let (peers, blocks) = (peers(1), blocks(1));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 1);
    bench.pass(PATIENCE.0 + TICK);
    assert_eq!(bench.asked(&peers[0]).len(), 1);
    // Given up after some strikes, it is searched for like everybody else and believed again when it answers.
    for _ in 0..MAX_STRIKES {
        bench.pass(PATIENCE.1 + TICK);
    }
    assert!(!bench.schedule.expects_from(&peers[0]));
    bench.schedule.take_outbox(&peers[0]);
    bench.pass(FORGIVEN_AFTER);
    assert_eq!(bench.probed(&peers[0]), [*blocks[0].cid()]);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Wanted);
}

#[test]
fn what_a_vanished_peer_owed_is_asked_of_another() {
    let (peers, blocks) = (peers(2), blocks(8));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 8);
    bench.have(peers[1], &blocks[0], true);
    bench.schedule.peer_disconnected(&peers[0], bench.now);
    assert_eq!(bench.asked(&peers[1]).len(), 8);
}

#[test]
fn c10_a_peer_that_sends_what_nobody_asked_for_is_cut_off() {
    let peers = peers(1);
    let mut bench = Bench::new(&peers);
    for block in blocks(MAX_BOGUS_BLOCKS) {
        assert_eq!(bench.deliver(peers[0], &block), Arrival::Bogus);
    }
    assert_eq!(bench.schedule.take_actions(), [Action::Ban(peers[0])]);
}

#[test]
fn two_sessions_share_a_want_and_one_that_ends_leaves_it_to_the_other() {
    let (peers, blocks) = (peers(1), blocks(3));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    let (sender, mut others) = mpsc::unbounded_channel();
    let other = bench.schedule.open_session(sender, bench.now);
    bench.schedule.want(other, blocks.iter().map(|block| *block.cid()), bench.now);
    // The first ends while all it wants is still queued: nobody is known to hold it.
    bench.schedule.close_session(bench.session);
    bench.schedule.take_outbox(&peers[0]);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 3);
    for block in &blocks {
        bench.deliver(peers[0], block);
    }
    assert_eq!(std::iter::from_fn(|| others.try_recv().ok()).count(), 3);
    assert!(bench.schedule.wants.is_empty());
}

#[test]
fn a_session_that_ends_takes_its_wants_back() {
    let (peers, blocks) = (peers(1), blocks(2));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 2);
    bench.schedule.close_session(bench.session);
    let cancelled = bench.schedule.take_outbox(&peers[0]);
    assert_eq!(cancelled.iter().filter(|want| want.cancel).count(), 2);
    assert!(bench.schedule.wants.is_empty() && !bench.schedule.expects_from(&peers[0]));
}

#[test]
fn a_new_session_asks_whoever_delivered_before_without_a_search() {
    let (peers, blocks) = (peers(2), blocks(2));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks[..1]);
    bench.have(peers[0], &blocks[0], true);
    bench.deliver(peers[0], &blocks[0]);
    for peer in &peers {
        bench.schedule.take_outbox(peer);
    }
    let (sender, _others) = mpsc::unbounded_channel();
    let next = bench.schedule.open_session(sender, bench.now);
    bench.schedule.want(next, [*blocks[1].cid()], bench.now);
    assert_eq!(bench.asked(&peers[0]), [*blocks[1].cid()]);
    assert!(bench.probed(&peers[1]).is_empty());
}

#[test]
fn a_slow_peer_is_asked_for_less() {
    let (peers, blocks) = (peers(1), blocks(100));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    for block in &blocks[..12] {
        bench.now += SLOW + TICK;
        bench.deliver(peers[0], block);
    }
    let outstanding = bench.schedule.sources[&peers[0]].asked.len();
    assert!(outstanding <= 4, "{outstanding} blocks are outstanding");
}
