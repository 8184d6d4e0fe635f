//! Threat D8 for containers: whatever is killed, nothing is left running or mounted after the next command.

use super::{Lab, processes, wait_until};
use rustix::process::Signal;
use shipfs_tests::program::{self, signal};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

super::in_every_way! {
    d8_a_command_that_is_killed_takes_its_container_along:
        privileged_d8_a_command_that_is_killed_takes_its_container_along
        privileged_crun_d8_a_command_that_is_killed_takes_its_container_along
        privileged_rootless_d8_a_command_that_is_killed_takes_its_container_along
        privileged_rootless_crun_d8_a_command_that_is_killed_takes_its_container_along;
    d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command:
        privileged_d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command
        privileged_crun_d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command
        privileged_rootless_d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command
        privileged_rootless_crun_d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command;
    d8_both_may_be_killed_at_once: privileged_d8_both_may_be_killed_at_once
        privileged_crun_d8_both_may_be_killed_at_once
        privileged_rootless_d8_both_may_be_killed_at_once privileged_rootless_crun_d8_both_may_be_killed_at_once;
}

/// Moments at which it is killed, spread over the time that a run takes.
const MOMENTS: u32 = 24;

/// The watcher of the one container there is: the process in its directory that is this program.
pub(super) fn watcher(lab: &Lab) -> Option<u32> {
    let folder = lab.container_folders().pop()?;
    let in_folder = processes(&folder.display().to_string());
    let is_shipfs = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(7).any(|word| word == b"__watch"))
    };
    in_folder.into_iter().find(is_shipfs)
}

fn d8_a_command_that_is_killed_takes_its_container_along(lab: &Lab) {
    let begun = Instant::now();
    lab.text(&[], &["true"]);
    let whole = begun.elapsed().max(Duration::from_millis(50));
    for moment in 0..MOMENTS {
        // Every second one unpacks anew.
        if moment % 2 == 0 {
            let _ = std::fs::remove_dir_all(lab.layers());
        }
        let command = lab.shipfs(&["run", "--rm", &lab.cid, "sleep", "600"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let until = Instant::now() + whole * (moment + 1) / MOMENTS * 3 / 2;
        while Instant::now() < until {
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
        // Its watcher clears away by itself; the next command sees to the rest.
        wait_until("nothing is watched", || watcher(lab).is_none());
        wait_until("the next command sees to it", || lab.containers().is_empty());
        lab.assert_clean();
    }
    assert_eq!(lab.text(&[], &["cat", "/data/kept"]), "kept\n", "no half layer is used");
    lab.assert_clean();
}

fn d8_a_watcher_that_is_killed_leaves_nothing_after_the_next_command(lab: &Lab) {
    // In the foreground, the user's command clears away.
    let running = lab.start(&["--rm"], "echo ready; sleep 600");
    signal(watcher(lab).expect("a watcher"), Signal::KILL);
    let (status, said) = running.end(Instant::now() + super::PATIENCE).expect("it ends");
    assert!(status.code() == Some(125) && said.contains("was killed"), "{status}: {said}");
    lab.assert_clean();
    // In the background, whoever comes next.
    for (remove, left) in [(true, 0), (false, 1)] {
        let mut words = vec!["run", "-d", "--name", "bg"];
        words.extend(remove.then_some("--rm"));
        program::run(lab.shipfs(&words).args([&lab.cid, "sleep", "600"]));
        let pid = lab.containers()[0]["pid"].as_u64().expect("a process");
        signal(watcher(lab).expect("a watcher"), Signal::KILL);
        wait_until("nobody watches it", || watcher(lab).is_none());
        // Whoever is killed lets go of files a moment after the name of the process is gone.
        let mut shown = lab.containers();
        wait_until("the next command sees to it", || {
            shown = lab.containers();
            shown.len() == left && shown.iter().all(|container| container["status"] == "exited")
        });
        wait_until("its processes are gone", || !Path::new(&format!("/proc/{pid}")).exists());
        if let Some(shown) = shown.first() {
            assert_eq!((&shown["status"], &shown["exit_code"]), (&"exited".into(), &137.into()));
            program::run(lab.shipfs(&["rm", "bg"]));
        }
        lab.assert_clean();
    }
}

fn d8_both_may_be_killed_at_once(lab: &Lab) {
    let running = lab.start(&["--rm"], "echo ready; sleep 600");
    let watching = watcher(lab).expect("a watcher");
    // Stopped first, so that neither sees the other's end.
    signal(watching, Signal::STOP);
    running.kill();
    signal(watching, Signal::KILL);
    wait_until("both are gone", || watcher(lab).is_none());
    // Whoever is killed lets go of files a moment after the name of the process is gone.
    wait_until("the next command clears away", || {
        assert_eq!(lab.text(&[], &["echo", "next"]), "next\n");
        lab.container_folders().is_empty()
    });
    lab.assert_clean();
}
