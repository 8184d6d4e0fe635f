//! An IPFS node to embed.
//!
//! Reading order: [`block`] (bytes and their CID), [`dag`] (files and directories made of blocks), [`store`] (where
//! they lie on disk), [`pin`] (what is kept).
//!
//! The library reads no environment variable and no home directory, prints nothing, and opens no socket before it is
//! asked to.

pub mod block;
pub mod dag;
pub mod pin;
pub mod store;
