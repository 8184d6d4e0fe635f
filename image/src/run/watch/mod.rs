//! The process that watches a container: mounts its root, has it started, waits for it, clears it away.
//!
//! It is this program on its own, started by the user's command, with a socket as its standard input. It is the parent of
//! the container's first process, so it learns how that ends; and it is in a mount namespace of its own, so that the mounts
//! go with it. Of another user than root, it is root of a user namespace. Imports its siblings. It never talks to the repository's holder, and never prints.

mod prepare;
mod streams;

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use self::{prepare::Place, streams::Streams};
use super::{
    RunError,
    fuse::Fuse,
    layers::Layers,
    overlay,
    rootless::{
        self,
        ids::{Inside, Mapping, label_of_roots_namespace},
    },
    runtime,
    runtime::Runtime,
    settings::Settings,
    state::{Container, State, Status, now},
    terminal::{self, Saved},
    wire::{Link, Message},
};

/// Where the runtime writes the number of the container's first process.
const PID: &str = "pid";
/// What a process that was ended by a signal is said to have exited with: this, and the signal's number.
const SIGNALLED: i32 = 128;
/// Requests to end after which a container is ended for good: a user who presses Ctrl-C so often means it.
const PATIENCE: usize = 3;
/// The number of SIGKILL.
pub(crate) const KILL: i32 = Signal::KILL.as_raw();
/// Time for the runtime to hand over a terminal once it says that all is well.
const TERMINAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches one container: the whole life of a process whose standard input is a socket to the user's command.
///
/// # Errors
/// When there is no such socket. What goes wrong with the container is told through it.
pub fn watch() -> Result<(), RunError> {
    let failed = |action| move |source| RunError::Process { action, source };
    let link = Arc::new(Link::inherited().map_err(failed("reach the command that started this process"))?);
    let start = link.receive().map_err(failed("hear what container to watch"))?;
    let Some((Message::Start { directory, runtime, size }, descriptors)) = start else { return Ok(()) };
    let watched = Watched::new(directory, Runtime::at(runtime), descriptors, size);
    let message = match watched.and_then(|watched| watched.run(&link)) {
        Ok(code) => Message::Ended { code },
        Err(error) => Message::Failed { code: error.exit_code(), failure: error.failure() },
    };
    // Nobody may be there to hear it.
    let _ = link.send(&message, &[]);
    Ok(())
}

/// How often a user asked a container to end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Insistence(usize);

impl Insistence {
    /// The signal to send when the user sends this one: the one that nothing withstands, for a user who means it.
    pub(crate) fn signal(&mut self, number: i32) -> i32 {
        self.0 += usize::from(number == Signal::INT.as_raw() || number == Signal::TERM.as_raw());
        if self.0 >= PATIENCE { KILL } else { number }
    }
}

struct Watched {
    container: Container,
    repository: PathBuf,
    runtime: Runtime,
    streams: Vec<OwnedFd>,
    size: Option<(u16, u16)>,
    saved: Option<Saved>,
    layers: Layers,
    /// Who exists in the namespace that this is, when root did not start it.
    inside: Option<Inside>,
    // Held until the end.
    _lock: Option<OwnedFd>,
}

impl Watched {
    fn new(
        directory: PathBuf,
        runtime: Runtime,
        mut descriptors: Vec<OwnedFd>,
        size: Option<(u16, u16)>,
    ) -> Result<Self, RunError> {
        let lost = || RunError::Lost;
        let id = directory.file_name().and_then(|name| name.to_str()).ok_or_else(lost)?.to_owned();
        let repository = directory.parent().and_then(Path::parent).ok_or_else(lost)?.to_owned();
        let lock = (!descriptors.is_empty()).then(|| descriptors.remove(0));
        let saved = descriptors.first().and_then(Saved::of);
        let container = Container { id, directory, helper: None };
        let layers = Layers::new(&repository);
        let inside = None;
        Ok(Self { container, repository, runtime, streams: descriptors, size, saved, layers, inside, _lock: lock })
    }

    /// Makes this process root of a namespace, unless it is root, and gives it mounts of its own. Only while it has one
    /// thread.
    fn become_root(&mut self) -> Result<(), RunError> {
        if rustix::process::geteuid().is_root() {
            if let Some(label) = label_of_roots_namespace() {
                self.layers = Layers::of_user(&self.repository, &label);
                self.inside = Some(Inside::read());
            }
            return overlay::enter_own_namespace().map_err(RunError::Namespace);
        }
        let mapping = Mapping::of_this_user();
        self.layers = Layers::of_user(&self.repository, &mapping.label());
        rootless::enter(&mapping)?;
        self.inside = Some(Inside::read());
        Ok(())
    }

    fn run(mut self, link: &Arc<Link>) -> Result<u8, RunError> {
        let failed = |action| move |source: rustix::io::Errno| RunError::Process { action, source: source.into() };
        // Keys that end the user's command are sent on by it, not by the terminal.
        let _ = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(failed("become the parent of the container"))?;
        std::env::set_current_dir(&self.container.directory).map_err(|error| self.container.failed("", error))?;
        let settings = self.container.settings()?;
        let mut fuse = None;
        let result = self.become_root().and_then(|()| self.run_here(link, &settings, &mut fuse));
        self.clear_away(&settings, &result, fuse.as_ref())?;
        result
    }

