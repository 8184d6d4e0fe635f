//! A node among peers that lie, stall, flood and vanish: what is honest still arrives, and nothing grows.
//!
//! Tests are named after the rows of the threat list. The peers are real: TCP on loopback, whole handshakes. Where memory
//! is counted, the node runs in a process of its own.

mod hostile;

use futures::future::join_all;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use hostile::child::{ChildNode, ChildPuller};
use hostile::link::{Link, port_of};
use hostile::peer::{Bare, Looks, V1_0, V1_1};
use hostile::{
    File, GARBAGE_BLOCKS, Manner, add, block_message, directory, files_in, garbage, hold, id_in, node, read_message,
    silent, varint,
};
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use shipfs_node::block::{Block, MAX_BLOCK_BYTES, cid_of};
use shipfs_node::config::Limits;
use shipfs_node::exchange::bitswap::Exchange;
use shipfs_node::exchange::bitswap::behaviour::Behaviour;
use shipfs_node::exchange::bitswap::wire::{self, MAX_MESSAGE_BYTES, Want};
use shipfs_node::fetch::FetchError;
use shipfs_node::store::{Blockstore as _, MemoryStore};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a fetch waits for one block: what hangs fails after this.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a hundred peers may cost together that flood us with messages: what each has sent and is not read yet, on several
/// streams.
const MAX_GROWTH: usize = 400 << 20;
/// The same of those that flood us with wants, and read no answer: of each a ledger, the window and the buffers of its
/// connection, a list that waits, and the rest of a block; all of that is 1.3 MiB.
const MAX_WANTING_GROWTH: usize = 192 << 20;

/// The body of the process that other tests start.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start"]
async fn a_child_that_serves() {
    hostile::child::run().await;
}

/// The body of another.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start"]
async fn a_child_that_fetches() {
    hostile::child::run_pull().await;
}

#[expect(clippy::print_stdout, reason = "figures that are worth a look, and are no condition")]
fn show(figures: std::fmt::Arguments<'_>) {
    println!("{figures}");
}

fn want(cid: shipfs_node::Cid) -> Want {
    Want { cid, cancel: false, have_only: false, send_dont_have: true }
}

/// A CID that nobody has the block of.
fn absent(number: u64) -> shipfs_node::Cid {
    cid_of(0x55, &number.to_le_bytes())
}

/// Fetches the child's file with a node of its own.
async fn pull_from(child: &ChildNode, file: &File) -> Duration {
    let here = directory();
    let (node, _) = node(&here, PATIENCE).await;
    node.connect(child.address.parse().expect("an address")).await.expect("connects");
    let begun = Instant::now();
    file.arrives_at(&node).await;
    begun.elapsed()
}

/// Kubo's older protocols, from a holder's side: no HAVE, and in 1.0.0 no prefix either.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_from_a_peer_that_speaks_only_an_older_bitswap() {
    for protocol in [V1_1, V1_0] {
        let here = directory();
        let (node, address) = node(&here, PATIENCE).await;
        let file = File::new(3 << 20, 2);
        let _holder = hold(Bare::speaking(protocol).await, &address, &file, Manner::Old(protocol)).await;
        file.arrives_at(&node).await;
    }
}

/// The same from the other side. What such a peer does not know is not said to it: it would end the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_speaks_only_an_older_bitswap_is_served() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    node.serve(true).await.expect("serves");
    let file = File::new(1 << 20, 3);
    add(&node, &file).await;
    for protocol in [V1_1, V1_0] {
        let mut bare = Bare::speaking(protocol).await;
        let peer = bare.dial(&address).await.expect("connects");
        let mut stream = bare.open(peer).await.expect("opens");
        let wants: Vec<_> = [absent(0)].into_iter().chain(file.cids()).map(want).collect();
        stream.write_all(&wire::encode_wants(&wants, true)).await.expect("sent");
        stream.flush().await.expect("sent");
        let (_, mut replies) = bare.inbound.recv().await.expect("answers");
        for _ in 0..file.blocks.len() {
            let message = wire::decode(&read_message(&mut replies).await.expect("a message")).expect("decodes");
            assert!(message.presences.is_empty());
            for payload in message.blocks {
                let block = payload.into_block().expect("hashes");
                assert!(file.blocks.contains_key(block.cid().hash()));
            }
        }
    }
}

