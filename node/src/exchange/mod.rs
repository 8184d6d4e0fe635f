//! Where blocks come from when they are not here: other peers.
//!
//! May import [`crate::block`], [`crate::store`] (the `Blockstore` seam) and libp2p's stream types. It never dials:
//! it says what it is looking for, and the owner of the swarm connects.

pub mod bitswap;
