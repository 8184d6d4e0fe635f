//! Who unpacks layers and removes them: root here, be it only of a namespace, and anybody else in a user namespace.
//!
//! Imports its siblings. What comes of it is the same on disk, but for the owners: they are those of the namespace, so each
//! mapping of ids has a folder of layers of its own.

use std::{collections::BTreeSet, io, io::Read, path::Path};

use super::{
    layers::{Layers, Removed},
    rootless::{
        self, Helper, NamespaceError, Unnamed, Unpacked, Work,
        ids::{Mapping, label_of_roots_namespace},
    },
};
use crate::{
    control::{Failure, FailureKind},
    layer::{ApplyError, Options, Staged, stage_layer},
    oci::Digest,
};

/// What unpacks the layers of one repository for the user of this process.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    layers: Layers,
    /// When it is not root.
    user: Option<User>,
    /// How root unpacks.
    options: Options,
}

#[derive(Clone, Debug)]
struct User {
    helper: Option<Helper>,
    is_alone: bool,
}

/// A layer that was unpacked, and has no name yet.
#[derive(Debug)]
pub(crate) enum Nameless {
    /// By this process.
    Here(Box<Staged>),
    /// By another one.
    Inside(Unnamed),
}

impl Keeper {
    /// For the repository in `repository`.
    pub(crate) fn of(repository: &Path, helper: Option<&Helper>) -> Self {
        // It is settled while the container runs.
        let settled_later = |options| Options { sync: false, ..options };
        if let Some(label) = label_of_roots_namespace() {
            let layers = Layers::of_user(repository, &label);
            return Self { layers, user: None, options: settled_later(Options::namespaced()) };
        }
        let options = settled_later(Options::root());
        if rustix::process::geteuid().is_root() {
            return Self { layers: Layers::new(repository), user: None, options };
        }
        let mapping = Mapping::of_this_user();
        let user = User { helper: helper.cloned(), is_alone: mapping.is_single() };
        Self { layers: Layers::of_user(repository, &mapping.label()), user: Some(user), options }
    }

    /// Where the layers lie.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What a user should know who has something unpacked.
    pub(crate) fn note(&self) -> Option<&'static str> {
        self.user.as_ref().is_some_and(|user| user.is_alone).then_some(
            "you have no range of ids, so every file of the image is root's inside, and no other user exists there; \
             /etc/subuid and /etc/subgid give one, with newuidmap and newgidmap (Debian's uidmap) installed",
        )
    }

    /// Removes what killed processes left, and makes the folder.
    pub(crate) fn tidy(&self) -> Result<(), Failure> {
        match (self.layers.tidy(), &self.user) {
            (Err(ApplyError::Place { source, .. }), Some(user)) if source.kind() == io::ErrorKind::PermissionDenied => {
                user.helper()?.remove(&Work::Tidy { folder: self.layers.folder().to_owned() }).map(drop)
            }
            (done, _) => done.map_err(|error| cannot_unpack(&error)),
        }
    }

    /// Unpacks a layer.
    pub(crate) fn unpack(&self, blob: impl Read + Send, media_type: &str, diff: &Digest) -> Result<Nameless, Failure> {
        let folder = self.layers.folder();
        match &self.user {
            Some(user) => user.helper()?.unpack(blob, folder, media_type, diff).map(Nameless::Inside),
            None => {
                let staged = stage_layer(blob, media_type, Some(diff), folder, &self.options);
                staged.map(|layer| Nameless::Here(Box::new(layer))).map_err(|error| cannot_unpack(&error))
            }
        }
    }

    /// Gives a layer its name; `below` are those that it lies on, lowest first.
    pub(crate) fn name(&self, layer: Nameless, chain: &str, below: &[String]) -> Result<Unpacked, Failure> {
        match layer {
            Nameless::Inside(layer) => layer.name(chain, below),
            Nameless::Here(layer) => {
                let named = self.layers.publish(*layer, chain, below);
                named.map(Unpacked::from).map_err(|error| cannot_unpack(&error))
            }
        }
    }

    /// Removes every layer that is not among `kept`.
    pub(crate) fn collect(&self, kept: &BTreeSet<String>) -> Result<Removed, Failure> {
        let failed = |source: io::Error| {
            Failure::from_error(FailureKind::Repository, &source).while_doing("cannot remove layers that nothing uses")
        };
        let mut removed = Removed::default();
        for chain in self.layers.others(kept).map_err(failed)? {
            removed.bytes += match &self.user {
                None => self.layers.remove(&chain).map_err(failed)?,
                Some(user) => {
                    user.helper()?.remove(&Work::RemoveLayer { folder: self.layers.folder().to_owned(), chain })?
                }
            };
            removed.layers += 1;
        }
        Ok(removed)
    }
}

impl User {
    fn helper(&self) -> Result<&Helper, Failure> {
        self.helper.as_ref().ok_or_else(|| rootless::failure(&NamespaceError::NoHelper))
    }
}

/// What a user is told about a layer that could not be unpacked.
pub(crate) fn cannot_unpack(error: &ApplyError) -> Failure {
    let is_full = match error {
        ApplyError::Write { source, .. } | ApplyError::Place { source, .. } => {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    };
    let failure = Failure::from_error(if is_full { FailureKind::Full } else { FailureKind::Content }, error);
    if is_full {
        failure.hint("`shipfs gc` frees what no image needs; nothing that was here before is lost")
    } else {
        failure
    }
}
