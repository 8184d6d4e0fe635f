//! Threats A1 to A14 for who is not root: the same tests once more, in a user namespace.

use shipfs_tests::ordinary::{May, Ordinary};
use shipfs_tests::program::{self, privileged, tool};

/// The tests that need nothing but a place to unpack at.
const AGAIN: [&str; 5] = ["unpack::", "unpack_archives::", "unpack_whiteouts::", "unpack_race::", "unpack_limits::"];
/// Fewer than there are of them.
const FEWEST: usize = 25;

#[test]
fn privileged_rootless_a1_to_a14_hold_in_a_user_namespace() {
    let test = "privileged_rootless_a1_to_a14_hold_in_a_user_namespace";
    if !privileged(test) || !tool(test, "newuidmap") {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let user = Ordinary::new(folder.path(), May::ALL);
    // It may not reach the place where this program lies.
    let program = folder.path().join("tests");
    let own = std::env::current_exe().expect("this program has a path");
    std::fs::hard_link(&own, &program).or_else(|_| std::fs::copy(&own, &program).map(drop)).expect("a program");
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).expect("made");
    user.give(&temporary);
    let mut command = user.command("unshare".as_ref());
    command.args(["--user", "--map-root-user", "--map-auto"]).arg(&program).args(AGAIN);
    command.args(["--skip", "privileged", "--skip", "unpack_namespace"]).env("TMPDIR", &temporary);
    let said = program::run(&mut command);
    let passed = said.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed >= FEWEST, "{passed} of them ran: {said}");
}
