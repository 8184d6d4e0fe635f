//! What a container's command gets, and what comes of it.

use super::Lab;
use serde_json::json;
use shipfs_tests::runnable::{self, Layer};
use shipfs_tests::{passing, program};

super::in_every_way! {
    limits_hold: privileged_limits_hold privileged_crun_limits_hold
        privileged_rootless_limits_hold privileged_rootless_crun_limits_hold;
    a14_an_images_words_stay_inside: privileged_a14_an_images_words_stay_inside
        privileged_crun_a14_an_images_words_stay_inside privileged_rootless_a14_an_images_words_stay_inside
        privileged_rootless_crun_a14_an_images_words_stay_inside;
    the_exit_code_says_what_happened: privileged_the_exit_code_says_what_happened
        privileged_crun_the_exit_code_says_what_happened
        privileged_rootless_the_exit_code_says_what_happened privileged_rootless_crun_the_exit_code_says_what_happened;
    bytes_pass_through_as_they_are: privileged_bytes_pass_through_as_they_are
        privileged_crun_bytes_pass_through_as_they_are
        privileged_rootless_bytes_pass_through_as_they_are privileged_rootless_crun_bytes_pass_through_as_they_are;
    a_command_gets_what_its_user_asks_for: privileged_a_command_gets_what_its_user_asks_for
        privileged_crun_a_command_gets_what_its_user_asks_for
        privileged_rootless_a_command_gets_what_its_user_asks_for
        privileged_rootless_crun_a_command_gets_what_its_user_asks_for;
    a_container_is_shut_in: privileged_a_container_is_shut_in privileged_crun_a_container_is_shut_in
        privileged_rootless_a_container_is_shut_in privileged_rootless_crun_a_container_is_shut_in;
}

fn the_exit_code_says_what_happened(lab: &Lab) {
    passing::exit_codes(|options, words| lab.run(options, words));
    for (options, words, code) in [
        (&[][..], &["sh", "-c", "exit 255"][..], 255),
        (&["--network", "bridge"], &["true"], 2),
        (&["--cap-add", "FLY"], &["true"], 125),
        (&["--memory", "lots"], &["true"], 125),
        (&["--pull", "never"], &["true"], 0),
    ] {
        let output = lab.run(options, words);
        assert_eq!(output.status.code(), Some(code), "{options:?} {words:?}: {}", program::said(&output));
    }
    let absent = lab.shipfs(&["--offline", "run", "--rm", "no-such-image", "true"]).output().expect("it starts");
    assert_eq!(absent.status.code(), Some(125), "{}", program::said(&absent));
    lab.assert_clean();
}

fn bytes_pass_through_as_they_are(lab: &Lab) {
    passing::bytes(lab.shipfs(&["run", "--rm", "-i", &lab.cid, "cat"]));
    // Without -i there is no input; the streams are not mixed up.
    let output = lab.run(&[], &["sh", "-c", "cat; echo out; echo err >&2"]);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    lab.assert_clean();
}

fn a_command_gets_what_its_user_asks_for(lab: &Lab) {
    assert_eq!(lab.text(&[], &[]), "started by default\n");
    assert_eq!(
        lab.text(&["-e", "A=1", "-e", "B=x y", "-e", "UNSET"], &["sh", "-c", "echo $FROM_IMAGE $A $B ${UNSET-none}"]),
        "yes 1 x y none\n"
    );
    let file = lab.folder.path().join("variables");
    std::fs::write(&file, "# a comment\nC=3\n\nA=0\n").expect("written");
    assert_eq!(
        lab.text(&["-e", "A=1", "--env-file", file.to_str().expect("text")], &["sh", "-c", "echo $A $C"]),
        "1 3\n"
    );
    assert_eq!(lab.text(&["-w", "/srv"], &["pwd"]), "/srv\n");
    assert_eq!(lab.text(&["-w", "/made/on/demand"], &["pwd"]), "/made/on/demand\n");
    assert_eq!(lab.text(&["-u", "web"], &["sh", "-c", "id -u; id -g; id -G; echo $HOME"]), "33\n34\n34 50\n/srv\n");
    assert_eq!(lab.text(&["-u", "1234:log"], &["sh", "-c", "id -u; id -g; echo $HOME"]), "1234\n50\n/\n");
    assert_eq!(lab.text(&["--entrypoint", "echo"], &["a", "-n"]), "a -n\n");
    assert_eq!(lab.text(&["--hostname", "here"], &["sh", "-c", "hostname; cat /etc/hostname"]), "here\nhere\n");
    assert_eq!(lab.run(&["--read-only"], &["touch", "/x"]).status.code(), Some(1));
    assert_eq!(lab.text(&["--read-only", "--tmpfs", "/t:size=1m"], &["sh", "-c", "touch /t/x && echo ok"]), "ok\n");
    let own = lab.make_folder("own");
    std::fs::write(own.join("file"), "of the host").expect("written");
    let (volume, fixed) = (format!("{}:/v", own.display()), format!("{}:/v:ro", own.display()));
    assert_eq!(lab.text(&["-v", &volume], &["sh", "-c", "cat /v/file; echo back > /v/new"]), "of the host");
    assert_eq!(std::fs::read_to_string(own.join("new")).expect("written inside"), "back\n");
    assert_eq!(lab.run(&["-v", &fixed], &["touch", "/v/x"]).status.code(), Some(1));
    let mount = format!("type=bind,src={},dst=/m,readonly", own.display());
    assert_eq!(lab.text(&["--mount", &mount], &["cat", "/m/new"]), "back\n");
    lab.assert_clean();
}

