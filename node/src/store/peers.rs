//! Peers that delivered lately, by network: hints for the next time.
//!
//! Imports its siblings. Addresses are bytes here: what they mean, and which of them may be dialled, knows the network.

use super::guard::read;
use super::record::{Peers, Record};
use super::{Store, StoreError};

/// Addresses kept for one network.
const MAX_ADDRESSES: usize = 32;
/// Longest address that is kept, in bytes: an IPv6 address, a port, a transport and a peer take 70.
const MAX_ADDRESS_BYTES: usize = 256;

impl Store {
    /// Writes down who delivered in a network, the last first, in place of what was known of it. Durable on return. What
    /// is known already is not written again; more than 32, and oversized ones, are left out.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn remember_peers(&self, network: &[u8], addresses: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let fit = addresses.into_iter().filter(|address| address.len() <= MAX_ADDRESS_BYTES);
        let addresses: Vec<_> = fit.take(MAX_ADDRESSES).collect();
        if self.remembered_peers(network) == addresses {
            return Ok(());
        }
        self.inner.commit_with(&[Record::Peers(Peers { network: network.to_vec(), addresses })])
    }

    /// Who delivered in a network before, the last first.
    pub fn remembered_peers(&self, network: &[u8]) -> Vec<Vec<u8>> {
        read(&self.inner.facts).peers.get(network).cloned().unwrap_or_default()
    }
}
