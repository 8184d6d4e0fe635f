//! The user's wish to stop: the first Ctrl-C or SIGTERM ends a verb cleanly, the second ends the process.
//!
//! Imports nothing of this crate.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// What a process that was interrupted exits with, by the shells' convention: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Whether the user told the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for is_first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if !is_first {
                    std::process::exit(INTERRUPTED);
                }
                sender.send_replace(true);
            }
        });
        Ok(Self(receiver))
    }

    /// Waits until the user wants it to stop.
    pub(crate) async fn told(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|told| *told).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether the user wants it to stop.
    pub(crate) fn is_told(&self) -> bool {
        *self.0.borrow()
    }
}
