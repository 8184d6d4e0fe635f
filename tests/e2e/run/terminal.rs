//! A container with a terminal: through a pair of our own.

use super::{Lab, wait_until};
use shipfs_tests::passing;
use shipfs_tests::terminal::Terminal;
use std::process::{Child, ExitStatus};

super::in_every_way! {
    a_terminal_passes_through: privileged_a_terminal_passes_through privileged_crun_a_terminal_passes_through
        privileged_rootless_a_terminal_passes_through privileged_rootless_crun_a_terminal_passes_through;
    a_terminal_is_as_it_was_whatever_ends_the_command: privileged_a_terminal_is_as_it_was_whatever_ends_the_command
        privileged_crun_a_terminal_is_as_it_was_whatever_ends_the_command
        privileged_rootless_a_terminal_is_as_it_was_whatever_ends_the_command
        privileged_rootless_crun_a_terminal_is_as_it_was_whatever_ends_the_command;
    commands_get_terminals_too: privileged_commands_get_terminals_too privileged_crun_commands_get_terminals_too
        privileged_rootless_commands_get_terminals_too privileged_rootless_crun_commands_get_terminals_too;
}

fn end(child: &mut Child) -> ExitStatus {
    wait_until("it ends", || child.try_wait().expect("waited").is_some());
    child.wait().expect("waited")
}

fn a_terminal_passes_through(lab: &Lab) {
    passing::terminal(lab.shipfs(&["run", "--rm", "-it", "-e", "PS1=prompt>", &lab.cid, "sh"]));
    lab.assert_clean();
}

fn a_terminal_is_as_it_was_whatever_ends_the_command(lab: &Lab) {
    let start = |terminal: &mut Terminal| {
        let child = terminal.start(lab.shipfs(&["run", "--rm", "-it", &lab.cid, "sh", "-c", "echo ready; sleep 600"]));
        terminal.expect("ready");
        child
    };
    let mut terminal = Terminal::new();
    let before = terminal.attributes();
    let mut child = start(&mut terminal);
    child.kill().expect("killed");
    child.wait().expect("waited");
    wait_until("the terminal is as it was", || terminal.attributes() == before);
    wait_until("the container is gone", || lab.container_folders().is_empty());
    let mut child = start(&mut terminal);
    lab.shipfs(&["kill", lab.containers()[0]["id"].as_str().expect("an identifier")]).output().expect("it starts");
    assert_eq!(end(&mut child).code(), Some(137));
    assert_eq!(terminal.attributes(), before);
    // A command that is not there.
    let mut child = terminal.start(lab.shipfs(&["run", "--rm", "-it", &lab.cid, "no-such-command"]));
    assert_eq!(end(&mut child).code(), Some(127));
    assert_eq!(terminal.attributes(), before);
    lab.assert_clean();
}

fn commands_get_terminals_too(lab: &Lab) {
    let output = lab.run(&["-it"], &["true"]);
    assert_eq!(output.status.code(), Some(125), "stdin is no terminal");
    assert_eq!(lab.text(&["-t"], &["tty"]), "/dev/pts/0\r\n");
    lab.shipfs(&["run", "-dt", "--name", "bg", &lab.cid, "sh", "-c", "tty; sleep 600"]).output().expect("it starts");
    wait_until("it is in the log", || {
        lab.shipfs(&["logs", "bg"]).output().expect("it starts").stdout == b"/dev/pts/0\r\n"
    });
    let mut terminal = Terminal::new();
    let before = terminal.attributes();
    let mut child = terminal.start(lab.shipfs(&["exec", "-it", "-e", "PS1=prompt>", "bg", "sh"]));
    terminal.expect("prompt>");
    terminal.press("tty; exit 3\r");
    terminal.expect("/dev/pts/");
    assert_eq!(end(&mut child).code(), Some(3));
    assert_eq!(terminal.attributes(), before);
    lab.shipfs(&["rm", "-f", "bg"]).output().expect("it starts");
    lab.assert_clean();
}