/// Wrong bytes are dropped, counted, and end the connection for good; another peer delivers, and nothing of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn c6_garbage_is_never_kept_and_its_sender_is_cut_off() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let file = File::new(4 << 20, 4);
    let bare = Bare::start().await;
    let (doors, me) = (bare.opener(), id_in(&address));
    let liar = hold(bare, &address, &file, Manner::Garbage).await;
    let fetching = file.arrives_at(&node);
    let helping = async {
        doors.until_gone(me).await;
        // It is not let in again, whatever it tries.
        assert!(doors.dial(&address).await.is_err() || !doors.stays(me).await);
        hold(Bare::start().await, &address, &file, Manner::Honest).await
    };
    let (_, _honest) = tokio::join!(fetching, helping);
    for number in 0..liar.served() * GARBAGE_BLOCKS {
        assert!(!node.has(&cid_of(0x55, &garbage(number))).await, "garbage is in the store");
    }
    node.commit().await.expect("durable");
    let kept: u64 = files_in(here.path()).iter().filter(|(name, _)| name.contains("blobs")).map(|(_, size)| size).sum();
    assert_eq!(kept, file.bytes.len() as u64);
}

/// With nobody honest, the fetch ends with an error that says so, and leaves no file behind.
#[tokio::test(flavor = "multi_thread")]
async fn c6_c9_without_an_honest_peer_a_fetch_ends_and_leaves_nothing() {
    let file = File::new(4 << 20, 5);
    let manners =
        [Manner::Garbage, Manner::Stalls, Manner::Denies, Manner::FlipFlops, Manner::Drips, Manner::Oversized];
    let fetch = |manner| {
        let file = file.clone();
        async move {
            let here = directory();
            let (node, address) = node(&here, Duration::from_secs(3)).await;
            let _holder = hold(Bare::start().await, &address, &file, manner).await;
            let got = node.get(&file.root, Some(file.expected), 0, &node.lease(), &silent).await;
            assert!(matches!(got, Err(FetchError::Unavailable { .. })), "{manner:?}: {got:?}");
            assert!(node.store().file(&file.root).is_none());
            let left = files_in(here.path());
            assert!(!left.iter().any(|(name, _)| name.contains("blobs/") || name.contains("partial/")), "{left:?}");
        }
    };
    join_all(manners.map(fetch)).await;
}

/// Nine of ten holders misbehave, each in a way of its own. The file is fetched whole; what it costs is printed.
#[tokio::test(flavor = "multi_thread")]
async fn c9_one_honest_holder_of_ten_is_enough() {
    let file = File::new(48 << 20, 6);
    let run = async |manners: &[Manner]| {
        let here = directory();
        let (node, address) = node(&here, PATIENCE).await;
        let starts = manners.iter().map(|manner| async { hold(Bare::start().await, &address, &file, *manner).await });
        let holders = join_all(starts).await;
        let begun = Instant::now();
        file.arrives_at(&node).await;
        let took = begun.elapsed();
        node.shutdown().await.expect("shuts down");
        (took, holders.iter().map(|holder| holder.served()).collect::<Vec<_>>())
    };
    let (honest, _) = run(&[Manner::Honest]).await;
    let manners = [
        Manner::Stalls,
        Manner::Stalls,
        Manner::Stalls,
        Manner::FlipFlops,
        Manner::Drips,
        Manner::Garbage,
        Manner::Replays,
        Manner::ClosesMidBlock,
        Manner::Oversized,
        Manner::Honest,
    ];
    let (bad, asked) = run(&manners).await;
    show(format_args!(
        "48 MiB from one honest peer {honest:?}, from ten of which nine misbehave {bad:?}; asked {asked:?}"
    ));
    let wasted: usize = asked[..9].iter().sum();
    assert!(wasted < 120, "those that misbehave were asked {wasted} times: {asked:?}");
    assert!(bad < Duration::from_secs(30), "{bad:?}");
}

