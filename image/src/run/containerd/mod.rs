//! Has containerd run an image that it has.
//!
//! Reading order: `image` (what containerd has, and having it unpacked), `root` (looking into the container's root),
//! `streams`, then [`start`] and [`Started::wait`] here. Imports its siblings and the client of containerd. What the container
//! is told is the same as without containerd, by the same code. Whatever is made is held by a lease until the container holds
//! it; a container that could not be started leaves nothing. One that goes on by itself is containerd's own.

mod image;
mod root;
mod streams;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::{
    image::Kept,
    root::Root,
    streams::{Copying, Happened, Pipes},
};
use super::{
    RunError,
    attach::Streams,
    bundle::Surroundings,
    image_config::ImageProcess,
    runtime,
    settings::{ContainerNetwork, Settings},
    state::random_id,
    terminal,
    watch::{Insistence, KILL},
};
use crate::{
    containerd::{Containerd, ContainerdError, Mount, NewContainer, NewTask},
    control::PlatformChoice,
    reference::Reference,
    services::Services,
};

/// Letters of a random identifier in a name that is made up.
const RANDOM_LETTERS: usize = 5;
/// Longest name that is made up: containerd takes 76 letters.
const MAX_SUGGESTED: usize = 60;
/// Things that happened to streams and were not looked at yet.
const HAPPENED_AT_A_TIME: usize = 4;
/// Longest that containerd may be away while a container of its runs: time for an upgrade.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether it is there again.
const RESTART_PACE: Duration = Duration::from_millis(100);
/// What nerdctl wants to know of a container before it removes it.
const NETWORKS: &str = "nerdctl/networks";
/// What the shim says before it says what the runtime does.
const OF_THE_RUNTIME: [&str; 2] = ["OCI runtime create failed: ", "OCI runtime start failed: "];
/// What it says when there is no runtime to say anything.
const NO_RUNTIME: &str = "unable to retrieve OCI runtime error";
/// The numbers of the signals that ask programs to end: SIGHUP, SIGINT, SIGQUIT, SIGTERM.
const ENDING: [i32; 4] = [1, 2, 3, 15];
/// The number of the signal that tells of a new size of the terminal.
const WINDOW_CHANGED: i32 = 28;

/// What containerd calls the image that a user names; nothing for a digest.
pub fn image_name(reference: &Reference) -> Option<String> {
    crate::containerd::image_name(reference)
}

/// An image of containerd's, and how it is to be run.
#[derive(Debug)]
pub struct Order<'o> {
    /// Where containerd is.
    pub services: &'o Services,
    /// What containerd calls the image.
    pub image: &'o str,
    /// Which platform of it.
    pub platforms: &'o PlatformChoice,
    /// What the user asks.
    pub settings: &'o Settings,
    /// The beginning of the container's name, if the user gives none.
    pub suggested: &'o str,
    /// The program that runs it; containerd's own choice, if absent.
    pub runtime: Option<PathBuf>,
    /// An empty directory that nobody else can look into.
    pub folder: &'o Path,
}

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    client: Containerd,
    id: String,
    settings: Settings,
    snapshotter: String,
    copying: Copying,
    happened: mpsc::Receiver<Happened>,
    /// The user's terminal.
    screen: Option<OwnedFd>,
}

