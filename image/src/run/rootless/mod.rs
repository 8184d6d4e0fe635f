//! Root of a namespace of one's own: what a user who is not root needs to unpack layers and to run containers.
//!
//! Reading order: [`ids`] (which users exist inside), `enter` (becoming root of a new namespace), [`error`] (why the kernel
//! says no), `wire` and `worker` (a process that works inside), [`helper`] (how the processes outside have it work),
//! [`process`] (the hidden verb). Imports [`layer`](crate::layer), which unpacks, and what keeps layers beside it.
//!
//! Only a process with one thread can enter a user namespace, and what lies on disk under the ids of one can only be
//! changed inside of one with the same ids. So the process that the user started stays outside, and starts this program
//! again for each such piece of work: short-lived, told what to do through a socket that nobody else can name, gone when
//! its other end is. Two namespaces with the same ids see the same owners, so none has to be kept for the next time.

mod enter;
pub mod error;
pub mod helper;
pub mod ids;
pub mod process;
mod worker;

pub(crate) use enter::enter;
pub use error::NamespaceError;
pub use helper::Helper;
pub(crate) use helper::{Unnamed, Unpacked, Work, failure};
