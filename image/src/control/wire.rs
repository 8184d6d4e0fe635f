//! What two processes say to each other through the control socket.
//!
//! ```text
//! holder  Greeting                        this frame keeps its form in every version
//! guest   one byte: 0, or 1 with a file descriptor beside it, the standard stream that the verb reads or writes
//! guest   Call                            closing the connection from here on cancels the verb
//! holder  Answer::Taken                   or Closing, Busy, Failed
//! holder  Answer::Event …                 any number
//! holder  Answer::Done or Answer::Failed
//! ```
//! Each line but the byte is a [`frame`](super::frame). Imports the plain types beside it.

use serde::{Deserialize, Serialize};

use super::{Failure, Options, Reply, Request};
use crate::event::Event;

/// Version of everything after the greeting. A guest of another version is told so and does not guess.
pub(super) const PROTOCOL: u32 = 1;
/// Longest greeting, in bytes.
pub(super) const MAX_GREETING_BYTES: usize = 4 << 10;
/// Longest call, in bytes: a few hundred references of the longest kind.
pub(super) const MAX_CALL_BYTES: usize = 256 << 10;
/// Longest answer, in bytes: the list of some fifty thousand images.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The first thing a holder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// Version of the protocol.
    pub(super) shipfs_control: u32,
    /// Version of the program.
    pub(super) version: String,
    /// What kind of holder it is.
    pub(super) role: Role,
}

/// What kind of process a holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It carries out a verb of its own and goes away after that.
    Command,
    /// It stays until it is told to stop.
    Daemon,
}

/// What a guest wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// Version of the protocol.
    pub(super) protocol: u32,
    /// The verb.
    pub(super) request: Request,
    /// What every verb takes.
    pub(super) options: Options,
}

/// What a holder says to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    /// The verb is being carried out.
    Taken,
    /// The holder is about to go away: the guest should try to become the holder.
    Closing,
    /// Too many verbs run: the guest should try again.
    Busy,
    /// Something happened.
    Event(Event),
    /// The verb is done.
    Done(Reply),
    /// The verb is not done.
    Failed(Failure),
}