/// Eighteen of twenty holders misbehave, in every way there is. What it costs beside the two honest ones alone is printed;
/// what lies on disk in the end is the file and nothing else, and the memory of the process stays small.
#[tokio::test(flavor = "multi_thread")]
async fn c9_two_honest_holders_of_twenty_are_enough_for_a_large_file() {
    const MAX_RESIDENT: usize = 128 << 20;
    let file = File::new(112 << 20, 14);
    let run = async |manners: &[Manner]| {
        let mut child = ChildPuller::start(&file);
        let starts = manners.iter().map(|manner| hold_started(&child.address, &file, *manner));
        let holders = join_all(starts).await;
        let (took, peak) = tokio::task::block_in_place(|| child.fetch());
        let left = files_in(child.directory.path());
        let kept: Vec<_> =
            left.iter().filter(|(name, _)| name.contains("blobs/") || name.contains("partial/")).collect();
        assert!(matches!(kept[..], [(_, size)] if *size == file.expected.size), "{left:?}");
        let path = child.directory.path().join(&kept[0].0);
        assert!(std::fs::read(path).expect("it is there") == file.bytes, "the file differs");
        (took, peak, holders.iter().map(|holder| holder.served()).collect::<Vec<_>>())
    };
    let mut manners = vec![Manner::Honest; 2];
    let (honest, _, _) = run(&manners).await;
    let bad = [
        Manner::Stalls,
        Manner::FlipFlops,
        Manner::Drips,
        Manner::Garbage,
        Manner::Unasked,
        Manner::Replays,
        Manner::ClosesMidBlock,
        Manner::Oversized,
        Manner::Vanishes(3),
    ];
    manners.extend(bad.iter().chain(&bad));
    let (took, peak, asked) = run(&manners).await;
    show(format_args!(
        "112 MiB from two honest holders {honest:?}, with eighteen others beside them {took:?}, {:.2} times that; at most {} \
         MiB of memory; asked {asked:?}",
        took.as_secs_f64() / honest.as_secs_f64(),
        peak >> 20
    ));
    assert!(peak <= MAX_RESIDENT, "{peak} bytes");
    assert!(took < honest * 4 + Duration::from_secs(5), "{took:?}, {honest:?}");
}

async fn hold_started(address: &str, file: &File, manner: Manner) -> hostile::Holder {
    hold(Bare::start().await, address, file, manner).await
}

/// What a peer is late with and another has delivered is taken back from it.
#[tokio::test(flavor = "multi_thread")]
async fn c9_what_another_has_delivered_is_taken_back() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let file = File::new(8 << 20, 15);
    let silent_one = hold(Bare::start().await, &address, &file, Manner::Stalls).await;
    let _honest = hold(Bare::start().await, &address, &file, Manner::Honest).await;
    file.arrives_at(&node).await;
    let end = Instant::now() + PATIENCE;
    while silent_one.cancelled() * 2 < silent_one.served() {
        assert!(Instant::now() < end, "{} of {} were taken back", silent_one.cancelled(), silent_one.served());
        tokio::task::yield_now().await;
    }
}

/// The only holder closes the connection every few blocks and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn c9_a_holder_that_vanishes_and_returns_delivers_in_the_end() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let file = File::new(6 << 20, 7);
    let holder = hold(Bare::start().await, &address, &file, Manner::Vanishes(7)).await;
    file.arrives_at(&node).await;
    assert!(holder.served() > file.blocks.len());
}

/// The only holder cannot be reached for a while, and nobody says so. Then the fetch goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn c9_a_fetch_goes_on_after_its_only_holder_was_cut_off() {
    let (here, there) = (directory(), directory());
    let (source, address) = node(&there, PATIENCE).await;
    source.serve(true).await.expect("serves");
    let file = File::new(24 << 20, 8);
    add(&source, &file).await;
    let link = Link::start(port_of(&address), Some(16 << 20), Ipv4Addr::LOCALHOST).await;
    let (node, _) = node(&here, Duration::from_secs(30)).await;
    node.connect(link.address(&address).parse().expect("an address")).await.expect("connects");
    let fetching = file.arrives_at(&node);
    let cutting = async {
        while link.back.load(std::sync::atomic::Ordering::Relaxed) < 6 << 20 {
            tokio::task::yield_now().await;
        }
        link.freeze(true);
        // Not to wait for something: this long is what is tested.
        tokio::time::sleep(Duration::from_secs(12)).await;
        link.freeze(false);
        Instant::now()
    };
    let (_, thawed) = tokio::join!(fetching, cutting);
    show(format_args!("{:?} after the link was there again the file was whole", thawed.elapsed()));
}

