//! Layers as directories: hostile archives, unpacked safely.
//!
//! Reading order: [`options`] (what is allowed), [`decompress`] and `stream` (bytes, on threads of their own, hashed on
//! the way), `header`, `pax` and `sparse` (what a tar says), [`entry`] (what it means), [`whiteout`], `tree` (one directory, never
//! left), `metadata`, `apply` with `make` and `hide` (a layer into a directory), [`place`] (a layer into a store of layers),
//! `block` (headers to be written), [`mod@write`] (a directory into a layer) and [`estargz`] (a layer into one that can be
//! mounted before it is there). Imports [`oci`](crate::oci) for digests and media types.
//!
//! No path of an archive is ever handed to the kernel whole without being confined to the target, no link is followed at
//! the end of one, and nothing is remembered about the tree but inode numbers. An archive that two readers could
//! understand in two ways is refused. Everything here blocks.
//!
//! Deviations from what other tools make of a layer, each on purpose: a whiteout never removes what its own layer brings
//! (image-spec; containerd goes by the order of entries), `./` sets the mode and owner of the layer's root (as umoci does;
//! containerd skips it), and a device of another layer's whiteout (0:0) is never made.

pub mod apply;
mod block;
pub mod decompress;
pub mod entry;
pub mod estargz;
mod failure;
mod header;
mod hide;
mod make;
pub(crate) mod merge;
mod metadata;
pub mod options;
mod pax;
pub mod place;
pub(crate) mod remove;
mod sparse;
mod stream;
mod tree;
pub mod whiteout;
pub mod write;

pub use self::{
    apply::{Applied, Warning, Warnings, apply},
    failure::{ApplyError, HeaderProblem, Limit, NameProblem, Shown},
    options::{Devices, Limits, Options, Ownership, Whiteouts},
    place::{Staged, stage_layer, sweep, unpack_layer},
    write::{Changes, WriteError, Written, write_layer},
};
