//! The `shipfs` command as a user meets it: what it prints where, and what it exits with.
//!
//! Each test has repositories of its own. Peers are named by loopback address in a private network, so that nothing is
//! looked for by multicast.

mod errors;
mod help;
mod holder;
mod places;
mod seeing;
mod support;
mod verbs;
