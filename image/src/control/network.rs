//! From what a user says about the network to what the node is told.
//!
//! Imports the node's configuration and the swarm key beside it. Nothing is joined here.

use std::path::Path;

use shipfs_node::config::{Network, NetworkConfig};

use super::{Failure, FailureKind, NetworkChoice, Options, Role, swarm_key::private_network};
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

/// The network a user chose, with the addresses they named. `default` is used when they named none.
pub(super) fn chosen(
    options: &Options,
    default: &NetworkConfig,
    repository: &Path,
) -> Result<(NetworkConfig, Option<String>), Failure> {
    let (mut config, warning) = match options.network {
        None => (NetworkConfig { listen: Vec::new(), peers: Vec::new(), ..default.clone() }, None),
        Some(NetworkChoice::Offline) => (NetworkConfig::offline(), None),
        Some(NetworkChoice::Lan) => (NetworkConfig::lan(), None),
        Some(NetworkChoice::Private) => {
            let (network, warning) = private_network(repository)?;
            (NetworkConfig { network, ..NetworkConfig::offline() }, warning)
        }
    };
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
        let chosen =
            |options: Options| chosen(&options, &NetworkConfig::lan(), directory.path()).map(|(config, _)| config);
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
