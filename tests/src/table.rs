//! A table of how fast files went, for people to read: peer, direction, transport, key, size.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// One transfer.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who is at the other end.
    pub peer: String,
    /// From where to where.
    pub way: String,
    /// The transport.
    pub transport: &'static str,
    /// Whether there is a swarm key.
    pub key: &'static str,
    /// Bytes of the file.
    pub size: u64,
    /// How long it took; else why it cannot work.
    pub result: Result<Duration, &'static str>,
}

/// All transfers of a test.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a transfer.
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    /// The table in Markdown.
    pub fn text(&self) -> String {
        let mut text =
            "| peer | way | transport | key | size | ms | MiB/s |\n|---|---|---|---|--:|--:|--:|\n".to_owned();
        for Row { peer, way, transport, key, size, result } in &self.0 {
            let shown = match size {
                size if *size >= 1 << 30 => format!("{} GiB", size >> 30),
                size if *size >= 1 << 20 => format!("{} MiB", size >> 20),
                size => format!("{} KiB", size >> 10),
            };
            let result = match result {
                // What is shorter than a command's start says nothing of speed.
                Ok(time) if *size < 16 << 20 => format!("{} | ", time.as_millis()),
                Ok(time) => format!("{} | {:.0}", time.as_millis(), *size as f64 / MIB / time.as_secs_f64()),
                Err(reason) => format!(" | {reason}"),
            };
            let _ = writeln!(text, "| {peer} | {way} | {transport} | {key} | {shown} | {result} |");
        }
        text
    }

    /// Prints it; with `SHIPFS_RECORD` set, writes it to `tests/interop/NAME.md`, too.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[expect(clippy::print_stderr, reason = "a test tells whoever runs it what it measured")]
    pub fn finish(&self, name: &str) {
        let text = self.text();
        eprintln!("{text}");
        if std::env::var_os("SHIPFS_RECORD").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(format!("{name}.md"));
            let build = if cfg!(debug_assertions) { "a debug build" } else { "a release build" };
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let load = load.split(' ').next().unwrap_or("?");
            let head = format!(
                "Measured by `interop_matrix_of_{name}`: {build}, both ends on {cores} cores and one loopback, load average\n\
                 {load}. What counts is the time of the command, or of the call, that fetches; ours checks every digest and\n\
                 syncs, the others' do neither.\n\n"
            );
            std::fs::write(path, head + &text).expect("a file in the tree");
        }
    }
}
