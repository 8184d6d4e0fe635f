//! Kubo 0.22 of 2023, as people still run it: RSA identities, Bitswap with a stream a message, no DHT here.

use crate::ours::{Ours, noise};
use shipfs_tests::image::hex;
use shipfs_tests::peers::program;
use shipfs_tests::program::{Running, run};
use shipfs_tests::table::{Row, Table};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KEY: [u8; 32] = [0x5a; 32];

struct Old<'a> {
    program: &'a Path,
    folder: TempDir,
}

impl<'a> Old<'a> {
    fn new(program: &'a Path, transport: &str, key: Option<[u8; 32]>) -> Self {
        let old = Self { program, folder: TempDir::new().expect("a temporary directory") };
        let key = key.map(|key| hex(&key));
        run(old.command("init").arg(transport.to_lowercase()).args(key));
        old
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.program);
        // It writes a log into the folder that it runs in.
        command
            .current_dir(self.folder.path())
            .env("LIBP2P_FORCE_PNET", "0")
            .arg(verb)
            .arg(self.folder.path().join("repo"));
        command
    }

    /// A node that serves a file: its CID, and where it is.
    fn serve(&self, bytes: &[u8]) -> (Running, String, String) {
        let file = self.folder.path().join("file");
        std::fs::write(&file, bytes).expect("written");
        // It serves until its stdin ends.
        let mut command = self.command("serve");
        let (running, lines) = Running::start_after(command.arg(file).stdin(Stdio::piped()), "READY").expect("serves");
        let said = |what: &str| lines.iter().find_map(|line| line.strip_prefix(what)).expect("it says so").to_owned();
        let listeners: Vec<String> = serde_json::from_str(&said("MA=")).expect("a list");
        (running, said("CID="), format!("{}/p2p/{}", listeners[0], said("ID=")))
    }
}

#[test]
fn interop_matrix_of_kubo_022() {
    const NAME: &str = "interop_matrix_of_kubo_022";
    let Some(program) = program(NAME, "kubo022") else { return };
    let mut table = Table::default();
    let ways = [
        ("TCP", "/ip4/127.0.0.1/tcp/0", None),
        ("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1", None),
        ("TCP", "/ip4/127.0.0.1/tcp/0", Some(KEY)),
    ];
    for size in [1 << 10, 1 << 20, 64 << 20] {
        let bytes = noise(size);
        for (transport, listen, key) in ways {
            let row = |way: &str, took| Row {
                peer: "Kubo 0.22".to_owned(),
                way: way.to_owned(),
                transport,
                key: if key.is_some() { "yes" } else { "no" },
                size,
                result: Ok(took),
            };
            let ours = Ours::start(Some(listen), &[], key);
            let (cid, address) = ours.serve(&bytes);
            let old = Old::new(&program, transport, key);
            let dest = old.folder.path().join("dest");
            let began = Instant::now();
            let said = run(old.command("fetch").arg(&address).arg(cid.to_string()).arg(&dest).stdin(Stdio::null()));
            let started = said.lines().find_map(|line| line.split("secs=").nth(1)?.split(' ').next()?.parse().ok());
            let took = started.map_or(began.elapsed(), Duration::from_secs_f64);
            assert!(std::fs::read(dest).is_ok_and(|got| got == bytes), "{transport} {size}: {said}");
            table.add(row("ours -> Kubo", took));
            drop(ours);

            let old = Old::new(&program, transport, key);
            let (_serving, cid, peer) = old.serve(&bytes);
            let got = Ours::start(None, &[&peer], key).fetch(&cid, &bytes);
            let took = got.unwrap_or_else(|error| panic!("{transport} {size}: {error}"));
            table.add(row("Kubo -> ours", took));
        }
    }
    table.finish("kubo_022");
}
