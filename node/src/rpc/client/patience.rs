//! How long a command waits, and when it is tried again.
//!
//! Imports its siblings. The clock starts anew whenever something arrives; an attempt that hangs is given up after half of
//! the time, so that there is time for another one. A daemon that was never there is not waited for: only one that went
//! away may come back.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Kubo, RpcError};

/// First and longest pause before another attempt: a daemon that starts anew needs a second or three.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The patience of one command.
#[derive(Debug)]
pub(super) struct Patience {
    kubo: Kubo,
    limit: Duration,
    since: Instant,
    pause: Duration,
    failed: bool,
}

impl Patience {
    pub(super) fn new(kubo: &Kubo) -> Self {
        let limit = kubo.patience();
        Self { kubo: kubo.clone(), limit, since: Instant::now(), pause: PAUSES.0, failed: false }
    }

    /// Something arrived.
    pub(super) fn progress(&mut self) {
        self.since = Instant::now();
        self.pause = PAUSES.0;
        self.failed = false;
    }

    /// How long to wait for what comes next: half of the time, then the rest.
    pub(super) fn wait(&self) -> Duration {
        let left = self.limit.saturating_sub(self.since.elapsed());
        if self.failed { left } else { left.min(self.limit / 2) }.max(Duration::from_millis(1))
    }

    /// Pauses after an attempt that failed.
    ///
    /// # Errors
    /// The same error, when another attempt cannot help or the time is over.
    pub(super) async fn after(&mut self, error: RpcError) -> Result<(), RpcError> {
        let left = self.limit.saturating_sub(self.since.elapsed());
        let was_there = self.kubo.0.reached.load(Ordering::Relaxed);
        let is_nobody = matches!(error, RpcError::Connect { .. } | RpcError::NoDaemon { .. }) && !was_there;
        if is_nobody || !error.is_passing() || left <= self.pause {
            return Err(self.told(error));
        }
        tracing::debug!(%error, "asking the daemon again");
        self.failed = true;
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }

    /// The error, with all of the time that nothing came.
    fn told(&self, error: RpcError) -> RpcError {
        match error {
            RpcError::Silent { endpoint, command, .. } => {
                RpcError::Silent { endpoint, command, waited: self.since.elapsed() }
            }
            error => error,
        }
    }
}
