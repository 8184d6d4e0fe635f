//! Interfaces, ports, and the peers that the user named.
//!
//! Imports the node's configuration. Ports are tried by binding them for a moment; nobody is dialled but those named.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use shipfs_node::{
    Multiaddr, Protocol,
    config::NetworkConfig,
    net::{Interface, interfaces},
    node::Node,
};

use super::{
    super::{Options, Role, network::listen_defaults},
    Check,
};

/// Addresses of interfaces that are told.
const MAX_TOLD: usize = 8;
/// Named peers that are tried.
const MAX_NAMED: usize = 16;

pub(super) async fn checks(node: &Node, config: &NetworkConfig, options: &Options) -> Vec<Check> {
    let joined = if node.net().await.is_some() { "joined" } else { "not joined yet" };
    let mut checks = vec![Check::ok("network", format!("{}, {joined}", config.network.name()))];
    checks.push(links());
    checks.push(ports(node, config, options).await);
    checks
}

/// What is on-link.
fn links() -> Check {
    const NAME: &str = "interfaces";
    let found = match interfaces() {
        Ok(found) => found,
        Err(error) => return Check::fail(NAME, format!("cannot be listed: {error}"), "may this process ask for them?"),
    };
    let shown = |interface: &Interface| format!("{} {}/{}", interface.name, interface.ip, interface.prefix);
    let links: Vec<_> = found.iter().filter(|interface| !interface.ip.is_loopback()).collect();
    if links.is_empty() {
        let advice = "other hosts cannot be reached; is the network up, or does this run in a container of its own?";
        return Check::warn(NAME, "loopback alone", advice);
    }
    let told: Vec<_> = links.iter().take(MAX_TOLD).map(|interface| shown(interface)).collect();
    let more = links.len().saturating_sub(MAX_TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Check::ok(NAME, format!("on-link: {}{more}", told.join(", ")))
}

/// Whether the addresses to listen on can be had.
async fn ports(node: &Node, config: &NetworkConfig, options: &Options) -> Check {
    const NAME: &str = "ports";
    if let Some(net) = node.net().await {
        let listeners = net.listeners().await.unwrap_or_default();
        if !listeners.is_empty() {
            let told: Vec<_> = listeners.iter().take(MAX_TOLD).map(ToString::to_string).collect();
            return Check::ok(NAME, format!("listening at {}", told.join(", ")));
        }
    }
    let are_chosen = !config.listen.is_empty() || !options.settled().listen.is_empty();
    let wanted = if config.listen.is_empty() { listen_defaults(Role::Daemon).listen } else { config.listen.clone() };
    let (mut free, mut taken) = (Vec::new(), Vec::new());
    for address in &wanted {
        match try_to_bind(address) {
            Ok(()) => free.push(address.to_string()),
            Err(error) => taken.push(format!("{address} ({error})")),
        }
    }
    let advice = "another program has it, Kubo perhaps: name another with --listen, or `listen` in config.toml; \
                  /ip4/0.0.0.0/tcp/0 takes any port that is free";
    match (free.is_empty(), taken.is_empty()) {
        (_, true) => Check::ok(NAME, format!("`shipfs daemon` can listen on {}", free.join(", "))),
        // The second of the default addresses need not work: hosts without IPv6.
        (false, false) if !are_chosen => Check::ok(
            NAME,
            format!("`shipfs daemon` can listen on {}, but not on {}", free.join(", "), taken.join(", ")),
        ),
        _ => Check::fail(NAME, format!("cannot listen on {}", taken.join(", ")), advice),
    }
}

/// Binds an address, and lets go of it.
fn try_to_bind(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Err(std::io::Error::other("no address of this host")),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        Some(Protocol::Udp(port)) => UdpSocket::bind(SocketAddr::new(ip, port)).map(drop),
        _ => Err(std::io::Error::other("neither TCP nor UDP")),
    }
}

/// The peers that the user named: whether each answers. And who is connected besides.
pub(super) async fn peers(node: &Node, config: &NetworkConfig) -> Check {
    const NAME: &str = "peers";
    let mut silent = Vec::new();
    for address in config.peers.iter().take(MAX_NAMED) {
        if let Err(error) = node.connect(address.clone()).await {
            silent.push(error.to_string());
        }
    }
    let connected = node.peers().await.len();
    let named = config.peers.len().min(MAX_NAMED);
    match silent.len() {
        0 if named > 0 => Check::ok(NAME, format!("all {named} named peers answer, {connected} peers are connected")),
        0 => Check::ok(NAME, format!("{connected} peers are connected, none is named")),
        _ => Check::fail(
            NAME,
            format!("{} of {named} named peers do not answer: {}", silent.len(), silent.join("; ")),
            "is the other side running, is a firewall in between, has it the same swarm key?",
        ),
    }
}
