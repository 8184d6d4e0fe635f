//! Containers of an ordinary user: whose files are whose, by what ways roots are put together, and what is said where it
//! cannot be done.

use super::killed::watcher;
use super::{Lab, Way, wait_until};
use rustix::process::Signal;
use shipfs_tests::ordinary::May;
use shipfs_tests::program::signal;
use shipfs_tests::program::{self, tool};
use shipfs_tests::runnable::{self, Layer};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The ways by which a root is put together.
const WAYS: [&str; 3] = ["overlay", "fuse-overlayfs", "copy"];

/// The busybox image, and files of many owners on top of it.
fn layers() -> Vec<Layer> {
    let mut layers = runnable::layers();
    layers.push(
        Layer::default()
            .directory("many", 0o750, (33, 34))
            .file_of("many/setuid", 0o4755, (33, 34), b"x")
            .hard_link("many/again", "many/setuid")
            .file_of("many/gone", 0o2755, (1000, 1001), b"x")
            .file_of("many/group", 0o2755, (1000, 1001), b"x")
            .file_of("many/far", 0o6711, (70_000, 70_001), b"x")
            .null_device("many/null")
            .directory("w", 0o755, (0, 0))
            .directory("w/one", 0o755, (0, 0))
            .file("w/one/old", 0o644, b"lower")
            .file("w/two", 0o644, b"lower")
            .file("w/three", 0o644, b"lower"),
    );
    // What a layer brings stays, whichever comes first of that and of what it removes.
    layers.push(
        Layer::default()
            .whiteout("many", "gone")
            .whiteout("w", "one")
            .directory("w/one", 0o755, (0, 0))
            .file("w/one/new", 0o644, b"upper")
            .file("w/two", 0o644, b"upper")
            .whiteout("w", "two")
            .whiteout("w", "three"),
    );
    layers
}

fn lab(test: &str, may: May) -> Option<Lab> {
    Lab::with(test, Way { user: Some(may), ..Way::USER }, layers(), &runnable::config())
}

