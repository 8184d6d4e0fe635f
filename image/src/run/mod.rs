//! Runs images as containers.
//!
//! Reading order: [`settings`] (what a user asks), [`image_config`] (what the image says), [`user`] (as whom), `rootfs`
//! (looking into a stranger's root), [`layers`] (unpacked once, shared), `runnable` (one platform's image), `stack` with
//! `overlay` and `fuse` (one root out of its layers), `bundle` and `compose` (what the runtime is told), [`rootless`] (root of
//! a namespace of one's own) with `keeper` (who unpacks), [`runtime`] (`runc`, `crun`), [`state`] (containers on disk), `wire`,
//! [`watch`] (the process that watches a container), [`attach`] (the user's command), [`log`], [`lifecycle`] (stop, remove,
//! clear away), `pause`, [`exec`]; and [`containerd`], where another program does all that.
//!
//! The command that the user typed starts a watcher: the same program, on its own. It mounts the container's root in a
//! mount namespace of its own, has the runtime start the command, waits for it and clears everything away. Dies the command
//! of the user, the watcher ends the container; dies the watcher, the kernel takes the mounts away, and the next command
//! that deals with containers ends and removes what is left. Started by another user than root, it makes itself root of a user
//! namespace first, and all that it starts lives in there. Nothing in an image changes what happens on the host.

pub mod attach;
mod bundle;
mod compose;
pub mod containerd;
mod error;
pub mod exec;
mod fuse;
pub mod image_config;
pub(crate) mod keeper;
pub mod layers;
pub mod lifecycle;
pub mod log;
pub(crate) mod overlay;
pub(crate) mod pause;
mod rootfs;
pub mod rootless;
pub(crate) mod runnable;
pub mod runtime;
pub mod settings;
mod stack;
pub mod state;
mod terminal;
pub mod user;
pub mod watch;
pub(crate) mod wire;

pub use self::{error::RunError, runnable::RunnableError};
