//! A client of registries: the OCI distribution protocol, with Docker's ways of being let in.
//!
//! Reading order: `endpoint` (where a registry is, and where it may lead), `http` and `proxy` (how it is spoken to), `credentials` and `login` (the files of
//! Docker and podman), `challenge` and `token` (how to be let in), `request` (one request: let in, led on, tried again),
//! `documents`, `download` and `upload` (what is asked for). Imports [`oci`](crate::oci), [`reference`](crate::reference),
//! [`blobs::Body`](crate::blobs::Body) and [`programs`](crate::programs). Nothing a registry says is believed: documents
//! are hashed, blobs end where their descriptor says, and a secret goes to nobody but the origin it is for.

mod challenge;
mod credentials;
mod documents;
mod download;
mod endpoint;
mod error;
mod http;
mod login;
mod proxy;
mod request;
mod secret;
#[cfg(test)]
mod tests;
mod token;
mod upload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

pub(crate) use self::download::Download;
pub use self::{
    credentials::CredentialError,
    error::RegistryError,
    http::CertificateProblem,
    login::{Login, log_in, log_out},
    proxy::{Proxies, ProxyAddress},
    secret::Secret,
};
use self::{credentials::Credentials, endpoint::Endpoint, http::Http, request::Pauses, token::Authorization};
use crate::{bring::blocking, programs::Programs, reference::Name};

/// What requests say of who sends them.
const USER_AGENT: &str = concat!("shipfs/", env!("CARGO_PKG_VERSION"));
/// Longest wait for a connection: three tries of TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence in the middle of an answer, before it counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What is known about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// Files with credentials, in the form of Docker and podman; the first that has some for a registry wins.
    pub credential_files: Vec<PathBuf>,
    /// Whether to speak plain HTTP with every registry, rather than only with those on this host.
    pub plain_http: bool,
    /// Files and folders with the authorities that are trusted in place of the system's.
    pub authorities: Vec<PathBuf>,
    /// Folders with one folder for each registry, called by its domain: authorities that are trusted for it as well
    /// (`*.crt`), and what it is shown (`*.cert`, with its key in `*.key`).
    pub certificate_folders: Vec<PathBuf>,
    /// How registries are reached.
    pub proxies: Proxies,
    /// Hosts from which layers are fetched that an image says are there rather than in its registry.
    pub foreign_hosts: Vec<String>,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// A client of one repository of one registry.
#[derive(Debug)]
pub(crate) struct RegistryClient {
    http: Http,
    endpoint: Endpoint,
    repository: String,
    /// Other repositories of the registry that blobs may be taken over from.
    siblings: Vec<String>,
    access: Access,
    credentials: Option<Credentials>,
    /// The password for each other host that was asked for a token is looked up there.
    lookup: Lookup,
    authorization: Mutex<Option<Authorization>>,
    foreign_hosts: Vec<String>,
    pauses: Pauses,
}

/// Where credentials are looked up.
#[derive(Clone, Debug)]
struct Lookup {
    files: Arc<Vec<PathBuf>>,
    programs: Arc<Programs>,
}

impl Lookup {
    async fn find(&self, domain: &str, repository: &str) -> Result<Option<Credentials>, CredentialError> {
        let (lookup, domain, repository) = (self.clone(), domain.to_owned(), repository.to_owned());
        blocking(move || credentials::find(&lookup.files, &lookup.programs, &domain, &repository)).await
    }
}

impl RegistryClient {
    /// Reaches the registry of `name`, and finds out how it is spoken to.
    ///
    /// # Errors
    /// [`RegistryError`] when it cannot be reached, or credentials cannot be read.
    pub(crate) async fn connect(
        name: &Name,
        registries: &Registries,
        programs: &Programs,
        access: Access,
    ) -> Result<Self, RegistryError> {
        Self::connect_with(name, registries, programs, access, Pauses::default()).await
    }

    async fn connect_with(
        name: &Name,
        registries: &Registries,
        programs: &Programs,
        access: Access,
        pauses: Pauses,
    ) -> Result<Self, RegistryError> {
        let lookup =
            Lookup { files: Arc::new(registries.credential_files.clone()), programs: Arc::new(programs.clone()) };
        let mut client = Self {
            http: Http::new(registries, &name.domain).await?,
            endpoint: Endpoint::new(&name.domain, registries.plain_http)?,
            repository: name.path.clone(),
            siblings: Vec::new(),
            access,
            credentials: lookup.find(&name.domain, &name.path).await?,
            lookup,
            authorization: Mutex::default(),
            foreign_hosts: registries.foreign_hosts.clone(),
            pauses,
        };
        client.reach().await?;
        Ok(client)
    }

    /// Says which other repositories of the registry blobs may be taken over from.
    pub(crate) fn with_siblings(mut self, siblings: Vec<String>) -> Self {
        self.siblings = siblings.into_iter().filter(|sibling| *sibling != self.repository).collect();
        self
    }
}
