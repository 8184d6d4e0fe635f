//! Compares shipfs with yardsticks that do the same work with nothing around it, all in one run.
//!
//! ```text
//! cargo build --release -p shipfs -p shipfs-tests && target/release/bench [--dir DIR] [--mib N] [--rounds N] [SECTION...]
//! ```
//! Sections: `push index stream pull latency start memory unpack`, and `kubo`, which needs what `tests/peers/setup kubo`
//! builds and is run in a network of its own (`unshare -n`, `ip link set lo up`). Rounds of a program and its yardstick alternate, and the
//! ratio is the median of the rounds' own ratios: machines are noisy, and disks more so. Not a test: it prints.

mod kubo;
mod stream;
mod unpack;
mod yardstick;

use shipfs_tests::image;
use shipfs_tests::program::{self, Running, cpu_seconds, memory_kib, shipfs};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The promises that this compares with.
const GOALS: &str = "goals: push >= 0.8, index >= 0.9, stream >= 0.7, pull >= 0.7, memory <= 64 MiB, first block and \
                     daemon ready <= 300 ms, idle <= 30 MiB, disk <= 1.02";

struct Bench {
    folder: PathBuf,
    mib: u64,
    rounds: usize,
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds that `work` takes, after what is dirty has been written out.
fn timed(work: impl FnOnce()) -> f64 {
    rustix::fs::sync();
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Runs this program's own half of a yardstick, or the library, in a process of its own.
fn child(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("child").args(arguments);
    command
}

/// Starts a serving child; returns it and the address it prints.
fn serving(command: &mut Command) -> (std::process::Child, String) {
    use std::io::BufRead as _;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the child starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout is a pipe");
    std::io::BufReader::new(stdout).read_line(&mut line).expect("the child says its address");
    (child, line.trim().to_owned())
}

fn end(mut child: std::process::Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_file(&path);
        path
    }

    /// Alternates two pieces of work and prints the ratio of their speeds.
    fn compare(&self, name: &str, ours: &mut dyn FnMut() -> f64, yardstick: &mut dyn FnMut() -> f64) {
        let (mut speeds, mut bases, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let (base, time) = (yardstick(), ours());
            speeds.push(self.mib as f64 / time);
            bases.push(self.mib as f64 / base);
            ratios.push(base / time);
        }
        let (speed, base, ratio) = (median(&mut speeds), median(&mut bases), median(&mut ratios));
        let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
        say(&format!(
            "{name:<28} {speed:7.0} MiB/s  yardstick {base:7.0} MiB/s  ratio {ratio:.2}  ({low:.2} to {high:.2})"
        ));
    }

    fn layout(&self) -> PathBuf {
        let path = self.path("layout");
        if !path.exists() {
            image::layout(&path, &[self.mib << 20], 7).expect("the layout is written");
        }
        path
    }

    /// The one large blob of the layout.
    fn blob(&self) -> PathBuf {
        let blobs = std::fs::read_dir(self.layout().join("blobs/sha256")).expect("blobs");
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
        blobs.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(size).expect("a blob")
    }

    fn push_to(&self, repository: &Path) -> String {
        let source = format!("oci:{}", self.layout().display());
        let mut command = shipfs(repository);
        program::run(command.args(["--offline", "--quiet", "push"]).arg(source)).trim().to_owned()
    }

    fn push(&self) {
        let (blob, copy) = (self.blob(), self.path("copy"));
        let mut yardstick = || {
            self.fresh("copy");
            timed(|| yardstick::two_passes_and_write(&blob, &copy))
        };
        let mut ours = || {
            let repository = self.fresh("pushed");
            timed(|| drop(self.push_to(&repository)))
        };
        self.compare("push", &mut ours, &mut yardstick);
        let used = disk_bytes(&self.path("pushed")) as f64 / disk_bytes(&self.layout()) as f64;
        say(&format!("{:<28} {used:.3} of the layout", "disk after push"));
    }

    fn index(&self) {
        let blob = self.blob();
        let mut ours = || {
            let start = Instant::now();
            program::run(&mut child(&["index", &blob.display().to_string()]));
            start.elapsed().as_secs_f64()
        };
        let mut yardstick = || {
            let start = Instant::now();
            program::run(&mut child(&["hash", &blob.display().to_string()]));
            start.elapsed().as_secs_f64()
        };
        self.compare("index (library)", &mut ours, &mut yardstick);
    }

    /// Plain TCP between two processes; the other end does `work`.
    fn plain(&self, work: &str) -> (std::process::Child, impl FnMut() -> f64 + use<>) {
        let blob = self.blob().display().to_string();
        let (server, address) = serving(&mut child(&["tcp-serve", &blob]));
        let (work, copy) = (work.to_owned(), self.path("copy"));
        let fetch = move || {
            let _ = std::fs::remove_file(&copy);
            timed(|| drop(program::run(&mut child(&["tcp-fetch", &address, &work, &copy.display().to_string()]))))
        };
        (server, fetch)
    }

    fn stream(&self) {
        let blob = self.blob().display().to_string();
        let (plain, mut yardstick) = self.plain("drop");
        let (server, address) = serving(&mut child(&["bitswap-serve", &blob]));
        for security in ["tls", "noise"] {
            let mut ours = || {
                let text = program::run(&mut child(&["bitswap-fetch", security, &address, &blob]));
                text.trim().parse().expect("the child prints seconds")
            };
            self.compare(&format!("stream, dropped ({security})"), &mut ours, &mut yardstick);
        }
        end(server);
        end(plain);
    }

    fn latency(&self) {
        let blob = self.blob().display().to_string();
        let (server, address) = serving(&mut child(&["bitswap-serve", &blob]));
        let text = program::run(&mut child(&["bitswap-latency", &address, &blob]));
        say(&format!("{:<28} {}", "one block of 256 KiB", text.trim()));
        end(server);
    }

    fn daemon(&self, repository: &Path) -> (Running, String, f64) {
        let start = Instant::now();
        let listen = ["--network", "lan", "--listen", "/ip4/127.0.0.1/tcp/0", "daemon"];
        let (daemon, _) = Running::start(shipfs(repository).args(listen), "ready").expect("the daemon starts");
        let ready = start.elapsed().as_secs_f64();
        let identity = program::run(shipfs(repository).args(["--json", "id"]));
        let identity: serde_json::Value = serde_json::from_str(&identity).expect("JSON");
        let address = identity["addresses"][0].as_str().expect("an address").to_owned();
        (daemon, address, ready)
    }

    fn pull_command(&self, repository: &Path, address: &str, cid: &str) -> Command {
        let mut command = shipfs(repository);
        command.args(["--network", "lan", "--quiet", "--peer", address, "pull", cid]);
        command
    }

    fn pull(&self) {
        let repository = self.fresh("pushed");
        let cid = self.push_to(&repository);
        let (daemon, address, _) = self.daemon(&repository);
        let (plain, mut yardstick) = self.plain("write");
        let (mut server_cpu, mut client_cpu) = (Vec::new(), Vec::new());
        let mut ours = || {
            let target = self.fresh("pulled");
            let before = (cpu_seconds(daemon.id()).unwrap_or(0.0), cpu_seconds(std::process::id()).unwrap_or(0.0));
            let time = timed(|| drop(program::run(&mut self.pull_command(&target, &address, &cid))));
            server_cpu.push(cpu_seconds(daemon.id()).unwrap_or(0.0) - before.0);
            client_cpu.push(cpu_seconds(std::process::id()).unwrap_or(0.0) - before.1);
            time
        };
        self.compare("pull (tls)", &mut ours, &mut yardstick);
        let cpu = (median(&mut client_cpu), median(&mut server_cpu));
        say(&format!("{:<28} {:.2} s puller, {:.2} s server", "CPU of a pull", cpu.0, cpu.1));
        let used = disk_bytes(&self.path("pulled")) as f64 / disk_bytes(&self.layout()) as f64;
        say(&format!("{:<28} {used:.3} of the layout", "disk after pull"));
        // The same over Noise, without the command around it.
        let blob = program::run(&mut child(&["index", &self.blob().display().to_string()])).trim().to_owned();
        let mut noise = || {
            let target = self.fresh("pulled").display().to_string();
            timed(|| drop(program::run(&mut child(&["noise-pull", &address, &blob, &target]))))
        };
        self.compare("pull (noise, library)", &mut noise, &mut yardstick);
        end(plain);
    }

    fn start(&self) {
        let repository = self.fresh("pushed");
        let cid = self.push_to(&repository);
        let mut ready = Vec::new();
        for _ in 0..self.rounds {
            ready.push(self.daemon(&repository).2 * 1000.0);
        }
        say(&format!("{:<28} {:.0} ms", "daemon ready", median(&mut ready)));
        let (daemon, address, _) = self.daemon(&repository);
        let idle = memory_kib(daemon.id(), "VmRSS:").unwrap_or(0);
        say(&format!("{:<28} {} MiB", "idle daemon", idle / 1024));
        let mut first = Vec::new();
        for _ in 0..self.rounds {
            let target = self.fresh("pulled");
            let mut command = self.pull_command(&target, &address, &cid);
            let start = Instant::now();
            let mut child = command.stdout(Stdio::null()).spawn().expect("shipfs starts");
            // The root's block lies in the repository as soon as it has arrived.
            while !holds_a_blob(&target) && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            first.push(start.elapsed().as_secs_f64() * 1000.0);
            let _ = child.kill();
            let _ = child.wait();
        }
        say(&format!("{:<28} {:.0} ms (peer named)", "start of pull to first block", median(&mut first)));
        drop(daemon);
    }

    /// Peak memory of push, serve and pull.
    fn memory(&self) {
        let repository = self.fresh("pushed");
        let source = format!("oci:{}", self.layout().display());
        let (_, push) = peak(shipfs(&repository).args(["--offline", "--quiet", "push"]).arg(&source));
        let cid = self.push_to(&repository);
        let (daemon, address, _) = self.daemon(&repository);
        let target = self.fresh("pulled");
        let (_, pull) = peak(&mut self.pull_command(&target, &address, &cid));
        let serve = memory_kib(daemon.id(), "VmHWM:").unwrap_or(0);
        let mib = [push, pull, serve].map(|kib| kib / 1024);
        say(&format!(
            "{:<28} push {} MiB, pull {} MiB, serve {} MiB",
            format!("peak memory, {} MiB image", self.mib),
            mib[0],
            mib[1],
            mib[2]
        ));
    }
}

/// Runs a command and watches the peak of its memory, in KiB.
fn peak(command: &mut Command) -> (bool, u64) {
    let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
    let mut highest = 0;
    loop {
        highest = highest.max(memory_kib(child.id(), "VmHWM:").unwrap_or(0));
        if let Ok(Some(status)) = child.try_wait() {
            assert!(status.success(), "{command:?} failed");
            return (true, highest);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a file lies in the repository, complete or not.
fn holds_a_blob(repository: &Path) -> bool {
    let any = |folder: &str| std::fs::read_dir(repository.join(folder)).is_ok_and(|mut list| list.next().is_some());
    any("blobs/sha256") || any("partial")
}

/// Bytes that the files below a folder take on disk.
fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "child") {
        let arguments: Vec<_> = arguments[1..].iter().map(String::as_str).collect();
        return stream::child(&arguments);
    }
    let mut option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.remove(at);
        Some(arguments.remove(at))
    };
    let folder = option("--dir").map_or_else(|| std::env::temp_dir().join("shipfs-bench"), PathBuf::from);
    let mib = option("--mib").and_then(|text| text.parse().ok()).unwrap_or(256);
    let rounds = option("--rounds").and_then(|text| text.parse().ok()).unwrap_or(5);
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let bench = Bench { folder, mib, rounds };
    // Another size than last time needs another image.
    let _ = std::fs::remove_dir_all(bench.path("layout"));
    let sections = ["push", "index", "stream", "latency", "pull", "start", "memory", "unpack"];
    let chosen = if arguments.is_empty() { sections.map(str::to_owned).to_vec() } else { arguments };
    say(&format!("{} MiB, {} rounds, {}", bench.mib, bench.rounds, bench.folder.display()));
    for section in &chosen {
        match section.as_str() {
            "push" => bench.push(),
            "index" => bench.index(),
            "stream" => bench.stream(),
            "latency" => bench.latency(),
            "pull" => bench.pull(),
            "start" => bench.start(),
            "memory" => bench.memory(),
            "unpack" => bench.unpack(),
            "kubo" => bench.kubo(),
            other => say(&format!("no section `{other}`, there are: {}", sections.join(" "))),
        }
    }
    say(GOALS);
    let _ = std::fs::remove_dir_all(&bench.folder);
}
