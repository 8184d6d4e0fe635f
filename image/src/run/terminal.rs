//! The user's terminal while a container has it.
//!
//! Imports nothing of this crate. A terminal that was made raw is made as it was by whoever sees the end: the command
//! itself on every way out, or the watcher when the command was killed.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::termios::{OptionalActions, Termios, Winsize};

/// A terminal as it was.
#[derive(Debug)]
pub(crate) struct Saved {
    terminal: OwnedFd,
    was: Termios,
}

impl Saved {
    /// Remembers how a terminal is; `None` when it is none.
    pub(crate) fn of(descriptor: &impl AsFd) -> Option<Self> {
        let was = rustix::termios::tcgetattr(descriptor).ok()?;
        let terminal = descriptor.as_fd().try_clone_to_owned().ok()?;
        Some(Self { terminal, was })
    }

    /// Hands every key on as it is.
    pub(crate) fn make_raw(&self) -> io::Result<()> {
        let mut raw = self.was.clone();
        raw.make_raw();
        Ok(rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)?)
    }

    /// Makes it as it was.
    pub(crate) fn restore(&self) {
        // A terminal that is gone needs no care.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.was);
    }
}

/// Rows and columns of a terminal.
pub(crate) fn size(descriptor: &impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(descriptor).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Tells a terminal how large it is.
pub(crate) fn resize(descriptor: &impl AsFd, (rows, columns): (u16, u16)) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // Its program may be gone already.
    let _ = rustix::termios::tcsetwinsize(descriptor, size);
}
