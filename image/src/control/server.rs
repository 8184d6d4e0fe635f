//! The holder's end of the control socket.
//!
//! Imports the protocol beside it. Each connection carries one verb; a client that goes away cancels its verb. The number
//! of connections, the length of messages and the time to say what is wanted are bounded. Nothing here knows what verbs do.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt as _,
    net::UnixStream,
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    EventQueue, Failure, FailureKind, Holder, Order, Role,
    frame::{self, FrameError},
    socket::{self, Bound},
    wire::{Answer, Call, Greeting, MAX_ANSWER_BYTES, MAX_CALL_BYTES, MAX_GREETING_BYTES, PROTOCOL},
};

/// Connections at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Verbs of other processes at once. Each may hold documents of some 16 MiB.
const MAX_GUESTS: usize = 32;
/// Time to say what is wanted, and to take an answer: both are a few small messages between processes of one host.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two batches of events. Fast enough to look smooth.
const EVENT_PACE: Duration = Duration::from_millis(50);
/// Time to wait after an accept that failed, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is being served, and whether anybody still may be.
#[derive(Debug, Default)]
struct Guests {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Those that a holder waits for.
    active: usize,
    /// Those with a verb that never ends: they go on elsewhere when the holder goes away.
    endless: usize,
    closed: bool,
}

/// A guest's place; gives it up when dropped.
struct Place<'g> {
    guests: &'g Guests,
    is_endless: bool,
}

impl Guests {
    fn enter(&self, is_endless: bool) -> Result<Place<'_>, Answer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State { closed: true, .. } => Err(Answer::Closing),
            State { active, endless, .. } if *active + *endless >= MAX_GUESTS => Err(Answer::Busy),
            State { active, endless, .. } => {
                *(if is_endless { endless } else { active }) += 1;
                Ok(Place { guests: self, is_endless })
            }
        }
    }

    fn active(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).active
    }

    /// Waits until there is none, and lets none in from that very moment.
    async fn close_when_empty(&self) {
        loop {
            let left = self.left.notified();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.active == 0 {
                    state.closed = true;
                    return;
                }
            }
            left.await;
        }
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.guests.state.lock().unwrap_or_else(PoisonError::into_inner);
        *(if self.is_endless { &mut state.endless } else { &mut state.active }) -= 1;
        drop(state);
        self.guests.left.notify_one();
    }
}

/// Takes verbs in through the socket until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    guests: Arc<Guests>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Server {
    /// Listens in `directory`, whose lock the caller holds through `holder`.
    pub(super) fn start(directory: &Path, holder: Arc<impl Holder>, role: Role) -> std::io::Result<Self> {
        let bound = Bound::bind(directory)?;
        let (guests, stop) = (Arc::new(Guests::default()), CancellationToken::new());
        let (inside, token) = (guests.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            token.run_until_cancelled(accept(&bound, &mut connections, &holder, &inside, role)).await;
            inside.close();
            // First the name, so that nobody comes any more; then those who are here.
            drop(bound);
            connections.shutdown().await;
        });
        Ok(Self { guests, task, _stop: stop.clone().drop_guard(), stop })
    }

    /// How many verbs of other processes run that end by themselves.
    pub(super) fn guests(&self) -> usize {
        self.guests.active()
    }

    /// Waits until no verb of another process runs, but for those that never end; none is taken in from then on.
    pub(super) async fn close_when_empty(&self) {
        self.guests.close_when_empty().await;
    }

    /// Ends all verbs of other processes and removes the socket.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the control socket failed");
        }
    }
}

async fn accept(
    bound: &Bound,
    connections: &mut JoinSet<()>,
    holder: &Arc<impl Holder>,
    guests: &Arc<Guests>,
    role: Role,
) {
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            look_at(connections.join_next().await);
        }
        while let Some(ended) = connections.try_join_next() {
            look_at(Some(ended));
        }
        match bound.listener.accept().await {
            Ok((stream, _)) if socket::is_own(&stream) => {
                let (holder, guests) = (holder.clone(), guests.clone());
                connections.spawn(async move {
                    if let Err(error) = serve(stream, &*holder, &guests, role).await {
                        tracing::debug!(%error, "a guest was not served to the end");
                    }
                });
            }
            Ok(_) => tracing::warn!("a process of another user tried to use the control socket"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A verb that panicked is a fault of this program; its guest sees its connection end.
fn look_at(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        tracing::error!(%error, "a verb of another process failed");
    }
}

/// One connection, from its greeting to its last answer.
async fn serve(mut stream: UnixStream, holder: &impl Holder, guests: &Guests, role: Role) -> Result<(), FrameError> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let greeting = Greeting { shipfs_control: PROTOCOL, version, role };
    let order = timeout(MESSAGE_TIMEOUT, async {
        frame::write(&mut stream, &greeting, MAX_GREETING_BYTES).await?;
        let standard = socket::receive_stream(&stream).await?;
        let call: Call = frame::read(&mut stream, MAX_CALL_BYTES).await?;
        Ok::<_, FrameError>((call, standard))
    });
    let (call, standard) = order.await.map_err(|_| FrameError::Ended)??;
    if call.protocol != PROTOCOL {
        let message = format!("control protocol {} is not spoken here, but {PROTOCOL}", call.protocol);
        return say(&mut stream, &Answer::Failed(Failure::new(FailureKind::Holder, message))).await;
    }
    let place = match guests.enter(call.request.is_endless()) {
        Ok(place) => place,
        Err(refusal) => return say(&mut stream, &refusal).await,
    };
    say(&mut stream, &Answer::Taken).await?;
    let order = Order { request: call.request, options: call.options, stream: standard };
    let (mut reader, mut writer) = stream.split();
    let events = EventQueue::default();
    let verb = async {
        let result = holder.execute(order, &events).await;
        events.close();
        Ok(result)
    };
    let telling = async {
        while let Some(batch) = events.next().await {
            for event in batch {
                say(&mut writer, &Answer::Event(event)).await?;
            }
            // Until the next batch, unless there is none.
            let _ = timeout(EVENT_PACE, events.closed()).await;
        }
        Ok::<_, FrameError>(())
    };
    // Nothing more is expected of a guest but that it stays.
    let mut byte = [0];
    let result = tokio::select! {
        _ = reader.read(&mut byte) => return Err(FrameError::Ended),
        done = async { tokio::try_join!(verb, telling) } => done?.0,
    };
    let answer = result.map_or_else(Answer::Failed, Answer::Done);
    let said = say(&mut writer, &answer).await;
    if let Err(FrameError::TooLong { size, limit }) = said {
        let message = format!("the result has {size} bytes, at most {limit} can be passed on");
        say(&mut writer, &Answer::Failed(Failure::new(FailureKind::Holder, message))).await?;
    }
    drop(place);
    Ok(())
}

async fn say(writer: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> Result<(), FrameError> {
    timeout(MESSAGE_TIMEOUT, frame::write(writer, answer, MAX_ANSWER_BYTES)).await.map_err(|_| FrameError::Ended)?
}
