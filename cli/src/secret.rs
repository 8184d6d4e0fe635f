//! Asks for a name and a password at the terminal, without showing the password.
//!
//! Imports nothing but the library's type for secrets. Speaks with the terminal itself, whatever stdin and stdout are.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use shipfs_image::registry_client::Secret;

/// Longest line that is read, in bytes: tokens of some clouds take several kilobytes.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// The password that comes on stdin, without the end of its line.
pub(crate) fn from_stdin() -> io::Result<Secret> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_LINE_BYTES).read_to_string(&mut text)?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

/// Asks for a name. Dropping the future leaves a thread that waits for an answer.
pub(crate) async fn ask_name() -> io::Result<String> {
    ask(open()?, "name: ").await
}

/// Asks for a password, which does not show. As [`ask_name`]; the terminal shows what is typed again however it ends.
pub(crate) async fn ask_password() -> io::Result<Secret> {
    let mut terminal = open()?;
    let silent = Silent::begin(&terminal)?;
    let answer = ask(terminal.try_clone()?, "password: ").await;
    drop(silent);
    // The end of the line did not show, either.
    writeln!(terminal)?;
    answer.map(Secret::new)
}

fn open() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

async fn ask(mut terminal: File, question: &'static str) -> io::Result<String> {
    let asking = tokio::task::spawn_blocking(move || {
        terminal.write_all(question.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&terminal).take(MAX_LINE_BYTES).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    });
    asking.await.map_err(io::Error::other)?
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn begin(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