/// At 60 KiB/s a block takes more than four seconds. The only holder is not given up for that, and sends nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn c9_a_slow_link_is_no_offence() {
    let (here, there) = (directory(), directory());
    let (source, address) = node(&there, PATIENCE).await;
    source.serve(true).await.expect("serves");
    let file = File::new(700_000, 9);
    add(&source, &file).await;
    let link = Link::start(port_of(&address), Some(60 << 10), Ipv4Addr::LOCALHOST).await;
    let (node, _) = node(&here, PATIENCE).await;
    node.connect(link.address(&address).parse().expect("an address")).await.expect("connects");
    file.arrives_at(&node).await;
    let sent = source.peers().await.iter().map(|peer| peer.traffic.sent).sum::<u64>();
    assert!(sent < 700_000 + 50_000, "{sent} bytes of blocks were sent for 700000");
}

/// Blocks nobody asked for, and copies of some that were: dropped, not written, and an end of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn c10_unsolicited_and_repeated_blocks_are_dropped() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let file = File::new(3 << 20, 10);
    let me = id_in(&address);
    let pusher = Bare::start().await;
    let peer = pusher.dial(&address).await.expect("connects");
    let mut stream = pusher.open(peer).await.expect("opens");
    let before = files_in(here.path());
    for block in file.blocks.values() {
        if stream.write_all(&block_message(block)).await.is_err() {
            break;
        }
        let small = Block::raw(block.data().slice(..block.data().len() / 2));
        if stream.write_all(&block_message(&small)).await.is_err() {
            break;
        }
    }
    let _ = stream.flush().await;
    pusher.until_gone(me).await;
    node.commit().await.expect("durable");
    assert_eq!(files_in(here.path()), before);
    // One that sends what was asked for three times over delivers until it is cut off; then another does the rest.
    let _replaying = hold(Bare::start().await, &address, &file, Manner::Replays).await;
    let _honest = hold(Bare::start().await, &address, &file, Manner::Honest).await;
    file.arrives_at(&node).await;
}

/// Lengths that lie, messages and blocks past every limit, and streams of nothing. The node stays small, an honest peer
/// is served meanwhile, and whoever goes on is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn c7_messages_that_lie_about_their_length_cost_nothing() {
    let (child, file) = (ChildNode::start(20 << 20), File::new(20 << 20, 1));
    let me = id_in(&child.address);
    let alone = pull_from(&child, &file).await;
    let before = child.resident();

    // Claims that are never kept, on as many streams as there may be.
    let (mut bares, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let bare = Bare::start().await;
        bare.dial(&child.address).await.expect("connects");
        for _ in 0..48 {
            let mut stream = bare.open(me).await.expect("opens");
            let _ = stream.write_all(&[&varint(256 << 10)[..], &vec![0; 100 << 10]].concat()).await;
            let _ = stream.flush().await;
            streams.push(stream);
        }
        bares.push(bare);
    }
    // Past the limit: the stream is reset, and the sixteenth time the connection is closed.
    for lie in [varint(MAX_MESSAGE_BYTES as u64 + 1), varint(u64::from(u32::MAX)), vec![0xff; 10]] {
        let bare = Bare::start().await;
        bare.dial(&child.address).await.expect("connects");
        let mut times = 0;
        while let Ok(mut stream) = bare.open(me).await {
            times += 1;
            let _ = stream.write_all(&lie).await;
            let _ = stream.flush().await;
            let ended = stream.read(&mut [0]).await;
            assert!(!matches!(ended, Ok(1..)), "the node answers a lie");
            assert!(times <= 17, "it may lie for ever");
        }
        bare.until_gone(me).await;
    }
    // Long messages, and blocks of two mebibytes and one byte, that nobody asked for.
    let bytes = vec![7; MAX_BLOCK_BYTES + 1];
    let head = wire::encode_block_head(&cid_of(0x55, &bytes), bytes.len());
    let oversized = [&head[..], &bytes].concat();
    let bare = Bare::start().await;
    bare.dial(&child.address).await.expect("connects");
    let mut stream = bare.open(me).await.expect("opens");
    while stream.write_all(&oversized).await.is_ok() {}
    bare.until_gone(me).await;

    // Messages of one byte, as many as go through, from ten peers on four streams each.
    let mut flooding = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let bare = Bare::start().await;
        bare.dial(&child.address).await.expect("connects");
        for _ in 0..4 {
            let mut stream = bare.open(me).await.expect("opens");
            flooding.spawn(async move {
                let nothing = vec![0; 64 << 10];
                while stream.write_all(&nothing).await.is_ok() {}
            });
        }
        bares.push(bare);
    }
    let beside = pull_from(&child, &file).await;
    let grown = child.resident().saturating_sub(before);
    show(format_args!(
        "20 MiB alone {alone:?}, beside the flood {beside:?}; the node has grown by {} KiB",
        grown >> 10
    ));
    assert!(grown < MAX_GROWTH, "{grown}");
}

