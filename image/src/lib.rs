//! OCI images on an IPFS node.
