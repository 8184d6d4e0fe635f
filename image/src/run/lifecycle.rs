//! What is done to containers from outside: listed, signalled, stopped, removed, and cleared away when nobody watches them.
//!
//! Imports its siblings. None of it needs the repository's holder. A container is watched for as long as its lock is held;
//! one that is not watched and did not end is ended here.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    RunError,
    image_config::ImageProcess,
    overlay, pause,
    runtime::{self, Runtime},
    settings::{Settings, parse_signal},
    state::{Container, Containers, State, Status, now},
    watch::KILL,
};

/// How often it is looked whether a container has ended.
const PACE: Duration = Duration::from_millis(10);
/// Time for a container to be gone once it got the signal that nothing withstands.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// What a container is said to have exited with when nobody saw it: as if it had been killed, which it was.
const UNSEEN: u8 = 137;
/// The number of SIGTERM.
const TERM: i32 = 15;

/// One container, for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image, as the user wrote it; foreign text.
    pub image: String,
    /// CID of the image's root.
    pub cid: String,
    /// What it runs; foreign text.
    pub command: Vec<String>,
    /// How it is doing.
    pub state: State,
}

/// Ends and removes what is left of containers that nobody watches. Every command that deals with containers begins so.
///
/// # Errors
/// What the disk says.
pub fn clear(containers: &Containers) -> Result<(), RunError> {
    containers.sweep();
    let all = containers.list()?;
    if all.is_empty() {
        return Ok(());
    }
    // Nobody is made this moment.
    let _making = containers.lock()?;
    for container in all {
        let has_ended = container.state().is_ok_and(|state| state.status == Status::Exited);
        if has_ended {
            continue;
        }
        if !container.directory.join("lock").exists() {
            // Its making was cut off before it had one.
            container.remove_files()?;
            continue;
        }
        let Some(_lock) = container.try_lock()? else {
            pause::resume_forgotten(&container)?;
            continue;
        };
        let runtime = container.state().ok().and_then(|state| state.runtime);
        clear_locked(&container, runtime.map(Runtime::at).as_ref())?;
    }
    Ok(())
}

/// As [`clear`], for one container whose watcher is gone.
pub(super) fn clear_one(container: &Container, runtime: &Runtime) -> Result<(), RunError> {
    let end = Instant::now() + KILL_TIMEOUT;
    loop {
        if let Some(_lock) = container.try_lock()? {
            return clear_locked(container, Some(runtime));
        }
        // Whoever is killed lets go of its files one after another, or somebody else does it.
        if !container.directory.exists() || Instant::now() > end {
            return Ok(());
        }
        std::thread::sleep(PACE);
    }
}

/// Needs the container's lock.
fn clear_locked(container: &Container, runtime: Option<&Runtime>) -> Result<(), RunError> {
    if let Some(runtime) = runtime
        && container.directory.join("config.json").exists()
    {
        let done = runtime.delete(&container.directory, &container.id);
        done.map_err(|source| RunError::Process { action: "have the runtime end a container", source })?;
    }
    // It is mounted in a namespace of its watcher's alone, unless somebody meddled.
    let root = container.directory.join(overlay::ROOT);
    let _ = rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH);
    let was_started = container.state().is_ok_and(|state| state.started.is_some());
    // Without settings it was being made, or removed.
    match container.settings() {
        Ok(Settings { remove: false, .. }) if was_started => {
            let state = container.state()?;
            let ended =
                State { status: Status::Exited, pid: None, finished: Some(now()), exit_code: Some(UNSEEN), ..state };
            container.write("state.json", &ended)
        }
        _ => container.remove_files(),
    }
}

/// All containers, the newest first. One that is being removed this moment is left out.
///
/// # Errors
/// What the disk says.
pub fn list(containers: &Containers) -> Result<Vec<Row>, RunError> {
    let row = |container: Container| -> Option<Row> {
        let (settings, state) = (container.settings().ok()?, container.state().ok()?);
        let image = container.image().unwrap_or_default();
        let process = ImageProcess::parse(image.config.as_bytes()).unwrap_or_default();
        Some(Row {
            id: container.id,
            name: settings.name.clone().unwrap_or_default(),
            command: process.words(&settings).unwrap_or_default(),
            image: settings.image,
            cid: image.cid,
            state,
        })
    };
    let mut rows: Vec<_> = containers.list()?.into_iter().filter_map(row).collect();
    rows.sort_by(|one, other| (other.state.created, &one.name).cmp(&(one.state.created, &other.name)));
    Ok(rows)
}

/// Sends a signal to a container's command.
///
/// # Errors
/// [`RunError::NotRunning`], or what the runtime says.
pub fn kill(container: &Container, signal: i32) -> Result<(), RunError> {
    let (State { runtime: Some(program), .. }, true) = (container.state()?, is_running(container)) else {
        return Err(RunError::NotRunning { id: container.short() });
    };
    let failed = |source| RunError::Process { action: "have the runtime send a signal", source };
    let output = Runtime::at(program).kill(&container.directory, &container.id, signal).map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    if !is_running(container) {
        return Err(RunError::NotRunning { id: container.short() });
    }
    let text = runtime::complaint(&container.directory);
    Err(RunError::Runtime { text: text.unwrap_or_else(|| "it takes no signal".to_owned()), code: 125 })
}

/// Asks a container to end, by its own signal or SIGTERM, and ends it when it has not after `patience`. Blocks.
/// One that has ended is left as it is.
///
/// # Errors
/// [`RunError::StillRunning`], or what the runtime says.
pub fn stop(container: &Container, patience: Duration) -> Result<(), RunError> {
    let asking = container.image().ok().and_then(|image| ImageProcess::parse(image.config.as_bytes()).ok());
    let asking = asking.and_then(|process| parse_signal(&process.stop_signal?).ok()).unwrap_or(TERM);
    for (signal, patience) in [(asking, patience), (KILL, KILL_TIMEOUT)] {
        match kill(container, signal) {
            Err(RunError::NotRunning { .. } | RunError::State { .. }) => {}
            other => other?,
        }
        if wait(container, patience) {
            return Ok(());
        }
    }
    Err(RunError::StillRunning { id: container.short() })
}

/// Removes a container that has ended; with `force` also one that runs. Blocks.
///
/// # Errors
/// [`RunError::Running`], or what the disk says.
pub fn remove(container: &Container, force: bool) -> Result<(), RunError> {
    if is_running(container) {
        if !force {
            return Err(RunError::Running { id: container.short() });
        }
        stop(container, Duration::ZERO)?;
    }
    let end = Instant::now() + KILL_TIMEOUT;
    // Its watcher may still clear away.
    loop {
        if let Some(_lock) = container.try_lock()? {
            return container.remove_files();
        }
        if !container.directory.exists() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(RunError::Running { id: container.short() });
        }
        std::thread::sleep(PACE);
    }
}

/// Whether its command runs.
pub fn is_running(container: &Container) -> bool {
    container.state().is_ok_and(|state| state.status == Status::Running)
}

/// Waits until it has ended; says whether it has.
fn wait(container: &Container, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while is_running(container) {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(PACE);
    }
    true
}

/// The chain IDs of layers that containers use, whatever their images' fate.
///
/// # Errors
/// What the disk says.
pub(crate) fn used_layers(repository: &Path) -> Result<Vec<String>, RunError> {
    let all = Containers::new(repository).list()?;
    Ok(all.iter().filter_map(|container| container.image().ok()).flat_map(|image| image.layers).collect())
}