/// Whether containerd has all of an image that running it needs.
///
/// # Errors
/// [`RunError`] when containerd does not say.
pub async fn is_there(services: &Services, image: &str, platforms: &PlatformChoice) -> Result<bool, RunError> {
    let client = connect(services).await?;
    match image::read(services, image, &wanted(platforms)?).await {
        Ok(kept) => kept.is_whole(&client, &services.containerd_snapshotter).await,
        Err(error) if image::is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a container. A signal that asks programs to end gives it up while its layers are being unpacked; later ones are
/// the container's. Dropped half-way, what was made goes with its lease.
///
/// # Errors
/// [`RunError`]; nothing of the container is left then.
pub async fn start(order: Order<'_>, own: Streams, signals: &mut mpsc::Receiver<i32>) -> Result<Started, RunError> {
    let client = connect(order.services).await?;
    let kept = image::read(order.services, order.image, &wanted(order.platforms)?).await?;
    let leased = client.leased().await.map_err(Box::new)?;
    let snapshotter = order.services.containerd_snapshotter.clone();
    let unpacked = tokio::select! {
        unpacked = kept.unpack(&leased, &snapshotter) => unpacked,
        () = asked_to_end(signals) => Err(RunError::Interrupted),
    };
    let size = terminal::size(&own.output).or_else(|| terminal::size(&own.input));
    let made = match unpacked {
        Ok(()) => make(&order, &kept, &leased, size).await,
        Err(error) => Err(error),
    };
    // The container holds what it needs by now.
    if let Err(error) = leased.release().await {
        tracing::warn!(%error, "a lease of containerd is left, for a day at most");
    }
    let (id, mounts) = made?;
    let settings = order.settings.clone();
    match run(&client, &order, &id, mounts, own, size).await {
        Ok(Running { copying, happened, screen }) => {
            Ok(Started { client, id, settings, snapshotter, copying, happened, screen })
        }
        Err(error) => {
            end(&client, &id).await;
            tell(&id, client.delete_container(&id).await);
            tell(&id, client.remove_snapshot(&snapshotter, &id).await);
            Err(error)
        }
    }
}

/// Waits for a signal that asks programs to end.
async fn asked_to_end(signals: &mut mpsc::Receiver<i32>) {
    loop {
        match signals.recv().await {
            Some(number) if ENDING.contains(&number) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Makes the container, or leaves nothing of it; what it is called, and the mounts of its root.
async fn make(
    order: &Order<'_>,
    kept: &Kept,
    client: &Containerd,
    size: Option<(u16, u16)>,
) -> Result<(String, Vec<Mount>), RunError> {
    let settings = order.settings;
    let id = match &settings.name {
        Some(name) => name.clone(),
        None => suggest(order.suggested).map_err(|source| RunError::State { path: "/dev/urandom".into(), source })?,
    };
    let snapshotter = &order.services.containerd_snapshotter;
    let mounts = client.prepare_snapshot(snapshotter, &id, &kept.top()).await.map_err(Box::new)?;
    let cgroup = format!("/{}/{id}", order.services.containerd_namespace);
    let networks = match settings.network {
        ContainerNetwork::None => "[\"none\"]",
        ContainerNetwork::Host => "[\"host\"]",
    };
    let surroundings =
        Surroundings { cgroup, size, annotations: [(NETWORKS, networks)].into(), ..Surroundings::default() };
    let root = Root { mounts: mounts.clone(), place: order.folder.to_owned(), surroundings };
    let config = &kept.runnable.config;
    let composing = root::on_a_thread(root, settings.clone(), config.clone(), id.clone());
    let creating = async {
        let specification = composing.await?;
        let process = ImageProcess::parse(config.as_bytes())?;
        let new = NewContainer {
            id: &id,
            image: order.image,
            specification,
            snapshotter,
            program: order.runtime.as_deref(),
            stop_signal: process.stop_signal.as_deref(),
        };
        Ok(client.create_container(new).await.map_err(Box::new)?)
    };
    match creating.await {
        Ok(()) => Ok((id, mounts)),
        Err(error) => {
            tell(&id, client.remove_snapshot(snapshotter, &id).await);
            Err(error)
        }
    }
}

/// The streams of a container that runs.
struct Running {
    copying: Copying,
    happened: mpsc::Receiver<Happened>,
    screen: Option<OwnedFd>,
}

/// Makes the task of a container and starts it.
async fn run(
    client: &Containerd,
    order: &Order<'_>,
    id: &str,
    root: Vec<Mount>,
    own: Streams,
    size: Option<(u16, u16)>,
) -> Result<Running, RunError> {
    let failed = |source| RunError::Process { action: "make the streams of the container", source };
    let terminal = order.settings.terminal;
    let screen = if terminal { Some(own.output.try_clone().map_err(failed)?) } else { None };
    let pipes = Pipes::make(order.folder, order.settings).map_err(failed)?;
    let new = NewTask { container: id, root, streams: pipes.paths(), terminal };
    client.create_task(new).await.map_err(explained)?;
    if let (Some(size), true) = (size, terminal) {
        tell(id, client.resize_task(id, size).await);
    }
    let (sender, happened) = mpsc::channel(HAPPENED_AT_A_TIME);
    let copying = pipes.copy(own, terminal, &sender).map_err(failed)?;
    client.start_task(id).await.map_err(explained)?;
    Ok(Running { copying, happened, screen })
}

impl Started {
    /// What the container is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits until it ends, and hands signals on meanwhile; what it ended with. Its process is gone then, and with
    /// [`Settings::remove`] everything else of it. Dropped half-way, it runs on.
    ///
    /// # Errors
    /// [`RunError`] when containerd goes away meanwhile.
    pub async fn wait(mut self, mut signals: mpsc::Receiver<i32>) -> Result<u8, RunError> {
        let (client, id) = (self.client.clone(), self.id.clone());
        let waiting = ended(&client, &id);
        tokio::pin!(waiting);
        let mut insistence = Insistence::default();
        let mut streams_are_there = true;
        let code = loop {
            let sent = tokio::select! {
                code = &mut waiting => break code.map_err(Box::new)?,
                happened = self.happened.recv(), if streams_are_there => match happened {
                    // A terminal is told so by its keys.
                    Some(Happened::InputEnded) if self.settings.terminal => Ok(()),
                    Some(Happened::InputEnded) => client.close_input(&id).await,
                    // Whoever has no reader is ended, as in a pipe between two programs.
                    Some(Happened::OutputLost) => client.signal_task(&id, KILL.unsigned_abs()).await,
                    None => { streams_are_there = false; Ok(()) }
                },
                Some(number) = signals.recv() => self.pass_on(number, &mut insistence).await,
            };
            tell(&id, sent);
        };
        let copying = self.copying;
        client.delete_task(&id).await.map_err(Box::new)?;
        let finished = tokio::task::spawn_blocking(move || copying.finish()).await;
        let lost =
            |error| RunError::Process { action: "hand on what was printed", source: std::io::Error::other(error) };
        finished.map_err(lost)?;
        if self.settings.remove {
            client.delete_container(&id).await.map_err(Box::new)?;
            client.remove_snapshot(&self.snapshotter, &id).await.map_err(Box::new)?;
        }
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    async fn pass_on(&self, number: i32, insistence: &mut Insistence) -> Result<(), ContainerdError> {
        if number != WINDOW_CHANGED {
            return self.client.signal_task(&self.id, insistence.signal(number).unsigned_abs()).await;
        }
        match self.screen.as_ref().and_then(terminal::size) {
            Some(size) => self.client.resize_task(&self.id, size).await,
            None => Ok(()),
        }
    }
}

/// What a task ends with. containerd may be started anew meanwhile: the shim and the pipes outlive it.
async fn ended(client: &Containerd, id: &str) -> Result<u32, ContainerdError> {
    let mut since = None;
    loop {
        match client.wait_for_task(id).await {
            Err(ContainerdError::Gone { .. }) if since.get_or_insert_with(Instant::now).elapsed() < RESTART_TIMEOUT => {
                tokio::time::sleep(RESTART_PACE).await;
            }
            other => return other,
        }
    }
}

/// Ends whatever runs of a container that was not made whole.
async fn end(client: &Containerd, id: &str) {
    let ending = async {
        client.signal_task(id, KILL.unsigned_abs()).await?;
        client.wait_for_task(id).await?;
        client.delete_task(id).await
    };
    tell(id, ending.await);
}

/// Notes what was not done of something that nothing else depends on.
fn tell(id: &str, done: Result<(), ContainerdError>) {
    if let Err(error) = done {
        tracing::info!(%error, id, "containerd did not do all that it was asked");
    }
}

async fn connect(services: &Services) -> Result<Containerd, RunError> {
    let connecting = Containerd::connect(&services.containerd, &services.containerd_namespace);
    Ok(connecting.await.map_err(Box::new)?)
}

fn wanted(platforms: &PlatformChoice) -> Result<crate::oci::Platforms, RunError> {
    platforms.parse().map_err(RunError::Platform)
}

/// A name that is made up: containerd takes letters and digits, and single signs between them.
fn suggest(beginning: &str) -> std::io::Result<String> {
    let words = beginning.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut name = words.collect::<Vec<_>>().join("-");
    name.truncate(MAX_SUGGESTED);
    Ok(format!("{}-{}", name.trim_end_matches('-'), &random_id()?[..RANDOM_LETTERS]))
}

/// What a runtime says of a command that it cannot start decides what is exited with.
fn explained(error: ContainerdError) -> RunError {
    if let ContainerdError::Status { said, .. } = &error
        && let Some(text) = OF_THE_RUNTIME.iter().find_map(|before| said.split_once(before))
        && !said.contains(NO_RUNTIME)
    {
        let text = runtime::reason(text.1).trim_end_matches(": unknown").to_owned();
        return RunError::Runtime { code: runtime::exit_code(&text), text };
    }
    RunError::from(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are those of containerd 1.6 and 2.x, with runc and crun.
    #[test]
    fn what_the_shim_says_decides_the_exit_code() {
        let said = |text: &str| {
            let error = explained(ContainerdError::Status { what: "start", said: text.to_owned() });
            (error.exit_code(), error.to_string())
        };
        let missing = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
            container process: exec: \"nope\": executable file not found in $PATH: unknown";
        let (code, text) = said(missing);
        assert_eq!(code, 127);
        assert_eq!(text, "the container could not be started: exec: \"nope\": executable file not found in $PATH");
        let crun = "failed to create shim task: OCI runtime create failed: crun: executable file `nope` not found in \
            $PATH: No such file or directory: unknown";
        assert_eq!(said(crun).0, 127);
        let shim =
            "failed to start shim: exec: \"containerd-shim-runc-v2\": executable file not found in $PATH: unknown";
        assert_eq!(said(shim).0, 125);
        let no_runtime = "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error \
            (open /x/log.json: no such file or directory): exec: \"runc\": executable file not found in $PATH: unknown";
        assert_eq!(said(no_runtime).0, 125);
    }

    #[test]
    fn names_that_are_made_up_are_names_of_containerd() {
        let name = suggest("a__b.-c").expect("a name");
        assert!(name.starts_with("a-b-c-") && name.len() == 11, "{name}");
        assert!(suggest(&"x".repeat(200)).expect("a name").len() <= 76);
    }
}
