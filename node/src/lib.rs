//! An IPFS node to embed.
//!
//! Reading order: [`block`] (bytes and their CID), [`dag`] (files and directories made of blocks), [`store`] (where
//! they lie on disk), [`pin`] (what is kept), [`net`] (who is connected), [`exchange`] (asking them for blocks),
//! [`fetch`] (making a file local), [`add`] (taking one in), [`rpc`] (a daemon of somebody else's), [`trace`] (what became
//! of the last fetches), [`config`] (what a node is told), [`node`] (all of it behind one handle).
//!
//! The library reads no environment variable and no home directory, prints nothing, and opens no socket before it is
//! asked to.

pub mod add;
pub mod block;
pub mod config;
pub mod dag;
pub mod exchange;
pub mod fetch;
pub mod net;
pub mod node;
pub mod pin;
mod provide;
pub mod rpc;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trace;

// Foreign types that stand in this crate's signatures: embedders need not name the crates they come from.
pub use block::Cid;
pub use libp2p::PeerId;
pub use libp2p::multiaddr::{Multiaddr, Protocol};
pub use libp2p::pnet::PreSharedKey;
