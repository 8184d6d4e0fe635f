//! Keeping credentials where Docker keeps them, so that every tool that reads its file has them.
//!
//! Imports its siblings. The file keeps whatever else is in it, and its helper is used when it names one; it is written
//! beside itself and renamed, for its owner alone.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Access, CredentialError, Lookup, Registries, RegistryClient, RegistryError, Secret,
    credentials::{self, CredentialFile, Credentials, keys, server},
    endpoint::Endpoint,
    http::Http,
    request::{Ask, Pauses},
};
use crate::programs::Programs;

/// Who logs in, and where.
#[derive(Clone, Debug)]
pub struct Login {
    /// The registry, as it stands in names: `registry.example:5000`.
    pub domain: String,
    /// The user's name there.
    pub name: String,
    /// The password.
    pub password: Secret,
}

/// Asks the registry whether it lets somebody in, and keeps what it takes in the first of the registry settings' files.
///
/// # Errors
/// [`RegistryError::Denied`] when it does not; nothing is kept then.
pub async fn log_in(login: &Login, registries: &Registries, programs: &Programs) -> Result<(), RegistryError> {
    let file = registries.credential_files.first().cloned().ok_or(CredentialError::NoFile)?;
    let credentials = Credentials::Password { name: login.name.clone(), password: login.password.clone() };
    let lookup = Lookup { files: Vec::new().into(), programs: programs.clone().into() };
    let mut client = RegistryClient {
        http: Http::new(registries, &login.domain).await?,
        endpoint: Endpoint::new(&login.domain, registries.plain_http)?,
        repository: String::new(),
        siblings: Vec::new(),
        access: Access::Pull,
        credentials: Some(credentials),
        lookup,
        authorization: tokio::sync::Mutex::default(),
        foreign_hosts: Vec::new(),
        pauses: Pauses::default(),
    };
    client.reach().await?;
    let ask = Ask::new(Method::GET, client.endpoint.url("v2/")?);
    let what = ask.what();
    let response = client.exchange(ask).await?;
    // A registry without this page is one of the simple ones, which let everybody in.
    if response.status() != StatusCode::NOT_FOUND {
        client.expect(&what, response).await?;
    }
    let (login, programs) = (login.clone(), programs.clone());
    crate::bring::blocking(move || keep(&file, &programs, &login)).await?;
    Ok(())
}

/// Forgets what is kept for a registry; says whether there was something. Blocks.
///
/// # Errors
/// [`CredentialError`] when a file or a helper does not work.
pub fn log_out(domain: &str, registries: &Registries, programs: &Programs) -> Result<bool, CredentialError> {
    let mut was_kept = false;
    for path in &registries.credential_files {
        let Some(file) = CredentialFile::read(path)? else { continue };
        if let Some(helper) = file.helper(domain) {
            was_kept |= credentials::call(programs, &helper, "erase", server(domain).as_bytes())?.success;
        }
        let mut whole = read(path)?;
        let Some(Value::Object(entries)) = whole.get_mut("auths") else { continue };
        let before = entries.len();
        for key in keys(domain) {
            entries.remove(&key);
        }
        if entries.len() < before {
            was_kept = true;
            write(path, &whole)?;
        }
    }
    Ok(was_kept)
}

fn keep(path: &Path, programs: &Programs, login: &Login) -> Result<(), CredentialError> {
    let helper = CredentialFile::read(path)?.and_then(|file| file.helper(&login.domain));
    let entry = match helper {
        Some(helper) => {
            let input = json!({
                "ServerURL": server(&login.domain), "Username": login.name, "Secret": login.password.reveal(),
            });
            let done = credentials::call(programs, &helper, "store", input.to_string().as_bytes())?;
            if !done.success {
                let said = String::from_utf8_lossy(&done.output).trim().chars().take(200).collect();
                return Err(CredentialError::Refused { name: helper, said });
            }
            // Docker leaves an empty entry, by which tools see that there is one.
            json!({})
        }
        None => json!({ "auth": STANDARD.encode(format!("{}:{}", login.name, login.password.reveal())) }),
    };
    let mut whole = read(path)?;
    let entries = whole.entry("auths").or_insert_with(|| json!({}));
    if !entries.is_object() {
        *entries = json!({});
    }
    if let Value::Object(entries) = entries {
        entries.insert(server(&login.domain), entry);
    }
    write(path, &whole)
}

fn read(path: &Path) -> Result<Map<String, Value>, CredentialError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(CredentialError::Read { path: path.to_owned(), source }),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|error| CredentialError::Form { path: path.to_owned(), line: error.line() })
}

fn write(path: &Path, whole: &Map<String, Value>) -> Result<(), CredentialError> {
    let failed = |source| CredentialError::Write { path: path.to_owned(), source };
    // Through a link, so that whoever keeps the file elsewhere still does.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let beside = beside(&path);
    let text = serde_json::to_string_pretty(whole).map_err(|error| failed(error.into()))?;
    let written = File::options().write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    });
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.map_err(failed)
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}
