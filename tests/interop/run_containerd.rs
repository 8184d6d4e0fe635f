//! `shipfs run --containerd`: containerd runs what we have, or what it has itself. Debian's containerd and the newest one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use shipfs_tests::engines::Containerd;
use shipfs_tests::image::Noise;
use shipfs_tests::passing;
use shipfs_tests::peers;
use shipfs_tests::program::{PATIENCE, Running, privileged, run, said, shipfs, signal, tool, wait_until};
use shipfs_tests::runnable;
use std::time::Instant;
use tempfile::TempDir;

/// A containerd that has nothing, and a repository with an image that really runs.
struct Lab {
    // First, so that the daemon ends before its files go.
    containerd: Containerd,
    folder: TempDir,
    cid: String,
}

/// Runs a test with both containerds.
fn with_each(test: &str, check: impl Fn(&mut Lab)) {
    let is_here = privileged(test) && ["containerd", "ctr", "runc", "busybox"].iter().all(|name| tool(test, name));
    let Some(newest) = peers::program(test, "containerd").filter(|_| is_here) else { return };
    for programs in [Path::new("/usr/bin"), newest.parent().expect("a folder")] {
        let folder = TempDir::new().expect("a temporary directory");
        let containerd = Containerd::of(programs, &folder.path().join("containerd"));
        let source = runnable::layout(&folder.path().join("layout"), runnable::layers(), &runnable::config());
        let mut lab = Lab { containerd, folder, cid: String::new() };
        lab.cid = run(lab.shipfs(&["--quiet", "push", &source])).trim().to_owned();
        check(&mut lab);
    }
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command of `shipfs` on a repository that has the image.
    fn shipfs<'c>(&self, words: &[&str]) -> &'c mut Command {
        self.elsewhere("repository", words)
    }

    /// A command of `shipfs` on another repository.
    fn elsewhere<'c>(&self, repository: &str, words: &[&str]) -> &'c mut Command {
        // Leaked: a test is short.
        let command = Box::leak(Box::new(shipfs(&self.path(repository))));
        command.env("CONTAINERD_ADDRESS", &self.containerd.socket).args(words)
    }

    /// Runs `run --containerd --rm OPTIONS CID WORDS`.
    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        let command = self.shipfs(&["run", "--containerd", "--rm"]);
        command.args(options).arg(&self.cid).args(words).output().expect("it starts")
    }

    /// As [`Lab::run`]; what it printed, if it succeeded.
    fn text(&self, options: &[&str], words: &[&str]) -> String {
        let output = self.run(options, words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Starts `run --containerd OPTIONS CID sh -c SCRIPT` and waits until it says `ready`.
    fn start(&self, options: &[&str], script: &str) -> Running {
        // Whatever is said besides could be taken for the word that is waited for.
        let command = self.shipfs(&["--quiet", "run", "--containerd"]);
        command.args(options).arg(&self.cid).args(["sh", "-c", script]);
        Running::start(command, "ready").expect("it runs").0
    }

    /// What `ctr` lists: one word a thing.
    fn listed(&self, what: &[&str]) -> Vec<String> {
        let text = self.containerd.ctr(what);
        text.lines().map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect()
    }

    /// Its containers, tasks and leases, and the snapshots that are not layers.
    fn left(&self) -> Vec<String> {
        let mut left = self.listed(&["containers", "ls", "-q"]);
        left.extend(self.listed(&["tasks", "ls", "-q"]));
        left.extend(self.listed(&["leases", "ls", "-q"]));
        let table = self.containerd.ctr(&["snapshots", "ls"]);
        left.extend(table.lines().skip(1).filter(|line| !line.contains("Committed")).map(str::to_owned));
        left
    }

    /// Nothing of containers is left, and nothing in the repository.
    fn assert_clean(&self) {
        assert_eq!(self.left(), Vec::<String>::new());
        let folders = std::fs::read_dir(self.path("repository")).expect("listed").flatten();
        let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        assert_eq!(names.filter(|name| name.starts_with(".run")).count(), 0);
    }
}

#[test]
fn privileged_interop_containerd_runs_an_image_that_it_gets_once() {
    with_each("privileged_interop_containerd_runs_an_image_that_it_gets_once", |lab| {
        let first = lab.run(&[], &["echo", "hello"]);
        assert_eq!(first.stdout, b"hello\n", "{}", said(&first));
        assert_eq!(said(&first).matches("  written").count(), 5, "{}", said(&first));
        // Under the name that nerdctl gives it, unpacked.
        assert_eq!(lab.listed(&["images", "ls", "-q"]), [lab.cid.as_str()]);
        let snapshots = lab.listed(&["snapshots", "ls"]);
        assert_eq!(snapshots.len(), 1 + 3, "{snapshots:?}");
        lab.assert_clean();
        let second = lab.run(&[], &["cat", "/data/kept"]);
        assert_eq!((&second.stdout[..], &second.stderr[..]), (&b"kept\n"[..], &b""[..]), "{}", said(&second));
        assert_eq!(lab.listed(&["snapshots", "ls"]), snapshots);
        // Nobody else is asked for what containerd has, by whatever name it has it.
        let text =
            run(lab.elsewhere("empty", &["--offline", "run", "--containerd", "--rm", &lab.cid, "echo", "again"]));
        assert_eq!(text, "again\n");
        lab.containerd.ctr(&["images", "tag", &lab.cid, "docker.io/library/theirs:1"]);
        let theirs = ["--offline", "run", "--containerd", "--rm", "theirs:1"];
        assert_eq!(run(lab.elsewhere("empty", &theirs)), "started by default\n");
        // What is called by a name here is what is run, whatever containerd calls so.
        run(lab.shipfs(&["tag", &lab.cid, "ours:1"]));
        lab.containerd.ctr(&["images", "rm", &lab.cid, "docker.io/library/theirs:1"]);
        assert_eq!(run(lab.shipfs(&["run", "--containerd", "--rm", "--pull", "never", "ours:1", "echo", "x"])), "x\n");
        assert_eq!(lab.listed(&["images", "ls", "-q"]), ["docker.io/library/ours:1"]);
        let absent = lab.elsewhere("empty", &["--offline", "run", "--containerd", "--rm", "absent:1"]).output();
        let absent = absent.expect("it starts");
        assert_eq!(absent.status.code(), Some(125), "{}", said(&absent));
        let never = lab.elsewhere("empty", &["run", "--containerd", "--rm", "--pull", "never", &lab.cid]).output();
        let never = never.expect("it starts");
        assert_eq!(never.status.code(), Some(125), "{}", said(&never));
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_hands_on_codes_and_bytes() {
    with_each("privileged_interop_containerd_hands_on_codes_and_bytes", |lab| {
        passing::exit_codes(|options, words| lab.run(options, words));
        for (options, words, code) in [
            (&["--runtime", "runc"][..], &["true"][..], 0),
            (&["--name", "-"], &["true"], 2),
            (&["--detach"], &["true"], 125),
        ] {
            let output = lab.run(options, words);
            assert_eq!(output.status.code(), Some(code), "{options:?} {words:?}: {}", said(&output));
        }
        passing::bytes(lab.shipfs(&["run", "--containerd", "--rm", "-i", &lab.cid, "cat"]));
        let output = lab.run(&[], &["sh", "-c", "cat; echo out; echo err >&2"]);
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        // Whoever prints for nobody is ended.
        let command = lab.shipfs(&["run", "--containerd", "--rm", &lab.cid, "sh", "-c", "while echo y; do :; done"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        wait_until("it is ended", || child.try_wait().expect("waited").is_some());
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_gives_a_command_what_its_user_asks_for() {
    with_each("privileged_interop_containerd_gives_a_command_what_its_user_asks_for", |lab| {
        assert_eq!(lab.text(&["-e", "A=1"], &["sh", "-c", "echo $FROM_IMAGE $A"]), "yes 1\n");
        assert_eq!(lab.text(&["-w", "/srv"], &["pwd"]), "/srv\n");
        assert_eq!(lab.text(&["-u", "web"], &["sh", "-c", "id -u; id -G; echo $HOME"]), "33\n34 50\n/srv\n");
        assert_eq!(lab.text(&["--hostname", "here"], &["sh", "-c", "hostname; cat /etc/hostname"]), "here\nhere\n");
        // All containerds of a host share the runtime's list of containers.
        let name = format!("named-{}", std::process::id());
        assert!(lab.text(&["--name", &name], &["cat", "/etc/hosts"]).contains(&format!("127.0.1.1\t{name}\n")));
        assert_eq!(lab.run(&["--read-only"], &["touch", "/x"]).status.code(), Some(1));
        let own = lab.path("own");
        std::fs::create_dir(&own).expect("made");
        std::fs::write(own.join("file"), "of the host").expect("written");
        let (volume, fixed) = (format!("{}:/v", own.display()), format!("{}:/v:ro", own.display()));
        assert_eq!(lab.text(&["-v", &volume], &["sh", "-c", "cat /v/file; echo back > /v/new"]), "of the host");
        assert_eq!(std::fs::read_to_string(own.join("new")).expect("written inside"), "back\n");
        assert_eq!(lab.run(&["-v", &fixed], &["touch", "/v/x"]).status.code(), Some(1));
        let interfaces = |options: &[&str]| lab.text(options, &["grep", "-c", ":", "/proc/net/dev"]);
        assert_eq!(interfaces(&[]), "1\n", "loopback alone");
        let here = std::fs::read_to_string("/proc/net/dev").expect("interfaces");
        let here = here.lines().filter(|line| line.contains(':')).count();
        assert_eq!(interfaces(&["--network", "host"]), format!("{here}\n"));
        let text = lab.text(&[], &["grep", "CapEff", "/proc/self/status"]);
        assert!(text.trim().ends_with("a80425fb"), "those of Docker: {text}");
        let limited = lab.run(&["--memory", "64m", "--cpus", "0.5"], &["sh", "-c", "echo limited"]);
        let has_controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").map_or_else(
            |_| Path::new("/sys/fs/cgroup/memory/tasks").exists(),
            |all| ["memory", "cpu"].iter().all(|one| all.split_whitespace().any(|word| word == *one)),
        );
        assert_eq!(limited.status.success(), has_controllers, "{}", said(&limited));
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_hands_on_signals_and_terminals() {
    with_each("privileged_interop_containerd_hands_on_signals_and_terminals", |lab| {
        let script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
        let running = lab.start(&["--rm"], script);
        signal(running.id(), Signal::TERM);
        let (status, text) = running.end(Instant::now() + PATIENCE).expect("it ends");
        assert_eq!((status.code(), text.contains("got it")), (Some(9), true), "{text}");
        // Three times, and nothing withstands.
        let running = lab.start(&["--rm"], "trap 'echo no' INT; echo ready; while :; do sleep 0.1; done");
        let end = Instant::now() + PATIENCE;
        let mut running = running;
        for _ in 0..2 {
            signal(running.id(), Signal::INT);
            assert_eq!(running.line(end).expect("it goes on").as_deref(), Some("no"));
        }
        signal(running.id(), Signal::INT);
        assert_eq!(running.end(end).expect("it ends").0.code(), Some(137));
        let shell = ["run", "--containerd", "--rm", "-it", "-e", "PS1=prompt>", &lab.cid, "sh"];
        passing::terminal(lab.shipfs(&shell));
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_keeps_what_runs_in_the_background() {
    let test = "privileged_interop_containerd_keeps_what_runs_in_the_background";
    let Some(nerdctl) = peers::program(test, "nerdctl") else { return };
    with_each(test, |lab| {
        let names = ["web", "kept"].map(|name| format!("{name}-{}", std::process::id()));
        let [web, kept] = names.each_ref().map(String::as_str);
        let detached = ["run", "--containerd", "-d", "--name", web, &lab.cid, "sleep", "600"];
        assert_eq!(run(lab.shipfs(&detached)), format!("{web}\n"));
        let tasks = lab.containerd.ctr(&["tasks", "ls"]);
        assert!(tasks.contains(web) && tasks.contains("RUNNING"), "{tasks}");
        assert_eq!(run(lab.containerd.nerdctl(&nerdctl).args(["exec", web, "cat", "/data/kept"])), "kept\n");
        let seen = run(lab.containerd.nerdctl(&nerdctl).args(["ps", "--no-trunc"]));
        assert!(seen.contains(web) && seen.contains(&lab.cid), "{seen}");
        assert_eq!(lab.listed(&["leases", "ls", "-q"]), Vec::<String>::new());
        // The name is taken, and whoever has it keeps what is its own.
        let again = lab.shipfs(&["run", "--containerd", "--name", web, &lab.cid, "true"]).output().expect("it starts");
        assert_eq!(again.status.code(), Some(125));
        assert!(said(&again).contains(&format!("containerd has a container `{web}` already")), "{}", said(&again));
        assert!(lab.containerd.ctr(&["tasks", "ls"]).contains("RUNNING"));
        run(lab.containerd.nerdctl(&nerdctl).args(["stop", "--time", "1", web]));
        run(lab.containerd.nerdctl(&nerdctl).args(["rm", web]));
        lab.assert_clean();
        // Without --rm the container stays, without a process.
        let ended = lab.shipfs(&["run", "--containerd", "--name", kept, &lab.cid, "sh", "-c", "echo x > /x; exit 3"]);
        assert_eq!(ended.output().expect("it starts").status.code(), Some(3));
        assert_eq!(lab.listed(&["containers", "ls", "-q"]), [kept]);
        assert_eq!(lab.listed(&["tasks", "ls", "-q"]), Vec::<String>::new());
        lab.containerd.ctr(&["containers", "rm", kept]);
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_keeps_nothing_of_what_was_cut_off() {
    with_each("privileged_interop_containerd_keeps_nothing_of_what_was_cut_off", |lab| {
        // Random bytes as a layer that is large enough to be caught unpacking.
        let big = runnable::Layer::default().file("noise", 0o644, &Noise::new(9).bytes(48 << 20));
        let layers = runnable::layers().into_iter().chain([big]).collect();
        let source = runnable::layout(&lab.path("large"), layers, &runnable::config());
        let cid = run(lab.shipfs(&["--quiet", "push", &source])).trim().to_owned();
        let begin = || {
            let command = lab.shipfs(&["run", "--containerd", "--rm", &cid, "true"]);
            let running = Running::start(command, "elapsed").expect("it begins").0;
            wait_until("it is being unpacked", || !lab.listed(&["leases", "ls", "-q"]).is_empty());
            running
        };
        let running = begin();
        signal(running.id(), Signal::INT);
        let (status, text) = running.end(Instant::now() + PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(130), "{text}");
        assert!(text.contains("interrupted"), "{text}");
        // Its lease is gone; what that held goes a moment later.
        assert_eq!(lab.listed(&["leases", "ls", "-q"]), Vec::<String>::new());
        wait_until("what it held is gone", || lab.left().is_empty());
        lab.assert_clean();
        lab.containerd.ctr(&["images", "rm", "--sync", &cid]);
        // Killed, it leaves a lease that ends by itself, and nothing that would outlive it.
        begin().kill();
        let leases = lab.containerd.ctr(&["leases", "ls"]);
        assert!(leases.contains("shipfs-") && leases.contains("containerd.io/gc.expire="), "{leases}");
        assert_eq!(lab.listed(&["containers", "ls", "-q"]), Vec::<String>::new());
        for lease in lab.listed(&["leases", "ls", "-q"]) {
            lab.containerd.ctr(&["leases", "rm", "--sync", &lease]);
        }
        wait_until("what it held is gone", || lab.left().is_empty());
        // And whoever comes next has it whole.
        assert_eq!(run(lab.shipfs(&["run", "--containerd", "--rm", &cid, "wc", "-c", "/noise"])), "50331648 /noise\n");
    });
}

#[test]
fn privileged_interop_containerd_is_asked_by_many_at_once() {
    with_each("privileged_interop_containerd_is_asked_by_many_at_once", |lab| {
        let run_it = || lab.shipfs(&["run", "--containerd", "--rm", &lab.cid, "cat", "/data/kept"]);
        let begun =
            [(); 4].map(|()| run_it().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"));
        for child in begun {
            let output = child.wait_with_output().expect("it ends");
            assert_eq!(output.stdout, b"kept\n", "{}", said(&output));
        }
        assert_eq!(lab.listed(&["snapshots", "ls"]).len(), 1 + 3);
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_may_be_started_anew_meanwhile() {
    with_each("privileged_interop_containerd_may_be_started_anew_meanwhile", |lab| {
        let own = lab.path("own");
        std::fs::create_dir(&own).expect("made");
        let script =
            "trap 'echo got it' TERM; echo ready; until test -e /v/go; do sleep 0.1; done; echo went on; exit 6";
        let mut running = lab.start(&["--rm", "-v", &format!("{}:/v", own.display())], script);
        // It hands signals on, so it waits for the end.
        signal(running.id(), Signal::TERM);
        assert_eq!(running.line(Instant::now() + PATIENCE).expect("it goes on").as_deref(), Some("got it"));
        lab.containerd.restart();
        std::fs::write(own.join("go"), "").expect("written");
        let (status, text) = running.end(Instant::now() + PATIENCE).expect("it ends");
        assert_eq!((status.code(), text.trim()), (Some(6), "got it\nwent on"));
        lab.assert_clean();
    });
}

#[test]
fn privileged_interop_containerd_is_not_given_what_it_cannot_run() {
    with_each("privileged_interop_containerd_is_not_given_what_it_cannot_run", |lab| {
        let foreign = runnable::layout_for("s390x", &lab.path("foreign"), runnable::layers(), &runnable::config());
        let cid = run(lab.shipfs(&["--quiet", "push", "--all-platforms", &foreign])).trim().to_owned();
        let refused = lab.shipfs(&["run", "--containerd", "--rm", &cid, "true"]).output().expect("it starts");
        assert_eq!(refused.status.code(), Some(125), "{}", said(&refused));
        assert!(said(&refused).contains("the image is for `linux/s390x`"), "{}", said(&refused));
        lab.assert_clean();
    });
}

#[test]
fn interop_containerd_that_is_not_there_is_told_of() {
    let folder = TempDir::new().expect("a temporary directory");
    let socket = folder.path().join("nobody.sock");
    let mut command = shipfs(&folder.path().join("repository"));
    command.args(["run", "--containerd", "--rm", "--address"]).arg(&socket);
    let output = command.args([ABSENT, "true"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains(&format!("cannot reach containerd at `{}`", socket.display())), "{text}");
    assert!(text.contains("hint: is containerd running? --address names its socket"), "{text}");
    let mut command = shipfs(&folder.path().join("repository"));
    let output = command.args(["run", "--address", "/x", ABSENT]).output().expect("it starts");
    assert!(said(&output).contains("hint: --containerd has containerd run it"), "{}", said(&output));
}

/// A CID of nothing.
const ABSENT: &str = "bafkreigwjirfr4zeu2p4esf7iivrmldgsyliqtnrln4yv2xdapmrkm2vyq";