/// A window grows while its reader keeps up, by the round-trip time that the other end pretends to have. A peer that is
/// read quickly for a while, and then sends what is read slowly, must not be able to leave all of that window in memory.
#[tokio::test(flavor = "multi_thread")]
async fn c7_a_window_that_was_earned_is_bounded() {
    let child = ChildNode::start(1 << 20);
    let link = Link::far(port_of(&child.address), Duration::from_millis(50)).await;
    let bare = Bare::start().await;
    let me = bare.dial(&link.address(&child.address)).await.expect("connects");
    let mut stream = bare.open(me).await.expect("opens");
    let before = child.resident();
    // A field that Bitswap does not have: passed over.
    let field = [&[0x7a][..], &varint(200_000), &vec![0; 200_000]].concat();
    let message = [&varint(field.len() as u64)[..], &field].concat();
    for _ in 0..1000 {
        stream.write_all(&message).await.expect("taken");
    }
    // Messages of one byte; each counts, however short it is.
    let (nothing, mut left) = (vec![0; 64 << 10], 0);
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&nothing)).await {
        left += nothing.len();
        assert!(left < 256 << 20, "there is no end to it");
    }
    let grown = child.resident().saturating_sub(before);
    show(format_args!("{} KiB were taken unread, the node has grown by {} KiB", left >> 10, grown >> 10));
    // What the link and the sender hold is in this process.
    assert!(grown < 64 << 20, "{grown}");
}

/// A hundred peers want ten thousand blocks each, some of which are there, take them back, want them again, in CIDs that
/// are as long as they may be, and read no answer.
#[tokio::test(flavor = "multi_thread")]
async fn c8_a_flood_of_wants_is_cut_and_an_honest_peer_is_served() {
    let (child, file) = (ChildNode::start(20 << 20), File::new(20 << 20, 1));
    let me = id_in(&child.address);
    let alone = pull_from(&child, &file).await;
    let before = child.resident();
    let mut messages = Vec::new();
    let there = file.cids();
    for first in 0..10u64 {
        let wants: Vec<_> =
            there.iter().copied().chain((0..1000).map(|n| absent(first * 1000 + n))).map(want).collect();
        messages.extend_from_slice(&wire::encode_wants(&wants, false));
        let cancels: Vec<_> = wants.into_iter().map(|want| Want { cancel: true, ..want }).collect();
        messages.extend_from_slice(&wire::encode_wants(&cancels, false));
    }
    let twice: Vec<_> = there.iter().chain(&there).copied().map(want).collect();
    messages.extend_from_slice(&wire::encode_wants(&twice, false));
    let identity = shipfs_node::block::Multihash::wrap(0, &[7; 64]).expect("fits");
    let odd: Vec<_> = (0..1000).map(|_| want(shipfs_node::Cid::new_v1(0x55, identity))).collect();
    messages.extend_from_slice(&wire::encode_wants(&odd, false));
    // The longest CID that can be written down; and one that ends too early.
    for cid in [[&[0x01, 0x55, 0x00, 0x7f][..], &[1; 127]].concat(), vec![0x01, 0x55, 0x12, 0x20, 7]] {
        let entry = [&[0x0a][..], &varint(cid.len() as u64), &cid].concat();
        let entries: Vec<_> =
            (0..1000).flat_map(|_| [&[0x0a][..], &varint(entry.len() as u64), &entry].concat()).collect();
        let list = [&[0x0a][..], &varint(entries.len() as u64), &entries].concat();
        messages.extend([&varint(list.len() as u64)[..], &list].concat());
    }
    let flooder = async || {
        let bare = Bare::start().await;
        bare.dial(&child.address).await.expect("connects");
        let mut stream = bare.open(me).await.expect("opens");
        stream.write_all(&messages).await.expect("taken");
        (bare, stream)
    };
    let (mut flooders, mut flooding) = (Vec::new(), tokio::task::JoinSet::new());
    for _ in 0..4 {
        for (bare, mut stream) in join_all((0..25).map(|_| flooder())).await {
            let messages = messages.clone();
            flooding.spawn(async move { while stream.write_all(&messages).await.is_ok() {} });
            flooders.push(bare);
        }
    }
    let beside = pull_from(&child, &file).await;
    let grown = child.resident().saturating_sub(before);
    show(format_args!(
        "20 MiB alone {alone:?}, beside the flood {beside:?}; the node has grown by {} KiB",
        grown >> 10
    ));
    assert!(grown < MAX_WANTING_GROWTH, "{grown}");
}

