//! Builds images from Dockerfiles that name CIDs, with somebody else's builder.
//!
//! Reading order: [`dockerfile`] (what a Dockerfile names, and the same with other names), [`builder`] (the programs that
//! build, and what they are told). A builder knows registries alone, so `ipfs://CID` becomes the name that a registry of
//! this host answers to. Nothing here runs a registry, and the user's files are never changed.

pub mod builder;
pub mod dockerfile;
