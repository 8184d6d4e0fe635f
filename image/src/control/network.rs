//! From what a user says about the network to what the node is told.
//!
//! Imports the node's configuration and the swarm key beside it. Nothing is joined here.

use std::path::Path;

use shipfs_node::config::{Network, NetworkConfig};

use super::{
    Failure, FailureKind, NetworkChoice, Options, Role,
    swarm_key::{SWARM_KEY_FILE, private_network},
};
use crate::oci::Platforms;

/// Where a daemon listens unless told otherwise: the port that IPFS nodes have.
const DAEMON_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"];
/// Where a command that serves listens: any port, since others find it by mDNS or by what it says.
const COMMAND_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"];

/// Whether `text` is an address that a node can have.
///
/// # Errors
/// What is wrong with it, for a message about an option.
pub fn check_address(text: &str) -> Result<(), String> {
    addresses(&[text.to_owned()]).map(drop).map_err(|failure| failure.causes.join(": "))
}

/// Whether `text` is a platform, or a comma list of them.
///
/// # Errors
/// What is wrong with it, for a message about an option.
pub fn check_platform(text: &str) -> Result<(), String> {
    Platforms::parse(&[text]).map(drop).map_err(|error| error.to_string())
}

/// A node's network with nothing but these addresses to listen on, which no type outside the node names.
fn addresses(texts: &[String]) -> Result<NetworkConfig, Failure> {
    let mut config = NetworkConfig::offline();
    for text in texts {
        let address = text.parse().map_err(|error| {
            let failure = Failure::new(FailureKind::Usage, format!("`{text}` is not a multiaddress"));
            Failure { causes: vec![format!("{error}, expected /ip4/192.0.2.7/tcp/4001 for instance")], ..failure }
        })?;
        config.listen.push(address);
    }
    Ok(config)
}

/// The network a user chose, with the addresses they named. When they named none it is `default`; without that, the
/// private one where the repository has a swarm key, since nobody who has a key wants to be seen by others, else the
/// local one.
pub(super) fn chosen(
    options: &Options,
    default: Option<&NetworkConfig>,
    repository: &Path,
) -> Result<(NetworkConfig, Option<String>), Failure> {
    let (mut config, warning) = entered(options, default, &repository.join(SWARM_KEY_FILE))?;
    config.listen = addresses(&options.listen)?.listen;
    config.peers = addresses(&options.peers)?.listen;
    if let Some(mdns) = options.mdns {
        config.mdns = mdns && config.network != Network::Offline;
    }
    if config.network == Network::Offline && !(config.listen.is_empty() && config.peers.is_empty()) {
        let message = "there are addresses to listen on or to connect to, but the network is `offline`";
        return Err(Failure::new(FailureKind::Usage, message));
    }
    Ok((config, warning))
}

/// The network, without addresses. `key` is the repository's, if it has one.
fn entered(
    options: &Options,
    default: Option<&NetworkConfig>,
    key: &Path,
) -> Result<(NetworkConfig, Option<String>), Failure> {
    let open = |network: &str| {
        let message = format!("a private network is demanded, but the network is `{network}`");
        Err(Failure::new(FailureKind::Usage, message).hint("--swarm-key FILE and LIBP2P_FORCE_PNET=1 demand one"))
    };
    let private = |key: &Path| {
        let (network, warning) = private_network(key)?;
        Ok((NetworkConfig { network, ..NetworkConfig::offline() }, warning))
    };
    let unaddressed =
        |config: &NetworkConfig| NetworkConfig { listen: Vec::new(), peers: Vec::new(), ..config.clone() };
    let is_private = |config: &&NetworkConfig| matches!(config.network, Network::Private(_));
    match (options.network, &options.swarm_key) {
        (Some(NetworkChoice::Offline), Some(_)) => open("offline"),
        (Some(NetworkChoice::Offline), None) => Ok((NetworkConfig::offline(), None)),
        (Some(NetworkChoice::Lan), Some(_)) => open("lan"),
        (Some(NetworkChoice::Lan), None) if options.private_only => open("lan"),
        (Some(NetworkChoice::Lan), None) => Ok((NetworkConfig::lan(), None)),
        (_, Some(key)) => private(key),
        // Whoever is in a private network already may have its key from elsewhere.
        (Some(NetworkChoice::Private), None) if !key.exists() && default.is_some_and(|own| is_private(&own)) => {
            Ok((default.map(unaddressed).unwrap_or_else(NetworkConfig::offline), None))
        }
        (Some(NetworkChoice::Private), None) => private(key),
        (None, None) => match default {
            Some(default) if default.network == Network::Lan && options.private_only => open("lan"),
            Some(default) => Ok((unaddressed(default), None)),
            None if options.private_only => {
                private(key).map_err(|failure| failure.while_doing("no network but a private one may be entered"))
            }
            None if key.exists() => private(key),
            None => Ok((NetworkConfig::lan(), None)),
        },
    }
}

/// Where a process that serves listens when the user did not say; each address, the first of which must work.
pub(super) fn listen_defaults(role: Role) -> NetworkConfig {
    let texts = match role {
        Role::Daemon => DAEMON_LISTEN,
        Role::Command => COMMAND_LISTEN,
    };
    addresses(&texts.map(str::to_owned)).expect("the default addresses are well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_comes_from_the_default() {
        let directory = tempfile::tempdir().expect("a directory");
        let chosen = |options: Options| chosen(&options, None, directory.path()).map(|(config, _)| config);
        let peer = "/ip4/127.0.0.1/tcp/4001".to_owned();
        let config = chosen(Options { peers: vec![peer.clone()], ..Options::default() }).expect("lan");
        assert_eq!((config.network.name(), config.mdns, config.peers.len()), ("lan", true, 1));
        assert!(!chosen(Options { mdns: Some(false), ..Options::default() }).expect("lan").mdns);
        let offline = Options { network: Some(NetworkChoice::Offline), ..Options::default() };
        assert_eq!(chosen(offline.clone()).expect("offline").network, Network::Offline);
        let nonsense = chosen(Options { listen: vec![peer], ..offline }).expect_err("makes no sense");
        assert_eq!(nonsense.exit_code(), 2);
        let private = Options { network: Some(NetworkChoice::Private), ..Options::default() };
        assert!(chosen(private.clone()).expect_err("no key").message.contains("swarm key"));
        let key = super::super::generate_swarm_key().expect("random bytes");
        super::super::write_swarm_key(&directory.path().join("swarm.key"), &key).expect("writes");
        for (mdns, expected) in [(None, false), (Some(true), true)] {
            let config = chosen(Options { mdns, ..private.clone() }).expect("private");
            assert_eq!((config.network.name(), config.mdns), ("private", expected));
        }
    }

    #[test]
    fn addresses_and_platforms_are_checked_before_anything_runs() {
        assert_eq!(check_address("/ip4/127.0.0.1/tcp/4001"), Ok(()));
        assert!(check_address("127.0.0.1:4001").expect_err("is none").contains("/ip4/"));
        assert_eq!(check_platform("linux/arm64,amd64"), Ok(()));
        assert!(check_platform("linux/").is_err());
        for role in [Role::Daemon, Role::Command] {
            assert_eq!(listen_defaults(role).listen.len(), 2);
        }
    }
}
