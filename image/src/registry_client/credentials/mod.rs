//! Names and passwords for registries, from the files that Docker and podman keep.
//!
//! Imports [`programs`](crate::programs), [`secret`](super::secret) and nothing else of this crate. The form is Docker's
//! `config.json`: `auths` by registry, `credHelpers` by registry, `credsStore` for all; podman's `auth.json` has the same
//! form, and may name a repository. Files and programs are those that were handed in; no file is written here.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::secret::Secret;
use crate::programs::Programs;

/// Largest file that is read, in bytes: a few hundred registries with tokens.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most that a helper may write, in bytes: tokens of some clouds take several kilobytes.
const MAX_HELPER_BYTES: u64 = 64 << 10;
/// Longest that a helper may take: it may ask its user, or a cloud.
const HELPER_PATIENCE: Duration = Duration::from_secs(30);
/// What a helper calls the user when its secret is a refresh token.
const TOKEN_USER: &str = "<token>";

/// How to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which gets tokens.
    Identity(Secret),
    /// A token for the registry itself.
    Token(Secret),
}

/// The parts of a file that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CredentialFile {
    #[serde(deserialize_with = "nullable")]
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers", deserialize_with = "nullable")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entry(***)")
    }
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Looks for the credentials of a repository in `files`, in order. Blocks.
///
/// # Errors
/// [`CredentialError`] when a file is malformed or a helper fails; a file that is not there is passed over.
pub(crate) fn find(
    files: &[PathBuf],
    programs: &Programs,
    domain: &str,
    repository: &str,
) -> Result<Option<Credentials>, CredentialError> {
    for path in files {
        let Some(file) = CredentialFile::read(path)? else { continue };
        if let Some(helper) = file.helper(domain)
            && let Some(found) = ask(programs, &helper, &server(domain))?
        {
            return Ok(Some(found));
        }
        if let Some(entry) = file.entry(domain, repository)
            && let Some(found) = entry.credentials(path, domain)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl CredentialFile {
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CredentialError> {
        let failed = |source| CredentialError::Read { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Ok(there) if there.len() > MAX_FILE_BYTES => return Err(failed(io::ErrorKind::FileTooLarge.into())),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        // The parser's own message may quote what it read.
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| CredentialError::Form { path: path.to_owned(), line: error.line() })
    }

    /// The program that keeps what is for `domain`.
    pub(super) fn helper(&self, domain: &str) -> Option<String> {
        let named = keys(domain).into_iter().find_map(|key| self.helpers.get(&key));
        named.or(self.store.as_ref()).filter(|name| !name.is_empty()).cloned()
    }

    fn entry(&self, domain: &str, repository: &str) -> Option<&Entry> {
        // The nearest word wins: a repository before its folder before the registry.
        let mut path = repository;
        loop {
            if let Some(entry) = self.auths.get(&format!("{domain}/{path}")) {
                return Some(entry);
            }
            let Some((folder, _)) = path.rsplit_once('/') else { break };
            path = folder;
        }
        keys(domain).into_iter().find_map(|key| self.auths.get(&key))
    }
}

/// What a registry may be called in a file.
pub(super) fn keys(domain: &str) -> Vec<String> {
    let mut keys = vec![domain.to_owned()];
    if domain == "docker.io" {
        keys.extend(["https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    for scheme in ["https", "http"] {
        keys.extend(["", "/", "/v1/", "/v2/", "/v1", "/v2"].map(|path| format!("{scheme}://{domain}{path}")));
    }
    keys
}

/// What a registry is called when something is kept for it.
pub(super) fn server(domain: &str) -> String {
    if domain == "docker.io" { "https://index.docker.io/v1/".to_owned() } else { domain.to_owned() }
}

impl Entry {
    fn credentials(&self, path: &Path, domain: &str) -> Result<Option<Credentials>, CredentialError> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(Secret::new(&*self.identitytoken))));
        }
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Token(Secret::new(&*self.registrytoken))));
        }
        if self.auth.is_empty() {
            let (name, password) = (self.username.clone(), Secret::new(&*self.password));
            return Ok((!name.is_empty()).then_some(Credentials::Password { name, password }));
        }
        let malformed = || CredentialError::Entry { path: path.to_owned(), domain: domain.to_owned() };
        let decoded = STANDARD.decode(self.auth.trim_matches('\0')).map_err(|_| malformed())?;
        let text = String::from_utf8(decoded).map_err(|_| malformed())?;
        let (name, password) = text.split_once(':').ok_or_else(malformed)?;
        let password = Secret::new(password.trim_matches('\0'));
        Ok(Some(Credentials::Password { name: name.to_owned(), password }))
    }
}

/// Calls a credential helper.
pub(super) fn call(
    programs: &Programs,
    helper: &str,
    verb: &'static str,
    input: &[u8],
) -> Result<crate::programs::Done, CredentialError> {
    let name = format!("docker-credential-{helper}");
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let program = programs.find(&name).filter(|_| helper.chars().all(is_plain));
    let program = program.ok_or_else(|| CredentialError::NoHelper { name: name.clone() })?;
    let done = programs.run(&program, &[verb], input, MAX_HELPER_BYTES, HELPER_PATIENCE);
    done.map_err(|source| CredentialError::Helper { name, source })
}

fn ask(programs: &Programs, helper: &str, server: &str) -> Result<Option<Credentials>, CredentialError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let done = call(programs, helper, "get", server.as_bytes())?;
    if !done.success {
        let said = String::from_utf8_lossy(&done.output).trim().to_owned();
        // The one answer that is no failure, word for word in every helper.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(CredentialError::Refused { name: helper.to_owned(), said: said.chars().take(200).collect() });
    }
    let answer: Answer = serde_json::from_slice(&done.output)
        .map_err(|_| CredentialError::Refused { name: helper.to_owned(), said: "no JSON".to_owned() })?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username {
        name if name == TOKEN_USER => Credentials::Identity(secret),
        name => Credentials::Password { name, password: secret },
    }))
}

/// Why credentials cannot be had. None of it holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read the credentials in `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write the credentials in `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is malformed.
    #[error("the credentials in `{}` are not valid JSON, see line {line}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        line: usize,
    },
    /// An entry is malformed.
    #[error("the entry for `{domain}` in `{}` is not valid", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry.
        domain: String,
    },
    /// A helper is named but not there.
    #[error("the credential helper `{}` is not there", name.escape_debug())]
    NoHelper {
        /// The program.
        name: String,
    },
    /// A helper failed.
    #[error("the credential helper `{name}` failed")]
    Helper {
        /// The program.
        name: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A helper gave nothing.
    #[error("the credential helper `{name}` refused: {}", said.escape_debug())]
    Refused {
        /// The helper.
        name: String,
        /// What it said, shortened.
        said: String,
    },
    /// There is no file to keep anything in.
    #[error("there is no file to keep credentials in")]
    NoFile,
}

#[cfg(test)]
mod tests;