/// Connections that never shake hands, and more identities from one host than it may have: others still get in, and
/// descriptors stay few.
#[tokio::test(flavor = "multi_thread")]
async fn c11_one_host_cannot_take_every_place() {
    let (child, file) = (ChildNode::start(1 << 20), File::new(1 << 20, 1));
    let port = port_of(&child.address);
    let mut silent_ones = Vec::new();
    for _ in 0..300 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 66], 0).into()).expect("binds");
        silent_ones.push(socket.connect(([127, 0, 0, 1], port).into()).await.expect("connects"));
    }
    // From another address: served while those hold on.
    pull_from(&child, &file).await;
    let link = Link::start(port, None, Ipv4Addr::new(127, 0, 0, 66)).await;
    let through = link.address(&child.address);
    drop(silent_ones);
    let mut inside = Vec::new();
    for _ in 0..5 {
        let knocking = (0..40).map(|_| async {
            let bare = Bare::start().await;
            // Refused after the handshake: then the connection ends at once, and no stream can be had.
            let entered = match bare.dial(&through).await {
                Ok(peer) => bare.open(peer).await.is_ok(),
                Err(_) => false,
            };
            (bare, entered)
        });
        inside.extend(join_all(knocking).await);
    }
    let entered = inside.iter().filter(|(_, entered)| *entered).count();
    assert!(entered <= 128, "{entered} identities of one host are connected");
    pull_from(&child, &file).await;
    let descriptors = child.descriptors();
    show(format_args!("{entered} of 200 identities got in, the node has {descriptors} descriptors open"));
    assert!(entered >= 64 && descriptors < 400);
}

