//! The protocol between holder and guests, with verbs that do nothing but wait and count.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::{
    Failure, FailureKind, Holder, Options, Order, Removed, Reply, Repository, Request, Role, Session, frame, socket,
    wire::{Answer, Call, Greeting, MAX_ANSWER_BYTES, MAX_CALL_BYTES, MAX_GREETING_BYTES, PROTOCOL},
};
use crate::event::{Event, EventSink};

/// Longest any step may take; all take milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// What all processes of a test see.
#[derive(Default)]
struct World {
    held: AtomicBool,
    opened: AtomicUsize,
    running: AtomicUsize,
    cancelled: AtomicUsize,
    done: AtomicUsize,
    gate: Gate,
}

/// A semaphore without permits, which has a default.
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

#[derive(Clone)]
struct Memory {
    directory: PathBuf,
    world: Arc<World>,
}

struct Held {
    name: String,
    world: Arc<World>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.world.held.store(false, Ordering::SeqCst);
    }
}

#[async_trait]
impl Repository for Memory {
    type Holder = Held;

    fn directory(&self) -> &Path {
        &self.directory
    }

    async fn open(&self, _: Role) -> Result<Option<Held>, Failure> {
        if self.world.held.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let number = self.world.opened.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Some(Held { name: format!("holder {number}"), world: self.world.clone() }))
    }
}

/// Counts a verb as running, and as cancelled unless it was done.
struct Running<'w>(&'w World, bool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.cancelled.fetch_add(usize::from(!self.1), Ordering::SeqCst);
    }
}

#[async_trait]
impl Holder for Held {
    /// `Images` is done at once, `Gc` when the test lets it, `Serve` never, `Id` fails, `Peers` talks without end before
    /// it is done, `Load` tells what the stream holds.
    async fn execute(&self, order: Order, events: &dyn EventSink) -> Result<Reply, Failure> {
        self.world.running.fetch_add(1, Ordering::SeqCst);
        let mut running = Running(&self.world, false);
        events.emit(Event::Note(format!("{} carries it out", self.name)));
        let mut said = self.name.clone();
        match order.request {
            Request::Gc => self.world.gate.0.acquire().await.expect("the gate is open or shut").forget(),
            Request::Serve { .. } => std::future::pending().await,
            Request::Id => {
                running.1 = true;
                return Err(Failure::new(FailureKind::Full, "no").hint("buy a disk"));
            }
            Request::Peers => (0..100_000).for_each(|number| events.emit(Event::Note(format!("{number:0>100}")))),
            Request::Load { .. } => {
                said.clear();
                order.stream.expect("a stream").read_to_string(&mut said).expect("reads");
                self.world.gate.0.acquire().await.expect("the gate is open or shut").forget();
            }
            _ => {}
        }
        self.world.done.fetch_add(1, Ordering::SeqCst);
        running.1 = true;
        Ok(Reply::Removed(Removed { removed: vec![said] }))
    }

    async fn close(&self) {}
}

