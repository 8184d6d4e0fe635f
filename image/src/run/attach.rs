//! The user's end of a container: starts the watcher, joins terminals, hands signals on, learns how it ended.
//!
//! Imports its siblings. The streams are handed in; nothing is printed but what the container prints.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use super::{
    RunError,
    lifecycle::clear_one,
    runtime::Runtime,
    settings::Settings,
    state::{Container, Containers, Lock, State},
    terminal::{self, Saved},
    wire::{Link, Message},
};

/// Bytes that go from one terminal to the other at a time.
const PIECE: usize = 16 << 10;

/// The user's standard streams.
#[derive(Debug)]
pub struct Streams {
    /// Input.
    pub input: OwnedFd,
    /// Output.
    pub output: OwnedFd,
    /// Error.
    pub error: OwnedFd,
}

/// A container that is made but does not run. Dropping it removes it.
#[derive(Debug)]
pub struct Made {
    container: Container,
    settings: Settings,
    lock: Option<Lock>,
}

/// A container that runs, as its user's command sees it.
#[derive(Debug)]
pub struct Attached {
    container: Container,
    runtime: Runtime,
    link: Arc<Link>,
    watcher: Child,
    streams: Arc<Streams>,
    saved: Option<Arc<Saved>>,
    terminal: Terminal,
    notes: Notes,
}

/// Takes what a user may want to know.
struct Notes(Box<dyn Fn(&str) + Send>);

impl std::fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Notes")
    }
}

type Terminal = Arc<Mutex<Option<OwnedFd>>>;

/// Hands signals to a container from anywhere.
#[derive(Clone, Debug)]
pub struct Signals {
    link: Arc<Link>,
    streams: Arc<Streams>,
    terminal: Terminal,
}

impl Made {
    /// Makes a container; `suggested` is the beginning of its name if the user gives none.
    ///
    /// # Errors
    /// [`RunError::NameTaken`], or what the disk says.
    pub fn new(containers: &Containers, settings: Settings, suggested: &str) -> Result<Self, RunError> {
        let (container, lock) = containers.create(&settings, suggested)?;
        Ok(Self { container, settings, lock: Some(lock) })
    }

    /// Its identifier: what the holder is told, so that it keeps the layers.
    pub fn id(&self) -> &str {
        &self.container.id
    }

