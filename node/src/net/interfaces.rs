//! This host's own addresses, for whoever wants to know what is on-link.
//!
//! Imports nothing of this crate. Nothing is sent, and no network socket is opened but the one that the system's list of
//! interfaces is read through.

use if_addrs::{IfAddr, get_if_addrs};
use std::io;
use std::net::IpAddr;

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
    /// Bits of the subnet's prefix: what shares them is on-link.
    pub prefix: u8,
}

/// The addresses of this host, loopback included.
///
/// # Errors
/// What the system says.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let told = get_if_addrs()?.into_iter().map(|interface| {
        let (ip, prefix) = match interface.addr {
            IfAddr::V4(v4) => (v4.ip.into(), v4.prefixlen),
            IfAddr::V6(v6) => (v6.ip.into(), v6.prefixlen),
        };
        Interface { name: interface.name, ip, prefix }
    });
    Ok(told.collect())
}
