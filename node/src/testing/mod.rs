//! Twins of the seams that keep what happens in memory, and suites that every implementation of a seam passes.
//!
//! For this crate's tests and for those of crates that embed it. [`blockstore_suite`] is what a block store must do;
//! [`decode_records`] and [`scan`] are the readers of the store's files, for fuzzing; `disk` and `index` are a disk whose
//! power can be cut at any moment; [`kubo`] is a daemon with Kubo's RPC that
//! misbehaves on demand. Never part of a build for users.

mod blockstore;
#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod index;
pub mod kubo;

pub use crate::store::journal::{Decoded, JournalError, Position, decode_records, encode_frames, encode_journal};
pub use crate::store::packs::{Packed, Scanned, Tail, scan};
pub use crate::store::record::{Link, Record};
pub use blockstore::blockstore_suite;
#[cfg(test)]
pub(crate) use disk::Dice;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod full;
#[cfg(test)]
mod scenario;
