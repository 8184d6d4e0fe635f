//! The schedule against peers that hold, deny, stall, drip, lie and vanish; time is passed in, so nothing waits.

use super::search::{MAX_PROBES, SEEK_INTERVAL};
use super::source::{
    ASK_AGAIN, FIRST_WINDOW, FORGIVEN_AFTER, MAX_REPEATS, PATIENCE, REDIAL_AFTER, SLOW, USUAL_BLOCK_BYTES, WINDOW_BYTES,
};
use super::*;
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// How often the schedule is told the time.
const TICK: Duration = Duration::from_millis(100);

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
            schedule.peer_connected(*peer, Arc::default(), Arc::default(), now);
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
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            self.schedule.tick(self.now);
        }
    }

    /// Makes peers known as quick holders that may be asked for a whole window.
    fn prove(&mut self, peers: &[PeerId]) {
        let (sender, _blocks) = mpsc::unbounded_channel();
        let session = self.schedule.open_session(sender, self.now);
        for peer in peers {
            for block in numbered(1 << 20, 200) {
                self.schedule.want(session, [*block.cid()], self.now);
                if !self.schedule.sources[peer].asked.contains_key(block.cid().hash()) {
                    self.schedule.sources.get_mut(peer).expect("connected").ask(*block.cid(), self.now);
                }
                self.now += Duration::from_millis(1);
                self.deliver(*peer, &block);
            }
            // The test blocks are tiny, the sizes to be tested are not.
            self.schedule.sources.get_mut(peer).expect("connected").block_bytes = USUAL_BLOCK_BYTES;
        }
        self.schedule.close_session(session, self.now);
        for peer in peers {
            self.schedule.take_outbox(peer);
        }
        self.schedule.take_actions();
    }

    /// A session that knows the peers that have delivered so far.
    fn open(&mut self) -> SessionId {
        let (sender, blocks) = mpsc::unbounded_channel();
        self.blocks = blocks;
        self.schedule.open_session(sender, self.now)
    }

    fn outstanding(&self, peer: &PeerId) -> usize {
        self.schedule.sources[peer].asked.len()
    }

    fn arrived(&mut self) -> usize {
        std::iter::from_fn(|| self.blocks.try_recv().ok()).count()
    }
}

fn blocks(count: u32) -> Vec<Block> {
    numbered(0, count)
}

fn numbered(first: u32, count: u32) -> Vec<Block> {
    (first..first + count).map(|n| Block::raw(Bytes::copy_from_slice(&n.to_le_bytes()))).collect()
}

fn peers(count: usize) -> Vec<PeerId> {
    (0..count).map(|_| PeerId::random()).collect()
}

#[test]
fn everybody_is_asked_who_has_it_and_one_that_does_delivers() {
    let (peers, blocks) = (peers(3), blocks(FIRST_WINDOW as u32));
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
    assert_eq!(bench.arrived(), FIRST_WINDOW);
    assert!(bench.schedule.wants.is_empty());
}

/// Three are asked whether they have the root; the first sends it before the others have said that they have it. They
/// are holders all the same: a file must not come from one peer because its root came quickly.
#[test]
fn who_says_have_after_the_block_came_is_a_holder() {
    let (peers, blocks) = (peers(2), blocks(9));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks[..1]);
    bench.have(peers[0], &blocks[0], true);
    bench.deliver(peers[0], &blocks[0]);
    bench.have(peers[1], &blocks[0], true);
    bench.want(&blocks[1..]);
    assert_eq!(bench.outstanding(&peers[0]) + bench.outstanding(&peers[1]), 6);
}

/// The root of a large file is small, and a small block is sent in place of HAVE: the second to send it used to count as
/// one that sends what came already, and all of the file came from the first.
#[test]
fn who_sends_the_small_root_instead_of_have_is_a_holder() {
    let peers = peers(2);
    let root = Block::dag_pb(Bytes::from_static(b"a small root"));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers[..1]);
    bench.session = bench.open();
    bench.want(std::slice::from_ref(&root));
    assert_eq!(bench.probed(&peers[1]).last(), Some(root.cid()));
    assert_eq!(bench.deliver(peers[0], &root), Arrival::Wanted);
    assert_eq!(bench.deliver(peers[1], &root), Arrival::Duplicate);
    assert_eq!(bench.schedule.holders(bench.session), 2);
}

