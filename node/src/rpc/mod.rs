//! Kubo's RPC: its commands over HTTP, as `ipfs` and nerdctl speak them with a daemon.
//!
//! [`address`] is where a daemon is and how to be let in, [`client`] has it carry commands out. Imports `block`, `dag`,
//! `store` and the plain types of `add` and `fetch`. A daemon is somebody else's program: no byte from it is used before
//! it was hashed, no answer is longer than it may be, and nothing is waited for without a deadline.

pub mod address;
pub mod client;

pub use address::{AddressError, Credentials, Endpoint, Place};
pub use client::{Kubo, RpcError};
