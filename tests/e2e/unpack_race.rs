//! Threat A13: somebody else who may write to the target swaps directories for links while a layer is unpacked.

use rustix::fs::{Mode, OFlags, RenameFlags, openat, renameat_with, symlinkat};
use shipfs_image::layer::{Whiteouts, apply};
use shipfs_tests::archives::{archive, directory, file, hard_link, item, symlink};
use shipfs_tests::unpacking::{Ground, LAYER, options};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Unpacks at least so often, and so long, against the other writer.
const ROUNDS: u64 = 5;
const SHORTEST: Duration = Duration::from_secs(3);
/// How often directories must have been swapped meanwhile.
const SWAPS: u64 = 100;

/// Puts a link to `to` in the place of a directory, and the directory back, as fast as it can. Goes through no link itself.
fn swap(root: BorrowedFd<'_>, parent: &str, name: &str, aside: &str, to: &Path, stop: &AtomicBool, swaps: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let _ = symlinkat(to, root, aside);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let parent = if parent.is_empty() { "." } else { parent };
        let Ok(parent) = openat(root, parent, flags, Mode::empty()) else { continue };
        // There and back, each at once.
        if renameat_with(&parent, name, root, aside, RenameFlags::EXCHANGE).is_ok() {
            swaps.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
            let _ = renameat_with(&parent, name, root, aside, RenameFlags::EXCHANGE);
        }
    }
}

#[test]
fn a13_swapped_directories_lead_nowhere() {
    let ground = Ground::new();
    let outside = ground.outside();
    let mut items = Vec::new();
    for number in 0..40 {
        items.extend([
            directory("d").mode(0o777).time(1),
            directory("d/e").mode(0o777),
            file("d/e/secret", "overwritten").mode(0o777),
            file(format!("d/e/file{number}"), "x").mode(0o777),
            hard_link(format!("d/stolen{number}"), "d/e/secret"),
            symlink("d/e/link", "x"),
            item(b'6', "d/directory").mode(0o777),
            file("d/.wh.secret", ""),
            file("d/e/.wh..wh..opq", ""),
            file("d/.wh.directory", ""),
            directory("d/directory").mode(0o777),
            file("d/directory/file", "overwritten").mode(0o777),
        ]);
    }
    let blob = archive(&items);
    for component_wise in [false, true] {
        for whiteouts in [Whiteouts::Apply, options().whiteouts] {
            let target = outside.parent().expect("a folder").join(format!("applied{}", u32::from(component_wise)));
            let _ = fs::remove_dir_all(&target);
            fs::create_dir(&target).expect("a directory");
            let open = fs::File::open(&target).expect("a directory");
            let mut options = options();
            options.whiteouts = whiteouts;
            options.component_wise = component_wise;
            let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for (number, (parent, name)) in [("", "d"), ("d", "e"), ("d", "directory")].into_iter().enumerate() {
                    let (stop, swaps, open) = (&stop, &swaps, &open);
                    let aside = format!("aside{number}");
                    let to = if number == 1 { outside.join("directory") } else { outside.clone() };
                    scope.spawn(move || swap(open.as_fd(), parent, name, &aside, &to, stop, swaps));
                }
                let (begun, mut rounds, mut whole) = (Instant::now(), 0, 0);
                while rounds < ROUNDS || begun.elapsed() < SHORTEST / 4 || swaps.load(Ordering::Relaxed) < SWAPS {
                    rounds += 1;
                    // It may fail, since things vanish under its hands; it may not go elsewhere.
                    whole += u64::from(apply(&blob[..], LAYER, None, open.as_fd(), &options).is_ok());
                }
                stop.store(true, Ordering::Relaxed);
                assert!(whole <= rounds);
            });
            ground.check();
        }
    }
}