/// It used to count as the block that the same peer was asked for beside it, whose message was then passed over as one that
/// nobody had asked for: the peer was late with it, and for a second one of four holders was not made use of.
#[test]
fn a_small_block_instead_of_have_is_not_the_one_that_was_asked_for() {
    let peers = peers(1);
    let (root, block) = (Block::dag_pb(Bytes::from_static(b"a small root")), &blocks(1)[0]);
    let mut bench = Bench::new(&peers);
    bench.want(std::slice::from_ref(&root));
    assert_eq!(bench.probed(&peers[0]), [*root.cid()]);
    bench.have(peers[0], &root, true);
    assert_eq!(bench.deliver(peers[0], &root), Arrival::Wanted);
    assert!(!bench.schedule.may_send_blocks(&peers[0]));
    bench.want(std::slice::from_ref(block));
    assert_eq!(bench.asked(&peers[0]), [*root.cid(), *block.cid()]);
    assert_eq!(bench.deliver(peers[0], &root), Arrival::Duplicate, "in answer to the search");
    assert!(bench.schedule.may_send_blocks(&peers[0]));
    assert_eq!(bench.deliver(peers[0], block), Arrival::Wanted);
    assert!(!bench.schedule.may_send_blocks(&peers[0]));
}

/// What was on its way when a link broke is lost with the connection, which TCP may try for as long again.
#[test]
fn a_silent_holder_is_dialled_again_and_asked_again_over_the_new_connection() {
    let (peers, blocks) = (peers(2), blocks(100));
    let arriving = Arc::new(AtomicU64::new(0));
    let mut bench = Bench::new(&[]);
    bench.schedule.peer_connected(peers[0], Arc::default(), arriving.clone(), bench.now);
    bench.schedule.peer_connected(peers[1], Arc::default(), Arc::default(), bench.now);
    bench.prove(&peers[..1]);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    bench.have(peers[1], &blocks[0], true);
    let redials = |bench: &mut Bench| {
        let actions = bench.schedule.take_actions();
        actions.into_iter().filter(|action| *action == Action::Redial(peers[0])).count()
    };
    let asked = bench.asked(&peers[0]);
    // One whose bytes come in lumps has longer.
    for pause in [REDIAL_AFTER + TICK; 3].into_iter().chain([REDIAL_AFTER / 4; 20]) {
        bench.pass(pause);
        arriving.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(redials(&mut bench), 0, "something came in time");
    bench.pass(REDIAL_AFTER * 3 + TICK * 2);
    assert_eq!(redials(&mut bench), 3, "and again while it cannot be reached");
    bench.asked(&peers[0]);
    bench.schedule.peer_moved(&peers[0], bench.now);
    let again = bench.asked(&peers[0]);
    assert!(!asked.is_empty() && asked.iter().all(|cid| again.contains(cid)), "{asked:?} {again:?}");
    assert_eq!(again.len(), bench.outstanding(&peers[0]));
    bench.pass(REDIAL_AFTER * 2 - TICK);
    assert_eq!(redials(&mut bench), 0, "one that says nothing over a new connection has more time");
    bench.pass(TICK * 2);
    assert_eq!(redials(&mut bench), 1);
    // Whoever has delivered nothing is not worth it.
    assert!(bench.outstanding(&peers[1]) > 0);
    assert!(!bench.schedule.take_actions().contains(&Action::Redial(peers[1])));
}

/// Helia sends what it is still sending once more whenever another message comes. On a busy machine that was enough to be
/// banned in the middle of a file, and then no dial brought it back.
#[test]
fn who_repeats_what_was_asked_for_is_no_offender_and_gets_fewer_messages() {
    let (peers, blocks) = (peers(1), blocks(400));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    let mut messages = 0;
    while bench.outstanding(&peers[0]) > 0 {
        let asked = bench.asked(&peers[0]);
        assert!(!asked.is_empty());
        messages += 1;
        for _ in 0..2 {
            for block in blocks.iter().filter(|block| asked.contains(block.cid())) {
                bench.deliver(peers[0], block);
            }
        }
    }
    assert_eq!(bench.arrived(), blocks.len());
    assert!(messages <= blocks.len() / 16 + 2, "{messages}");
    let is_ban = |action: &Action| matches!(action, Action::Ban(_));
    assert!(!bench.schedule.take_actions().iter().any(is_ban));
    // Somebody who has nothing else to say is one all the same.
    for _ in 0..1000 {
        bench.deliver(peers[0], &blocks[399]);
    }
    assert!(bench.schedule.take_actions().iter().any(is_ban));
}

#[test]
fn a_window_bounds_what_one_peer_is_asked_for() {
    let (peers, blocks) = (peers(2), blocks(200));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers[..1]);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), WINDOW_BYTES / USUAL_BLOCK_BYTES);
    // One that has delivered nothing yet gets less, and while there is a better one, a single block.
    bench.have(peers[1], &blocks[0], true);
    assert_eq!(bench.asked(&peers[1]).len(), 1);
}

