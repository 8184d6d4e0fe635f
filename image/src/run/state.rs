//! The containers of a repository, on disk.
//!
//! ```text
//! <repo>/containers/
//!   root-way        how the last root was put together, where users are told when that changes
//!   lock            held for a moment by whoever makes, names or clears away a container
//!   <id>/           0700; the OCI bundle, too
//!     lock          held (flock) for as long as somebody watches the container: the kernel lets go of it, however that ends
//!     settings.json what the user asked for
//!     image.json    what is run: name, root, the chain IDs of its layers; while it is here, no layer of it is removed
//!     state.json    how it is doing; replaced whole
//!     config.json   what the runtime is told
//!     paused        held (flock) by whoever lets the container stand still, see `pause`
//!     upper/ work/ rootfs/ l/   its root (see `overlay`)
//!     etc/ log runtime/   files that appear inside; what it printed; what the runtime keeps
//! ```
//!
//! Imports the settings beside it. Nothing here starts or ends a container.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    RunError,
    rootless::{Helper, Work},
    settings::{RootWay, Settings},
};
use crate::layer::remove::remove_all;

/// The folder of the containers in a repository.
pub(crate) const FOLDER: &str = "containers";
/// How the name of a container begins that is being removed.
const GONE: &str = ".gone-";
/// Random bytes in an identifier.
const ID_BYTES: usize = 32;
/// Letters of an identifier that people see.
pub const SHORT_ID: usize = 12;
/// Largest file of a container that is read: settings are words of a command line.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// How a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub status: Status,
    /// Its first process.
    pub pid: Option<u32>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When its command started.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
    /// What it ended with.
    pub exit_code: Option<u8>,
    /// The runtime that runs it.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// How its root was put together.
    #[serde(default)]
    pub root: Option<RootWay>,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    #[default]
    Created,
    /// Its command runs.
    Running,
    /// Its command has ended.
    Exited,
}

/// The image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    /// CID of its root.
    pub cid: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Chain IDs of its layers, lowest first, in hexadecimal.
    pub layers: Vec<String>,
    /// Its configuration, as text.
    pub config: String,
}

/// The containers of one repository.
#[derive(Clone, Debug)]
pub struct Containers {
    folder: PathBuf,
    helper: Option<Helper>,
}

/// One container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its identifier: 64 hexadecimal digits.
    pub id: String,
    pub(crate) directory: PathBuf,
    pub(crate) helper: Option<Helper>,
}

/// A lock that ends with this value.
#[derive(Debug)]
pub(crate) struct Lock(pub(crate) File);

impl Containers {
    /// The containers of the repository in `repository`.
    pub fn new(repository: &Path) -> Self {
        Self { folder: repository.join(FOLDER), helper: None }
    }

    /// The same, and what works in user namespaces: needed by whoever is not root.
    #[must_use]
    pub fn helped_by(self, helper: Helper) -> Self {
        Self { helper: Some(helper), ..self }
    }

    /// Makes a container that this process watches.
    ///
    /// # Errors
    /// [`RunError::NameTaken`], or what the disk says.
    pub(crate) fn create(&self, settings: &Settings, suggested: &str) -> Result<(Container, Lock), RunError> {
        let _making = self.lock()?;
        let id = random_id().map_err(|source| RunError::State { path: "/dev/urandom".into(), source })?;
        let name = match &settings.name {
            Some(name) => name.clone(),
            None => format!("{suggested}-{}", &id[..5]),
        };
        for other in self.list()? {
            if other.settings().ok().and_then(|other| other.name).as_deref() == Some(&name) {
                return Err(RunError::NameTaken { name, id: other.short() });
            }
        }
        let container = Container { directory: self.folder.join(&id), id, helper: self.helper.clone() };
        private_directory(&container.directory).map_err(|error| container.failed("", error))?;
        let lock = lock_file(&container.directory.join("lock")).map_err(|error| container.failed("lock", error))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| container.failed("lock", error.into()))?;
        container.write("settings.json", &Settings { name: Some(name), ..settings.clone() })?;
        container.write("state.json", &State { created: now(), ..State::default() })?;
        Ok((container, Lock(lock)))
    }

    /// All of them, those whose making was cut off included, in no order.
    ///
    /// # Errors
    /// What the disk says.
    pub fn list(&self) -> Result<Vec<Container>, RunError> {
        let failed = |source| RunError::State { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().filter(|name| is_id(name)) {
                let directory = self.folder.join(id);
                found.push(Container { id: id.to_owned(), directory, helper: self.helper.clone() });
            }
        }
        Ok(found)
    }

    /// The one that a user means: by its name, its identifier, or the beginning of that.
    ///
    /// # Errors
    /// [`RunError::UnknownContainer`], [`RunError::Ambiguous`], or what the disk says.
    pub fn find(&self, text: &str) -> Result<Container, RunError> {
        let all = self.list()?;
        let is_named = |container: &&Container| {
            container.id == text
                || container.settings().ok().and_then(|settings| settings.name).as_deref() == Some(text)
        };
        if let Some(found) = all.iter().find(is_named) {
            return Ok(found.clone());
        }
        let mut beginning = all.into_iter().filter(|container| !text.is_empty() && container.id.starts_with(text));
        match (beginning.next(), beginning.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(RunError::UnknownContainer { text: text.to_owned() }),
            _ => Err(RunError::Ambiguous { text: text.to_owned() }),
        }
    }

    /// Removes what is left of containers whose removal was cut off.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
                // Somebody may be removing it this moment.
                let _ = remove_tree(&entry.path(), self.helper.as_ref());
            }
        }
    }

    /// Waits until nobody else makes or clears away containers.
    pub(crate) fn lock(&self) -> Result<Lock, RunError> {
        let path = self.folder.join("lock");
        let failed = |source| RunError::State { path: path.clone(), source };
        private_directories(&self.folder).map_err(failed)?;
        let file = lock_file(&path).map_err(failed)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Lock(file))
    }
}

