//! rust-ipfs 0.16, the other implementation in Rust: an in-memory store, and a Bitswap of its own.

use crate::ours::{Ours, noise};
use shipfs_tests::peers::program;
use shipfs_tests::program::{Running, run};
use shipfs_tests::table::{Row, Table};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

#[test]
fn interop_matrix_of_rust_ipfs() {
    const NAME: &str = "interop_matrix_of_rust_ipfs";
    let Some(program) = program(NAME, "rust-ipfs") else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let mut table = Table::default();
    for size in [1 << 10, 1 << 20, 64 << 20] {
        let bytes = noise(size);
        let row = |way: &str, took| Row {
            peer: "rust-ipfs 0.16".to_owned(),
            way: way.to_owned(),
            transport: "TCP",
            key: "no",
            size,
            result: Ok(took),
        };
        let ours = Ours::start(Some("/ip4/127.0.0.1/tcp/0"), &[], None);
        let (cid, address) = ours.serve(&bytes);
        let dest = folder.path().join("dest");
        let began = Instant::now();
        let out = File::create(&dest).expect("a file");
        run(Command::new(&program).args(["fetch", &address, &cid.to_string()]).stdin(Stdio::null()).stdout(out));
        table.add(row("ours -> rust-ipfs", began.elapsed()));
        assert!(std::fs::read(&dest).expect("there") == bytes, "{size} bytes differ");

        let file = folder.path().join("file");
        std::fs::write(&file, &bytes).expect("written");
        let mut serve = Command::new(&program);
        serve.arg("serve").stdin(File::open(&file).expect("a file"));
        let (_serving, lines) = Running::start_after(&mut serve, "/p2p/").expect("serves");
        let [cid, peer] = lines.as_slice() else { panic!("it says {lines:?}") };
        let took = Ours::start(None, &[peer], None).fetch(cid, &bytes);
        table.add(row("rust-ipfs -> ours", took.unwrap_or_else(|error| panic!("{size}: {error}"))));
    }
    table.finish("rust_ipfs");
}
