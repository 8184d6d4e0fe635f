//! Being asked for a password at a terminal.

use shipfs_tests::program::{Running, shipfs};
use shipfs_tests::terminal::Terminal;
use std::path::Path;
use std::process::{Child, Command};
use tempfile::TempDir;

/// `shipfs login` on a terminal that is its own: it asks `/dev/tty`, whatever its stdin is.
fn login(terminal: &Terminal, folder: &Path, registry: &str) -> Child {
    let shipfs = shipfs(&folder.join("repository"));
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(shipfs.get_program()).args(shipfs.get_args());
    command.env_clear().env("HOME", folder).env("PATH", "/usr/bin:/bin").env("RUST_LOG", "trace");
    terminal.start(command.args(["-v", "login", "-u", "me", registry]))
}

#[test]
fn a_password_is_asked_for_and_does_not_show() {
    const PASSWORD: &str = "correct-horse";
    let folder = TempDir::new().expect("a directory");
    let mut serving = shipfs(&folder.path().join("registry"));
    serving.args(["registry", "serve", "--offline", "--listen-registry", "127.0.0.1:0"]);
    let (_serving, line) = Running::start(&mut serving, "serving on").expect("a registry");
    let registry = line.rsplit(' ').next().expect("an address").trim().to_owned();
    let mut terminal = Terminal::new();
    let before = terminal.attributes();
    let mut child = login(&terminal, folder.path(), &registry);
    let mut shown = terminal.expect("password: ");
    assert_ne!(terminal.attributes(), before, "what is typed is not shown");
    terminal.press(&format!("{PASSWORD}\r"));
    shown += &terminal.expect("logged in to");
    assert!(child.wait().expect("ends").success());
    assert!(!shown.contains(PASSWORD) && !shown.contains("horse"), "{shown}");
    assert_eq!(terminal.attributes(), before);
    let kept = std::fs::read_to_string(folder.path().join(".docker/config.json")).expect("is kept");
    // `me:correct-horse`
    assert!(kept.contains(&registry) && kept.contains("bWU6Y29ycmVjdC1ob3JzZQ=="), "{kept}");
}

#[test]
fn a_terminal_shows_what_is_typed_again_after_ctrl_c() {
    let folder = TempDir::new().expect("a directory");
    let mut terminal = Terminal::new();
    let before = terminal.attributes();
    let mut child = login(&terminal, folder.path(), "localhost:1");
    terminal.expect("password: ");
    assert_ne!(terminal.attributes(), before);
    terminal.press("half a pass\x03");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_eq!(terminal.attributes(), before);
    assert!(!folder.path().join(".docker/config.json").exists());
}
