//! Where the services of other programs are reached: registries, Docker, containerd, podman.
//!
//! Imports [`programs`](crate::programs) and [`registry_client`](crate::registry_client) for their settings. Plain data that
//! survives a socket, since whoever carries a verb out may be another process than the one that knows its user's
//! environment. No secret is in here, only where secrets lie, but for a password that the address of a proxy may hold.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{programs::Programs, registry_client::Registries};

/// Where other programs' services are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Services {
    /// Registries.
    pub registries: Registries,
    /// Docker's socket.
    pub docker: PathBuf,
    /// podman's sockets; the first that is there is used.
    pub podman: Vec<PathBuf>,
    /// containerd's socket.
    pub containerd: PathBuf,
    /// containerd's namespace.
    pub containerd_namespace: String,
    /// What unpacks layers for containerd.
    pub containerd_snapshotter: String,
    /// How programs are found and run: credential helpers, and `podman` where its socket is not there.
    pub programs: Programs,
}

impl Default for Services {
    /// The places that these programs use unless told otherwise.
    fn default() -> Self {
        Self {
            registries: Registries::default(),
            docker: PathBuf::from("/var/run/docker.sock"),
            podman: vec![PathBuf::from("/run/podman/podman.sock")],
            containerd: PathBuf::from("/run/containerd/containerd.sock"),
            containerd_namespace: "default".to_owned(),
            containerd_snapshotter: "overlayfs".to_owned(),
            programs: Programs::default(),
        }
    }
}
