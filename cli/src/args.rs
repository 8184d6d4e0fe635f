//! The command line: global options and the list of verbs.
//!
//! Doc comments here and in [`commands`](crate::commands) are the help text. Nothing is carried out here.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{
    ArgAction, CommandFactory as _, Parser, ValueEnum,
    builder::styling,
    error::{ContextValue, ErrorKind},
};
use shipfs_image::{
    control::{self, Failure, NetworkChoice, Options, PlatformChoice},
    crypt::{KeyFile, Recipient},
    services::Services,
};

use crate::{commands::Command, text::escaped};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Ships container images over IPFS: no registry, no other daemon
///
/// One host pushes an image and gets a CID, any other pulls that CID. Both ends are this program: it has its own IPFS
/// node inside, and speaks with Kubo and nerdctl.
#[derive(Debug, Parser)]
#[command(
    name = "shipfs", version, styles = STYLES, propagate_version = true, arg_required_else_help = true,
    subcommand_required = true, max_term_width = 110, after_long_help = EXAMPLES
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  # On one host: take an image in, print its CID, let others have it until Ctrl-C
  docker save alpine | shipfs push --serve docker-archive:-

  # On another host of the same network
  shipfs pull bafkrei... --to docker-archive:- | docker load

  # Serve everything that is here, from now on
  shipfs daemon

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// What every verb takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of the repository [default: $SHIPFS_PATH, else $XDG_DATA_HOME/shipfs, as root /var/lib/shipfs]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(crate) repo: Option<PathBuf>,

    /// Which peers to talk to, if any are needed [default: the running daemon's, else lan]
    ///
    /// Where the repository has a swarm key, `private` is what is used instead of `lan`.
    #[arg(long, global = true, value_enum, value_name = "NETWORK")]
    pub(crate) network: Option<Network>,

    /// Short for `--network offline`: open no network socket
    #[arg(long, global = true, conflicts_with = "network")]
    pub(crate) offline: bool,

    /// Key of a private network [default: swarm.key in the repository]
    ///
    /// In the form that Kubo uses; implies `--network private`. With LIBP2P_FORCE_PNET=1 no other network is entered.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "offline", hide_short_help = true)]
    pub(crate) swarm_key: Option<PathBuf>,

    /// Connect to this peer, like `/ip4/192.0.2.7/tcp/4001`; may be repeated
    #[arg(long = "peer", global = true, value_name = "MULTIADDR", value_parser = address, action = ArgAction::Append)]
    pub(crate) peers: Vec<String>,

    /// Listen here, `/ip4/0.0.0.0/tcp/4001` for instance; may be repeated
    ///
    /// `/ip4/0.0.0.0/udp/4001/quic-v1` is QUIC, which a private network cannot have.
    #[arg(long, global = true, value_name = "MULTIADDR", value_parser = address, action = ArgAction::Append)]
    pub(crate) listen: Vec<String>,

    /// Find peers by mDNS, and be found, in a private network too
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) mdns: bool,

    /// Find no peers by mDNS, and be found by none: only those named
    #[arg(long, global = true, conflicts_with = "mdns", hide_short_help = true)]
    pub(crate) no_mdns: bool,

    /// Have a running IPFS daemon, such as Kubo, hold and fetch images: /ip4/127.0.0.1/tcp/5001, /unix/PATH, http://HOST:PORT,
    /// or `auto` for the one of $IPFS_PATH, else ~/.ipfs [default: $SHIPFS_IPFS_ADDRESS, else `none`]
    #[arg(long, global = true, value_name = "MULTIADDR")]
    pub(crate) ipfs_address: Option<String>,

    /// Let that daemon know who asks: `basic:USER:PASSWORD`, `bearer:TOKEN`, or `@FILE` with one of these in it [default:
    /// $SHIPFS_IPFS_AUTH]
    #[arg(long, global = true, value_name = "CREDENTIALS", hide_short_help = true)]
    pub(crate) ipfs_auth: Option<String>,

    /// Give up when nothing arrives for this long: `500ms`, `30s`, `5m` [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Print the result alone: a CID, a name
    #[arg(short, long, global = true, conflicts_with_all = ["json", "verbose"])]
    pub(crate) quiet: bool,

    /// Print the result as JSON on stdout, and what happens as JSON lines on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on stderr; twice for much more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The networks a node can be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// Peers on this host's own links, found by mDNS or named with `--peer`
    Lan,
    /// Those who hold the swarm key (`shipfs key gen`), named with `--peer`
    Private,
    /// Nobody: no network socket is opened
    Offline,
    /// For a container, with `run`: loopback alone
    #[value(skip)]
    None,
    /// For a container, with `run`: the host's own network
    #[value(skip)]
    Host,
}

