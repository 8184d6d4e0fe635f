//! The user's wish to stop: the first Ctrl-C or SIGTERM ends a verb cleanly, the second ends the process.
//!
//! Imports nothing of this crate.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// What a process that was interrupted exits with, by the shells' convention: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Whether the user told the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    told: watch::Receiver<bool>,
    /// Whether the verb that runs ends by itself when it is told to.
    is_regular: Arc<AtomicBool>,
}

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
        Ok(Self { told: receiver, is_regular: Arc::default() })
    }

    /// Waits until the user wants it to stop.
    pub(crate) async fn told(&self) {
        let mut receiver = self.told.clone();
        if receiver.wait_for(|told| *told).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until a verb is to be cut off: the user wants it to stop, and it is not one that runs until then.
    pub(crate) async fn cut(&self) {
        self.told().await;
        if self.is_regular.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }

    /// Says that from now on being told to stop is the regular end of the verb.
    pub(crate) fn make_regular(&self) {
        self.is_regular.store(true, Ordering::SeqCst);
    }

    /// Whether the user wants it to stop.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.borrow()
    }
}
