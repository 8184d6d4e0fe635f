//! Where a container's standard streams come from and go to.
//!
//! Imports its siblings. In the foreground they are the user's own, handed through: no byte is looked at. In the background
//! they end in a log. A terminal is made by the runtime, which hands over its other end.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    process::Stdio,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use crate::run::{
    RunError,
    log::{Log, Stream},
    settings::Settings,
    state::Container,
    wire::{Link, Message, receive_descriptor},
};

/// The socket through which the runtime hands over a terminal. Named from the container's directory: the address of a
/// socket is short.
pub(super) const CONSOLE: &str = "console.sock";

/// A container's streams, by the way they are dealt with.
pub(super) enum Streams {
    /// The user's own; no input, if there is only output and error.
    Own(Vec<OwnedFd>),
    /// Pipes to a log: the ends that are read, and the ends that are written.
    Logged { log: Log, read: [OwnedFd; 2], written: std::cell::Cell<Option<[OwnedFd; 2]>> },
    /// A terminal, whose other end goes to the user's command, or to a log.
    Terminal { console: std::cell::Cell<Option<UnixListener>>, log: Option<Log> },
}

/// A terminal that is about to be handed over.
pub(super) struct Console(mpsc::Receiver<io::Result<OwnedFd>>);

fn failed(source: io::Error) -> RunError {
    RunError::Process { action: "make the streams of the container", source }
}

impl Streams {
    /// Makes them; `own` are the user's input, output and error.
    pub(super) fn open(container: &Container, settings: &Settings, own: Vec<OwnedFd>) -> Result<Self, RunError> {
        let log = || Log::create(&container.directory).map_err(failed);
        if settings.terminal {
            let listener = UnixListener::bind(CONSOLE).map_err(failed)?;
            let log = settings.detached.then(log).transpose()?;
            return Ok(Self::Terminal { console: Some(listener).into(), log });
        }
        if !settings.detached {
            return Ok(Self::Own(own));
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
        let ((read_output, output), (read_error, error)) = (pipe()?, pipe()?);
        Ok(Self::Logged { log: log()?, read: [read_output, read_error], written: Some([output, error]).into() })
    }

    /// What the container's first process gets.
    pub(super) fn stdio(&self) -> Result<[Stdio; 3], RunError> {
        let again = |descriptor: &OwnedFd| descriptor.try_clone().map(Stdio::from).map_err(failed);
        Ok(match self {
            Self::Own(own) => match &own[..] {
                [input, output, error] => [again(input)?, again(output)?, again(error)?],
                [output, error] => [Stdio::null(), again(output)?, again(error)?],
                _ => [Stdio::null(), Stdio::null(), Stdio::null()],
            },
            Self::Logged { written, .. } => match written.take() {
                Some([output, error]) => [Stdio::null(), output.into(), error.into()],
                None => [Stdio::null(), Stdio::null(), Stdio::null()],
            },
            Self::Terminal { .. } => [Stdio::null(), Stdio::null(), Stdio::null()],
        })
    }

    /// Waits in the background for the runtime to hand over a terminal, if there is to be one.
    pub(super) fn console(&self) -> Option<Console> {
        let Self::Terminal { console, .. } = self else { return None };
        let listener = console.take()?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let received = listener.accept().and_then(|(socket, _)| receive_descriptor(&socket));
            let _ = std::fs::remove_file(CONSOLE);
            // Nobody waits for it any more when the runtime failed.
            let _ = sender.send(received);
        });
        Some(Console(receiver))
    }

    /// Brings what the container prints to where it belongs; the threads end with it.
    pub(super) fn copy(self, terminal: Option<OwnedFd>, link: &Arc<Link>) -> Result<Vec<JoinHandle<()>>, RunError> {
        match self {
            Self::Own(_) => Ok(Vec::new()),
            Self::Logged { log, read: [output, error], .. } => {
                let log = Arc::new(log);
                let copy = |descriptor: OwnedFd, stream| {
                    let log = Arc::clone(&log);
                    std::thread::spawn(move || log.copy(File::from(descriptor), stream))
                };
                Ok(vec![copy(output, Stream::Output), copy(error, Stream::Error)])
            }
            Self::Terminal { log, .. } => {
                let terminal = terminal.ok_or(RunError::Lost)?;
                let Some(log) = log else {
                    // The command may be gone already.
                    let _ = link.send(&Message::Terminal, &[terminal.as_fd()]);
                    return Ok(Vec::new());
                };
                Ok(vec![std::thread::spawn(move || log.copy(File::from(terminal), Stream::Output))])
            }
        }
    }
}

impl Console {
    /// The end of the terminal that a user's terminal is joined to.
    pub(super) fn terminal(self, patience: Duration) -> Result<OwnedFd, RunError> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        self.0.recv_timeout(patience).map_err(late).and_then(|received| received).map_err(failed)
    }
}
