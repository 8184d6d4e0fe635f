//! What counts of all that is said about the network: an option, else the environment, else the repository's
//! `config.toml`, else the default; and which of them it was.
//!
//! Imports the options and the file. Pure: the environment is handed in by [`config`](crate::config), its only reader.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use shipfs_image::control::{Failure, FailureKind, NetworkChoice, Options, SWARM_KEY_FILE, check_address};
use shipfs_node::config::DEFAULT_PATIENCE;

use crate::{
    args::{self, Global},
    config_file::{CONFIG_FILE, ConfigFile, Said, network_named},
    text,
};

/// Reads a variable of the environment.
pub(crate) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This option.
    Option(&'static str),
    /// This variable.
    Variable(&'static str),
    /// This line of the file.
    Line(usize),
    /// Nobody said anything.
    #[default]
    Default,
}

/// A value, and where it comes from; no value is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: Option<T>,
    pub(crate) origin: Origin,
}

impl<T> Default for Setting<T> {
    fn default() -> Self {
        Self { value: None, origin: Origin::Default }
    }
}

impl<T> Setting<T> {
    fn of(option: Option<(T, &'static str)>, variable: Option<(T, &'static str)>, file: Option<Said<T>>) -> Self {
        let option = option.map(|(value, name)| (value, Origin::Option(name)));
        let variable = || variable.map(|(value, name)| (value, Origin::Variable(name)));
        let file = || file.map(|said| (said.value, Origin::Line(said.line)));
        let found = option.or_else(variable).or_else(file);
        found.map_or_else(Self::default, |(value, origin)| Self { value: Some(value), origin })
    }
}

/// All settings.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    network: Setting<NetworkChoice>,
    listen: Setting<Vec<String>>,
    peers: Setting<Vec<String>>,
    mdns: Setting<bool>,
    timeout: Setting<Duration>,
    swarm_key: Option<PathBuf>,
    /// The network that the environment or the file names, whatever an option says: what they say besides is for it.
    configured: Option<NetworkChoice>,
}

/// One line of what `shipfs config` shows.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) from: String,
}

fn variable<T>(
    environment: Environment<'_>,
    name: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<(T, &'static str)>, Failure> {
    let Some(value) = environment(name) else { return Ok(None) };
    let value = value.to_string_lossy();
    let value = read(&value)
        .map_err(|error| Failure::new(FailureKind::Usage, format!("the variable ${name} is `{value}`: {error}")))?;
    Ok(Some((value, name)))
}

fn addresses(text: &str) -> Result<Vec<String>, String> {
    let listed = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    listed.map(|text| check_address(text).map(|()| text.to_owned())).collect()
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

impl Settings {
    /// Reads what counts for a repository.
    pub(crate) fn read(global: &Global, repository: &Path, environment: Environment<'_>) -> Result<Self, Failure> {
        let file = ConfigFile::read(&repository.join(CONFIG_FILE))?;
        let said = global.options();
        let network = said.network.map(|value| (value, if global.offline { "--offline" } else { "--network" }));
        let list = |list: &[String], name| (!list.is_empty()).then(|| (list.to_vec(), name));
        let mdns = said.mdns.map(|value| (value, if value { "--mdns" } else { "--no-mdns" }));
        let timeout = said.patience.map(|value| (value, "--timeout"));
        let in_file = file.network;
        let in_environment = variable(environment, "SHIPFS_NETWORK", network_named)?;
        Ok(Self {
            configured: in_environment.map(|(value, _)| value).or(in_file.as_ref().map(|said| said.value)),
            swarm_key: said.swarm_key.clone(),
            network: Setting::of(network, in_environment, in_file),
            listen: Setting::of(
                list(&said.listen, "--listen"),
                variable(environment, "SHIPFS_LISTEN", addresses)?,
                file.listen,
            ),
            peers: Setting::of(
                list(&said.peers, "--peer"),
                variable(environment, "SHIPFS_PEER", addresses)?,
                file.peers,
            ),
            mdns: Setting::of(mdns, variable(environment, "SHIPFS_MDNS", truth)?, file.mdns),
            timeout: Setting::of(timeout, variable(environment, "SHIPFS_TIMEOUT", args::duration)?, file.timeout),
        })
    }

    /// Adds to what the options say what the environment and the file do. A network that the environment names is one that
    /// the user chose; all else counts only for a process that enters a network by itself, not for a running daemon.
    pub(crate) fn complete(&self, options: &mut Options) {
        options.patience = self.timeout.value;
        let is_from = |origin: &Origin| matches!(origin, Origin::Variable(_) | Origin::Line(_));
        if matches!(self.network.origin, Origin::Variable(_)) {
            options.network = self.network.value;
        }
        let mut configured = Options { network: self.configured, ..Options::default() };
        if is_from(&self.listen.origin) {
            configured.listen = self.listen.value.clone().unwrap_or_default();
        }
        if is_from(&self.peers.origin) {
            configured.peers = self.peers.value.clone().unwrap_or_default();
        }
        if is_from(&self.mdns.origin) {
            configured.mdns = self.mdns.value;
        }
        // Addresses are for the network that is entered; offline there is none.
        if configured.network == Some(NetworkChoice::Offline) {
            configured = Options { network: configured.network, ..Options::default() };
        }
        if configured != Options::default() {
            options.configured = Some(Box::new(configured));
        }
    }

    /// What counts, for people.
    pub(crate) fn shown(&self, repository: &Path) -> Vec<Shown> {
        let file = repository.join(CONFIG_FILE);
        let from = |origin: &Origin| match origin {
            Origin::Option(name) => (*name).to_owned(),
            Origin::Variable(name) => format!("${name}"),
            Origin::Line(line) => format!("{}:{line}", file.display()),
            Origin::Default => "default".to_owned(),
        };
        // Where there is a key, the private network is the default.
        let has_key = self.swarm_key.is_some() || repository.join(SWARM_KEY_FILE).exists();
        let network = match self.network.value {
            None if has_key => "private",
            Some(NetworkChoice::Lan) | None => "lan",
            Some(NetworkChoice::Private) => "private",
            Some(NetworkChoice::Offline) => "offline",
        };
        let key = match &self.swarm_key {
            Some(key) => key.display().to_string(),
            None if has_key => repository.join(SWARM_KEY_FILE).display().to_string(),
            None => String::new(),
        };
        let key_origin = if self.swarm_key.is_some() { Origin::Option("--swarm-key") } else { Origin::Default };
        let list = |setting: &Setting<Vec<String>>| setting.value.as_ref().map(|list| list.join(" "));
        let mdns = self.mdns.value.unwrap_or(network == "lan");
        let timeout = self.timeout.value.unwrap_or(DEFAULT_PATIENCE);
        let row = |name, value, origin| Shown { name, value, from: from(origin) };
        vec![
            row("network", network.to_owned(), &self.network.origin),
            row("swarm-key", key, &key_origin),
            row("listen", list(&self.listen).unwrap_or_default(), &self.listen.origin),
            row("peers", list(&self.peers).unwrap_or_default(), &self.peers.origin),
            row("mdns", mdns.to_string(), &self.mdns.origin),
            row("timeout", text::time(timeout), &self.timeout.origin),
        ]
    }
}