    /// Starts it. `program` is this program, whose hidden verb calls [`watch`](super::watch::watch).
    ///
    /// # Errors
    /// [`RunError`] when the watcher cannot be started.
    pub fn start(
        mut self,
        program: &Path,
        verb: &str,
        runtime: Runtime,
        streams: Streams,
    ) -> Result<Attached, RunError> {
        let failed = |source| RunError::Process { action: "start the process that watches the container", source };
        // Whoever clears it away one day must know whom to ask.
        let state = State { runtime: Some(runtime.program().to_owned()), ..self.container.state()? };
        self.container.write("state.json", &state)?;
        let lock = self.lock.take().ok_or(RunError::Lost)?;
        let (link, theirs) = Link::pair().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg(verb).env_clear().current_dir(&self.container.directory);
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let watcher = command.spawn().map_err(failed)?;
        drop(command);
        let is_terminal = self.settings.terminal;
        let size = if is_terminal { terminal::size(&streams.output).or(terminal::size(&streams.input)) } else { None };
        let start =
            Message::Start { directory: self.container.directory.clone(), runtime: runtime.program().to_owned(), size };
        let mut beside: Vec<BorrowedFd<'_>> = vec![lock.0.as_fd()];
        match (self.settings.detached, is_terminal) {
            (true, _) => {}
            // So that the watcher can make it as it was.
            (false, true) => beside.push(streams.input.as_fd()),
            (false, false) => {
                if self.settings.interactive {
                    beside.push(streams.input.as_fd());
                }
                beside.extend([streams.output.as_fd(), streams.error.as_fd()]);
            }
        }
        link.send(&start, &beside).map_err(failed)?;
        let is_joined = is_terminal && self.settings.interactive && !self.settings.detached;
        let saved = if is_joined { Saved::of(&streams.input).map(Arc::new) } else { None };
        Ok(Attached {
            container: self.container.clone(),
            runtime,
            link: Arc::new(link),
            watcher,
            streams: Arc::new(streams),
            saved,
            terminal: Arc::default(),
            notes: Notes(Box::new(|_| {})),
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Once it was started, it is the watcher's.
        if self.lock.is_some()
            && let Err(error) = self.container.remove_files()
        {
            tracing::debug!(%error, "a container that was not started stays");
        }
    }
}

impl Attached {
    /// Has somebody told what a user may want to know.
    pub fn on_note(&mut self, take: impl Fn(&str) + Send + 'static) {
        self.notes = Notes(Box::new(take));
    }

    /// What hands signals to it.
    pub fn signals(&self) -> Signals {
        Signals {
            link: Arc::clone(&self.link),
            streams: Arc::clone(&self.streams),
            terminal: Arc::clone(&self.terminal),
        }
    }

    /// Waits until it runs. Blocks.
    ///
    /// # Errors
    /// [`RunError`] when it could not be started; nothing of it is left then.
    pub fn started(&mut self) -> Result<(), RunError> {
        loop {
            match self.next()? {
                Message::Started => return Ok(()),
                Message::Failed { code, failure } => return Err(RunError::Watcher { code, failure }),
                _ => {}
            }
        }
    }

    /// Waits until it ends; what it ended with. Blocks. Everything it printed was handed on by then, and the terminal is
    /// as it was.
    ///
    /// # Errors
    /// [`RunError`] when it could not be started, or its watcher was killed; nothing of it runs then.
    pub fn wait(mut self) -> Result<u8, RunError> {
        let mut output: Option<JoinHandle<()>> = None;
        let outcome = loop {
            match self.next_with_terminal(&mut output) {
                Ok(Message::Ended { code }) => break Ok(code),
                Ok(Message::Failed { code, failure }) => break Err(RunError::Watcher { code, failure }),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        if let Some(output) = output {
            let _ = output.join();
        }
        // It has told its last, and only has to exit.
        let _ = self.watcher.wait();
        outcome
    }

    fn next_with_terminal(&mut self, output: &mut Option<JoinHandle<()>>) -> Result<Message, RunError> {
        let (message, mut beside) = self.receive()?;
        if message == Message::Terminal && !beside.is_empty() {
            let joined = self.join(beside.remove(0));
            *output = Some(joined.map_err(|source| RunError::Process { action: "join the terminals", source })?);
        }
        Ok(message)
    }

    fn next(&mut self) -> Result<Message, RunError> {
        self.receive().map(|(message, _)| message)
    }

    fn receive(&mut self) -> Result<(Message, Vec<OwnedFd>), RunError> {
        let received = self.link.receive();
        match received.map_err(|source| RunError::Process { action: "hear from the container", source })? {
            Some((message, beside)) => {
                if let Message::Note { text } = &message {
                    (self.notes.0)(text);
                }
                Ok((message, beside))
            }
            None => {
                clear_one(&self.container, &self.runtime)?;
                Err(RunError::Lost)
            }
        }
    }

    /// Joins the user's terminal to the container's: keys in, text out.
    fn join(&mut self, terminal: OwnedFd) -> io::Result<JoinHandle<()>> {
        if let Some(saved) = &self.saved {
            saved.make_raw()?;
            let (mut keys, mut to) = (File::from(self.streams.input.try_clone()?), File::from(terminal.try_clone()?));
            // It ends with the process: nobody can wait for a key that is never pressed.
            std::thread::spawn(move || {
                let mut piece = [0; PIECE];
                while let Ok(length @ 1..) = keys.read(&mut piece) {
                    if to.write_all(&piece[..length]).is_err() {
                        return;
                    }
                }
            });
        }
        let (mut from, mut text) = (File::from(terminal.try_clone()?), File::from(self.streams.output.try_clone()?));
        *self.terminal.lock().unwrap_or_else(PoisonError::into_inner) = Some(terminal);
        Ok(std::thread::spawn(move || {
            let mut piece = [0; PIECE];
            // A terminal ends with an error once nobody has its other end.
            while let Ok(length @ 1..) = from.read(&mut piece) {
                if text.write_all(&piece[..length]).is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            saved.restore();
        }
    }
}

impl Signals {
    /// Hands a signal to the container. One that has ended does not mind.
    pub fn send(&self, number: i32) {
        if let Err(error) = self.link.send(&Message::Signal { number }, &[]) {
            tracing::debug!(%error, number, "a signal is lost");
        }
    }

    /// Tells the container's terminal how large the user's is now.
    pub fn resize(&self) {
        let terminal = self.terminal.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(terminal), Some(size)) = (&*terminal, terminal::size(&self.streams.output)) {
            terminal::resize(terminal, size);
        }
    }
}
