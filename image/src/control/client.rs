//! The guest's end of the control socket: has the holder carry a verb out.
//!
//! Imports the protocol beside it. It never waits for a holder that is not there; whoever calls decides that.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use tokio::{net::UnixStream, time::timeout};

use super::{
    Failure, FailureKind, Order, Reply, Role,
    frame::{self, FrameError},
    socket,
    wire::{Answer, Call, Greeting, MAX_ANSWER_BYTES, MAX_CALL_BYTES, MAX_GREETING_BYTES, PROTOCOL},
};
use crate::event::EventSink;

/// Time for a holder to greet: it does that before anything else.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the holder.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// What kind of holder it is.
    pub(super) role: Role,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was carried out, or could not be.
    Ended(Result<Reply, Failure>),
    /// The holder takes no verbs now; trying again helps.
    Refused,
    /// The holder went away.
    Vanished {
        /// Whether it had taken the verb.
        taken: bool,
    },
}

/// Connects to the holder of the repository in `directory`; `None` when none listens, or it is about to go away.
pub(super) async fn connect(directory: &Path) -> Result<Option<Connection>, Failure> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        Failure::from_error(FailureKind::Holder, error)
            .while_doing(format!("cannot reach the process that holds the repository `{}`", directory.display()))
    };
    let mut stream = match socket::connect(directory).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return Ok(None),
        Err(error) => return Err(unreachable(&error)),
    };
    // Whoever could make a socket there as another user could also answer for the holder.
    if !socket::is_own(&stream) {
        return Err(unreachable(&io::Error::from(io::ErrorKind::PermissionDenied)));
    }
    let greeting = timeout(GREETING_TIMEOUT, frame::read::<Greeting>(&mut stream, MAX_GREETING_BYTES));
    let greeting = match greeting.await {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(FrameError::Ended)) => return Ok(None),
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&io::Error::from(io::ErrorKind::TimedOut))),
    };
    if greeting.shipfs_control != PROTOCOL {
        let message = format!(
            "the process that holds the repository is shipfs {} with control protocol {}, this is {} with {PROTOCOL}",
            greeting.version,
            greeting.shipfs_control,
            env!("CARGO_PKG_VERSION")
        );
        return Err(Failure::new(FailureKind::Holder, message).hint("restart the daemon with this version"));
    }
    Ok(Some(Connection { stream, role: greeting.role }))
}

impl Connection {
    /// Has the verb carried out. Dropping the future cancels it.
    pub(super) async fn call(mut self, order: Order, events: &dyn EventSink) -> Result<Outcome, Failure> {
        let mut taken = false;
        match self.converse(order, events, &mut taken).await {
            Ok(outcome) => Ok(outcome),
            Err(FrameError::Ended) => Ok(Outcome::Vanished { taken }),
            Err(error) => Err(Failure::from_error(FailureKind::Holder, &error)
                .while_doing("the process that holds the repository cannot be worked with")),
        }
    }

    async fn converse(
        &mut self,
        order: Order,
        events: &dyn EventSink,
        taken: &mut bool,
    ) -> Result<Outcome, FrameError> {
        let Order { request, options, stream } = order;
        socket::send_stream(&self.stream, stream.map(OwnedFd::from).as_ref()).await?;
        frame::write(&mut self.stream, &Call { protocol: PROTOCOL, request, options }, MAX_CALL_BYTES).await?;
        loop {
            match frame::read(&mut self.stream, MAX_ANSWER_BYTES).await? {
                Answer::Taken => *taken = true,
                Answer::Event(event) => events.emit(event),
                Answer::Closing | Answer::Busy => return Ok(Outcome::Refused),
                Answer::Done(reply) => return Ok(Outcome::Ended(Ok(reply))),
                Answer::Failed(failure) => return Ok(Outcome::Ended(Err(failure))),
            }
        }
    }
}
