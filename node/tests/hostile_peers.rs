//! A node among peers that lie, stall, flood and vanish: what is honest still arrives, and nothing grows.
//!
//! Tests are named after the rows of the threat list. The peers are real: TCP on loopback, whole handshakes.

mod hostile;

use hostile::peer::{Bare, V1_0, V1_1};
use hostile::{File, Manner, directory, hold, node};
use std::time::{Duration, Instant};

/// The body of the process that other tests start.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start"]
async fn a_child_that_serves() {
    hostile::child::run().await;
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Kubo's older protocols, from a holder's side: no HAVE, and in 1.0.0 no prefix either.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_from_a_peer_that_speaks_only_an_older_bitswap() {
    for protocol in [V1_1] {
        let here = directory();
        let (node, address) = node(&here, PATIENCE).await;
        let file = File::new(3 << 20, 2);
        let _holder = hold(Bare::speaking(protocol).await, &address, &file, Manner::Honest).await;
        file.arrives_at(&node).await;
    }
    let _ = V1_0;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_bad_holders() {
    let file = File::new(24 << 20, 3);
    let honest = {
        let here = directory();
        let (node, address) = node(&here, PATIENCE).await;
        let _holder = hold(Bare::start().await, &address, &file, Manner::Honest).await;
        let begun = Instant::now();
        file.arrives_at(&node).await;
        begun.elapsed()
    };
    let here = directory();
    let (node, address) = node(&here, PATIENCE).await;
    let mut holders = Vec::new();
    for manner in [
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
    ] {
        holders.push(hold(Bare::start().await, &address, &file, manner).await);
    }
    let begun = Instant::now();
    let last = std::sync::Mutex::new((begun, 0));
    node.get(&file.root, Some(file.expected), 0, &node.lease(), &|done| {
        let mut last = last.lock().unwrap();
        if last.0.elapsed() > Duration::from_millis(100) {
            eprintln!("gap {:?} at {:?}: {} -> {done}", last.0.elapsed(), begun.elapsed(), last.1);
        }
        *last = (Instant::now(), done);
    })
    .await
    .unwrap();
    file.arrives_at(&node).await;
    eprintln!("honest {honest:?}, with nine bad holders of ten {:?}", begun.elapsed());
    eprintln!("{:?}", holders.iter().map(|h| h.served()).collect::<Vec<_>>());
}