#[test]
fn a_window_grows_with_each_block_that_comes_quickly() {
    let (peers, blocks) = (peers(1), blocks(200));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    let mut asked = bench.asked(&peers[0]);
    assert_eq!(asked.len(), FIRST_WINDOW);
    for _ in 0..40 {
        let cid = asked.remove(0);
        bench.now += Duration::from_millis(1);
        let block = blocks.iter().find(|block| *block.cid() == cid).expect("one of them");
        bench.deliver(peers[0], block);
        asked.extend(bench.asked(&peers[0]));
    }
    assert!(bench.outstanding(&peers[0]) > FIRST_WINDOW * 4, "{}", bench.outstanding(&peers[0]));
}

/// Eight peers could each be asked for a window; together they are asked for what may lie in memory.
#[test]
fn what_sessions_do_not_take_is_not_asked_for() {
    let (peers, blocks) = (peers(8), blocks(400));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
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
    bench.prove(&peers);
    bench.session = bench.open();
    bench.want(&blocks);
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
    assert!(!bench.asked(&peers[0]).is_empty() || !bench.asked(&peers[1]).is_empty());
}

#[test]
fn c9_what_a_peer_stalls_with_is_asked_of_another_as_well() {
    let (peers, blocks) = (peers(2), blocks(4));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 4);
    bench.have(peers[1], &blocks[0], true);
    // Both are asked for the first block, since nothing is known of either.
    assert_eq!(bench.asked(&peers[1]), [*blocks[0].cid()]);
    bench.deliver(peers[1], &blocks[0]);
    bench.pass(PATIENCE.0 + TICK * 2);
    assert_eq!(bench.asked(&peers[1]).len(), 3);
    for block in &blocks[1..] {
        assert_eq!(bench.deliver(peers[1], block), Arrival::Wanted);
    }
    assert_eq!(bench.schedule.take_outbox(&peers[0]).iter().filter(|want| want.cancel).count(), 4);
    // What the first sends now comes too late, and is no attack.
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Duplicate);
    assert_eq!(bench.arrived(), 4);
}

/// Nine of ten say HAVE and never send anything. The tenth is found by asking 1, 2, 4 and 8 of them, and from then on
/// the others get at most one block each.
#[test]
fn c9_one_honest_holder_among_stalling_ones_is_found_within_some_rounds() {
    let (peers, blocks) = (peers(10), blocks(300));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks[..1]);
    for peer in &peers {
        bench.have(*peer, &blocks[0], true);
    }
    let asked_first = peers.iter().position(|peer| bench.outstanding(peer) == 1).expect("one is asked");
    let honest = peers[(asked_first + 5) % 10];
    let begun = bench.now;
    while bench.outstanding(&honest) == 0 {
        bench.pass(TICK);
        assert!(bench.now - begun < Duration::from_secs(2), "not found");
    }
    bench.deliver(honest, &blocks[0]);
    // The whole file now: the honest one delivers whatever it is asked for, at once.
    bench.want(&blocks[1..33]);
    let (mut next, mut left) = (33, 32);
    let begun = bench.now;
    while left > 0 {
        let asked = bench.asked(&honest);
        for cid in &asked {
            let block = blocks.iter().find(|block| block.cid() == cid).expect("one of them");
            bench.now += Duration::from_millis(2);
            bench.deliver(honest, block);
        }
        let came = bench.arrived().min(left);
        left -= came;
        // A fetch wants 32 blocks at a time.
        let more = (blocks.len() - next).min(came);
        bench.want(&blocks[next..next + more]);
        (next, left) = (next + more, left + more);
        if asked.is_empty() {
            bench.pass(TICK);
        }
    }
    let took = bench.now - begun;
    assert!(took < Duration::from_millis(300 * 2 + 900), "{took:?}");
}

