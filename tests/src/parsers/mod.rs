//! Every reader of bytes that come from strangers, or from a disk that may lie: what the fuzzers run and the tests replay.
//!
//! Each takes any bytes, must not panic, and checks what holds of whatever was accepted. Imports the readers as their
//! users do, those that are private to a crate through its `testing` feature. Never does I/O but in a temporary folder.

mod control;
mod dag;
mod encrypted;
mod estargz;
mod exchange;
mod image;
mod layer;
mod store;

/// A reader that is fuzzed.
#[derive(Clone, Copy)]
pub struct Parser {
    /// Name of its fuzz target, and of the folder with its corpus.
    pub name: &'static str,
    /// Feeds it one input and says whether any of it was accepted; panics when something that must hold does not.
    pub run: fn(&[u8]) -> bool,
}

/// All of them. A target without an entry here, or the other way round, fails a test.
pub const PARSERS: [Parser; 13] = [
    Parser { name: "cid", run: dag::cid },
    Parser { name: "dag_node", run: dag::node },
    Parser { name: "dag_walk", run: dag::walk },
    Parser { name: "bitswap_message", run: exchange::bitswap_message },
    Parser { name: "store_journal", run: store::journal },
    Parser { name: "store_pack", run: store::pack },
    Parser { name: "image_document", run: image::document },
    Parser { name: "image_archive", run: image::archive },
    Parser { name: "layer", run: layer::layer },
    Parser { name: "estargz", run: estargz::layer },
    Parser { name: "encrypted_layer", run: encrypted::layer },
    Parser { name: "reference", run: image::reference },
    Parser { name: "control_message", run: control::message },
];

/// Runs the parser called `name`, and says whether it accepted any of the input.
///
/// # Panics
/// When there is none, and whenever the parser does.
pub fn run(name: &str, input: &[u8]) -> bool {
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    (parser.expect("every fuzz target is one of PARSERS").run)(input)
}
