//! Threat D1 with everything real: a process that works on a repository is killed, again and again.

use super::{add, assert_whole, noise, open};
use crate::pin::Keep;
use crate::testing::Dice;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child where the repository is.
const ROOT: &str = "SHIPFS_TEST_KILLED_ROOT";
/// Tells the child which content to begin with.
const SEED: &str = "SHIPFS_TEST_KILLED_SEED";
/// How often the child is killed.
const KILLS: u64 = 30;
const CHUNK: usize = 5000;

/// An image of this seed: its own layer, and one that others share.
fn layers(seed: u64) -> [bytes::Bytes; 2] {
    [noise(1000 + seed, 60_000), noise(seed % 2, 90_000)]
}

/// What the child says: `begin NAME SEED` and `done NAME SEED`; seed 0 is a release.
fn say(word: &str, name: u64, seed: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@ {word} {name} {seed}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Started, and killed, by the test below; does nothing otherwise.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let mut seed = std::env::var(SEED).expect("started by the test below").parse::<u64>().expect("a number");
    let store = open(root.as_ref());
    loop {
        seed += 1;
        let name = seed % 3;
        let lease = store.lease();
        let cids = layers(seed).map(|layer| add(&store, &layer, CHUNK).cid);
        say("begin", name, seed);
        let keep =
            Keep { name: name.to_string(), root: cids[0], members: vec![cids[1]], note: vec![], incomplete: false };
        store.keep(keep).expect("keep");
        say("done", name, seed);
        drop(lease);
        if seed.is_multiple_of(4) {
            say("begin", name, 0);
            store.release(&name.to_string()).expect("release");
            say("done", name, 0);
        }
        store.gc().expect("gc");
    }
}

#[test]
fn d1_a_killed_process_loses_nothing_it_published() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut dice = Dice(7);
    // What each name may hold.
    let mut expected: HashMap<u64, Vec<u64>> = (0..3).map(|name| (name, vec![0])).collect();
    let mut published = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::tests::killed::child", "--nocapture", "--quiet"])
            .env(ROOT, directory.path())
            .env(SEED, (kill * 1000).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // It lives for a few words, and for a moment after.
        let words = 1 + usize::try_from(dice.roll(8)).expect("small");
        let said = lines.by_ref().map_while(Result::ok).filter(|line| line.contains("@ "));
        let mut heard: Vec<String> = said.take(words).collect();
        std::thread::sleep(Duration::from_millis(dice.roll(12)));
        child.kill().expect("kill");
        child.wait().expect("wait");
        heard.extend(lines.map_while(Result::ok));
        for line in heard {
            let Some((_, said)) = line.split_once("@ ") else { continue };
            let words: Vec<&str> = said.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let (Some(name), Some(seed)) = (number(1), number(2)) else { continue };
            let may_hold = expected.entry(name).or_default();
            if words[0] == "done" {
                may_hold.clear();
                published += 1;
            }
            may_hold.push(seed);
        }

        let store = open(directory.path());
        let kept: HashMap<String, Keep> = store.kept().into_iter().map(|keep| (keep.name.clone(), keep)).collect();
        for (name, may_hold) in &mut expected {
            let root = kept.get(&name.to_string()).map(|keep| keep.root);
            let holds = |seed: &u64| match root {
                None => *seed == 0,
                Some(root) => *seed != 0 && super::build(&layers(*seed)[0], CHUNK).2.root == root,
            };
            may_hold.retain(holds);
            assert_eq!(may_hold.len(), 1, "kill {kill}: `{name}` holds {root:?}");
            if may_hold[0] != 0 {
                layers(may_hold[0]).iter().for_each(|layer| assert_whole(&store, layer, CHUNK));
            }
        }
        if kill.is_multiple_of(5) {
            let report = store.verify(false, &|_| ()).expect("verify");
            assert!(report.is_clean(), "kill {kill}: {report:?}");
        }
        store.close().expect("close");
    }
    assert!(published > KILLS, "only {published} claims were made");
}
