//! Containers as containerd keeps them, and the tasks that are their processes.
//!
//! Imports its parent. A container is a record; its task runs under containerd's own shim for runc, which outlives whoever
//! asked for it.

use std::path::Path;

use prost::Message as _;
use tonic::Code;

use super::{
    Containerd, ContainerdError, failed,
    messages::{
        Any, ByName, CloseStreams, Container, CreateTask, Ended, Kill, Mount, Nothing, OneContainer, Resize,
        RuncOptions, Runtime,
    },
    unless_gone,
};

/// The shim, which every containerd since 1.4 has.
const RUNTIME: &str = "io.containerd.runc.v2";
/// What kind of message tells the shim something.
const RUNTIME_OPTIONS: &str = "containerd.runc.v1.Options";
/// What kind of message the `config.json` of a bundle is.
const SPECIFICATION: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The signal that asks a container to end; nerdctl and Kubernetes read it.
const STOP_SIGNAL: &str = "containerd.io/image.config.stop-signal";

/// A container that is to be made.
pub(crate) struct NewContainer<'c> {
    /// What it is called.
    pub(crate) id: &'c str,
    /// Its image.
    pub(crate) image: &'c str,
    /// The bytes of its `config.json`.
    pub(crate) specification: Vec<u8>,
    /// Where its root lies; the snapshot has the container's name.
    pub(crate) snapshotter: &'c str,
    /// The program that runs it; containerd's own choice, if absent.
    pub(crate) program: Option<&'c Path>,
    /// The signal that asks it to end, if it is a special one.
    pub(crate) stop_signal: Option<&'c str>,
}

/// A task that is to be made.
pub(crate) struct NewTask<'t> {
    /// Its container.
    pub(crate) container: &'t str,
    /// The mounts of its root.
    pub(crate) root: Vec<Mount>,
    /// Where its streams come from and go to; nowhere, if empty.
    pub(crate) streams: [String; 3],
    /// Whether it gets a terminal.
    pub(crate) terminal: bool,
}

impl Containerd {
    /// Makes a container, which does nothing yet.
    ///
    /// # Errors
    /// [`ContainerdError::ContainerThere`] when there is one of that name.
    pub(crate) async fn create_container(&self, new: NewContainer<'_>) -> Result<(), ContainerdError> {
        let program = new.program.map(|program| RuncOptions { program: program.display().to_string() });
        let options = program.map(|options| Any { kind: RUNTIME_OPTIONS.to_owned(), value: options.encode_to_vec() });
        let stop_signal = new.stop_signal.map(|signal| (STOP_SIGNAL.to_owned(), signal.to_owned()));
        let container = Container {
            id: new.id.to_owned(),
            labels: stop_signal.into_iter().collect(),
            image: new.image.to_owned(),
            runtime: Some(Runtime { name: RUNTIME.to_owned(), options }),
            spec: Some(Any { kind: SPECIFICATION.to_owned(), value: new.specification }),
            snapshotter: new.snapshotter.to_owned(),
            snapshot_key: new.id.to_owned(),
        };
        let create = OneContainer { container: Some(container) };
        match self.ask("/containerd.services.containers.v1.Containers/Create", create).await {
            Ok(OneContainer { .. }) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                Err(ContainerdError::ContainerThere { id: new.id.to_owned() })
            }
            Err(status) => Err(failed("make a container", &status)),
        }
    }

    /// Forgets a container, whose task is gone. It may be gone as well.
    ///
    /// # Errors
    /// [`ContainerdError`] when it stays.
    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), ContainerdError> {
        let deleting = self.ask("/containerd.services.containers.v1.Containers/Delete", by_name(id));
        unless_gone("remove a container", deleting.await.map(|Nothing {}| ())).map(drop)
    }

    /// Makes the task of a container: all is ready, but its command does not run yet.
    ///
    /// # Errors
    /// [`ContainerdError::Status`] with what the runtime says.
    pub(crate) async fn create_task(&self, new: NewTask<'_>) -> Result<(), ContainerdError> {
        let [input, output, error] = new.streams;
        let container = new.container.to_owned();
        let create = CreateTask { container, root: new.root, input, output, error, terminal: new.terminal };
        let creating = self.ask("/containerd.services.tasks.v1.Tasks/Create", create);
        creating.await.map(|Nothing {}| ()).map_err(|status| failed("make the process of a container", &status))
    }

    /// Starts the command of a task.
    ///
    /// # Errors
    /// [`ContainerdError::Status`] with what the runtime says.
    pub(crate) async fn start_task(&self, container: &str) -> Result<(), ContainerdError> {
        let starting = self.ask("/containerd.services.tasks.v1.Tasks/Start", by_name(container));
        starting.await.map(|Nothing {}| ()).map_err(|status| failed("start a container", &status))
    }

    /// Waits until a task ends; what it ended with, and 128 more than the number of a signal that ended it.
    ///
    /// # Errors
    /// [`ContainerdError`] when containerd goes away meanwhile.
    pub(crate) async fn wait_for_task(&self, container: &str) -> Result<u32, ContainerdError> {
        let waiting = self.ask("/containerd.services.tasks.v1.Tasks/Wait", by_name(container));
        waiting.await.map(|Ended { code }| code).map_err(|status| failed("wait for a container", &status))
    }

    /// Sends a signal to a task. It may be gone.
    ///
    /// # Errors
    /// [`ContainerdError`] when it cannot be sent.
    pub(crate) async fn signal_task(&self, container: &str, signal: u32) -> Result<(), ContainerdError> {
        let kill = Kill { container: container.to_owned(), signal };
        let killing = self.ask("/containerd.services.tasks.v1.Tasks/Kill", kill);
        unless_gone("send a signal", killing.await.map(|Nothing {}| ())).map(drop)
    }

    /// Tells the terminal of a task how large it is.
    ///
    /// # Errors
    /// [`ContainerdError`] when it has none.
    pub(crate) async fn resize_task(&self, container: &str, size: (u16, u16)) -> Result<(), ContainerdError> {
        let (height, width) = (size.0.into(), size.1.into());
        let resize = Resize { container: container.to_owned(), width, height };
        let resizing = self.ask("/containerd.services.tasks.v1.Tasks/ResizePty", resize);
        unless_gone("resize a terminal", resizing.await.map(|Nothing {}| ())).map(drop)
    }

    /// Tells a task that there is no more input.
    ///
    /// # Errors
    /// [`ContainerdError`] when that cannot be told.
    pub(crate) async fn close_input(&self, container: &str) -> Result<(), ContainerdError> {
        let close = CloseStreams { container: container.to_owned(), input: true };
        let closing = self.ask("/containerd.services.tasks.v1.Tasks/CloseIO", close);
        unless_gone("close the input of a container", closing.await.map(|Nothing {}| ())).map(drop)
    }

    /// Forgets a task that has ended, and ends its shim. It may be gone.
    ///
    /// # Errors
    /// [`ContainerdError`] when it still runs.
    pub(crate) async fn delete_task(&self, container: &str) -> Result<(), ContainerdError> {
        let deleting = self.ask("/containerd.services.tasks.v1.Tasks/Delete", by_name(container));
        unless_gone("remove the process of a container", deleting.await.map(|Nothing {}| ())).map(drop)
    }
}

fn by_name(name: &str) -> ByName {
    ByName { name: name.to_owned() }
}