/// A name that moves the cursor, and a protocol list that does not fit: foreign text is shown as text, and a peer that
/// floods others with it is a peer like any other.
#[tokio::test(flavor = "multi_thread")]
async fn c11_d12_what_a_peer_says_of_itself_is_cut_and_shown_as_text() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let agent = format!("evil\x1b[2J\r\n{}", "x".repeat(500));
    let named = Bare::with(Looks { agent: Some(agent), ..Looks::default() }).await;
    named.dial(&address).await.expect("connects");
    let many = (0..2000).map(|n| StreamProtocol::try_from_owned(format!("/spam/{n}")).expect("a protocol"));
    let loud = Looks { protocols: many.collect(), agent: Some("loud".into()), ..Looks::default() };
    let loud = Bare::with(loud).await;
    loud.dial(&address).await.expect("connects");
    let shown = loop {
        let peers = node.peers().await;
        match peers.into_iter().find(|peer| peer.peer == named.id && !peer.agent.is_empty()) {
            Some(peer) => break peer.agent,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(shown.starts_with("evil\u{fffd}[2J\u{fffd}\u{fffd}x") && shown.len() <= 128, "{shown:?}");
    let file = File::new(1 << 20, 12);
    let _holder = hold(Bare::start().await, &address, &file, Manner::Honest).await;
    file.arrives_at(&node).await;
}

/// Twenty identities announce a file that none of them has, until a search finds nobody else. Whoever is also reached in
/// another way delivers it; and where nobody is, the error says how many were asked, and that none had it.
#[tokio::test(flavor = "multi_thread")]
async fn c13_announcements_of_sybils_hide_no_holder_that_is_known_otherwise() {
    const SYBILS: usize = 20;
    let (hub_folder, honest_folder) = (directory(), directory());
    let (_hub, hub) = node(&hub_folder, PATIENCE).await;
    let file = File::new(3 << 20, 16);
    let sybil = || async {
        let folder = directory();
        let (node, _) = node(&folder, PATIENCE).await;
        node.connect(hub.parse().expect("an address")).await.expect("connects");
        node.serve(true).await.expect("serves");
        node.provide(&file.root).await.expect("announced");
        (node, folder)
    };
    let mut sybils = Vec::new();
    for _ in 0..SYBILS {
        sybils.push(sybil().await);
    }
    let (honest, address) = node(&honest_folder, PATIENCE).await;
    honest.serve(true).await.expect("serves");
    add(&honest, &file).await;
    let victim = async |known: &[&str], patience| {
        let folder = directory();
        let (node, _) = node(&folder, patience).await;
        for address in known {
            node.connect(address.parse().expect("an address")).await.expect("connects");
        }
        (node, folder)
    };
    let (eclipsed, _folder) = victim(&[&hub], Duration::from_secs(4)).await;
    let end = Instant::now() + PATIENCE;
    while eclipsed.find_providers(&file.root).await.expect("asked").len() < 8 {
        assert!(Instant::now() < end, "the announcements are not found");
    }
    let got = eclipsed.get(&file.root, Some(file.expected), 0, &eclipsed.lease(), &silent).await;
    let Err(FetchError::Unavailable { asked, holders, .. }) = &got else { panic!("{got:?}") };
    assert!(*asked >= 8 && holders.is_empty(), "{got:?}");
    let (known_otherwise, _folder) = victim(&[&hub, &address], PATIENCE).await;
    file.arrives_at(&known_otherwise).await;
}

/// Every fetch holds a thread while it waits, and so does the hashing of what it waits for: were there a thread for each
/// fetch and none for hashing, all would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn more_fetches_than_threads_all_come_to_an_end() {
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let files: Vec<_> = (0..150).map(|seed| File::new(300_000, 100 + seed)).collect();
    let mut all = files[0].clone();
    all.blocks = Arc::new(files.iter().flat_map(|file| (*file.blocks).clone()).collect());
    let _holder = hold(Bare::start().await, &address, &all, Manner::Honest).await;
    join_all(files.iter().map(|file| file.arrives_at(&node))).await;
}

/// Both ends keep the streams on which they send. A connection must end all the same when nothing is under way on it:
/// else every peer that ever fetched something holds one of the places for connections until it goes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_use_ends_though_its_streams_are_open() {
    let file = File::new(200_000, 13);
    let source = Arc::new(MemoryStore::default());
    for block in file.blocks.values() {
        source.put(block).expect("kept");
    }
    let token = CancellationToken::new();
    let _stop = token.clone().drop_guard();
    let start = |store| {
        let tasks = TaskTracker::new();
        let (exchange, signals) =
            Exchange::new(store, tokio::runtime::Handle::current(), tasks, token.clone(), &Limits::default());
        let swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("transports")
            .with_behaviour(|_| Behaviour::new(exchange.clone()))
            .expect("a behaviour")
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_millis(500)))
            .build();
        (exchange, swarm, signals)
    };
    let (serving, mut there, _signals) = start(source);
    serving.set_serving(true);
    let (fetching, mut here, _others) = start(Arc::new(MemoryStore::default()));
    there.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listens");
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = there.select_next_some().await {
            break address;
        }
    };
    here.dial(address.clone()).expect("dials");
    let mut session = fetching.session();
    session.want(file.cids());
    let all_came = std::cell::Cell::new(false);
    let driving = async {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = here.select_next_some().await {
                if all_came.get() {
                    return;
                }
                // Half a second is short on a busy machine: it ended before it was used.
                here.dial(address.clone()).expect("dials");
            }
        }
    };
    let helping = async move {
        loop {
            there.select_next_some().await;
        }
    };
    let using = async {
        for _ in 0..file.blocks.len() {
            session.next(PATIENCE).await.expect("delivered");
        }
        all_came.set(true);
        // The session stays, and so do the streams; nothing is wanted any more.
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            () = driving => {}
            () = helping => {}
            () = using => {}
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection ends");
}