struct Place {
    memory: Memory,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = Memory { directory: directory.path().to_owned(), world: Arc::default() };
        Self { memory, _directory: directory }
    }

    fn world(&self) -> &Arc<World> {
        &self.memory.world
    }

    fn session(&self) -> Session<Memory> {
        Session::new(self.memory.clone())
    }

    /// A process of its own that has a verb carried out and then closes its session.
    fn process(&self, request: Request) -> JoinHandle<Result<Reply, Failure>> {
        let mut session = self.session();
        tokio::spawn(async move {
            let result = session.call(order(request), &()).await;
            session.linger().await;
            session.close().await;
            result
        })
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let wait = async {
            while !holds(self.world()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{what}"));
    }
}

fn order(request: Request) -> Order {
    Order { request, options: Options::default(), stream: None }
}

fn serve() -> Request {
    Request::Serve { root: "alpine".parse().expect("a name") }
}

fn load(text: &str) -> Order {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("writes");
    file.rewind().expect("rewinds");
    let from = "docker-archive:-".parse().expect("a location");
    Order { stream: Some(file), ..order(Request::Load { from }) }
}

fn said(result: &Result<Reply, Failure>) -> &str {
    match result {
        Ok(Reply::Removed(removed)) => &removed.removed[0],
        other => panic!("{other:?}"),
    }
}

#[derive(Default)]
struct Collected(Mutex<Vec<Event>>);

impl EventSink for Collected {
    fn emit(&self, event: Event) {
        self.0.lock().expect("no panic").push(event);
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("it takes far less")
}

#[tokio::test]
async fn a_guest_sees_what_the_holder_sees() {
    let place = Place::new();
    let mut holder = place.session();
    assert_eq!(said(&holder.call(order(Request::Images), &()).await), "holder 1");
    let mut guest = place.session();
    let events = Collected::default();
    assert_eq!(said(&soon(guest.call(order(Request::Images), &events)).await), "holder 1");
    assert_eq!(*events.0.lock().expect("no panic"), [Event::Note("holder 1 carries it out".into())]);
    let failure = guest.call(order(Request::Id), &()).await.expect_err("fails there, so it fails here");
    assert_eq!((failure.kind, failure.hint.as_deref()), (FailureKind::Full, Some("buy a disk")));
    assert!(guest.holder().is_none());
    assert_eq!(place.world().opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_reaches_the_holder() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    place.world().gate.0.add_permits(1);
    assert_eq!(said(&soon(place.session().call(load("an archive"), &())).await), "an archive");
}

#[tokio::test]
async fn a_guest_that_goes_away_cancels_its_verb() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let guest = place.process(Request::Gc);
    place.until("the verb runs", |world| world.running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(holder.guests(), 1);
    guest.abort();
    place.until("the verb is cancelled", |world| world.cancelled.load(Ordering::SeqCst) == 1).await;
    soon(holder.linger()).await;
}

#[tokio::test]
async fn a_guest_whose_holder_vanishes_goes_on_as_the_holder() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let guest = place.process(Request::Gc);
    place.until("the guest's verb runs", |world| world.running.load(Ordering::SeqCst) == 1).await;
    holder.close().await;
    place.until("the guest is the holder", |world| world.opened.load(Ordering::SeqCst) == 2).await;
    place.world().gate.0.add_permits(1);
    assert_eq!(said(&soon(guest).await.expect("no panic")), "holder 2");
    assert_eq!(place.world().cancelled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_verb_whose_stream_is_used_up_is_not_tried_again() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let mut session = place.session();
    let guest = tokio::spawn(async move { session.call(load("half of it"), &()).await });
    place.until("the guest's verb runs", |world| world.running.load(Ordering::SeqCst) == 1).await;
    holder.close().await;
    let failure = soon(guest).await.expect("no panic").expect_err("cannot be repeated");
    assert_eq!((failure.kind, failure.exit_code()), (FailureKind::Holder, 1));
}

#[tokio::test]
async fn a_holder_that_is_done_stays_for_its_guests() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let guest = place.process(Request::Gc);
    place.until("the guest's verb runs", |world| world.running.load(Ordering::SeqCst) == 1).await;
    let lingering = tokio::spawn(async move {
        holder.linger().await;
        holder
    });
    // A verb that comes while it lingers is taken in.
    assert_eq!(said(&soon(place.process(Request::Images)).await.expect("no panic")), "holder 1");
    assert!(!lingering.is_finished());
    place.world().gate.0.add_permits(1);
    assert_eq!(said(&soon(guest).await.expect("no panic")), "holder 1");
    let holder = soon(lingering).await.expect("no panic");
    // From here on none is: the newcomer waits, and becomes the holder when this one lets go.
    let newcomer = place.process(Request::Images);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!newcomer.is_finished());
    holder.close().await;
    assert_eq!(said(&soon(newcomer).await.expect("no panic")), "holder 2");
}

#[tokio::test]
async fn a_verb_that_never_ends_holds_nobody_up() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let guest = place.process(serve());
    place.until("the guest's verb runs", |world| world.running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(holder.guests(), 0);
    soon(holder.linger()).await;
    holder.close().await;
    // It goes on as the holder.
    place.until("the guest is the holder", |world| world.opened.load(Ordering::SeqCst) == 2).await;
    assert_eq!(said(&soon(place.process(Request::Images)).await.expect("no panic")), "holder 2");
    assert!(!guest.is_finished());
    guest.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_verb_is_lost_while_holders_come_and_go() {
    let place = Place::new();
    for _ in 0..20 {
        let processes: Vec<_> = (0..10).map(|_| place.process(Request::Images)).collect();
        for process in processes {
            soon(process).await.expect("no panic").expect("is done");
        }
    }
    assert_eq!(place.world().done.load(Ordering::SeqCst), 200);
    assert_eq!(place.world().cancelled.load(Ordering::SeqCst), 0);
    assert!(!place.world().held.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_guests_than_are_taken_in_have_to_wait() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let guests: Vec<_> = (0..40).map(|_| place.process(Request::Gc)).collect();
    place.until("the house is full", |world| world.running.load(Ordering::SeqCst) == 32).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(place.world().running.load(Ordering::SeqCst), 32);
    place.world().gate.0.add_permits(40);
    for guest in guests {
        assert_eq!(said(&soon(guest).await.expect("no panic")), "holder 1");
    }
}

#[tokio::test]
async fn there_is_one_daemon_and_it_waits_for_a_command_to_end() {
    let place = Place::new();
    let mut command = place.session();
    command.call(order(Request::Images), &()).await.expect("is done");
    let mut daemon = place.session();
    let becoming = tokio::spawn(async move { daemon.become_daemon(&()).await.map(|_| daemon) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!becoming.is_finished());
    command.close().await;
    let daemon = soon(becoming).await.expect("no panic").expect("becomes the holder");
    let second = soon(place.session().become_daemon(&())).await.err().expect("there is one");
    assert!(second.message.contains("a daemon already runs"), "{second}");
    assert_eq!(said(&soon(place.process(Request::Images)).await.expect("no panic")), "holder 2");
    daemon.close().await;
}

/// A client of its own, that can do what ours never does.
async fn stranger(place: &Place) -> tokio::net::UnixStream {
    let mut stream = socket::connect(&place.memory.directory).await.expect("looks").expect("somebody listens");
    let greeting: Greeting = frame::read(&mut stream, MAX_GREETING_BYTES).await.expect("greets");
    assert_eq!((greeting.shipfs_control, greeting.role), (PROTOCOL, Role::Command));
    stream
}

#[tokio::test]
async fn a_guest_that_talks_nonsense_is_shown_out_and_nobody_else_notices() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let call = Call { protocol: PROTOCOL, request: Request::Images, options: Options::default() };
    let too_long = u32::try_from(MAX_CALL_BYTES + 1).expect("fits").to_be_bytes();
    let unknown_verb = b"\0\0\0\x3d{\"protocol\":1,\"request\":{\"verb\":\"format\"},\"options\":{\"peers\":[]}}";
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0xff, 0xff, 0xff, 0xff],
        &[&[0], &too_long[..]].concat(),
        &[&[0], &unknown_verb[..]].concat(),
        &[1],
    ] {
        let mut stream = stranger(&place).await;
        stream.write_all(nonsense).await.expect("takes it");
        stream.shutdown().await.expect("shuts down");
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{nonsense:?}: {rest:?}");
    }
    // One that says more than it should has its verb cancelled.
    let mut stream = stranger(&place).await;
    socket::send_stream(&stream, None).await.expect("sends");
    let serving = Call { request: serve(), ..call.clone() };
    frame::write(&mut stream, &serving, MAX_CALL_BYTES).await.expect("sends");
    assert_eq!(frame::read::<Answer>(&mut stream, MAX_ANSWER_BYTES).await.expect("answers"), Answer::Taken);
    stream.write_all(b"and another thing").await.expect("takes it");
    place.until("the verb is cancelled", |world| world.cancelled.load(Ordering::SeqCst) == 1).await;
    // One of another version is told so.
    let mut stream = stranger(&place).await;
    socket::send_stream(&stream, None).await.expect("sends");
    frame::write(&mut stream, &Call { protocol: 99, ..call }, MAX_CALL_BYTES).await.expect("sends");
    let answer = frame::read::<Answer>(&mut stream, MAX_ANSWER_BYTES).await.expect("answers");
    assert!(matches!(&answer, Answer::Failed(failure) if failure.message.contains("protocol 99")), "{answer:?}");
    assert_eq!(said(&soon(place.process(Request::Images)).await.expect("no panic")), "holder 1");
}

#[tokio::test]
async fn a_guest_that_does_not_listen_holds_nobody_up() {
    let place = Place::new();
    let mut holder = place.session();
    holder.call(order(Request::Images), &()).await.expect("is done");
    let mut deaf = stranger(&place).await;
    socket::send_stream(&deaf, None).await.expect("sends");
    let call = Call { protocol: PROTOCOL, request: Request::Peers, options: Options::default() };
    frame::write(&mut deaf, &call, MAX_CALL_BYTES).await.expect("sends");
    // More was said than fits between the two, and the verb is done all the same.
    place.until("the verb is done", |world| world.done.load(Ordering::SeqCst) == 2).await;
    assert_eq!(said(&soon(place.process(Request::Images)).await.expect("no panic")), "holder 1");
}

/// A holder that says `bytes` and nothing else.
async fn holder_saying(directory: &Path, bytes: &[u8]) -> JoinHandle<()> {
    let listener = UnixListener::bind(directory.join("control.sock")).expect("binds");
    let bytes = bytes.to_vec();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        stream.write_all(&bytes).await.expect("writes");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
}

#[tokio::test]
async fn a_holder_of_another_version_is_named() {
    let place = Place::new();
    let mut greeting = Vec::new();
    let newer = serde_json::json!({ "shipfs_control": 2, "version": "9.0.0", "role": "daemon", "more": [1] });
    frame::write(&mut greeting, &newer, MAX_GREETING_BYTES).await.expect("fits");
    let holder = holder_saying(&place.memory.directory, &greeting).await;
    let failure = soon(place.session().call(order(Request::Images), &())).await.expect_err("is refused");
    assert_eq!(failure.kind, FailureKind::Holder);
    assert!(failure.message.contains("shipfs 9.0.0 with control protocol 2"), "{failure}");
    assert!(failure.hint.expect("a hint").contains("restart"));
    soon(holder).await.expect("no panic");
}

#[tokio::test]
async fn something_else_on_the_socket_is_no_holder() {
    for nonsense in [&b"HTTP/1.1 200 OK\r\n"[..], b"\0\0\0\x02[]", &[0xff; 8]] {
        let place = Place::new();
        let holder = holder_saying(&place.memory.directory, nonsense).await;
        let failure = soon(place.session().call(order(Request::Images), &())).await.expect_err("is refused");
        assert_eq!(failure.kind, FailureKind::Holder, "{failure}");
        soon(holder).await.expect("no panic");
    }
}

#[tokio::test]
async fn a_directory_without_room_for_a_socket_still_works() {
    let place = Place::new();
    File::create(place.memory.directory.join("control.sock")).expect("a file in the way");
    let mut session = place.session();
    let events = Collected::default();
    // Nobody listens on a plain file, so this process becomes the holder, and says what that means for others.
    assert_eq!(said(&session.call(order(Request::Images), &events).await), "holder 1");
    let warned = events.0.lock().expect("no panic");
    assert!(matches!(&warned[0], Event::Warning(text) if text.contains("not a socket")), "{warned:?}");
}
