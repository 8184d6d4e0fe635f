//! Who carries a verb out: this process when it can hold the repository, else the one that does.
//!
//! Imports both ends of the protocol beside it. A [`Session`] is one command of a user. It goes to the holder if there is
//! one; becomes the holder if there is none; and goes on as the holder when that one vanishes half-way, since verbs take
//! up where an earlier try stopped. All waiting is bounded.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Failure, FailureKind, Holder, Order, Reply, Repository, Role,
    client::{self, Outcome},
    server::Server,
};
use crate::event::{Event, EventSink};

/// How long to wait for a process that holds the repository and does not listen: it rebuilds a lost index before, or ends
/// its last work after that.
const HOLDER_PATIENCE: Duration = Duration::from_secs(60);
/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// Waiting longer than this is worth a word.
const SILENT_WAIT: Duration = Duration::from_secs(1);
/// Holders that may vanish one after another while they carry out one verb, before that is no accident.
const MAX_VANISHED: usize = 5;
/// A holder that lived this long after it took a verb did not die of it.
const LIFE: Duration = Duration::from_secs(10);

/// One command of a user, which may be several verbs.
#[derive(Debug)]
pub struct Session<R: Repository> {
    repository: R,
    role: Role,
    holding: Option<Holding<R::Holder>>,
}

#[derive(Debug)]
struct Holding<H> {
    // Dropped first: it uses the holder.
    server: Option<Server>,
    holder: Arc<H>,
}

impl<R: Repository> Session<R> {
    /// A session that has done nothing yet.
    pub fn new(repository: R) -> Self {
        Self { repository, role: Role::Command, holding: None }
    }

    /// Has one verb carried out, here or by the holder. Dropping the future cancels the verb.
    ///
    /// # Errors
    /// [`Failure`] of the verb, or of reaching whoever holds the repository.
    pub async fn call(&mut self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure> {
        let mut waiting = Waiting::new();
        let mut vanished = 0;
        loop {
            if let Some(holding) = &self.holding {
                return holding.holder.execute(order, events).await;
            }
            if let Some(connection) = client::connect(self.repository.directory()).await? {
                let taken_up = Instant::now();
                let again = order.again().map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
                match connection.call(again, events).await? {
                    Outcome::Ended(result) => return result,
                    Outcome::Refused => waiting.wait(&self.repository, events).await?,
                    Outcome::Vanished { taken } => {
                        vanished = if taken_up.elapsed() > LIFE { 1 } else { vanished + usize::from(taken) };
                        self.check_repeatable(&order, taken, vanished)?;
                        // It was alive a moment ago.
                        waiting = Waiting::new();
                    }
                }
            }
            if !self.hold(events).await? {
                waiting.wait(&self.repository, events).await?;
            }
        }
    }

    fn check_repeatable(&self, order: &Order, taken: bool, vanished: usize) -> Result<(), Failure> {
        let gone = || Failure::new(FailureKind::Holder, "the process that carried this out went away");
        match order {
            // Part of the stream is used up.
            Order { stream: Some(_), .. } if taken => Err(gone().hint("run the command again")),
            _ if vanished >= MAX_VANISHED => {
                Err(gone().hint(format!("that happened {vanished} times; does it run out of memory?")))
            }
            _ => Ok(()),
        }
    }

    /// Becomes a holder that stays, with `events` told what happens.
    ///
    /// # Errors
    /// When another daemon holds the repository, or nobody can.
    pub async fn become_daemon(&mut self, events: &dyn EventSink) -> Result<Arc<R::Holder>, Failure> {
        self.role = Role::Daemon;
        let mut waiting = Waiting::new();
        loop {
            if self.hold(events).await? {
                return self.holder().ok_or_else(|| Failure::new(FailureKind::Repository, "the repository was let go"));
            }
            let connection = client::connect(self.repository.directory()).await?;
            if connection.is_some_and(|connection| connection.role == Role::Daemon) {
                let directory = self.repository.directory().display();
                let message = format!("a daemon already runs on the repository `{directory}`");
                return Err(Failure::new(FailureKind::Holder, message));
            }
            waiting.wait(&self.repository, events).await?;
        }
    }

    /// What carries verbs out, while this process holds the repository.
    pub fn holder(&self) -> Option<Arc<R::Holder>> {
        self.holding.as_ref().map(|holding| holding.holder.clone())
    }

    /// How many verbs of other processes are being carried out here that end by themselves.
    pub fn guests(&self) -> usize {
        self.holding.iter().flat_map(|holding| &holding.server).map(Server::guests).sum()
    }

    /// Waits for the verbs of other processes that were taken in, but for those that never end: they go on in another
    /// holder. From the moment there is none to wait for, none is taken in.
    /// Dropping the future leaves everything as it is.
    pub async fn linger(&self) {
        if let Some(Holding { server: Some(server), .. }) = &self.holding {
            server.close_when_empty().await;
        }
    }

    /// Ends it: verbs of other processes go on in one of those, what was done here is durable.
    pub async fn close(self) {
        if let Some(Holding { server, holder }) = self.holding {
            if let Some(server) = server {
                server.stop().await;
            }
            holder.close().await;
        }
    }

    /// Becomes the holder, unless another process is.
    async fn hold(&mut self, events: &dyn EventSink) -> Result<bool, Failure> {
        let Some(holder) = self.repository.open(self.role).await? else { return Ok(false) };
        let holder = Arc::new(holder);
        let server = match Server::start(self.repository.directory(), holder.clone(), self.role) {
            Ok(server) => Some(server),
            Err(error) if self.role == Role::Daemon => {
                holder.close().await;
                return Err(Failure::from_error(FailureKind::Repository, &error)
                    .while_doing("cannot make the control socket, through which other commands work"));
            }
            Err(error) => {
                let text = format!("other commands on this repository have to wait: no control socket ({error})");
                events.emit(Event::Warning(text));
                None
            }
        };
        self.holding = Some(Holding { server, holder });
        Ok(true)
    }
}

/// Waits for a holder to listen or to let go, longer each time.
struct Waiting {
    since: Instant,
    pause: Duration,
    told: bool,
}

impl Waiting {
    fn new() -> Self {
        Self { since: Instant::now(), pause: PAUSES.0, told: false }
    }

    async fn wait<R: Repository>(&mut self, repository: &R, events: &dyn EventSink) -> Result<(), Failure> {
        let waited = self.since.elapsed();
        let directory = repository.directory().display();
        if waited > HOLDER_PATIENCE {
            let seconds = waited.as_secs();
            let message =
                format!("the repository `{directory}` is held by another process that did not answer for {seconds} s");
            return Err(Failure::new(FailureKind::Holder, message).hint(format!(
                "`fuser {directory}/lock` tells which one; end it, or use another repository with --repo"
            )));
        }
        if waited > SILENT_WAIT && !self.told {
            self.told = true;
            events.emit(Event::Note(format!("waiting for the process that holds the repository `{directory}`")));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }
}