/// Whether a want got lost, or what it asks for is held up somewhere, cannot be told from here: so a silent peer is asked
/// whether it has the block, and for the block itself only if it says so. Asked for it at once, it sent everything twice
/// that was on the wire when a link broke.
#[test]
fn the_only_holder_is_asked_again_after_a_stall_and_believed_when_it_delivers() {
    let (peers, blocks) = (peers(1), blocks(1));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 1);
    bench.pass(ASK_AGAIN + TICK);
    assert_eq!(bench.probed(&peers[0]), [*blocks[0].cid()]);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]), [*blocks[0].cid()]);
    // Said twice, it is asked for once.
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 0);
    // Twenty seconds of silence later it is still asked now and then, and searched for, but not all the time.
    bench.pass(Duration::from_secs(20));
    let again = bench.schedule.take_outbox(&peers[0]);
    assert!(again.iter().all(|want| want.have_only) && (2..20).contains(&again.len()), "{}", again.len());
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Wanted);
    assert!(bench.schedule.sources[&peers[0]].is_reliable());
}

/// A block of 256 KiB takes 13 s at 20 KiB/s. While its bytes arrive, the peer is not asked for it again: that would
/// make it send everything twice.
#[test]
fn a_slow_only_holder_is_not_pressed_while_bytes_arrive() {
    let blocks = blocks(4);
    let (peer, arriving) = (PeerId::random(), Arc::new(AtomicU64::new(0)));
    let mut bench = Bench::new(&[]);
    bench.schedule.peer_connected(peer, Arc::default(), arriving.clone(), bench.now);
    bench.want(&blocks);
    bench.have(peer, &blocks[0], true);
    assert_eq!(bench.asked(&peer).len(), 4);
    for _ in 0..130 {
        arriving.fetch_add(2 << 10, Ordering::Relaxed);
        bench.pass(TICK);
        assert_eq!(bench.asked(&peer).len(), 0);
    }
    assert_eq!(bench.deliver(peer, &blocks[0]), Arrival::Wanted);
}

#[test]
fn what_a_vanished_peer_owed_is_asked_of_another_in_the_old_order() {
    let (peers, blocks) = (peers(2), blocks(16));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 16);
    bench.have(peers[1], &blocks[0], true);
    bench.schedule.peer_disconnected(&peers[0], bench.now);
    let order: Vec<_> = blocks.iter().map(|block| *block.cid()).collect();
    assert_eq!(bench.asked(&peers[1]), order);
}

#[test]
fn c10_a_peer_that_sends_what_nobody_asked_for_is_cut_off() {
    let peers = peers(1);
    let mut bench = Bench::new(&peers);
    for block in blocks(MAX_BOGUS_BLOCKS) {
        assert_eq!(bench.deliver(peers[0], &block), Arrival::Bogus);
    }
    assert_eq!(bench.schedule.take_actions(), [Action::Ban(peers[0])]);
    // The signal may have been lost: it is given again.
    bench.deliver(peers[0], &blocks(1)[0]);
    assert_eq!(bench.schedule.take_actions(), [Action::Ban(peers[0])]);
}

/// Coming back under the same identity is no fresh start.
#[test]
fn c10_offences_are_remembered_when_a_peer_reconnects() {
    let peers = peers(1);
    let mut bench = Bench::new(&peers);
    for block in blocks(MAX_BOGUS_BLOCKS) {
        assert_eq!(bench.schedule.take_actions(), []);
        bench.deliver(peers[0], &block);
        bench.schedule.peer_disconnected(&peers[0], bench.now);
        bench.schedule.peer_connected(peers[0], Arc::default(), Arc::default(), bench.now);
    }
    assert_eq!(bench.schedule.take_actions(), [Action::Ban(peers[0])]);
}

/// One copy was asked for. Each further one costs a hash and bandwidth: past some more than were good for anything, it is as
/// bad as a block that nobody asked for.
#[test]
fn c10_replays_without_end_are_as_bad_as_blocks_nobody_asked_for() {
    let (peers, blocks) = (peers(1), blocks(1));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Wanted);
    // The search was a want, too, which small blocks may answer.
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Duplicate);
    bench.schedule.take_actions();
    for _ in 0..MAX_REPEATS + 1 {
        assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Duplicate);
    }
    for _ in 0..MAX_BOGUS_BLOCKS {
        assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Bogus);
    }
    assert_eq!(bench.schedule.take_actions(), [Action::Ban(peers[0])]);
}

