//! What the end-to-end tests and the benchmarks share: images to push, programs to run, hosts to run them on.
//!
//! May import the crates under test as a user would. It never reaches the internet, and never leaves a process, a
//! namespace or a mount behind.

pub mod archives;
pub mod crafted;
pub mod debian;
pub mod engines;
pub mod forward;
pub mod http;
pub mod image;
pub mod multi_arch;
pub mod netns;
pub mod ordinary;
pub mod parsers;
pub mod passing;
pub mod peers;
pub mod program;
pub mod repository;
pub mod runnable;
pub mod table;
pub mod terminal;
pub mod tree;
pub mod unpacking;
