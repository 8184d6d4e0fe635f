//! Docker and podman: programs that give an image as an archive, and take one.
//!
//! Both speak Docker's API over a Unix socket (`socket`); podman and buildah, which need no service, are also asked by
//! their command (`command`). Imports [`programs`](crate::programs) and [`services`](crate::services). Everything blocks;
//! the async threads do the waiting.

mod command;
mod socket;

use std::{
    io::{Read, Write},
    path::PathBuf,
};

use tokio::runtime::Handle;

use self::{command::Command, socket::Socket};
use crate::{oci::Digest, reference::Name, services::Services};

/// What Docker is called.
const DOCKER: &str = "Docker";

/// A program that keeps images.
#[derive(Debug)]
pub(crate) enum Engine {
    /// Behind its socket.
    Socket(Socket),
    /// As a command.
    Command(Command),
}

/// An archive on its way to an engine. The last call says whether it was taken.
pub(crate) struct Loading {
    /// Takes the archive; dropping it ends the archive.
    pub(crate) archive: Box<dyn Write + Send>,
    /// Waits for the engine's word once the archive is complete. Dropping it gives the archive up.
    pub(crate) verdict: Box<dyn FnOnce() -> Result<(), EngineError> + Send>,
}

/// An image that an engine has, as it tells of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Its ID: the digest of its configuration, or, where Docker keeps images in containerd, of its manifest or index.
    pub(crate) id: Option<Digest>,
    /// What its layers hash to, plain, from the lowest up.
    pub(crate) layers: Vec<Digest>,
}

impl Held {
    /// Reads what an engine tells; what it tells in another way is not known.
    fn parse(told: &[u8]) -> Self {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct Told {
            id: String,
            #[serde(rename = "RootFS")]
            root_fs: RootFs,
        }
        #[derive(Default, serde::Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        struct RootFs {
            layers: Option<Vec<String>>,
        }
        let told: Told = serde_json::from_slice(told).unwrap_or_default();
        // podman's command leaves out how it was hashed.
        let id = told.id.parse().or_else(|_| format!("sha256:{}", told.id).parse());
        let layers: Result<Vec<Digest>, _> =
            told.root_fs.layers.unwrap_or_default().iter().map(|layer| layer.parse()).collect();
        match (id, layers) {
            (Ok(id), Ok(layers)) => Self { id: Some(id), layers },
            _ => Self::default(),
        }
    }
}

impl Engine {
    /// The Docker daemon.
    ///
    /// # Errors
    /// [`EngineError::Setup`].
    pub(crate) fn docker(services: &Services, runtime: &Handle) -> Result<Self, EngineError> {
        Ok(Self::Socket(Socket::new(DOCKER, services.docker.clone(), runtime)?))
    }

    /// podman, by its socket if there is one.
    ///
    /// # Errors
    /// [`EngineError::Absent`] when there is neither a socket nor a command.
    pub(crate) fn podman(services: &Services, runtime: &Handle) -> Result<Self, EngineError> {
        if let Some(path) = services.podman.iter().find(|path| path.exists()) {
            return Ok(Self::Socket(Socket::new("podman", path.clone(), runtime)?));
        }
        Command::find(&services.programs).map(Self::Command).ok_or(EngineError::Absent { engine: "podman" })
    }

    /// What to call it.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Socket(socket) => socket.title(),
            Self::Command(command) => command.title(),
        }
    }

    /// Whether it has the image called `image`: a name, or an ID.
    pub(crate) fn has(&self, image: &str) -> Result<bool, EngineError> {
        match self {
            Self::Socket(socket) => Ok(socket.held(image)?.is_some()),
            Self::Command(command) => command.has(image),
        }
    }

    /// The same, and what it tells of the image.
    pub(crate) fn held(&self, image: &str) -> Result<Option<Held>, EngineError> {
        match self {
            Self::Socket(socket) => socket.held(image),
            Self::Command(command) => command.held(image),
        }
    }

    /// Whether it takes archives without the layers that it has.
    pub(crate) fn reuses_layers(&self) -> bool {
        matches!(self, Self::Socket(socket) if socket.is_docker())
    }

    /// How many of these layers, from the lowest up, it has one upon the other, and so need not be in an archive.
    pub(crate) fn count_held(&self, diff_ids: &[Digest]) -> Result<usize, EngineError> {
        match self {
            Self::Socket(socket) if socket.is_docker() => socket.count_held(diff_ids),
            _ => Ok(0),
        }
    }

    /// The archive of an image.
    pub(crate) fn export(&self, image: &str) -> Result<Box<dyn Read + Send>, EngineError> {
        match self {
            Self::Socket(socket) => socket.export(image),
            Self::Command(command) => command.export(image),
        }
    }

    /// Begins to hand an archive over.
    pub(crate) fn load(&self) -> Result<Loading, EngineError> {
        match self {
            Self::Socket(socket) => Ok(socket.load()),
            Self::Command(command) => command.load(),
        }
    }

    /// Gives an image that is there one more name.
    pub(crate) fn tag(&self, id: &Digest, name: &Name) -> Result<(), EngineError> {
        match self {
            Self::Socket(socket) => socket.tag(id, name),
            Self::Command(command) => command.tag(id, name),
        }
    }
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A client cannot be set up.
    #[error("cannot set up a client for {engine}")]
    Setup {
        /// The engine.
        engine: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It is not there.
    #[error("there is no {engine} here")]
    Absent {
        /// The engine.
        engine: &'static str,
    },
    /// Nobody answers at its socket, or the conversation broke.
    #[error("cannot speak with {engine} at `{}`", path.display())]
    Connection {
        /// The engine.
        engine: &'static str,
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{engine} could not {what}: {}", said.escape_debug())]
    Refused {
        /// The engine.
        engine: &'static str,
        /// What it was asked.
        what: &'static str,
        /// What it said, shortened.
        said: String,
    },
    /// Its command cannot be run.
    #[error("cannot run `{}`", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}
