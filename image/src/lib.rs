//! OCI images on an IPFS node.
//!
//! Reading order: [`event`] (what a running verb tells), [`blobs`] (the seam to storage), [`oci`] (documents), [`reference`]
//! (what a user types).
//!
//! The library reads no environment variable and no home directory, and prints nothing.

pub mod blobs;
pub mod control;
pub mod event;
pub mod link;
pub mod location;
pub mod oci;
pub mod plan;
pub mod reference;
pub mod sink;
pub mod source;
