//! What a user sees: the programs, end to end. One binary; a file of tests a topic.

mod crash;
mod full_disk;
mod hosts;
mod killed;
mod parsers;
mod private;
mod quiet;
mod readme;
mod refusals;
mod relay;
mod repository;
mod seeing;
mod tidy;
