//! With programs of other projects: what they make we read, what we make they read. One binary; a file a project.
//!
//! Every test is named `interop_`; one whose program is not here is skipped, loudly, and fails in CI.

mod archives;
mod build;
mod containerd;
mod cosign;
mod docker;
mod encrypted;
mod helia;
mod kubo;
mod matrix;
mod nerdctl;
mod older;
mod ours;
mod podman;
mod private;
mod registry;
mod registry_client;
mod registry_clients;
mod registry_tls;
mod rpc;
mod run_containerd;
mod rust_ipfs;
mod stargz;
mod unpack;
mod upstream;
mod write_layer;
