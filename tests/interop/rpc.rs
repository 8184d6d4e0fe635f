//! `--ipfs-address`: a Kubo daemon that holds images for us, and fetches them.

use shipfs_tests::engines::Containerd;
use shipfs_tests::image;
use shipfs_tests::netns::Lan;
use shipfs_tests::peers::{Kubo, KuboOptions};
use shipfs_tests::program::{Running, privileged, run, said, shipfs, tool};
use shipfs_tests::repository::Repository;
use shipfs_tests::runnable;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The CIDs that nerdctl with Kubo gives to `tests/data/source-layout`, and that its folder has as a whole.
const ROOT: &str = "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4";
const LAYOUT_ROOT: &str = "bafybeidutgco4yyk2gy7h2pigdeo6qspvdh3ucrtzzm4syo4yjs46cp3ze";
/// Layers of one block, of some, and of a tree with two levels.
const LAYERS: [u64; 3] = [1000, 3 << 20, 46 << 20];

fn source() -> String {
    format!("oci:{}/data/source-layout", env!("CARGO_MANIFEST_DIR"))
}

/// A verb that a daemon does the work of.
fn with(repository: &Path, address: &str, arguments: &[&str]) -> Command {
    let mut command = shipfs(repository);
    command.args(["--quiet", "--ipfs-address", address]).args(arguments);
    command
}

fn through(repository: &Path, kubo: &Kubo, arguments: &[&str]) -> String {
    run(&mut with(repository, &kubo.api(), arguments)).trim_end().to_owned()
}

/// The names of our pins.
fn pins(kubo: &Kubo) -> Vec<String> {
    let listed = kubo.ipfs(&["pin", "ls", "--names", "--type=recursive"]);
    let names = listed.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.filter(|name| name.starts_with("shipfs-")).map(str::to_owned).collect()
}

/// Files of a repository's `blobs/`.
fn own_blobs(repository: &Path) -> usize {
    fs::read_dir(repository.join("blobs/sha256")).map_or(0, Iterator::count)
}

fn noise(folder: &Path, layers: &[u64], seed: u64) -> (PathBuf, String) {
    let layout = folder.join(format!("layout{seed}"));
    image::layout(&layout, layers, seed).expect("a layout");
    let location = format!("oci:{}", layout.display());
    (layout, location)
}

/// Fails with exit code 1, in time, and says this.
fn must_fail(command: &mut Command, within: Duration, told: &str) -> Output {
    let begun = Instant::now();
    let output = command.output().expect("it starts");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(told), "{text}");
    assert!(begun.elapsed() < within, "{:?}: {text}", begun.elapsed());
    output
}

#[test]
fn interop_an_image_pushed_through_kubo_is_called_as_everywhere_and_goes_without_a_trace() {
    let Some(kubo) = Kubo::start("interop_an_image_pushed_through_kubo", KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let repository = folder.path().join("repository");
    let before = kubo.ipfs(&["pin", "ls"]);
    assert_eq!(through(&repository, &kubo, &["push", "--name", "a:1", &source()]), ROOT);
    assert_eq!(through(&repository, &kubo, &["push", "--name", "b:1", "--layout", &source()]), LAYOUT_ROOT);
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ipfs-push/plain")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("baf") && kubo.ipfs(&["refs", "local"]).contains(&name) {
            let read = kubo.command().args(["cat", &name]).output().expect("it starts");
            assert_eq!(read.stdout, fs::read(&path).expect("readable"), "{name}");
        }
    }
    let (_, noise) = noise(folder.path(), &LAYERS, 1);
    let cid = through(&repository, &kubo, &["push", "--all-platforms", "--name", "c:1", &noise]);
    let other = Repository::new(folder.path().join("other"));
    assert_eq!(cid, other.run(&["push", "--all-platforms", &noise]), "the same as the embedded node");
    assert_eq!(own_blobs(&repository), 0, "nothing lies twice");
    let named = pins(&kubo);
    assert_eq!(named.len(), 5 + 1 + 6, "{named:?}");
    for name in ["library/a:1", "library/b:1", "library/c:1"] {
        assert!(named.iter().any(|pin| pin.ends_with(name)), "{name} in {named:?}");
    }
    let images = run(shipfs(&repository).args(["--ipfs-address", &kubo.api(), "images"]));
    assert!(images.contains("a:1") && images.contains("c:1"), "{images}");
    assert!(!run(shipfs(&repository).args(["--offline", "images"])).contains("a:1"), "they are not here");
    // What is kept survives a collection; what is let go of does not.
    kubo.ipfs(&["repo", "gc"]);
    let archive = folder.path().join("c.tar");
    let to = format!("--output={}", archive.display());
    through(&repository, &kubo, &["save", "--format", "oci-archive", &to, "c:1"]);
    assert_eq!(fs::read(&archive).expect("readable"), other.saved(&cid));
    through(&repository, &kubo, &["tag", "a:1", "d:1"]);
    through(&repository, &kubo, &["rmi", "a:1", "c:1"]);
    assert_eq!(pins(&kubo).len(), 5 + 1);
    through(&repository, &kubo, &["rmi", ROOT, LAYOUT_ROOT]);
    assert_eq!(kubo.ipfs(&["pin", "ls"]), before);
}