impl Container {
    /// The container with this identifier, which must be well-formed.
    pub(crate) fn by_id(repository: &Path, id: &str) -> Option<Self> {
        is_id(id).then(|| Self { id: id.to_owned(), directory: repository.join(FOLDER).join(id), helper: None })
    }

    /// The beginning of the identifier that people see.
    pub fn short(&self) -> String {
        self.id[..SHORT_ID].to_owned()
    }

    /// What the user asked for.
    ///
    /// # Errors
    /// [`RunError::State`] when it cannot be read.
    pub fn settings(&self) -> Result<Settings, RunError> {
        self.read("settings.json")
    }

    /// What is run.
    ///
    /// # Errors
    /// [`RunError::State`] when it cannot be read, or is not known yet.
    pub fn image(&self) -> Result<ContainerImage, RunError> {
        self.read("image.json")
    }

    /// How it is doing.
    ///
    /// # Errors
    /// [`RunError::State`] when it cannot be read.
    pub fn state(&self) -> Result<State, RunError> {
        self.read("state.json")
    }

    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RunError> {
        let write = || {
            let new = self.directory.join(format!("{name}.new"));
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            fs::rename(&new, self.directory.join(name))
        };
        write().map_err(|error| self.failed(name, error))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, RunError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(self.directory.join(name))?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        read().map_err(|error| self.failed(name, error))
    }

    /// Becomes the one that watches it; `None` while somebody does.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, RunError> {
        let file = match self.open_lock() {
            Ok(file) => file,
            // It is gone this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("lock", error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.failed("lock", error.into())),
        }
    }

    /// Removes all that lies on disk of it. Nothing of it may run or be mounted any more.
    pub(crate) fn remove_files(&self) -> Result<(), RunError> {
        // Out of sight first: what has its name has its lock, too.
        let gone = self.directory.with_file_name(format!("{GONE}{}", self.id));
        match fs::rename(&self.directory, &gone).and_then(|()| remove_tree(&gone, self.helper.as_ref())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("", error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn failed(&self, name: &str, source: io::Error) -> RunError {
        RunError::State { path: self.directory.join(name), source }
    }

    fn open_lock(&self) -> io::Result<File> {
        // Not made here: without one, the container is gone.
        fs::OpenOptions::new().write(true).open(self.directory.join("lock"))
    }
}

/// Removes what a container leaves. Some of it may belong to users who only exist in a namespace.
fn remove_tree(path: &Path, helper: Option<&Helper>) -> io::Result<()> {
    match (remove_all(path), helper) {
        (Err(error), Some(helper)) if error.kind() == io::ErrorKind::PermissionDenied => {
            helper.remove(&Work::RemoveTree { path: path.to_owned() }).map(drop).map_err(io::Error::other)
        }
        (done, _) => done,
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a directory that nobody else can look into, and those above it: files in there may be setuid.
pub(crate) fn private_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn is_id(text: &str) -> bool {
    text.len() == ID_BYTES * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An identifier that nobody else has.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0; ID_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_by_what_they_are_called() {
        let folder = tempfile::tempdir().expect("a directory");
        let containers = Containers::new(folder.path());
        assert!(containers.list().expect("lists").is_empty());
        let named = Settings { name: Some("web".into()), ..Settings::default() };
        let (first, lock) = containers.create(&named, "x").expect("made");
        let (second, _lock) = containers.create(&Settings::default(), "busybox").expect("made");
        assert_eq!(containers.find("web").expect("found").id, first.id);
        assert_eq!(containers.find(&second.id[..20]).expect("found").id, second.id);
        assert_eq!(second.settings().expect("read").name, Some(format!("busybox-{}", &second.id[..5])));
        assert!(matches!(containers.create(&named, "x"), Err(RunError::NameTaken { .. })));
        assert!(matches!(containers.find(""), Err(RunError::UnknownContainer { .. })));
        assert!(matches!(containers.find("../containers"), Err(RunError::UnknownContainer { .. })));
        assert!(first.try_lock().expect("looks").is_none(), "somebody watches it");
        drop(lock);
        assert!(first.try_lock().expect("looks").is_some());
        first.remove_files().expect("removed");
        assert_eq!(containers.list().expect("lists").len(), 1);
    }

    #[test]
    fn a_container_is_nobody_elses_to_see() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().expect("a directory");
        let (container, _lock) = Containers::new(folder.path()).create(&Settings::default(), "x").expect("made");
        for path in [container.directory.clone(), folder.path().join(FOLDER)] {
            assert_eq!(fs::metadata(path).expect("there").mode() & 0o777, 0o700);
        }
        assert!(Container::by_id(folder.path(), "../../etc").is_none());
    }
}
