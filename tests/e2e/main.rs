//! What a user sees: the programs, end to end. One binary; a file of tests a topic.

mod crash;
mod encrypted;
mod estargz;
mod full_disk;
mod hosts;
mod killed;
mod login;
mod parsers;
mod private;
mod quiet;
mod readme;
mod refusals;
mod registry;
mod relay;
mod repository;
mod run;
mod seeing;
mod swarm;
mod tidy;
mod unpack;
mod unpack_archives;
mod unpack_limits;
mod unpack_namespace;
mod unpack_race;
mod unpack_whiteouts;
mod upstream;
