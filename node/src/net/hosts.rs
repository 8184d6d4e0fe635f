//! Limits on inbound connections by the host they come from: one machine must not use up what is there for all.
//!
//! Peers make identities for nothing, so a limit on a peer stops nobody; addresses on a link are dearer. Imports libp2p and
//! the limits of the configuration. It never closes a connection, it refuses new ones.

use crate::config::Limits;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr, multiaddr::Protocol};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
#[error("{count} connections from {host} are open already, no more are taken")]
pub(super) struct TooMany {
    host: IpAddr,
    count: usize,
}

/// The behaviour.
pub(super) struct Behaviour {
    max_half_open: usize,
    max_established: usize,
    half_open: HashMap<ConnectionId, IpAddr>,
    established: HashMap<ConnectionId, IpAddr>,
}

impl Behaviour {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_half_open: limits.half_open_per_host,
            max_established: limits.connections_per_host,
            half_open: HashMap::new(),
            established: HashMap::new(),
        }
    }
}

/// The address that stands for a host: of IPv6 its network, in which a host gives itself as many as it likes.
fn host_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => Some(ip.into()),
            None => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
        },
        _ => None,
    })
}

fn admit(open: &HashMap<ConnectionId, IpAddr>, host: IpAddr, limit: usize) -> Result<(), ConnectionDenied> {
    let count = open.values().filter(|other| **other == host).count();
    if count >= limit { Err(ConnectionDenied::new(TooMany { host, count })) } else { Ok(()) }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(host) = host_of(remote) else { return Ok(()) };
        admit(&self.half_open, host, self.max_half_open)?;
        self.half_open.insert(connection, host);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.half_open.remove(&connection);
        if let Some(host) = host_of(remote) {
            admit(&self.established, host, self.max_established)?;
            self.established.insert(connection, host);
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            // Also when another behaviour refused it after this one had counted it.
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.half_open.remove(&connection_id);
                self.established.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    fn knock(hosts: &mut Behaviour, number: usize, from: &str) -> bool {
        let id = ConnectionId::new_unchecked(number);
        hosts.handle_pending_inbound_connection(id, &address("/ip4/10.0.0.1/tcp/1"), &address(from)).is_ok()
    }

    fn enter(hosts: &mut Behaviour, number: usize, from: &str) -> bool {
        let (id, here) = (ConnectionId::new_unchecked(number), address("/ip4/10.0.0.1/tcp/1"));
        hosts.handle_established_inbound_connection(id, PeerId::random(), &here, &address(from)).is_ok()
    }

    #[test]
    fn c11_one_host_cannot_keep_the_door_busy() {
        let mut hosts = Behaviour::new(&Limits::default());
        let knocks = (0..hosts.max_half_open * 2).filter(|n| knock(&mut hosts, *n, "/ip4/10.0.0.66/tcp/9")).count();
        assert_eq!(knocks, hosts.max_half_open);
        assert!(knock(&mut hosts, 1000, "/ip4/10.0.0.7/tcp/9"));
        // One that gets through the door, or gives up, makes room.
        assert!(enter(&mut hosts, 0, "/ip4/10.0.0.66/tcp/9"));
        assert!(knock(&mut hosts, 1001, "/ip4/10.0.0.66/tcp/9"));
        assert!(!knock(&mut hosts, 1002, "/ip4/10.0.0.66/tcp/9"));
    }

    #[test]
    fn c11_identities_and_addresses_of_one_host_count_together() {
        let mut hosts = Behaviour::new(&Limits::default());
        let from = |n: usize| format!("/ip6/2001:db8:0:7::{n:x}/tcp/9");
        let entered = (0..hosts.max_established * 2).filter(|n| enter(&mut hosts, *n, &from(*n))).count();
        assert_eq!(entered, hosts.max_established);
        assert!(enter(&mut hosts, 1000, "/ip6/2001:db8:0:8::1/tcp/9"));
        assert!(enter(&mut hosts, 1001, "/ip6/::ffff:10.0.0.7/tcp/9"));
        assert_eq!(host_of(&address("/ip6/::ffff:10.0.0.7/tcp/9")), host_of(&address("/ip4/10.0.0.7/tcp/1")));
    }
}
