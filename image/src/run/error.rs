//! Why a container could not be run, or not be dealt with.
//!
//! Imports the errors of its siblings. What the process exits with is decided here, as Docker and shells do it.

use std::{io, path::PathBuf};

use super::{
    bundle::CapabilityError, image_config::ImageProcessError, rootless, rootless::NamespaceError,
    runnable::RunnableError, settings::RootWay, user::UserError,
};
use crate::{
    containerd::ContainerdError,
    control::{Failure, FailureKind},
    oci::PlatformError,
    plan::PlanError,
    source::SourceError,
};

/// Why a container could not be run, or not be dealt with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// What lies on disk of a container cannot be read or written.
    #[error("cannot work with `{}`", path.display())]
    State {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is another container of that name.
    #[error("container `{id}` is called `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
        /// The other container.
        id: String,
    },
    /// There is no such container.
    #[error("there is no container `{}`", text.escape_debug())]
    UnknownContainer {
        /// What was looked for.
        text: String,
    },
    /// Several are meant.
    #[error("more than one container begins with `{}`", text.escape_debug())]
    Ambiguous {
        /// What was looked for.
        text: String,
    },
    /// It runs, and must not.
    #[error("container `{id}` is running")]
    Running {
        /// The container.
        id: String,
    },
    /// It does not run, but must.
    #[error("container `{id}` is not running")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// It does not end.
    #[error("container `{id}` did not end")]
    StillRunning {
        /// The container.
        id: String,
    },
    /// The image does not say how to run it.
    #[error(transparent)]
    Image(#[from] ImageProcessError),
    /// The image is none that can be run.
    #[error(transparent)]
    Runnable(#[from] RunnableError),
    /// containerd did not do what it was asked.
    #[error(transparent)]
    Containerd(#[from] Box<ContainerdError>),
    /// What containerd has of the image cannot be read.
    #[error(transparent)]
    Source(#[from] Box<SourceError>),
    /// The documents of an image of containerd's break a rule.
    #[error(transparent)]
    Documents(Box<PlanError<SourceError>>),
    /// A platform is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The user does not want it any more.
    #[error("interrupted")]
    Interrupted,
    /// Whom to run as is not known.
    #[error(transparent)]
    User(#[from] UserError),
    /// A capability cannot be given.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The working directory leads out of the image.
    #[error("the working directory `{}` is not inside the image", path.escape_debug())]
    WorkingDirectory {
        /// The directory.
        path: String,
    },
    /// A host name that is none.
    #[error("`{}` is no name of a host", name.escape_debug())]
    Hostname {
        /// The name.
        name: String,
    },
    /// What is to be mounted is not there.
    #[error("cannot mount `{}` into the container", path.display())]
    Volume {
        /// The path on the host.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A limit was asked for that this host cannot keep.
    #[error("this host cannot limit {what}: the `{controller}` controller of cgroups is not there")]
    Limit {
        /// What was to be limited.
        what: &'static str,
        /// What is missing.
        controller: &'static str,
    },
    /// A limit was asked for by a user to whom no cgroup is given.
    #[error("{what} cannot be limited: a user's containers have no cgroup here")]
    UsersLimit {
        /// What was to be limited.
        what: &'static str,
    },
    /// There is no namespace to run it in.
    #[error(transparent)]
    Rootless(#[from] NamespaceError),
    /// A user or a group that the namespace has no id for.
    #[error("{what} {id} does not exist in the container: this user has no id to give it")]
    Unmapped {
        /// `user` or `group`.
        what: &'static str,
        /// Its number.
        id: u32,
    },
    /// There is no runtime.
    #[error("no container runtime was found: looked for {looked_for}")]
    NoRuntime {
        /// What was looked for.
        looked_for: String,
    },
    /// There are more layers than can be mounted.
    #[error("the image has {count} layers, at most {limit} can be mounted")]
    TooManyLayers {
        /// How many it has.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The kernel lets this process not have mounts of its own.
    #[error("cannot make mounts that are the container's alone")]
    Namespace(#[source] io::Error),
    /// The root could not be mounted.
    #[error("cannot put the container's root together out of {layers} layers ({way})")]
    Mount {
        /// By what way.
        way: RootWay,
        /// How many layers there were.
        layers: usize,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The runtime could not be started, or says no.
    #[error("the container could not be started: {text}")]
    Runtime {
        /// What it says.
        text: String,
        /// What to exit with.
        code: u8,
    },
    /// The runtime cannot stop it where it is.
    #[error("container `{id}` cannot be paused: {text}")]
    Pause {
        /// The container.
        id: String,
        /// What the runtime says.
        text: String,
    },
    /// A process of this program could not do its part.
    #[error("cannot {action}")]
    Process {
        /// What was being done.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The process that watches the container is gone.
    #[error("the process that watched the container was killed; the container was ended")]
    Lost,
    /// The watcher says why it failed.
    #[error("{failure}")]
    Watcher {
        /// What it says.
        failure: Failure,
        /// What to exit with.
        code: u8,
    },
}

impl RunError {
    /// What `run` exits with: 127 when the command is not there, 126 when it is no program, 125 in every other case.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime { code, .. } | Self::Watcher { code, .. } => *code,
            _ => 125,
        }
    }

    /// What a user is told.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Watcher { failure, .. } => return failure.clone(),
            Self::Rootless(error) => return rootless::failure(error),
            _ => {}
        }
        let kind = match self {
            Self::UnknownContainer { .. } | Self::Ambiguous { .. } => FailureKind::NotFound,
            Self::NameTaken { .. } | Self::Running { .. } | Self::NotRunning { .. } => FailureKind::Other,
            Self::State { source, .. } if source.kind() == io::ErrorKind::StorageFull => FailureKind::Full,
            Self::State { .. } => FailureKind::Repository,
            Self::Runnable(RunnableError::NotThere) => FailureKind::NotFound,
            Self::Runnable(_) | Self::Documents(_) => FailureKind::Content,
            Self::Platform(_) => FailureKind::Usage,
            Self::Containerd(_) | Self::Source(_) => FailureKind::Place,
            Self::Interrupted => return Failure::interrupted(),
            _ => FailureKind::Other,
        };
        let failure = Failure::from_error(kind, self);
        let hint = match self {
            Self::UnknownContainer { .. } => "`shipfs ps -a` lists the containers",
            Self::NameTaken { .. } => "`shipfs rm` removes it, or use another --name",
            Self::Running { .. } => "`shipfs stop` ends it, or use `shipfs rm --force`",
            Self::NoRuntime { .. } => "install runc or crun, or name one with --runtime PATH",
            Self::Image(ImageProcessError::NoCommand) => "name a command after the image",
            Self::Runnable(RunnableError::NotThere | RunnableError::Foreign { .. }) => "--platform names another one",
            Self::Containerd(error) => match &**error {
                ContainerdError::Connect { .. } => "is containerd running? --address names its socket",
                ContainerdError::ContainerThere { .. } => "`ctr containers rm` removes it, or use another --name",
                _ => return failure,
            },
            Self::WorkingDirectory { .. } => "name another one with --workdir",
            Self::Namespace(_) => {
                "root needs CAP_SYS_ADMIN for that; any other user gets a namespace where the kernel has some"
            }
            Self::UsersLimit { .. } => "run it as root, whose containers have cgroups",
            Self::Unmapped { .. } => {
                "--user 0 is you; others exist once /etc/subuid and /etc/subgid give you a range, and newuidmap and \
                 newgidmap (Debian's uidmap) are installed"
            }
            Self::User(_) => "--user takes numbers, too",
            Self::Pause { .. } => "--pause=false reads its files while it may be changing them",
            Self::Volume { .. } => "the source of a volume must exist",
            _ => return failure,
        };
        failure.hint(hint)
    }
}
