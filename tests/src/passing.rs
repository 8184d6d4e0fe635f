//! What passes between a user and a command in a container, whoever runs the container.

use crate::image::Noise;
use crate::program::{said, signal, wait_until};
use crate::terminal::Terminal;
use rustix::process::Signal;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Asserts what a command is exited with, given how `run OPTIONS IMAGE WORDS` is done.
///
/// # Panics
/// When it is another code.
pub fn exit_codes(run: impl Fn(&[&str], &[&str]) -> Output) {
    for (options, words, code) in [
        (&[][..], &["true"][..], 0),
        (&[], &["sh", "-c", "exit 7"], 7),
        // The first process of a namespace is spared by its own signals, another one is not.
        (&[], &["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137),
        (&[], &["no-such-command"], 127),
        (&[], &["/no/such/command"], 127),
        (&[], &["/etc/passwd"], 126),
        (&["-v", "/no/such/source:/x"], &["true"], 125),
        (&["--user", "nobody-known"], &["true"], 125),
        (&["--runtime", "no-such-runtime"], &["true"], 125),
    ] {
        let output = run(options, words);
        assert_eq!(output.status.code(), Some(code), "{options:?} {words:?}: {}", said(&output));
    }
}

/// Asserts that `run -i IMAGE cat` gives back what it is given.
///
/// # Panics
/// When other bytes come back.
pub fn bytes(cat: &mut Command) {
    let bytes = Noise::new(7).bytes(3 << 20);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let written = bytes.clone();
    let writing = std::thread::spawn(move || input.write_all(&written));
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("no panic").expect("written");
    assert!(output.status.success() && output.stdout == bytes, "{} bytes came back", output.stdout.len());
}

/// Asserts that `run -it -e PS1=prompt> IMAGE sh` has a terminal, which follows the user's, and is as it was when it ends.
///
/// # Panics
/// When it is otherwise.
pub fn terminal(shell: &mut Command) {
    let mut terminal = Terminal::new();
    let before = terminal.attributes();
    let mut child = terminal.start(shell);
    terminal.expect("prompt>");
    assert_ne!(terminal.attributes(), before, "every key is handed on");
    terminal.press("tty; stty size; echo $TERM\r");
    let shown = terminal.expect("xterm");
    assert!(shown.contains("/dev/pts/0") && shown.contains("24 80"), "{shown}");
    terminal.resize(33, 101);
    signal(child.id(), Signal::WINCH);
    terminal.expect("prompt>");
    wait_until("the size is the new one", || {
        terminal.press("stty size; echo do''ne\r");
        terminal.expect("done").contains("33 101")
    });
    // Ctrl-C ends what runs in there, not the container.
    terminal.press("sh -c 'echo now; sleep 600'\r");
    terminal.expect("\nnow");
    terminal.press("\x03");
    terminal.expect("prompt>");
    terminal.press("echo still he''re\r");
    terminal.expect("still here");
    terminal.press("exit 5\r");
    wait_until("it ends", || child.try_wait().expect("waited").is_some());
    assert_eq!(child.wait().expect("waited").code(), Some(5));
    assert_eq!(terminal.attributes(), before, "the terminal is as it was");
}
