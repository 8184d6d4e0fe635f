//! The dial gate: which addresses a node may connect to at all, whatever peers or name servers advertise.
//!
//! In a LAN every address that is not on-link is refused: not on the subnet of one of this host's interfaces, not
//! link-local, not loopback; a tunnel's subnet is none of them. The check sits right in front of the TCP transport, so no behaviour can go around it.

use if_addrs::{IfAddr, get_if_addrs};
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::{Transport, multiaddr::Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a list of this host's subnets is believed: interfaces come and go, and reading them costs a system call.
const SUBNETS_LIFETIME: Duration = Duration::from_secs(2);

/// Which addresses may be dialled.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Only those on one of this host's own links.
    OnLink(OnLink),
    /// All of them.
    Open,
}

impl Gate {
    /// A gate that reads this host's interfaces.
    pub fn on_link() -> Self {
        Self::OnLink(OnLink { subnets: Arc::new(Mutex::new((None, Vec::new()))) })
    }

    /// Whether `address` may be dialled.
    ///
    /// # Errors
    /// [`Refused`] with the address. Names are refused by an on-link gate without being looked up: the look-up itself
    /// would leave the link.
    pub fn check(&self, address: &Multiaddr) -> Result<(), Refused> {
        let Self::OnLink(link) = self else { return Ok(()) };
        let permitted = match address.iter().next() {
            Some(Protocol::Ip4(ip)) => link.holds(ip.into()),
            Some(Protocol::Ip6(ip)) => link.holds(ip.into()),
            Some(Protocol::Ip6zone(_)) => {
                matches!(address.iter().nth(1), Some(Protocol::Ip6(ip)) if is_link_local(&ip))
            }
            Some(Protocol::Memory(_)) => true,
            _ => false,
        };
        let relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
        if permitted && !relayed { Ok(()) } else { Err(Refused { address: address.clone() }) }
    }
}

/// A subnet: an address and the length of its prefix in bits.
type Subnet = (IpAddr, u8);

/// This host's subnets, read anew every `SUBNETS_LIFETIME`.
#[derive(Clone, Debug)]
pub struct OnLink {
    subnets: Arc<Mutex<(Option<Instant>, Vec<Subnet>)>>,
}

impl OnLink {
    fn holds(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || is_link_local(&ip),
        };
        if link_local {
            return true;
        }
        let mut cached = self.subnets.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0.is_none_or(|at| at.elapsed() > SUBNETS_LIFETIME) {
            match subnets() {
                Ok(found) => *cached = (Some(Instant::now()), found),
                Err(error) => {
                    tracing::warn!(%error, "cannot read this host's interfaces, nothing is dialled");
                    return false;
                }
            }
        }
        cached.1.iter().any(|subnet| contains(*subnet, ip))
    }
}

fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

fn subnets() -> std::io::Result<Vec<Subnet>> {
    let subnet = |address: IfAddr| match address {
        IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
        IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
    };
    // What lies at the other end of a tunnel is not on this host's link, whatever subnet the tunnel has.
    let links = get_if_addrs()?.into_iter().filter(|interface| !interface.is_p2p());
    Ok(links.map(|interface| subnet(interface.addr)).collect())
}

/// Whether `ip` lies in the subnet. A subnet without a prefix, which would hold the whole internet, holds nothing.
fn contains((network, prefix): Subnet, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            prefix > 0 && !is_special(&ip) && u32::from(network) & mask == u32::from(ip) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            prefix > 0 && u128::from(network) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

fn is_special(ip: &Ipv4Addr) -> bool {
    ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast()
}

/// The gate is shut for this address.
#[derive(Debug, thiserror::Error)]
#[error("`{address}` is not on this host's own network, and only such addresses are dialled in a LAN")]
pub struct Refused {
    address: Multiaddr,
}

/// What dialling through the gate may end with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatedError<E> {
    /// The gate is shut.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The transport behind the gate failed.
    #[error(transparent)]
    Transport(E),
}

/// A transport behind a gate.
pub(super) struct Gated<T> {
    inner: T,
    gate: Gate,
}

impl<T> Gated<T> {
    pub(super) fn new(inner: T, gate: Gate) -> Self {
        Self { inner, gate }
    }
}

impl<T> Transport for Gated<T>
where
    T: Transport + Unpin,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    type Output = T::Output;
    type Error = GatedError<T::Error>;
    type ListenerUpgrade = futures::future::MapErr<T::ListenerUpgrade, fn(T::Error) -> Self::Error>;
    type Dial = futures::future::MapErr<T::Dial, fn(T::Error) -> Self::Error>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address).map_err(|error| error.map(GatedError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        use futures::TryFutureExt as _;
        self.gate.check(&address).map_err(|refused| TransportError::Other(refused.into()))?;
        // Dialling from the port that is listened on serves to get through NATs. Here it only makes every dial fail when
        // another program has that port on another of this host's addresses, and two peers that dial each other collide.
        let options = DialOpts { port_use: PortUse::New, ..options };
        let dial = self.inner.dial(address, options).map_err(|error| error.map(GatedError::Transport))?;
        Ok(dial.map_err(GatedError::Transport as fn(T::Error) -> Self::Error))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        use futures::TryFutureExt as _;
        Pin::new(&mut self.inner).poll(context).map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map_err(GatedError::Transport as fn(T::Error) -> Self::Error))
                .map_err(GatedError::Transport)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(subnets: &[(&str, u8)]) -> Gate {
        let parse = |(ip, prefix): &(&str, u8)| (ip.parse().expect("an address"), *prefix);
        let list = subnets.iter().map(parse).collect();
        // Believed for ever, as far as a test goes: read in the future.
        let at = Instant::now() + Duration::from_secs(3600);
        Gate::OnLink(OnLink { subnets: Arc::new(Mutex::new((Some(at), list))) })
    }

    #[test]
    fn c14_only_on_link_addresses_pass() {
        let gate = gate(&[("192.168.7.20", 24), ("10.1.1.1", 32), ("0.0.0.0", 0), ("fd00:1::5", 64)]);
        let passes = |address: &str| gate.check(&address.parse().expect("a multiaddr")).is_ok();
        for on_link in [
            "/ip4/192.168.7.99/tcp/4001",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.3.4/tcp/1",
            "/ip6/fd00:1::77/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/::ffff:192.168.7.1/tcp/1",
        ] {
            assert!(passes(on_link), "{on_link}");
        }
        for off_link in [
            "/ip4/192.168.8.1/tcp/4001",
            "/ip4/10.1.1.2/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip6/::ffff:8.8.8.8/tcp/1",
            "/dns4/example.org/tcp/1",
            "/dnsaddr/bootstrap.libp2p.io",
            "/ip4/192.168.7.9/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit",
        ] {
            assert!(!passes(off_link), "{off_link}");
        }
    }
}
