//! Verbs that any process can have carried out, whoever owns the repository.
//!
//! A [`Request`] is plain data. The process that owns the repository, the holder, carries it out; another process sends it
//! there through a private socket and gets the same events and the same [`Reply`] or [`Failure`].

mod client;
mod commit;
mod doctor;
mod explain;
mod failure;
mod find;
mod foreign;
mod frame;
mod holder;
mod host;
mod images;
mod inspect;
mod local;
mod network;
mod online;
mod prepare;
mod queue;
mod registry;
mod reply;
mod request;
mod server;
mod session;
mod socket;
mod swarm_key;
mod verify;
mod why;
mod wire;

pub use doctor::{Check, Doctor, Verdict};
pub use failure::{Failure, FailureKind};
pub use foreign::{IpfsAddress, IpfsDaemon, needs_own_node};
pub use holder::{Holder, Order, Repository};
pub use host::{Host, NodeRepository};
pub use network::{check_address, check_platform};
pub use queue::EventQueue;
pub use reply::{
    Collected, Copied, Identity, ImageRow, PeerRow, Prepared, Pulled, Pushed, Removed, Reply, Saved, Tagged, Verified,
};
pub use request::{
    Commit, NetworkChoice, Options, PlatformChoice, Prepare, Pull, PullPolicy, Push, Registry, Request, Source, Stream,
};
pub use session::Session;
pub use swarm_key::{SWARM_KEY_FILE, generate_swarm_key, write_swarm_key};
pub use why::{Asked, Dial, Fetched, Here, Other, Routing, Why};
pub use wire::Role;

#[cfg(test)]
mod tests;
