//! Verbs that any process can have carried out, whoever owns the repository.
//!
//! A [`Request`] is plain data. The process that owns the repository, the holder, carries it out; another process sends it
//! there through a private socket and gets the same events and the same [`Reply`] or [`Failure`].

mod failure;
mod reply;
mod request;

pub use failure::{Failure, FailureKind};
pub use reply::{Collected, Identity, ImageRow, PeerRow, Pulled, Pushed, Removed, Reply, Saved, Tagged, Verified};
pub use request::{NetworkChoice, Options, PlatformChoice, Pull, Push, Request, Shape, Source, Stream};
