//! OCI images on an IPFS node.
//!
//! Reading order: [`event`] (what a running verb tells), [`blobs`] (the seam to storage), [`oci`] (documents),
//! [`mod@reference`] and [`location`] (what a user types), [`services`], [`programs`], [`registry_client`],
//! [`containerd`] and [`engine`] (what other programs offer), [`source`] (where images come from), [`plan`] (which blobs an image
//! consists of), [`crypt`] (layers that only some can read), [`link`] (digests to CIDs), [`push`], [`root`] (what a CID turns out to be), [`bring`] (blobs, checked),
//! [`pull`], [`inspect`], [`names`] (what is kept), [`sink`], [`save`] and [`mod@copy`] (where images go to), [`layer`] and
//! [`run`] (images as containers), [`commit`] (containers as images), [`build`] (Dockerfiles that name CIDs), [`control`] (the verbs of other processes),
//! [`registry`] (the same behind the protocol of registries).
//!
//! The library reads no environment variable and no home directory, and prints nothing.

pub mod blobs;
pub mod bring;
pub mod build;
pub mod commit;
pub mod containerd;
pub mod control;
pub mod copy;
pub mod crypt;
pub mod engine;
pub mod event;
pub mod inspect;
pub mod layer;
pub mod link;
pub mod location;
pub mod names;
pub mod oci;
pub mod plan;
pub mod programs;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod registry_client;
pub mod rfc3339;
pub mod root;
pub mod run;
pub mod save;
pub mod services;
pub mod sink;
pub mod source;