impl Network {
    /// The network of this node, if it is not that of a container.
    pub(crate) fn of_node(self) -> Option<NetworkChoice> {
        match self {
            Self::Lan => Some(NetworkChoice::Lan),
            Self::Private => Some(NetworkChoice::Private),
            Self::Offline => Some(NetworkChoice::Offline),
            Self::None | Self::Host => None,
        }
    }
}

/// Which platforms of an image are meant.
#[derive(Debug, clap::Args)]
pub(crate) struct Platforms {
    /// Take this platform, `linux/arm64` for instance; may be repeated [default: this host's]
    #[arg(long = "platform", value_name = "PLATFORM", value_parser = platform, conflicts_with = "all_platforms")]
    only: Vec<String>,

    /// Take every platform of the image
    #[arg(long)]
    all_platforms: bool,
}

/// What opens encrypted layers.
#[derive(Debug, clap::Args)]
pub(crate) struct Keys {
    /// File of a private key, if the layers are encrypted: RSA or EC, in PEM, DER or a JWK; may be repeated
    #[arg(long = "key", value_name = "FILE")]
    names: Vec<String>,
}

impl Keys {
    /// Whether there are any.
    pub(crate) fn are_given(&self) -> bool {
        !self.names.is_empty()
    }

    /// Reads them: who names a key can read it, and whoever holds the repository need not.
    pub(crate) fn read(&self) -> Result<Vec<KeyFile>, Failure> {
        self.names.iter().map(|name| KeyFile::read(name).map_err(|error| error.failure())).collect()
    }
}

/// Reads the keys of recipients, several of which may stand between commas.
pub(crate) fn recipients(texts: &[String]) -> Result<Vec<Recipient>, Failure> {
    let all = texts.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
    all.map(|text| Recipient::read(text).map_err(|error| error.failure())).collect()
}

/// Where other programs' services are, for verbs that images come from or go to by way of them.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for other programs' images")]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    containerd: ContainerdArgs,

    /// Speak plain HTTP with registries, as with those on localhost
    #[arg(long)]
    plain_http: bool,

    /// Fetch layers from this host if an image says that they are there, not in its registry; may be repeated
    #[arg(long, value_name = "HOST", action = ArgAction::Append)]
    allow_layers_from: Vec<String>,
}

/// Where containerd is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ContainerdArgs {
    /// containerd's socket [default: $CONTAINERD_ADDRESS, else /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    address: Option<PathBuf>,

    /// containerd's namespace [default: $CONTAINERD_NAMESPACE, else default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

impl ContainerdArgs {
    /// Whether anything was said.
    pub(crate) fn are_given(&self) -> bool {
        self.address.is_some() || self.namespace.is_some()
    }

    /// Puts what was said in place of what the environment says; relative paths start from `directory`.
    pub(crate) fn apply(self, services: &mut Services, directory: &Path) {
        if let Some(address) = self.address {
            services.containerd = without_scheme(address);
        }
        services.containerd = directory.join(&services.containerd);
        if let Some(namespace) = self.namespace {
            services.containerd_namespace = namespace;
        }
    }
}