fn said(output: &Output, code: i32) -> String {
    let said = program::said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn privileged_rootless_roots_are_alike_by_each_way() {
    let test = "privileged_rootless_roots_are_alike_by_each_way";
    let Some(lab) = lab(test, May::ALL).filter(|_| tool(test, "fuse-overlayfs")) else { return };
    let script = "cd /many; stat -c '%n %u:%g %a %F %h' . *; ls /data /data/hidden; cat /usr/kept; stat -c %a /tmp;
        ls /w /w/one; cat /w/two; rm setuid; echo own > group; mkdir /data/hidden/more; ls /many /data/hidden; cat again group";
    let expected = ". 33:34 750 directory 2\nagain 33:34 4755 regular file 2\nfar 0:0 711 regular file 1\n\
        group 1000:1001 2755 regular file 1\nnull 0:0 666 regular empty file 1\nsetuid 33:34 4755 regular file 2\n\
        /data:\nhidden\nkept\n\n/data/hidden:\nnew\nkept\n1777\n\
        /w:\none\ntwo\n\n/w/one:\nnew\nupper\
        /data/hidden:\nmore\nnew\n\n/many:\nagain\nfar\ngroup\nnull\nxown\n";
    for way in WAYS {
        let output = lab.run(&["--root", way], &["sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // How many links a directory has is the filesystem's own matter.
        let text = text.replace("750 directory 1", "750 directory 2");
        assert_eq!(text, expected, "{way}: {}", program::said(&output));
        // Nothing of it came to the layers.
        assert_eq!(lab.run(&["--root", way], &["cat", "/many/group"]).stdout, b"x", "{way}");
        program::run(lab.shipfs(&["run", "-d", "--name", "bg", "--root", way, &lab.cid, "sleep", "600"]));
        assert_eq!(lab.containers()[0]["root"], way);
        assert_eq!(program::run(lab.shipfs(&["exec", "-u", "web", "bg", "id", "-u"])), "33\n");
        program::run(lab.shipfs(&["exec", "-u", "web", "bg", "touch", "/srv/mine"]));
        program::run(lab.shipfs(&["stop", "-t", "0", "bg"]));
        // What it has left belongs to nobody who can be reached from outside.
        program::run(lab.shipfs(&["rm", "bg"]));
        lab.assert_clean();
    }
    let user = lab.user();
    let tree =
        lab.layer_folders().into_iter().map(|name| lab.layers().join(name)).find(|tree| tree.join("many/far").exists());
    let owner = |name: &str| std::fs::metadata(tree.as_ref().expect("a layer").join(name)).expect("there").uid();
    assert_eq!([owner("many"), owner("many/group"), owner("many/far")], [33, 1000, 0].map(|id| user.outside(id)));
    program::run(lab.shipfs(&["rmi", &lab.cid]));
    assert!(program::run(lab.shipfs(&["gc"])).contains("5 unpacked layers"));
    assert_eq!(lab.layer_folders(), [""; 0]);
}

/// What cannot be kept is said when it is unpacked, and not again.
#[test]
fn privileged_rootless_what_is_not_kept_is_said_once() {
    let Some(lab) = lab("privileged_rootless_what_is_not_kept_is_said_once", May::ALL) else { return };
    let first = said(&lab.run(&[], &["true"]), 0);
    assert!(
        first.contains("many/null` became an empty file") && first.contains("no id here became root's: 1"),
        "{first}"
    );
    assert!(!said(&lab.run(&[], &["true"]), 0).contains("warning"));
}

#[test]
fn privileged_rootless_one_id_is_enough() {
    let may = May { have_ranges: false, use_fuse: false };
    let Some(lab) = lab("privileged_rootless_one_id_is_enough", may) else { return };
    let first = lab.run(&[], &["sh", "-c", "id -u; stat -c %u:%g:%a /srv /many/setuid; cat /data/kept"]);
    assert_eq!(first.stdout, b"0\n0:0:755\n0:0:755\nkept\n", "{}", program::said(&first));
    let text = program::said(&first);
    assert!(text.matches("you have no range of ids").count() == 1 && text.contains("/etc/subuid"), "{text}");
    assert!(!said(&lab.run(&[], &["true"]), 0).contains("range of ids"), "it is said once");
    let refused = said(&lab.run(&["--user", "web"], &["id"]), 125);
    assert!(refused.contains("user 33 does not exist") && refused.contains("/etc/subuid"), "{refused}");
    program::run(lab.shipfs(&["run", "-d", "--name", "bg", &lab.cid, "sleep", "600"]));
    assert_eq!(program::run(lab.shipfs(&["exec", "-u", "root", "bg", "id", "-u"])), "0\n");
    let refused = said(lab.shipfs(&["exec", "-u", "web", "bg", "id"]).output().as_ref().expect("it starts"), 125);
    assert!(refused.contains("user 33 does not exist"), "{refused}");
    program::run(lab.shipfs(&["rm", "-f", "bg"]));
    assert_eq!(lab.text(&["-t"], &["tty"]), "/dev/pts/0\r\n");
    for way in ["overlay", "copy"] {
        assert_eq!(lab.text(&["--root", way], &["ls", "/data/hidden"]), "new\n");
    }
    let refused = said(&lab.run(&["--root", "fuse-overlayfs"], &["true"]), 125);
    assert!(refused.contains("fuse-overlayfs"), "{refused}");
    lab.assert_clean();
}

/// Whoever could use a group of the host's inside could reach what only that group may.
#[test]
fn privileged_rootless_no_group_of_the_host_is_left() {
    for runtime in ["runc", "crun"] {
        let test = "privileged_rootless_no_group_of_the_host_is_left";
        let Some(lab) = Lab::new(test, Way { runtime, ..Way::USER }) else { continue };
        assert_eq!(lab.text(&[], &["id", "-G"]), "0 51\n", "{runtime}");
        program::run(lab.shipfs(&["run", "-d", "--name", "bg", &lab.cid, "sleep", "600"]));
        assert_eq!(program::run(lab.shipfs(&["exec", "bg", "id", "-G"])), "0 51\n", "{runtime}");
        assert_eq!(program::run(lab.shipfs(&["exec", "-u", "web", "bg", "id", "-G"])), "34 50\n", "{runtime}");
        program::run(lab.shipfs(&["rm", "-f", "bg"]));
        lab.assert_clean();
    }
}

/// Root of a namespace that somebody else made, as in other engines' containers, is no root of the host.
#[test]
fn privileged_rootless_root_of_a_namespace_runs_containers() {
    let test = "privileged_rootless_root_of_a_namespace_runs_containers";
    for runtime in ["runc", "crun"] {
        let way = Way { runtime, ..Way::USER };
        let Some(lab) = Lab::with(test, way, layers(), &runnable::config()) else { continue };
        let script = "id -u; stat -c %u:%g:%a /many/setuid; ls /data/hidden; touch /many/x && echo written";
        let run = lab.shipfs(&["run", "--rm", &lab.cid, "sh", "-c", script]);
        // The words after those that become the user.
        let words: Vec<_> = run.get_args().skip_while(|word| !word.to_string_lossy().ends_with("/shipfs")).collect();
        let mut command = lab.user().command("unshare".as_ref());
        command.args(["--user", "--map-root-user", "--map-auto", "--mount"]).args(words);
        assert_eq!(program::run(&mut command), "0\n33:34:4755\nnew\nwritten\n", "{runtime}");
        lab.assert_clean();
    }
}

/// Where the kernel has no overlay for a user, another way is taken by itself, and that is said once.
#[test]
fn privileged_rootless_the_next_best_way_is_taken() {
    let test = "privileged_rootless_the_next_best_way_is_taken";
    for (use_fuse, note) in [(true, "roots by fuse-overlayfs"), (false, "files are copied")] {
        let way = Way { user: Some(May { use_fuse, ..May::ALL }), ..Way::USER };
        let on_overlay = |lab: &Lab| lab.user().live_on_an_overlay();
        let Some(lab) = Lab::prepared(test, way, layers(), &runnable::config(), on_overlay) else { return };
        if use_fuse && !tool(test, "fuse-overlayfs") {
            continue;
        }
        let first = lab.run(&[], &["sh", "-c", "ls /data /data/hidden /w /w/one; stat -c %u /srv; cat /w/two"]);
        let text = program::said(&first);
        assert_eq!(
            first.stdout, b"/data:\nhidden\nkept\n\n/data/hidden:\nnew\n\n/w:\none\ntwo\n\n/w/one:\nnew\n33\nupper",
            "{text}"
        );
        assert!(text.contains(note) && text.contains("overlay: "), "{text}");
        assert!(!said(&lab.run(&[], &["true"]), 0).contains(note), "it is said once");
        wait_until("nothing runs", || lab.user().processes().is_empty());
    }
}

/// Threats A8, A9: what a hostile layer wants of the host it does not get, and other users do not reach what it brings.
#[test]
fn privileged_rootless_a9_nothing_of_a_layer_reaches_the_host() {
    let test = "privileged_rootless_a9_nothing_of_a_layer_reaches_the_host";
    let mut hostile = runnable::layers();
    hostile.push(
        Layer::default()
            .attributes(&[("user.overlay.opaque", b"y"), ("user.fuseoverlayfs.opaque", b"y")])
            .directory("data", 0o755, (0, 0))
            .attributes(&[("user.overlay.redirect", b"/root"), ("user.containers.override_stat", b"0:0:0104755")])
            .file("data/plain", 0o600, b"plain\n")
            .attributes(&[("trusted.anything", b"x"), ("user.own", b"x")])
            .file_of("suid", 0o4755, (0, 0), b"x")
            .null_device("null")
            .symlink("out", "/etc")
            .file("out/written", 0o644, b"inside\n"),
    );
    let Some(lab) = Lab::with(test, Way::USER, hostile, &runnable::config()) else { return };
    let before = std::fs::read_dir("/etc").expect("listed").count();
    for way in WAYS.iter().filter(|way| **way != "fuse-overlayfs" || tool(test, way)) {
        let script = "ls /data; cat /data/plain /etc/written; stat -c '%F %a' /null /suid /data/plain";
        assert_eq!(
            lab.text(&["--root", way], &["sh", "-c", script]),
            "hidden\nkept\nplain\nplain\ninside\nregular empty file 666\nregular file 4755\nregular file 600\n",
            "{way}"
        );
    }
    assert_eq!(std::fs::read_dir("/etc").expect("listed").count(), before);
    let folder = lab.layers();
    assert_eq!(std::fs::metadata(&folder).expect("there").mode() & 0o777, 0o700);
    let program = lab.layer_folders().into_iter().map(|name| folder.join(name).join("suid")).find(|path| path.exists());
    let program = program.expect("a setuid file");
    let other = lab.user().id() ^ 1;
    let reached = Command::new("setpriv")
        .args(["--reuid", &other.to_string(), "--clear-groups", "test", "-e"])
        .arg(&program)
        .status()
        .expect("it starts");
    assert!(!reached.success(), "another user of the host reaches {}", program.display());
    lab.assert_clean();
}

#[test]
fn privileged_rootless_volumes_belong_to_those_who_write_to_them() {
    let test = "privileged_rootless_volumes_belong_to_those_who_write_to_them";
    let Some(lab) = Lab::new(test, Way::USER) else { return };
    let own = lab.make_folder("own");
    let volume = format!("{}:/v", own.display());
    lab.text(&["-v", &volume], &["sh", "-c", "echo root > /v/root; mkdir -m 777 /v/open"]);
    lab.text(&["-v", &volume, "-u", "web"], &["sh", "-c", "echo web > /v/open/web"]);
    let owner = |name: &str| std::fs::metadata(own.join(name)).expect(name).uid();
    assert_eq!([owner("root"), owner("open/web")], [0, 33].map(|id| lab.user().outside(id)));
    // What the host's mount forbids, stays forbidden: memory is mounted without setuid and devices.
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    lab.user().give(memory.path());
    std::fs::write(memory.path().join("file"), "in memory\n").expect("written");
    let fixed = format!("{}:/v:ro", memory.path().display());
    assert_eq!(lab.text(&["-v", &fixed], &["cat", "/v/file"]), "in memory\n");
    assert_eq!(lab.run(&["-v", &fixed], &["touch", "/v/x"]).status.code(), Some(1));
    // What the user may not read on the host, root of the container may not.
    let secret = lab.folder.path().join("secret");
    std::fs::write(&secret, "of root").expect("written");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    assert_eq!(lab.run(&["-v", &format!("{}:/s", secret.display())], &["cat", "/s"]).status.code(), Some(1));
    lab.assert_clean();
}

/// Whatever is killed, the next command leaves nothing running.
#[test]
fn privileged_rootless_d8_each_process_may_be_killed() {
    let test = "privileged_rootless_d8_each_process_may_be_killed";
    let Some(lab) = lab(test, May::ALL).filter(|_| tool(test, "fuse-overlayfs")) else { return };
    let start = |way: &str| {
        program::run(lab.shipfs(&["run", "-d", "--name", "bg", "--root", way, &lab.cid, "sleep", "600"]));
        program::run(lab.shipfs(&["exec", "bg", "sh", "-c", "touch /srv/x; id -u > /tmp/y"]));
        lab.containers()[0]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process")
    };
    let ended = || {
        wait_until("it has ended", || lab.containers()[0]["status"] == "exited");
        wait_until("its processes are gone", || lab.user().processes().is_empty());
        program::run(lab.shipfs(&["rm", "bg"]));
        lab.assert_clean();
    };
    for way in WAYS {
        let pid = start(way);
        signal(pid, Signal::KILL);
        ended();
        start(way);
        signal(watcher(&lab).expect("a watcher"), Signal::KILL);
        ended();
    }
    // Without the program that keeps its root there, a container has nothing to run on.
    start("fuse-overlayfs");
    let is_fuse =
        |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("fuse-overlayfs"));
    signal(lab.user().processes().into_iter().find(is_fuse).expect("the program"), Signal::KILL);
    ended();
    // All of them at once.
    start("fuse-overlayfs");
    let all = lab.user().processes();
    assert!(all.len() >= 3, "{all:?}");
    all.iter().for_each(|pid| signal(*pid, Signal::STOP));
    all.iter().for_each(|pid| signal(*pid, Signal::KILL));
    ended();
}

/// Threats A10, A15 on the way out: what a container nests deeply, and what belongs to others, is removed.
#[test]
fn privileged_rootless_what_a_container_leaves_is_removed() {
    let Some(lab) = Lab::new("privileged_rootless_what_a_container_leaves_is_removed", Way::USER) else { return };
    let script = "mkdir -m 700 /srv/closed && cd /srv/closed && i=0; while [ $i -lt 1900 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done";
    program::run(lab.shipfs(&["run", "-u", "web", "--name", "deep", &lab.cid, "sh", "-c", script]));
    program::run(lab.shipfs(&["rm", "deep"]));
    lab.assert_clean();
}

/// Where the kernel has no namespace for a user, the error says what was tried, what the kernel said, and what to do.
#[test]
fn privileged_rootless_without_namespaces_the_error_says_why() {
    let Some(lab) = Lab::new("privileged_rootless_without_namespaces_the_error_says_why", Way::USER) else { return };
    let wanted = ["no namespace of its own: making one"];
    let check = |output: &Output, hint: &str| {
        let said = said(output, 125);
        assert!(wanted.iter().chain([&hint]).all(|text| said.contains(text)), "{said}");
        lab.assert_clean();
    };
    // Inside of a namespace that allows no more of them. Its root is the host's, so nothing else is different.
    let without = || {
        let script = "read go; exec sh -c 'echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--user", "sh", "-c", script, "sh"]);
        let run = lab.shipfs(&["run", "--rm", &lab.cid, "true"]);
        command.arg(run.get_program()).args(run.get_args()).stdin(Stdio::piped());
        command.env_clear().envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let pid = child.id().to_string();
        wait_until("it is in its namespace", || namespace(&pid) != namespace("self"));
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{map}"), "0 0 65536\n").expect("mapped");
        }
        child.stdin.take().expect("a pipe").write_all(b"go\n").expect("told");
        child.wait_with_output().expect("it ends")
    };
    // Both when a layer is to be unpacked, and when they all are.
    check(&without(), "sysctl user.max_user_namespaces");
    assert_eq!(lab.text(&[], &["echo", "here it works"]), "here it works\n");
    check(&without(), "sysctl user.max_user_namespaces");
    // In a chroot, the kernel does not say why.
    let root = lab.folder.path().join("root");
    std::fs::create_dir(&root).expect("made");
    let run = lab.shipfs(&["run", "--rm", &lab.cid, "true"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --rbind / $1 && exec chroot \"$@\"", "sh"]).arg(&root);
    command.arg(run.get_program()).args(run.get_args());
    command.env_clear().envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    check(&command.output().expect("it starts"), "a filter of system calls, a chroot");
    assert!(Path::new(&lab.layers()).exists());
}
