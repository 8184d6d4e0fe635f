//! Waits until an address is listened on: one that stands for all interfaces, at each of them.
//!
//! Imports the error of its parent. It never touches the swarm and reads no clock: the actor tells it what
//! happens there, and when.

use super::NetError;
use if_addrs::get_if_addrs;
use libp2p::Multiaddr;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long to wait for a listener to say what it is bound to.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the other interfaces after the first: the system names them all at once. Some are never named
/// (the near end of a tunnel), and nobody should wait for those.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(250);

/// Says whether an address is listened on.
pub(super) type Listened = oneshot::Sender<Result<(), NetError>>;

struct Binding {
    address: Multiaddr,
    missing: HashSet<IpAddr>,
    bound: bool,
    until: Instant,
    reply: Listened,
}

/// Listeners that are not bound to everything they are to be bound to.
#[derive(Default)]
pub(super) struct Listening(HashMap<ListenerId, Binding>);

impl Listening {
    pub(super) fn begin(&mut self, id: ListenerId, address: Multiaddr, reply: Listened, now: Instant) {
        let missing = stands_for(&address);
        let until = now + LISTEN_TIMEOUT;
        self.0.insert(id, Binding { address, missing, bound: false, until, reply });
    }

    /// A listener is bound to this address as well.
    pub(super) fn bound(&mut self, id: ListenerId, address: &Multiaddr, now: Instant) {
        let Some(binding) = self.0.get_mut(&id) else { return };
        if let Some(ip) = ip_in(address) {
            binding.missing.remove(&ip);
        }
        if !binding.bound {
            binding.bound = true;
            binding.until = now + SETTLE_TIMEOUT;
        }
        if binding.missing.is_empty() {
            self.end(id, "");
        }
    }

    /// A listener ended.
    pub(super) fn closed(&mut self, id: ListenerId, reason: &str) {
        if let Some(binding) = self.0.get_mut(&id) {
            binding.bound = false;
            self.end(id, reason);
        }
    }

    /// When to look again whether somebody has waited long enough; `None` when nobody waits.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|binding| binding.until).min()
    }

    /// Answers those who have waited long enough.
    pub(super) fn tick(&mut self, now: Instant) {
        let overdue: Vec<_> = self.0.iter().filter(|(_, binding)| binding.until <= now).map(|(id, _)| *id).collect();
        overdue.into_iter().for_each(|id| self.end(id, "no interface has such an address"));
    }

    fn end(&mut self, id: ListenerId, reason: &str) {
        let Some(Binding { address, bound, reply, .. }) = self.0.remove(&id) else { return };
        let failed = || NetError::Listen { address, reason: reason.to_owned() };
        let _ = reply.send(if bound { Ok(()) } else { Err(failed()) });
    }
}

fn ip_in(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// The addresses of this host that an unspecified one stands for; none for any other.
fn stands_for(address: &Multiaddr) -> HashSet<IpAddr> {
    let Some(asked) = ip_in(address).filter(IpAddr::is_unspecified) else { return HashSet::new() };
    let interfaces = get_if_addrs().unwrap_or_default();
    interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| ip.is_ipv4() == asked.is_ipv4()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_listened_on_once_every_interface_is() {
        let (mut listening, id, now) = (Listening::default(), ListenerId::next(), Instant::now());
        let (reply, mut listened) = oneshot::channel();
        listening.begin(id, address("/ip4/0.0.0.0/tcp/0"), reply, now);
        let own = stands_for(&address("/ip4/0.0.0.0/tcp/0"));
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])) && own.iter().all(IpAddr::is_ipv4));
        for ip in own {
            assert!(listened.try_recv().is_err(), "not yet");
            listening.bound(id, &Multiaddr::from(ip).with(Protocol::Tcp(1)), now);
        }
        assert!(listened.try_recv().expect("an answer").is_ok());
        assert!(listening.next().is_none());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut listening, now) = (Listening::default(), Instant::now());
        let ids = [ListenerId::next(), ListenerId::next(), ListenerId::next()];
        let answers = ids.map(|id| {
            let (reply, listened) = oneshot::channel();
            listening.begin(id, address("/ip4/192.0.2.1/tcp/4001"), reply, now);
            listened
        });
        // What one of them would have been bound to besides never comes.
        listening.0.get_mut(&ids[0]).expect("waits").missing.insert(IpAddr::from([192, 0, 2, 2]));
        listening.bound(ids[0], &address("/ip4/192.0.2.1/tcp/4001"), now);
        listening.closed(ids[1], "the address is in use");
        for waited in [SETTLE_TIMEOUT, LISTEN_TIMEOUT] {
            assert_eq!(listening.next(), Some(now + waited));
            listening.tick(now + waited);
        }
        let said = answers.map(|mut answer| answer.try_recv().expect("an answer").map_err(|error| error.to_string()));
        assert_eq!(said[0], Ok(()));
        assert!(said[1].as_ref().is_err_and(|error| error.ends_with("the address is in use")), "{said:?}");
        assert!(said[2].as_ref().is_err_and(|error| error.ends_with("no interface has such an address")), "{said:?}");
    }
}