impl ServiceArgs {
    /// Puts what was said in place of what the environment says; relative paths start from `directory`.
    pub(crate) fn apply(self, services: &mut Services, directory: &Path) {
        self.containerd.apply(services, directory);
        services.registries.plain_http = self.plain_http;
        services.registries.foreign_hosts = self.allow_layers_from;
    }
}

/// A socket's path, which tools also write as a URL.
pub(crate) fn without_scheme(address: PathBuf) -> PathBuf {
    match address.to_str().and_then(|text| text.strip_prefix("unix://")) {
        Some(path) => PathBuf::from(path),
        None => address,
    }
}

impl Args {
    /// Reads the command line; prints help or what is wrong with it, and exits, where that is all there is to do.
    pub(crate) fn read() -> Self {
        let read = Self::try_parse().and_then(|args| args.global.agree().map(|()| args));
        read.unwrap_or_else(|error| harmless(error).exit())
    }
}

/// The error with the words that it quotes written out: they may have been copied from anywhere.
fn harmless(mut error: clap::Error) -> clap::Error {
    let quoted: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in quoted {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(escaped(&text)),
            ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(|text| escaped(text)).collect()),
            _ => continue,
        };
        error.insert(kind, value);
    }
    error
}

impl Global {
    /// Whether no two options contradict each other. clap looks at those before the verb and those after it apart.
    fn agree(&self) -> Result<(), clap::Error> {
        let contradictions = [
            (self.quiet && self.json, "--quiet", "--json"),
            (self.quiet && self.verbose > 0, "--quiet", "--verbose"),
            (self.offline && self.network.and_then(Network::of_node).is_some(), "--offline", "--network"),
            (self.mdns && self.no_mdns, "--mdns", "--no-mdns"),
        ];
        let Some((_, one, other)) = contradictions.into_iter().find(|(is_met, ..)| *is_met) else { return Ok(()) };
        let message = format!("the argument '{one}' cannot be used with '{other}'");
        Err(Args::command().error(ErrorKind::ArgumentConflict, message))
    }

    /// What the verb is told of it.
    pub(crate) fn options(&self) -> Options {
        let network = self.network.and_then(Network::of_node);
        Options {
            network: if self.offline { Some(NetworkChoice::Offline) } else { network },
            peers: self.peers.clone(),
            listen: self.listen.clone(),
            mdns: (self.mdns || self.no_mdns).then_some(self.mdns),
            patience: self.timeout,
            swarm_key: self.swarm_key.clone(),
            private_only: false,
            // The environment and the repository have a say in it.
            daemon: None,
            configured: None,
            ..Options::default()
        }
    }
}

impl Platforms {
    /// One platform, or this host's.
    pub(crate) fn one(platform: Option<String>) -> Self {
        Self { only: platform.into_iter().collect(), all_platforms: false }
    }
}

impl From<Platforms> for PlatformChoice {
    fn from(platforms: Platforms) -> Self {
        match platforms {
            Platforms { all_platforms: true, .. } => Self::All,
            Platforms { only, .. } if only.is_empty() => Self::Host,
            Platforms { only, .. } => Self::Only(only),
        }
    }
}

fn address(text: &str) -> Result<String, String> {
    control::check_address(text).map(|()| text.to_owned())
}

pub(crate) fn platform(text: &str) -> Result<String, String> {
    control::check_platform(text).map(|()| text.to_owned())
}

/// Reads `500ms`, `30s`, `5m`, `2h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a unit of `ms`, `s`, `m` or `h`".to_owned()),
    };
    let number = f64::from_str(digits).map_err(|_| "expected a number and a unit, `30s` for instance".to_owned())?;
    let whole = Duration::try_from_secs_f64(number * unit).map_err(|_| "it is out of range".to_owned())?;
    if whole.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("1.5m", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "0s", "-1s", "nan", "inf", "5d", "1e40h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
