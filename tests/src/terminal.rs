//! A terminal of a test's own: both of its ends, and what is shown on it.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use crate::program::PATIENCE;

/// Both ends of a terminal; what is shown on it.
pub struct Terminal {
    ours: OwnedFd,
    theirs: File,
    shown: Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    /// One of 24 rows and 80 columns.
    ///
    /// # Panics
    /// When there is none to be had.
    #[expect(clippy::new_without_default, reason = "it opens devices")]
    pub fn new() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let name = ptsname(&ours, Vec::new()).expect("a name").into_string().expect("text");
        let theirs = File::options().read(true).write(true).open(name).expect("its other end");
        let (sender, shown) = mpsc::channel();
        let mut from = File::from(ours.try_clone().expect("cloned"));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { ours, theirs, shown, text: String::new() };
        terminal.resize(24, 80);
        terminal
    }

    /// Makes it as large.
    ///
    /// # Panics
    /// When it is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).expect("resized");
    }

    /// Starts a command on it.
    ///
    /// # Panics
    /// When the command does not start.
    pub fn start(&self, command: &mut Command) -> Child {
        let end = || Stdio::from(self.theirs.try_clone().expect("cloned"));
        command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts")
    }

    /// How it is set up.
    ///
    /// # Panics
    /// When it is gone.
    pub fn attributes(&self) -> String {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } =
            tcgetattr(&self.theirs).expect("attributes");
        format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When it is gone.
    pub fn press(&self, keys: &str) {
        File::from(self.ours.try_clone().expect("cloned")).write_all(keys.as_bytes()).expect("pressed");
    }

    /// Waits until a text is shown, and forgets all up to it; gives what was shown before.
    ///
    /// # Panics
    /// When it is not shown in a minute.
    pub fn expect(&mut self, wanted: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let piece = self.shown.recv_timeout(end.saturating_duration_since(Instant::now()));
            let piece = piece.unwrap_or_else(|_| panic!("`{wanted}` is not shown, but: {}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
    }
}
