//! Threat D6, simulated: the disk is full, or a sync fails, at every operation of a store's life.

use super::disk::{Dice, Fate, Fault, Image, SimulatedDisk, image};
use super::index::{IndexImage, MemoryHome};
use super::scenario::{Life, check, expected};
use crate::store::{OpenError, StoreError};

/// Plays with a fault, then checks the disk as it is and after a power cut.
fn play_with(fault: Fault) {
    let life = Life::new();
    life.disk.set_fault(Some(fault));
    let failed = life.play();
    if let Err(error) = &failed {
        let full = error.downcast_ref::<StoreError>().is_some_and(|error| matches!(error, StoreError::Full { .. }))
            || error.downcast_ref::<OpenError>().is_some_and(|error| matches!(error, OpenError::Full { .. }))
            || error.to_string().contains("collection stopped");
        assert!(full || fault.syncs, "{fault:?}: {error:?}");
    }
    life.disk.set_fault(None);
    let (ops, claims) = (life.log.ops(), life.claims());
    let expected = expected(&ops, &claims);
    for fate in [Fate::Dropped, Fate::Kept, Fate::Shuffled(fault.after)] {
        let (disk, index) = image(&Image::default(), &IndexImage::default(), &ops, fate);
        check(&SimulatedDisk::new(disk, None), &MemoryHome::new(index, None), &expected, fault.after.is_multiple_of(2));
    }
    // The same process may go on as well: nothing half done is in its way.
    let disk = SimulatedDisk::new(life.disk.image(), None);
    check(&disk, &MemoryHome::new(life.home.image(), None), &expected, fault.after.is_multiple_of(2));
}

fn operations() -> u64 {
    let life = Life::new();
    life.play().expect("plays");
    life.disk.counted()
}

#[test]
fn d6_a_full_disk_leaves_what_was_published_whole() {
    for after in 0..operations() {
        play_with(Fault { after, count: u64::MAX, syncs: false });
    }
}

#[test]
fn d6_a_failed_sync_leaves_what_was_published_whole() {
    for after in 0..operations() {
        play_with(Fault { after, count: 1, syncs: true });
    }
}

/// After a failed sync the kernel shows bytes that are not on the disk, and lets the next sync succeed. The next process
/// must not take them for written.
#[test]
fn d6_what_a_failed_sync_lost_is_not_taken_for_written_later() {
    for after in 0..operations() {
        let life = Life::new();
        life.disk.set_fault(Some(Fault { after, count: 1, syncs: true }));
        if life.play().is_ok() {
            continue;
        }
        life.play().expect("plays again");
        let (ops, claims) = (life.log.ops(), life.claims());
        let mut dice = Dice(after);
        for fate in [Fate::Dropped, Fate::Shuffled(after), Fate::Dropped, Fate::Dropped] {
            let cut = ops.len() - usize::try_from(dice.roll(ops.len() as u64 / 2)).expect("small");
            let (disk, index) = image(&Image::default(), &IndexImage::default(), &ops[..cut], fate);
            let expected = expected(&ops[..cut], &claims);
            check(&SimulatedDisk::new(disk, None), &MemoryHome::new(index, None), &expected, false);
        }
    }
}