#[test]
fn interop_an_image_travels_through_two_kubos_and_by_bitswap() {
    let test = "interop_an_image_travels_through_two_kubos_and_by_bitswap";
    let Some(first) = Kubo::start(test, KuboOptions::default()) else { return };
    let Some(second) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let (layout, noise) = noise(folder.path(), &LAYERS, 2);
    let cid = through(&folder.path().join("pusher"), &first, &["push", "--all-platforms", &noise]);
    let address = &first.addresses()[0];

    // By Bitswap, with the embedded node.
    let embedded = Repository::new(folder.path().join("embedded"));
    run(&mut embedded.online(address, &["pull", "--all-platforms", &cid]));
    // Through a daemon of one's own, into our store: --peer tells that daemon.
    let fed = Repository::new(folder.path().join("fed"));
    let pull = ["--peer", address.as_str(), "pull", "--all-platforms", cid.as_str()];
    assert_eq!(through(fed.path(), &second, &pull), cid);
    assert_eq!(fed.contents().blobs, embedded.contents().blobs);
    fed.run(&["verify"]);
    fed.run(&["gc"]);
    assert_eq!(fed.saved(&cid), embedded.saved(&cid));
    let peers = run(shipfs(fed.path()).args(["--ipfs-address", &second.api(), "peers"]));
    assert!(peers.contains("kubo/"), "{peers}");
    // Through the same daemon into a sink: nothing stays but what is there.
    let passing = folder.path().join("passing");
    let out = folder.path().join("out");
    let to = format!("oci:{}", out.display());
    assert_eq!(through(&passing, &second, &["pull", "--all-platforms", &cid, "--to", &to]), cid);
    assert_eq!(own_blobs(&passing), 0);
    assert!(pins(&second).is_empty());
    let layers = image::check_blobs(&layout).expect("a layout");
    let got = image::check_blobs(&out).expect("a layout");
    assert_eq!(layers.iter().filter(|digest| got.contains(digest)).count(), LAYERS.len() + 1, "layers and config");
    // And an image of our own store, given to a daemon.
    let given = through(fed.path(), &second, &["push", "--all-platforms", &cid]);
    assert_eq!((given, pins(&second).len()), (cid, 6));
}

#[test]
fn interop_files_that_kubo_cut_otherwise_come_through_it() {
    let test = "interop_files_that_kubo_cut_otherwise_come_through_it";
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let (layout, _) = noise(folder.path(), &[1000, 5 << 20], 3);
    let path = layout.display().to_string();
    let repository = Repository::new(folder.path().join("repository"));
    for options in [
        &["--cid-version=1", "--chunker=size-1048576"][..],
        &["--cid-version=0"],
        &["--cid-version=1", "--raw-leaves=false"],
        &["--cid-version=1", "--trickle"],
        &["--cid-version=1", "--chunker=buzhash"],
    ] {
        let mut arguments = vec!["add", "--quieter", "--recursive"];
        arguments.extend(options);
        arguments.push(&path);
        let cid = kubo.ipfs(&arguments);
        assert_eq!(through(repository.path(), &kubo, &["pull", "--all-platforms", &cid]), cid, "{options:?}");
        repository.run(&["verify"]);
        let out = folder.path().join(format!("out{cid}"));
        let to = format!("oci:{}", out.display());
        through(&folder.path().join("passing"), &kubo, &["pull", "--all-platforms", &cid, "--to", &to]);
        assert_eq!(image::check_blobs(&out).expect("a layout"), image::check_blobs(&layout).expect("a layout"));
    }
}

