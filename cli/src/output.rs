//! The only place that prints: stdout takes data, stderr takes talk.
//!
//! Imports the tables and the progress display. A reader of stdout that goes away is no error.

use std::{
    io::{self, Write as _},
    path::Path,
};

use serde_json::Value;
use shipfs_image::control::{Failure, FailureKind, Identity, Reply};

use crate::{
    findings,
    progress::Screen,
    report::{self, Outcome},
    settings::Shown,
    tables,
    text::{escaped, escaped_json},
};

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// For people.
    Text,
    /// The result alone.
    Quiet,
    /// For programs.
    Json,
}

/// Shows things to the user.
#[derive(Clone)]
pub(crate) struct Output {
    pub(crate) mode: Mode,
    pub(crate) colour: bool,
    /// What is drawn on stderr, and must make room for lines.
    pub(crate) screen: Screen,
}

impl Output {
    /// Writes data to stdout.
    pub(crate) fn data(&self, bytes: &[u8]) -> Outcome {
        let write = || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        };
        match self.screen.suspended(write) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::from_error(FailureKind::Other, &error).while_doing("cannot write to stdout"))
            }
            _ => Ok(()),
        }
    }

    /// Writes what a container wrote to its stderr to this one, as it is.
    pub(crate) fn error_data(&self, bytes: &[u8]) {
        let _ = self.screen.suspended(|| io::stderr().lock().write_all(bytes));
    }

    /// Writes one line of talk to stderr, whatever the mode. The text must be harmless.
    pub(crate) fn line(&self, line: &str) {
        // Talk that nobody can read is lost.
        let _ = self.screen.suspended(|| writeln!(io::stderr().lock(), "{line}"));
    }

    /// Says something to people, on stderr.
    pub(crate) fn say(&self, text: &str) {
        if self.mode == Mode::Text {
            self.line(&escaped(text));
        }
    }

    /// Says what went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.mode == Mode::Json {
            let shown = serde_json::json!({ "event": "failed", "failure": failure });
            return self.line(&escaped_json(&shown.to_string()));
        }
        report::lines(failure, self.colour).iter().for_each(|line| self.line(line));
    }

    /// Shows the result of a verb. `is_taken` says that stdout carries an archive.
    pub(crate) fn reply(&self, reply: &Reply, is_taken: bool) -> Outcome {
        let text = match self.mode {
            Mode::Json => return self.json(&reply.to_json(), is_taken),
            Mode::Quiet => quiet(reply),
            Mode::Text => text(reply),
        };
        if is_taken { Ok(()) } else { self.data(text.as_bytes()) }
    }

    /// Says that a daemon is ready, in one line.
    pub(crate) fn ready(&self, identity: &Identity) -> Outcome {
        let line = match self.mode {
            Mode::Json => serde_json::json!({ "event": "ready", "identity": identity }).to_string(),
            Mode::Text | Mode::Quiet => tables::ready(identity),
        };
        self.data(format!("{line}\n").as_bytes())
    }

    /// Shows the path of a file that was made.
    pub(crate) fn path(&self, path: &Path) -> Outcome {
        match self.mode {
            Mode::Json => self.json(&serde_json::json!({ "path": path.to_string_lossy() }), false),
            Mode::Text | Mode::Quiet => self.data(format!("{}\n", escaped(&path.to_string_lossy())).as_bytes()),
        }
    }

    /// Shows which settings count, and where each comes from.
    pub(crate) fn settings(&self, repository: &Path, shown: &[Shown]) -> Outcome {
        match self.mode {
            Mode::Json => self.json(&findings::settings_json(repository, shown), false),
            Mode::Text | Mode::Quiet => self.data(findings::settings(repository, shown).as_bytes()),
        }
    }

    /// Shows a value as JSON.
    pub(crate) fn json(&self, value: &Value, is_taken: bool) -> Outcome {
        let text = escaped_json(&format!("{value:#}\n"));
        if is_taken {
            self.line(text.trim_end());
            return Ok(());
        }
        self.data(text.as_bytes())
    }
}

/// A result for people.
fn text(reply: &Reply) -> String {
    match reply {
        Reply::Pushed(pushed) => format!("{}\n", pushed.cid),
        Reply::Pulled(pulled) => format!("{}\n", pulled.cid),
        Reply::Prepared(prepared) => format!("{}\n", prepared.cid),
        Reply::Images(images) => tables::images(images),
        Reply::Inspected(value) => escaped_json(&format!("{value:#}\n")),
        Reply::Tagged(tagged) => format!("{}\n", escaped(&tagged.name)),
        Reply::Removed(removed) => listed(removed.removed.iter().map(|name| escaped(name))),
        Reply::Saved(saved) => format!("{}\n", saved.cid),
        Reply::Copied(copied) => format!("{}\n", copied.digest),
        Reply::Loaded(images) => tables::loaded(images),
        Reply::Collected(collected) => tables::collected(collected),
        Reply::Verified(verified) => tables::verified(verified),
        Reply::Identity(identity) => tables::identity(identity),
        Reply::Peers(peers) => findings::peers(peers),
        Reply::Why(why) => findings::why(why),
        Reply::Doctor(doctor) => findings::doctor(doctor),
        _ => escaped_json(&format!("{:#}\n", reply.to_json())),
    }
}

/// A result for a script: an identifier a line.
fn quiet(reply: &Reply) -> String {
    match reply {
        Reply::Images(images) => {
            let mut cids: Vec<_> = images.iter().map(|image| image.cid.clone()).collect();
            cids.dedup();
            listed(cids.into_iter())
        }
        Reply::Loaded(images) => listed(images.iter().map(|image| image.cid.clone())),
        Reply::Identity(identity) => format!("{}\n", identity.peer),
        Reply::Peers(peers) => listed(peers.iter().map(|peer| peer.peer.clone())),
        Reply::Why(why) => format!("{}\n", escaped(&why.answer)),
        Reply::Doctor(doctor) => findings::ailments(doctor),
        Reply::Collected(collected) => format!("{}\n", collected.bytes),
        Reply::Verified(verified) => listed(verified.damaged.iter().map(|damaged| escaped(damaged))),
        other => text(other),
    }
}

fn listed(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

/// A writer for tracing, which makes room like every other line.
impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.screen.suspended(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
