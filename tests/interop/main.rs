//! With programs of other projects: what they make we read, what we make they read. One binary; a file a project.
//!
//! Every test is named `interop_`; one whose program is not here is skipped, loudly, and fails in CI.

mod kubo;
mod unpack;
