//! Containers that go on by themselves, and what is done to them.

use super::{Lab, wait_until};
use rustix::process::Signal;
use shipfs_tests::program::{self, Running, signal};
use std::time::{Duration, Instant};

super::in_every_way! {
    a_container_goes_on_in_the_background: privileged_a_container_goes_on_in_the_background
        privileged_crun_a_container_goes_on_in_the_background
        privileged_rootless_a_container_goes_on_in_the_background
        privileged_rootless_crun_a_container_goes_on_in_the_background;
    commands_run_in_a_container_that_runs: privileged_commands_run_in_a_container_that_runs
        privileged_crun_commands_run_in_a_container_that_runs
        privileged_rootless_commands_run_in_a_container_that_runs
        privileged_rootless_crun_commands_run_in_a_container_that_runs;
    a_container_is_asked_before_it_is_ended: privileged_a_container_is_asked_before_it_is_ended
        privileged_crun_a_container_is_asked_before_it_is_ended
        privileged_rootless_a_container_is_asked_before_it_is_ended
        privileged_rootless_crun_a_container_is_asked_before_it_is_ended;
    signals_reach_the_command: privileged_signals_reach_the_command privileged_crun_signals_reach_the_command
        privileged_rootless_signals_reach_the_command privileged_rootless_crun_signals_reach_the_command;
}

fn a_container_goes_on_in_the_background(lab: &Lab) {
    let script = "echo out; echo err >&2; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo went; exit 3";
    let id = program::run(lab.shipfs(&["run", "-d", "--name", "bg", &lab.cid, "sh", "-c", script]));
    let id = id.trim();
    assert_eq!(id.len(), 64);
    let shown = lab.containers();
    assert_eq!((shown[0]["name"].as_str(), shown[0]["status"].as_str()), (Some("bg"), Some("running")), "{shown:?}");
    assert_eq!(program::run(lab.shipfs(&["--quiet", "ps"])), format!("{id}\n"));
    assert!(program::run(lab.shipfs(&["ps"])).contains("running"));
    wait_until("both lines are in the log", || {
        let logs = lab.shipfs(&["logs", "bg"]).output().expect("it starts");
        logs.stdout == b"out\n" && logs.stderr == b"err\n"
    });
    let taken = lab.shipfs(&["run", "-d", "--name", "bg", &lab.cid]).output().expect("it starts");
    assert!(
        taken.status.code() == Some(125) && program::said(&taken).contains("called `bg`"),
        "{}",
        program::said(&taken)
    );
    let refused = lab.shipfs(&["rm", "bg"]).output().expect("it starts");
    assert!(!refused.status.success() && program::said(&refused).contains("is running"));
    let following = Running::spawn(lab.shipfs(&["logs", "--follow", "bg"])).expect("it starts");
    assert_eq!(program::run(lab.shipfs(&["exec", "bg", "touch", "/tmp/go"])), "");
    let (status, said) = following.end(Instant::now() + super::PATIENCE).expect("it ends with the container");
    assert!(status.success() && said.contains("went"), "{said}");
    wait_until("it has ended", || lab.containers()[0]["status"] == "exited");
    assert_eq!(lab.containers()[0]["exit_code"], 3);
    assert_eq!(program::run(lab.shipfs(&["ps", "--quiet"])), "", "only those that run");
    assert_eq!(program::run(lab.shipfs(&["rm", &id[..9]])), format!("{}\n", &id[..9]));
    lab.assert_clean();
}

fn commands_run_in_a_container_that_runs(lab: &Lab) {
    program::run(lab.shipfs(&["run", "-d", "--name", "bg", "-e", "A=1", "-w", "/srv", &lab.cid, "sleep", "600"]));
    let exec = |options: &[&str], words: &[&str]| {
        lab.shipfs(&["exec"]).args(options).arg("bg").args(words).output().expect("it starts")
    };
    let text = |options: &[&str], words: &[&str]| String::from_utf8(exec(options, words).stdout).expect("text");
    assert_eq!(text(&["-e", "B=2"], &["sh", "-c", "echo $A$B; pwd; id -u"]), "12\n/srv\n0\n");
    assert_eq!(text(&["-u", "web", "-w", "/tmp"], &["sh", "-c", "pwd; id -u; id -G"]), "/tmp\n33\n34 50\n");
    for (words, code) in
        [(&["true"][..], 0), (&["sh", "-c", "exit 5"], 5), (&["no-such-command"], 127), (&["/etc/passwd"], 126)]
    {
        let output = exec(&[], words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", program::said(&output));
    }
    let mut child = lab
        .shipfs(&["exec", "-i", "bg", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"through").expect("written");
    assert_eq!(child.wait_with_output().expect("it ends").stdout, b"through");
    program::run(lab.shipfs(&["exec", "-d", "bg", "touch", "/tmp/done"]));
    wait_until("the detached command ran", || exec(&[], &["stat", "/tmp/done"]).status.success());
    program::run(lab.shipfs(&["rm", "-f", "bg"]));
    let gone = exec(&[], &["true"]);
    assert!(
        gone.status.code() == Some(125) && program::said(&gone).contains("no container `bg`"),
        "{}",
        program::said(&gone)
    );
    lab.assert_clean();
}

fn a_container_is_asked_before_it_is_ended(lab: &Lab) {
    let start = |name: &str, script: &str| {
        program::run(lab.shipfs(&["run", "-d", "--name", name, &lab.cid, "sh", "-c", script]));
        wait_until("it is ready", || program::run(lab.shipfs(&["logs", name])).contains("ready"));
    };
    let code =
        |name: &str| lab.containers().into_iter().find(|one| one["name"] == name).expect("there")["exit_code"].clone();
    start("polite", "trap 'exit 4' TERM; echo ready; while true; do sleep 0.01; done");
    program::run(lab.shipfs(&["stop", "polite"]));
    assert_eq!(code("polite"), 4);
    start("deaf", "trap '' TERM; echo ready; while true; do sleep 1; done");
    let begun = Instant::now();
    program::run(lab.shipfs(&["stop", "-t", "1", "deaf"]));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(code("deaf"), 137);
    program::run(lab.shipfs(&["stop", "deaf"]));
    start("killed", "trap 'exit 6' USR1; echo ready; while true; do sleep 0.01; done");
    program::run(lab.shipfs(&["kill", "--signal", "USR1", "killed"]));
    wait_until("it has ended", || code("killed") == 6);
    let again = lab.shipfs(&["kill", "killed"]).output().expect("it starts");
    assert!(program::said(&again).contains("not running"), "{}", program::said(&again));
    program::run(lab.shipfs(&["rm", "polite", "deaf", "killed"]));
    lab.assert_clean();
}

fn signals_reach_the_command(lab: &Lab) {
    let end = || Instant::now() + super::PATIENCE;
    for (number, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1"), (Signal::HUP, "HUP")] {
        let running = lab.start(
            &["--rm"],
            &format!("trap 'echo got {name}; exit 42' {name}; echo ready; while true; do sleep 0.01; done"),
        );
        signal(running.id(), number);
        let (status, said) = running.end(end()).expect("it ends");
        assert!(status.code() == Some(42) && said.contains(&format!("got {name}")), "{status}: {said}");
    }
    // Who does not listen is ended when the user insists.
    let running = lab.start(&["--rm"], "trap '' INT; echo ready; while true; do sleep 0.01; done");
    for _ in 0..3 {
        signal(running.id(), Signal::INT);
        // Two of one kind that nobody took yet are one.
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(running.end(end()).expect("it ends").0.code(), Some(137));
    lab.assert_clean();
}