/// A peer that stood still for a while sends its window after thousands of blocks came from others. It was asked.
#[test]
fn what_was_asked_for_is_no_offence_however_late() {
    let (peers, blocks) = (peers(2), blocks(6000));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    let late = bench.asked(&peers[0]);
    bench.have(peers[1], &blocks[0], true);
    bench.pass(Duration::from_secs(2));
    for block in &blocks {
        bench.deliver(peers[1], block);
    }
    assert!(bench.schedule.may_send_blocks(&peers[0]));
    for block in blocks.iter().filter(|block| late.contains(block.cid())) {
        assert_eq!(bench.deliver(peers[0], block), Arrival::Duplicate);
    }
    assert!(!bench.schedule.take_actions().iter().any(|action| matches!(action, Action::Ban(_))));
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
    bench.schedule.close_session(bench.session, bench.now);
    bench.schedule.take_outbox(&peers[0]);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 3);
    for block in &blocks {
        bench.deliver(peers[0], block);
    }
    assert_eq!(std::iter::from_fn(|| others.try_recv().ok()).count(), 3);
    assert!(bench.schedule.wants.is_empty());
}

/// One session wants a large file from the only holder, another one a small file. The small one must not wait until the
/// large one is through: its own patience would run out.
#[test]
fn sessions_take_turns_at_a_holder_they_share() {
    let (peers, all) = (peers(1), blocks(1000));
    let (large, small) = all.split_at(900);
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
    bench.want(large);
    bench.have(peers[0], &large[0], true);
    let mut asked = bench.asked(&peers[0]);
    let (sender, mut others) = mpsc::unbounded_channel();
    let other = bench.schedule.open_session(sender, bench.now);
    bench.schedule.want(other, small.iter().map(|block| *block.cid()), bench.now);
    bench.have(peers[0], &small[0], true);
    for _ in 0..200 {
        let cid = asked.remove(0);
        let block = all.iter().find(|block| *block.cid() == cid).expect("one of them");
        bench.now += Duration::from_millis(1);
        bench.deliver(peers[0], block);
        asked.extend(bench.asked(&peers[0]));
    }
    let came = std::iter::from_fn(|| others.try_recv().ok()).count();
    assert!((50..100).contains(&came), "{came} of 200 blocks were for the second session");
}

#[test]
fn a_session_that_ends_takes_its_wants_back() {
    let (peers, blocks) = (peers(1), blocks(2));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 2);
    bench.schedule.close_session(bench.session, bench.now);
    let cancelled = bench.schedule.take_outbox(&peers[0]);
    assert_eq!(cancelled.iter().filter(|want| want.cancel).count(), 2);
    assert!(bench.schedule.wants.is_empty() && !bench.schedule.expects_from(&peers[0]));
}

/// A session filled the window of the only holder and was dropped; the next one was never asked for anything, because
/// nothing but a block opened the window again.
#[test]
fn a_window_that_was_taken_back_is_open_for_the_next_session() {
    let (peers, blocks) = (peers(1), blocks(100));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks[..50]);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), FIRST_WINDOW);
    bench.schedule.close_session(bench.session, bench.now);
    bench.schedule.take_outbox(&peers[0]);
    let (sender, _next) = mpsc::unbounded_channel();
    bench.session = bench.schedule.open_session(sender, bench.now);
    bench.want(&blocks[50..]);
    bench.have(peers[0], &blocks[50], true);
    assert_eq!(bench.asked(&peers[0]).len(), FIRST_WINDOW);
}

/// The same, when the holder of a part denies a whole window.
#[test]
fn a_window_that_was_denied_is_open_for_what_comes_after() {
    let (peers, blocks) = (peers(2), blocks(100));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers[..1]);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    let asked = bench.asked(&peers[0]);
    for block in blocks.iter().filter(|block| asked.contains(block.cid())) {
        bench.have(peers[0], block, false);
    }
    assert!(!bench.asked(&peers[0]).is_empty());
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

/// Three hosts that pull a file from a fourth used to ask nobody but that one: each knew a peer that had delivered before,
/// so none ever asked the others.
#[test]
fn who_fetches_the_same_file_is_a_holder_once_it_has_the_root() {
    let (peers, leaves) = (peers(2), blocks(32));
    let root = Block::dag_pb(Bytes::from_static(b"a root"));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers[..1]);
    bench.schedule.take_outbox(&peers[1]);
    bench.session = bench.open();
    bench.want(std::slice::from_ref(&root));
    assert_eq!(bench.asked(&peers[0]), [*root.cid()]);
    assert_eq!(bench.probed(&peers[1]), [*root.cid()]);
    bench.have(peers[1], &root, false);
    bench.deliver(peers[0], &root);
    bench.want(&leaves[..1]);
    assert_eq!(bench.schedule.holders(bench.session), 1);
    bench.have(peers[1], &root, true);
    assert_eq!(bench.schedule.holders(bench.session), 2);
    bench.want(&leaves[1..]);
    assert_eq!(bench.asked(&peers[1]).len(), 1);
}