fn a_container_is_shut_in(lab: &Lab) {
    let capabilities = |options: &[&str]| {
        let text = lab.text(options, &["grep", "CapEff", "/proc/self/status"]);
        u64::from_str_radix(text.split_whitespace().last().expect("a set"), 16).expect("a number")
    };
    assert_eq!(capabilities(&[]), 0xa804_25fb, "those of Docker");
    assert_eq!(capabilities(&["--cap-drop", "ALL"]), 0);
    assert_eq!(capabilities(&["--cap-drop", "ALL", "--cap-add", "net_admin"]), 1 << 12);
    assert_eq!(capabilities(&["-u", "web"]), 0);
    let interfaces = |options: &[&str]| lab.text(options, &["grep", "-c", ":", "/proc/net/dev"]);
    assert_eq!(interfaces(&[]), "1\n", "loopback alone");
    let here =
        std::fs::read_to_string("/proc/net/dev").expect("interfaces").lines().filter(|line| line.contains(':')).count();
    assert_eq!(interfaces(&["--network", "host"]), format!("{here}\n"));
    assert_eq!(
        lab.text(&["--security-opt", "no-new-privileges"], &["grep", "NoNewPrivs", "/proc/self/status"]),
        "NoNewPrivs:\t1\n"
    );
    assert_eq!(lab.text(&[], &["grep", "Seccomp:", "/proc/self/status"]), "Seccomp:\t2\n");
    assert_eq!(
        lab.text(&["--security-opt", "seccomp=unconfined"], &["grep", "Seccomp:", "/proc/self/status"]),
        "Seccomp:\t0\n"
    );
    let seen = lab.text(
        &[],
        &["sh", "-c", "echo /proc/[0-9]*; head -c1 /proc/kcore | wc -c; echo x > /proc/sysrq-trigger || echo refused"],
    );
    assert!(seen.starts_with("/proc/1\n0\n") && seen.ends_with("refused\n"), "{seen}");
    lab.assert_clean();
}

fn limits_hold(lab: &Lab) {
    let limits = ["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5"];
    let has_cgroups = std::path::Path::new("/sys/fs/cgroup/memory/tasks").exists()
        || std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if lab.user.is_some() || !has_cgroups {
        let output = lab.run(&limits, &["true"]);
        let said = program::said(&output);
        assert!(output.status.code() == Some(125) && said.contains("memory"), "an honest error: {said}");
        assert!(lab.user.is_none() || said.contains("run it as root"), "and what to do: {said}");
        return lab.assert_clean();
    }
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max || \
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max";
    assert_eq!(lab.text(&limits, &["sh", "-c", &format!("{{ {script}; }} 2>/dev/null")]), "67108864\n20\n");
    lab.assert_clean();
}

/// Threat A14: what an image says about users, directories and labels never reaches the host.
fn a14_an_images_words_stay_inside(lab: &Lab) {
    let layers = || {
        let mut layers = runnable::layers();
        layers.push(
            Layer::default()
                .symlink("fd", "/proc/self/fd/8")
                .symlink("up", "../../../proc/self")
                .symlink("fine", "/srv"),
        );
        layers
    };
    let refused = [
        json!({"Cmd": ["true"], "WorkingDir": "/proc/self/fd/8"}),
        json!({"Cmd": ["true"], "WorkingDir": "/fd"}),
        json!({"Cmd": ["true"], "WorkingDir": "/up/fd"}),
        json!({"Cmd": ["true"], "User": "4294967295"}),
        json!({"Cmd": ["true"], "User": "4294967296:0"}),
        json!({"Cmd": ["true"], "User": "-1"}),
        json!({"Cmd": ["true"], "User": "0x0"}),
        json!({"Cmd": ["true"], "User": 0}),
        json!({"Cmd": ["true"], "Env": ["no equals sign"]}),
        json!({}),
    ];
    for (number, config) in refused.into_iter().enumerate() {
        let cid = lab.push(&format!("refused{number}"), layers(), &config);
        let output = lab.shipfs(&["run", "--rm", &cid]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(125), "{config}: {}", program::said(&output));
    }
    let host = lab.folder.path().join("host");
    std::fs::create_dir(&host).expect("made");
    let labels = json!({
        "nerdctl/mounts": format!("[{{\"Type\":\"bind\",\"Source\":\"{}\",\"Destination\":\"/h\"}}]", host.display()),
        "io.containerd.runc.v2.options": "{}", "com.docker.compose.project": "x", "run.oci.hooks.stdout": "/bin/sh",
        "run.oci.keep_original_groups": "1", "org.opencontainers.runtime-spec.hooks": "x",
    });
    let config = json!({"Cmd": ["sh", "-c", "pwd; ls -d /h"], "WorkingDir": "/fine", "User": "web", "Labels": labels});
    let cid = lab.push("labels", layers(), &config);
    let output = lab.shipfs(&["run", "--name", "labelled", &cid]).output().expect("it starts");
    assert_eq!(output.stdout, b"/srv\n", "{}", program::said(&output));
    let folder = lab.container_folders().remove(0);
    let bundle = std::fs::read_to_string(folder.join("config.json")).expect("the bundle");
    assert!(!bundle.contains("nerdctl") && !bundle.contains("hooks") && !bundle.contains("annotations"), "{bundle}");
    program::run(lab.shipfs(&["rm", "labelled"]));
    lab.assert_clean();
}