    fn run_here(&mut self, link: &Arc<Link>, settings: &Settings, fuse: &mut Option<Fuse>) -> Result<u8, RunError> {
        let place = Place {
            container: &self.container,
            layers: &self.layers,
            inside: self.inside.as_ref(),
            runtime: &self.runtime,
        };
        let prepared = prepare::prepare(&place, settings, self.size, fuse)?;
        if let Some(text) = prepared.note {
            // The command may be gone already.
            let _ = link.send(&Message::Note { text }, &[]);
        }
        let streams = Streams::open(&self.container, settings, std::mem::take(&mut self.streams))?;
        let (pid, terminal) = self.start(streams.stdio()?, streams.console())?;
        let state = State {
            status: Status::Running,
            pid: Some(pid.as_raw_nonzero().get().unsigned_abs()),
            root: Some(prepared.way),
            ..self.container.state()?
        };
        self.container.write("state.json", &State { started: Some(now()), ..state })?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|source| RunError::Process { action: "hold on to the container", source: source.into() })?;
        let process = Arc::new(Mutex::new(Some(process)));
        let copying = streams.copy(terminal, link)?;
        self.listen(link, &process, settings.detached);
        // The command may be gone already.
        let _ = link.send(&Message::Started, &[]);
        let (layers, chains) = (self.layers.clone(), prepared.layers);
        std::thread::spawn(move || {
            if let Err(error) = layers.settle(&chains) {
                tracing::debug!(%error, "the layers are not settled");
            }
        });
        let code = wait_for(pid, fuse.as_ref(), &process)?;
        process.lock().unwrap_or_else(PoisonError::into_inner).take();
        for thread in copying {
            let _ = thread.join();
        }
        Ok(code)
    }

    /// Has the runtime start the container; gives its first process, and its terminal if it has one.
    fn start(
        &self,
        stdio: [std::process::Stdio; 3],
        console: Option<streams::Console>,
    ) -> Result<(Pid, Option<OwnedFd>), RunError> {
        let mut command = self.runtime.command(&self.container.directory);
        command.args(["run", "--detach", "--pid-file", PID, "--bundle"]).arg(&self.container.directory);
        if console.is_some() {
            command.args(["--console-socket", streams::CONSOLE]);
        }
        let [input, output, error] = stdio;
        command.arg(&self.container.id).stdin(input).stdout(output).stderr(error);
        let status = command.status();
        drop(command);
        let status = status.map_err(|source| RunError::Process { action: "start the container runtime", source })?;
        if !status.success() {
            let text = runtime::complaint(&self.container.directory);
            let text = text.unwrap_or_else(|| format!("the runtime says no more than `{status}`"));
            return Err(RunError::Runtime { code: runtime::exit_code(&text), text });
        }
        let pid = fs::read_to_string(PID).map_err(|error| self.container.failed(PID, error))?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).ok_or(RunError::Lost)?;
        let terminal = console.map(|console| console.terminal(TERMINAL_TIMEOUT)).transpose()?;
        if let (Some(terminal), Some(size)) = (&terminal, self.size) {
            terminal::resize(terminal, size);
        }
        Ok((pid, terminal))
    }

    /// Hands signals on, and ends the container when the user's command is gone, unless it goes on by itself.
    fn listen(&mut self, link: &Arc<Link>, process: &Arc<Mutex<Option<OwnedFd>>>, detached: bool) {
        let (link, process, saved) = (Arc::clone(link), Arc::clone(process), self.saved.take());
        std::thread::spawn(move || {
            let mut insistence = Insistence::default();
            loop {
                let number = match link.receive() {
                    Ok(Some((Message::Signal { number }, _))) => number,
                    Ok(Some(_)) => continue,
                    // The user's command is gone.
                    Ok(None) | Err(_) if detached => return,
                    Ok(None) | Err(_) => {
                        saved.inspect(Saved::restore);
                        signal(&process, Signal::KILL);
                        return;
                    }
                };
                let Some(number) = Signal::from_named_raw(insistence.signal(number)) else { continue };
                signal(&process, number);
            }
        });
    }

    /// Leaves nothing running or mounted, and either a state that says how it ended or no trace.
    fn clear_away(
        &self,
        settings: &Settings,
        result: &Result<u8, RunError>,
        fuse: Option<&Fuse>,
    ) -> Result<(), RunError> {
        if self.container.directory.join("config.json").exists()
            && let Err(error) = self.runtime.delete(&self.container.directory, &self.container.id)
        {
            tracing::debug!(%error, "the runtime does not let go of the container");
        }
        if let Err(error) = overlay::unmount() {
            tracing::debug!(%error, "nothing was mounted");
        }
        if let Some(fuse) = fuse {
            fuse.end();
        }
        match result {
            Ok(code) if !settings.remove => {
                let state = self.container.state()?;
                let ended =
                    State { status: Status::Exited, finished: Some(now()), exit_code: Some(*code), pid: None, ..state };
                self.container.write("state.json", &ended)
            }
            // What was never started is no container.
            _ => self.container.remove_files(),
        }
    }
}

fn signal(process: &Mutex<Option<OwnedFd>>, number: Signal) {
    let process = process.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(process) = &*process {
        // It may have ended this moment.
        let _ = rustix::process::pidfd_send_signal(process, number);
    }
}

/// Waits for the container's first process, and buries whatever else becomes a child of this process meanwhile. Where the
/// container has no root any more, it is ended.
fn wait_for(first: Pid, fuse: Option<&Fuse>, process: &Mutex<Option<OwnedFd>>) -> Result<u8, RunError> {
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(source) => return Err(RunError::Process { action: "wait for the container", source: source.into() }),
        };
        if fuse.is_some_and(|fuse| fuse.pid() == pid) {
            signal(process, Signal::KILL);
        }
        if pid == first {
            let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| SIGNALLED + signal));
            return Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
        }
    }
}