/// Waits for bytes of a file that is being received.
fn wait_for_part(repository: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    let begun = || {
        let entries = fs::read_dir(repository.join("partial")).ok()?;
        let mut sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        sizes.any(|size| size > 1 << 20).then_some(())
    };
    while begun().is_none() {
        assert!(Instant::now() < end, "nothing was received");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn interop_a_pull_survives_kubo_killed_and_started_on_another_port() {
    let test = "interop_a_pull_survives_kubo_killed_and_started_on_another_port";
    let Some(mut kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let (_, noise) = noise(folder.path(), &[160 << 20], 4);
    let cid = through(&folder.path().join("pusher"), &kubo, &["push", "--all-platforms", &noise]);
    let repository = Repository::new(folder.path().join("repository"));
    let pull = |arguments: &[&str]| {
        let mut command = with(repository.path(), "auto", &["pull", "--all-platforms"]);
        command.env("IPFS_PATH", kubo.repository()).args(arguments).arg(&cid);
        command
    };
    // Killed for good: the verb ends by its deadline, and says what happened.
    let mut command = pull(&["--timeout", "3s"]);
    let pulling = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    wait_for_part(repository.path());
    let before = kubo.api();
    kubo.stop_daemon(true);
    let begun = Instant::now();
    let output = pulling.wait_with_output().expect("it ends");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot reach the IPFS daemon") || text.contains("broke"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    kubo.start_daemon();
    assert_ne!(kubo.api(), before, "another port");
    // What an earlier try left lies there already, so only what it says tells that it is at work.
    let mut command = shipfs(repository.path());
    command.args(["--json", "--ipfs-address", "auto", "pull", "--all-platforms", &cid]);
    let (pulling, _) = Running::start(command.env("IPFS_PATH", kubo.repository()), "progress").expect("it begins");
    kubo.stop_daemon(true);
    kubo.start_daemon();
    let (status, said) = pulling.end(Instant::now() + Duration::from_secs(60)).expect("it ends");
    assert!(status.success() && said.contains(&cid), "{said}");
    repository.run(&["verify"]);
    assert!(own_blobs(repository.path()) >= 4);
}

#[test]
fn interop_kubo_that_hangs_does_not_hang_us() {
    let Some(kubo) = Kubo::start("interop_kubo_that_hangs_does_not_hang_us", KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let repository = folder.path().join("repository");
    let verb = |arguments: &[&str]| {
        let mut command = with(&repository, &kubo.api(), arguments);
        command.args(["--timeout", "2s"]);
        command
    };
    // Nobody has it, so Kubo looks for it for ever.
    let absent = "bafkreigwjirfr4zeu2p4esf7iivrmldgsyliqtnrln4yv2xdapmrkm2vyq";
    must_fail(&mut verb(&["pull", absent]), Duration::from_secs(10), "said nothing for 2");
    let pid = rustix::process::Pid::from_raw(i32::try_from(kubo.id()).expect("a number")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stops");
    for arguments in [&["images"][..], &["push", &source()], &["pull", ROOT], &["id"]] {
        must_fail(&mut verb(arguments), Duration::from_secs(10), "said nothing for 2");
    }
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("goes on");
    assert_eq!(run(&mut verb(&["push", &source()])).trim(), ROOT);
}

#[test]
fn interop_whoever_holds_the_repository_works_with_the_daemon() {
    let test = "interop_whoever_holds_the_repository_works_with_the_daemon";
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let repository = Repository::new(folder.path().join("repository"));
    let (_daemon, _) = repository.serve();
    assert_eq!(through(repository.path(), &kubo, &["push", "--name", "a:1", &source()]), ROOT);
    assert!(!pins(&kubo).is_empty());
    // A standard stream goes there, too.
    let saved = with(repository.path(), &kubo.api(), &["save", "--format", "oci-archive", "a:1"]).output();
    let saved = saved.expect("it starts");
    assert!(saved.status.success(), "{}", said(&saved));
    let archive = folder.path().join("a.tar");
    fs::write(&archive, &saved.stdout).expect("writes");
    through(repository.path(), &kubo, &["rmi", "a:1"]);
    assert!(pins(&kubo).is_empty());
    let loaded = through(repository.path(), &kubo, &["push", &format!("oci-archive:{}", archive.display())]);
    assert!(loaded.starts_with("baf"), "{loaded}");
    assert!(!pins(&kubo).is_empty());
    for verb in [&["gc"][..], &["verify"], &["daemon"], &["push", "--serve", "oci:x"]] {
        let output = with(repository.path(), &kubo.api(), verb).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {}", said(&output));
        assert!(said(&output).contains("--ipfs-address"), "{verb:?}: {}", said(&output));
    }
    let mut command = shipfs(repository.path());
    command.env("SHIPFS_IPFS_ADDRESS", kubo.api());
    assert!(run(command.args(["--quiet", "--ipfs-address", "none", "gc"])).len() < 200);
}

#[test]
fn interop_credentials_open_kubo_and_are_told_to_nobody() {
    let test = "interop_credentials_open_kubo_and_are_told_to_nobody";
    let Some(mut kubo) = Kubo::new(test, KuboOptions::default()) else { return };
    let allowed = r#"{"a":{"AuthSecret":"bearer:hunter2","AllowedPaths":["/api/v0"]},"b":{"AuthSecret":"basic:us:hunter3","AllowedPaths":["/api/v0"]}}"#;
    kubo.ipfs(&["config", "--json", "API.Authorizations", allowed]);
    kubo.start_daemon();
    let folder = TempDir::new().expect("a temporary directory");
    let repository = folder.path().join("repository");
    let address = kubo.api();
    must_fail(&mut with(&repository, &address, &["id"]), Duration::from_secs(10), "does not allow `id`");
    let file = folder.path().join("credentials");
    fs::write(&file, "basic:us:hunter3\n").expect("writes");
    let url = address.replace("/ip4/", "http://us:hunter3@").replace("/tcp/", ":");
    let file = format!("@{}", file.display());
    for (address, auth) in [(address.as_str(), "bearer:hunter2"), (&address, &file), (&url, "")] {
        let mut command = shipfs(&repository);
        command.args(["-vv", "--ipfs-address", address, "push", &source()]);
        if !auth.is_empty() {
            command.args(["--ipfs-auth", auth]);
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", said(&output));
        assert!(!said(&output).contains("hunter"), "{}", said(&output));
    }
    let mut command = with(&repository, &address, &["--ipfs-auth", "bearer:hunter4", "id"]);
    let refused = must_fail(&mut command, Duration::from_secs(10), "does not allow `id`");
    assert!(!said(&refused).contains("hunter"), "{}", said(&refused));
}

#[test]
fn interop_kubo_on_a_unix_socket_works_offline() {
    let test = "interop_kubo_on_a_unix_socket_works_offline";
    let Some(mut kubo) = Kubo::new(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let address = format!("/unix{}", folder.path().join("api.sock").display());
    kubo.ipfs(&["config", "Addresses.API", &address]);
    kubo.start_daemon();
    assert_eq!(kubo.api(), address);
    let repository = folder.path().join("repository");
    let mut push = shipfs(&repository);
    push.args(["--quiet", "--offline", "--ipfs-address", "auto", "push", &source()]);
    assert_eq!(run(push.env("IPFS_PATH", kubo.repository())).trim(), ROOT);
    let mut pull = with(&repository, &address, &["--offline", "pull", ROOT]);
    assert_eq!(run(&mut pull).trim(), ROOT);
    let absent = "bafkreigwjirfr4zeu2p4esf7iivrmldgsyliqtnrln4yv2xdapmrkm2vyq";
    let mut pull = with(&repository, &address, &["--offline", "pull", absent]);
    must_fail(&mut pull, Duration::from_secs(5), "not found locally");
}

/// A small disk over a folder, mounted until this is dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn privileged_interop_kubo_with_a_full_disk_says_so_and_loses_nothing() {
    let test = "privileged_interop_kubo_with_a_full_disk_says_so_and_loses_nothing";
    if !privileged(test) {
        return;
    }
    let Some(mut kubo) = Kubo::new(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let (blocks, aside) = (kubo.repository().join("blocks"), folder.path().join("aside"));
    run(Command::new("cp").arg("-a").arg(&blocks).arg(&aside));
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&blocks));
    let disk = Disk(blocks);
    run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&disk.0));
    kubo.start_daemon();
    let repository = folder.path().join("repository");
    let (_, small) = noise(folder.path(), &[4 << 20], 5);
    let (_, large) = noise(folder.path(), &[40 << 20], 6);
    let cid = through(&repository, &kubo, &["push", "--all-platforms", "--name", "small:1", &small]);
    let kept = pins(&kubo);
    let mut push = with(&repository, &kubo.api(), &["push", "--all-platforms", "--name", "large:1", &large]);
    let refused = must_fail(&mut push, Duration::from_secs(60), "no space left");
    assert!(said(&refused).contains("hint: the IPFS daemon's disk is full"), "{}", said(&refused));
    assert_eq!(pins(&kubo), kept);
    let images = run(shipfs(&repository).args(["--ipfs-address", &kubo.api(), "images"]));
    assert!(images.contains("small:1") && !images.contains("large:1"), "{images}");
    kubo.ipfs(&["repo", "gc"]);
    let other = Repository::new(folder.path().join("other"));
    assert_eq!(through(other.path(), &kubo, &["pull", "--all-platforms", &cid]), cid);
    other.run(&["verify"]);
    kubo.stop_daemon(false);
    drop(disk);
}

#[test]
fn interop_a_verb_that_is_interrupted_leaves_nothing_pinned() {
    let test = "interop_a_verb_that_is_interrupted_leaves_nothing_pinned";
    let Some(kubo) = Kubo::start(test, KuboOptions::default()) else { return };
    let folder = TempDir::new().expect("a temporary directory");
    let repository = folder.path().join("repository");
    let (_, noise) = noise(folder.path(), &[96 << 20], 7);
    let push = || {
        let mut command = shipfs(&repository);
        command.args(["--json", "--ipfs-address", &kubo.api(), "push", "--all-platforms", "--name", "a:1", &noise]);
        command
    };
    let (pushing, _) = Running::start(&mut push(), "progress").expect("it begins");
    pushing.kill();
    assert!(pins(&kubo).is_empty());
    let images = run(shipfs(&repository).args(["--ipfs-address", &kubo.api(), "images"]));
    assert!(!images.contains("a:1"), "{images}");
    run(&mut push());
    assert_eq!(pins(&kubo).len(), 4);
}

#[test]
fn privileged_interop_kubo_on_another_host_holds_what_is_run() {
    let test = "privileged_interop_kubo_on_another_host_holds_what_is_run";
    if !privileged(test) || !["runc", "busybox", "containerd", "ctr"].iter().all(|name| tool(test, name)) {
        return;
    }
    let Some(kubo) = Kubo::new(test, KuboOptions::default()) else { return };
    let lan = Lan::new(3);
    let api = "/ip4/10.77.0.1/tcp/5001";
    kubo.ipfs(&["config", "Addresses.API", api]);
    let mut daemon = lan.on(1, Path::new(kubo.command().get_program()));
    let (_daemon, _) =
        Running::start(daemon.env("IPFS_PATH", kubo.repository()).arg("daemon"), "Daemon is ready").expect("it starts");
    let folder = TempDir::new().expect("a temporary directory");
    let source = runnable::layout(&folder.path().join("layout"), runnable::layers(), &runnable::config());
    let containerd = Containerd::start(&folder.path().join("containerd"));
    // Not by `ip netns exec`, which hides the cgroups that runtimes want.
    let shipfs_on = |host: usize| {
        let ours = shipfs(&folder.path().join(format!("repository{host}")));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", lan.host(host))).arg(ours.get_program()).args(ours.get_args());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command.env("CONTAINERD_ADDRESS", &containerd.socket).arg("--quiet");
        command
    };
    let on = |host: usize, arguments: &[&str]| {
        run(shipfs_on(host).arg(format!("--ipfs-address={api}")).args(arguments)).trim().to_owned()
    };
    let cid = on(2, &["push", &source]);
    assert_eq!(own_blobs(&folder.path().join("repository2")), 0, "Kubo has it, and nobody else");
    assert_eq!(on(3, &["pull", &cid]), cid);
    assert_eq!(on(3, &["run", "--rm", &format!("ipfs://{cid}"), "echo", "hello"]), "hello");
    // Without pulling it first, and through to containerd.
    assert_eq!(on(2, &["run", "--containerd", "--rm", &format!("ipfs://{cid}"), "echo", "hello"]), "hello");
    assert_eq!(on(2, &["run", "--rm", &cid, "echo", "hello"]), "hello");
    // What was removed comes again, and goes again.
    for arguments in [&["rmi", &cid][..], &["gc"]] {
        run(shipfs_on(3).args(arguments));
    }
    assert_eq!(on(3, &["pull", &cid]), cid);
    assert_eq!(on(3, &["push", &cid]), cid);
}
