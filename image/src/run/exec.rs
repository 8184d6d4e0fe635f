//! Runs one more command in a container that runs.
//!
//! Imports its siblings. The runtime joins the streams, and makes a terminal if one is asked for; what it is to do is the
//! container's own bundle with the user's words in it.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

use super::{
    RunError,
    attach::Streams,
    bundle::{capability_sets, process},
    lifecycle::is_running,
    rootfs::{Rootfs, root_of},
    rootless::{Helper, ids::Inside},
    runtime::{self, Runtime},
    state::Container,
    terminal::Saved,
    user::{self, User},
};

/// What a runtime exits with when it could not start a command.
const FAILED: i32 = 255;
/// What a process that was ended by a signal is said to have exited with: this, and the signal's number.
const SIGNALLED: i32 = 128;

/// What a user asks of one more command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSettings {
    /// What to run.
    pub command: Vec<String>,
    /// `NAME=VALUE` pairs, which win over the container's.
    pub environment: Vec<String>,
    /// Where to run it instead of where the container's command runs.
    pub working_directory: Option<String>,
    /// Whom to run it as instead.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether it gets the user's standard input.
    pub interactive: bool,
    /// Whether it goes on by itself.
    pub detached: bool,
}

/// A command that runs.
#[derive(Debug)]
pub struct Executing {
    child: Child,
    folder: tempfile_folder::Folder,
    process: Arc<OwnedFd>,
    saved: Option<Saved>,
}

/// Hands signals to the command from anywhere.
#[derive(Clone, Debug)]
pub struct ExecSignals(Arc<OwnedFd>);

/// Starts a command in a container that runs.
///
/// # Errors
/// [`RunError::NotRunning`], or why it could not be started.
pub fn start(container: &Container, settings: &ExecSettings, streams: Streams) -> Result<Executing, RunError> {
    let state = container.state()?;
    let (Some(program), Some(pid), true) = (state.runtime, state.pid, is_running(container)) else {
        return Err(RunError::NotRunning { id: container.short() });
    };
    let failed = |source| RunError::Process { action: "start a command in the container", source };
    let folder = tempfile_folder::Folder::new(&container.directory).map_err(failed)?;
    let path = folder.path().join("process.json");
    fs::write(&path, described(container, settings, pid)?).map_err(failed)?;
    let (runtime, log) = (Runtime::at(program), folder.path().join(runtime::LOG));
    let mut command = match users_helper(container) {
        // Whoever joins what belongs to a user namespace must belong to it, too.
        Some(helper) => runtime.command_inside(helper, pid, &container.directory, &log),
        None => runtime.command_with_log(&container.directory, &log),
    };
    command.arg("exec").arg("--process").arg(&path);
    let saved = if settings.terminal && settings.interactive { Saved::of(&streams.input) } else { None };
    if settings.detached {
        command.arg("--detach");
    } else {
        if settings.interactive {
            command.stdin(Stdio::from(streams.input));
        }
        command.stdout(Stdio::from(streams.output)).stderr(Stdio::from(streams.error));
    }
    let child = command.arg(&container.id).spawn().map_err(failed)?;
    let process = Pid::from_child(&child);
    let process = rustix::process::pidfd_open(process, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    Ok(Executing { child, folder, process: Arc::new(process), saved })
}

impl Executing {
    /// What hands signals to it.
    pub fn signals(&self) -> ExecSignals {
        ExecSignals(Arc::clone(&self.process))
    }

    /// Waits until it ends; what it ended with. Blocks.
    ///
    /// # Errors
    /// [`RunError::Runtime`] when it could not be started.
    pub fn wait(mut self) -> Result<u8, RunError> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait();
        if let Some(saved) = &self.saved {
            saved.restore();
        }
        let status = status.map_err(|source| RunError::Process { action: "wait for the command", source })?;
        let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(FAILED);
        if let (true, Some(text)) = (matches!(code, FAILED | 1 | 126 | 127), runtime::complaint(self.folder.path())) {
            return Err(RunError::Runtime { code: runtime::exit_code(&text), text });
        }
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}

impl ExecSignals {
    /// Hands a signal to the command. One that has ended does not mind.
    pub fn send(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::pidfd_send_signal(&self.0, signal);
        }
    }
}

/// The process as the runtime wants it described.
fn described(container: &Container, settings: &ExecSettings, pid: u32) -> Result<Vec<u8>, RunError> {
    let failed = |error| container.failed("config.json", error);
    let bundle = fs::read(container.directory.join("config.json")).map_err(failed)?;
    let bundle: Value = serde_json::from_slice(&bundle).map_err(|error| failed(error.into()))?;
    let own = &bundle["process"];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let user = match &settings.user {
        Some(wanted) => of_the_container(container, wanted, pid)?,
        None => User {
            uid: number(&own["user"]["uid"]),
            gid: number(&own["user"]["gid"]),
            groups: own["user"]["additionalGids"].as_array().into_iter().flatten().map(number).collect(),
            home: String::new(),
        },
    };
    let mut environment = texts(&own["env"]);
    for pair in &settings.environment {
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        environment.retain(|known| name(known) != name(pair));
        environment.push(pair.clone());
    }
    if settings.terminal && !environment.iter().any(|pair| pair.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    let directory = settings.working_directory.as_deref().or(own["cwd"].as_str()).unwrap_or("/");
    let mut described = process(&settings.command, &environment, directory, &user, settings.terminal);
    described["capabilities"] = capability_sets(&texts(&own["capabilities"]["bounding"]), user.uid);
    described["noNewPrivileges"] = own["noNewPrivileges"].clone();
    Ok(described.to_string().into_bytes())
}

/// What works in the container's user namespace, if it has one of its own.
fn users_helper(container: &Container) -> Option<&Helper> {
    container.helper.as_ref().filter(|_| !rustix::process::geteuid().is_root())
}

/// Looks a user up in the root of a container that runs.
fn of_the_container(container: &Container, wanted: &str, pid: u32) -> Result<User, RunError> {
    let read = |path: &str| match users_helper(container) {
        // A root by FUSE shows itself to its own namespace alone.
        Some(helper) => helper.read_in_root(pid, path),
        None => Rootfs::open(Path::new(&root_of(pid)))?.read(path),
    };
    let failed = |error| container.failed("rootfs", error);
    let (passwd, group) = (read("/etc/passwd").map_err(failed)?, read("/etc/group").map_err(failed)?);
    let user = user::look_up(wanted, &passwd, &group)?;
    if users_helper(container).is_some() { Inside::of_process(pid).admit(user) } else { Ok(user) }
}

/// A folder for the few files of one command.
mod tempfile_folder {
    use super::{Path, PathBuf, fs, io};

    /// Tries to find a name that nobody uses: more commands than this do not start in one container at a time.
    const TRIES: u32 = 1000;

    /// Removed when dropped.
    #[derive(Debug)]
    pub(super) struct Folder(PathBuf);

    impl Folder {
        pub(super) fn new(parent: &Path) -> io::Result<Self> {
            for number in 0..TRIES {
                let path = parent.join(format!("exec-{}-{number}", std::process::id()));
                match fs::create_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => return other.map(|()| Self(path)),
                }
            }
            Err(io::ErrorKind::AlreadyExists.into())
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // The container may be gone with it.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