/// A peer that does not have a block keeps the want, and would send what another has sent meanwhile.
#[test]
fn a_want_that_was_denied_is_taken_back_once_another_has_delivered() {
    let (peers, blocks) = (peers(2), blocks(2));
    let cancelled = |bench: &mut Bench, peer| {
        let wants = bench.schedule.take_outbox(peer).into_iter().filter(|want| want.cancel);
        wants.map(|want| want.cid).collect::<Vec<_>>()
    };
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    assert_eq!(bench.asked(&peers[0]).len(), 2);
    for block in &blocks {
        bench.have(peers[0], block, false);
    }
    bench.have(peers[1], &blocks[0], true);
    assert_eq!(bench.asked(&peers[1]).len(), 2);
    bench.deliver(peers[1], &blocks[0]);
    assert_eq!(cancelled(&mut bench, &peers[0]), [*blocks[0].cid()]);
    // The same when nobody waits for it any more.
    bench.schedule.close_session(bench.session, bench.now);
    assert_eq!(cancelled(&mut bench, &peers[0]), [*blocks[1].cid()]);
    // What is on its way already is no offence.
    assert_eq!(bench.deliver(peers[0], &blocks[1]), Arrival::Duplicate);
}

/// A search asks so many peers at a time. In a network of three times as many, each must have its turn.
#[test]
fn every_peer_is_searched_however_many_there_are() {
    let (peers, blocks) = (peers(MAX_PROBES * 3), blocks(1));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    let mut probed = HashSet::<&PeerId>::new();
    for _ in 0..3 {
        let now: Vec<_> = peers.iter().filter(|peer| !bench.probed(peer).is_empty()).collect();
        assert_eq!(now.len(), MAX_PROBES);
        probed.extend(now);
        bench.pass(SEEK_INTERVAL);
    }
    assert_eq!(probed.len(), peers.len());
}

#[test]
fn a_peer_that_was_late_too_often_is_searched_again_later() {
    let (peers, blocks) = (peers(2), blocks(3));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    bench.pass(Duration::from_secs(1));
    let source = bench.schedule.sources.get_mut(&peers[0]).expect("connected");
    source.strikes = 3;
    // It is not reminded of anything, either.
    source.asked.clear();
    bench.schedule.take_outbox(&peers[0]);
    bench.pass(SEEK_INTERVAL * 2);
    assert!(bench.probed(&peers[0]).is_empty());
    bench.pass(FORGIVEN_AFTER);
    assert!(!bench.probed(&peers[0]).is_empty());
}

#[test]
fn a_slow_peer_is_asked_for_less() {
    let (peers, blocks) = (peers(1), blocks(100));
    let mut bench = Bench::new(&peers);
    bench.prove(&peers);
    bench.want(&blocks);
    bench.have(peers[0], &blocks[0], true);
    let mut asked = bench.asked(&peers[0]);
    for _ in 0..60 {
        bench.now += SLOW / 4;
        let cid = asked.remove(0);
        let block = blocks.iter().find(|block| *block.cid() == cid).expect("one of them");
        bench.deliver(peers[0], block);
        asked.extend(bench.asked(&peers[0]));
    }
    let outstanding = bench.outstanding(&peers[0]);
    assert!(outstanding <= 4, "{outstanding} blocks are outstanding");
}

/// 1.1.0 and 1.0.0 know no HAVE: a search sent there is a want for the block itself, and its delivery makes a holder.
#[test]
fn a_peer_without_presences_is_searched_by_wanting() {
    let (peers, blocks) = (peers(1), blocks(3));
    let mut bench = Bench::new(&peers);
    bench.want(&blocks);
    let mut wants = bench.schedule.take_outbox(&peers[0]);
    bench.schedule.without_presences(&peers[0], &mut wants, bench.now);
    assert!(matches!(wants[..], [Want { have_only: false, send_dont_have: false, cancel: false, .. }]));
    assert!(bench.schedule.may_send_blocks(&peers[0]) && bench.schedule.expects_from(&peers[0]));
    assert_eq!(bench.deliver(peers[0], &blocks[0]), Arrival::Wanted);
    assert_eq!(bench.asked(&peers[0]).len(), 2);
}
