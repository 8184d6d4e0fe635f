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
    sync::{mpsc, watch},
};

/// What a process that was interrupted exits with, by the shells' convention: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;
/// The signals that a container gets, too: hang-up, interrupt, quit, both of the user's, terminate, continue; and that the
/// size of the terminal has changed.
const PASSED_ON: [i32; 8] = [1, 2, 3, 10, 12, 15, 18, WINDOW_CHANGED];
/// The number of SIGWINCH.
pub(crate) const WINDOW_CHANGED: i32 = 28;
/// Signals that wait to be passed on.
const PASSED_ON_AT_A_TIME: usize = 16;

/// Whether the user told the command to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    told: watch::Receiver<bool>,
    /// Whether the verb that runs ends by itself when it is told to.
    is_regular: Arc<AtomicBool>,
    /// Whether somebody else takes the signals.
    is_passed_on: Arc<AtomicBool>,
}

impl Stop {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, receiver) = watch::channel(false);
        let is_passed_on = Arc::new(AtomicBool::new(false));
        let passes_on = is_passed_on.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if passes_on.load(Ordering::SeqCst) {
                    continue;
                }
                if *sender.borrow() {
                    std::process::exit(INTERRUPTED);
                }
                sender.send_replace(true);
            }
        });
        Ok(Self { told: receiver, is_regular: Arc::default(), is_passed_on })
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

    /// Gives all signals that a program can pass on, one after the other. From now on they end no verb: they are meant
    /// for a container.
    pub(crate) fn pass_on(&self) -> io::Result<mpsc::Receiver<i32>> {
        let (sender, receiver) = mpsc::channel(PASSED_ON_AT_A_TIME);
        for number in PASSED_ON {
            let mut stream = signal(SignalKind::from_raw(number))?;
            let sender = sender.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(number).await.is_ok() {} });
        }
        self.is_passed_on.store(true, Ordering::SeqCst);
        Ok(receiver)
    }

    /// Whether the user wants it to stop.
    pub(crate) fn is_told(&self) -> bool {
        *self.told.borrow()
    }
}
