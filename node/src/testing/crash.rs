//! Threat D1: power is cut at every place of a store's life.

use super::disk::{Dice, Fate, Image, Log, SimulatedDisk, image};
use super::index::{IndexImage, MemoryHome};
use super::scenario::{Life, check, expected, open};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How often what was not synced is shuffled, at each place.
const SHUFFLES: u64 = 8;
/// One state in so many is opened with its index lost.
const LOSE_INDEX: u64 = 7;
/// One state in so many sees the power cut again while it is opened.
const CUT_AGAIN: u64 = 11;

/// After a power cut at any moment, with what was not synced lost, torn or reordered: every pin and every image that was
/// published is whole, a collection frees what is free and nothing else, and the store goes on working.
#[test]
fn d1_nothing_published_is_lost_wherever_the_power_is_cut() {
    let life = Life::new();
    life.play().expect("plays");
    let (ops, claims) = (life.log.ops(), life.claims());
    let mut states = 0_u64;
    for cut in 0..=ops.len() {
        let ops = &ops[..cut];
        let expected = expected(ops, &claims);
        let shuffles = (0..SHUFFLES).map(|n| Fate::Shuffled(cut as u64 * SHUFFLES + n));
        for fate in [Fate::Dropped, Fate::Kept, Fate::Torn].into_iter().chain(shuffles) {
            states += 1;
            let (disk, mut index) = image(&Image::default(), &IndexImage::default(), ops, fate);
            if states.is_multiple_of(LOSE_INDEX) {
                index = IndexImage::default();
            }
            let checked = catch_unwind(AssertUnwindSafe(|| {
                if states.is_multiple_of(CUT_AGAIN) {
                    cut_again(&disk, &index, &mut Dice(states), &mut |disk, home| check(disk, home, &expected, false));
                }
                check(
                    &SimulatedDisk::new(disk, None),
                    &MemoryHome::new(index, None),
                    &expected,
                    states.is_multiple_of(2),
                );
            }));
            if checked.is_err() {
                panic!("after operation {cut} of {}, {fate:?}: {:?}", ops.len(), ops.last());
            }
        }
    }
    assert!(states > 3000, "only {states} states were looked at");
}

/// Opens and collects, and cuts the power at two places of that.
fn cut_again(base: &Image, index: &IndexImage, dice: &mut Dice, check: &mut dyn FnMut(&SimulatedDisk, &MemoryHome)) {
    let log = Log::default();
    let disk = SimulatedDisk::new(base.clone(), Some(log.clone()));
    let home = MemoryHome::new(index.clone(), Some(log.clone()));
    let store = open(&disk, &home).expect("opens");
    store.gc().expect("collects");
    store.close().expect("closes");
    let ops = log.ops();
    for fate in [Fate::Dropped, Fate::Shuffled(dice.roll(1 << 20))] {
        let cut = usize::try_from(dice.roll(ops.len() as u64 + 1)).expect("small");
        let (disk, index) = image(base, index, &ops[..cut], fate);
        check(&SimulatedDisk::new(disk, None), &MemoryHome::new(index, None));
    }
}
