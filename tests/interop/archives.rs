//! Archives of the Docker of today: it loads what we write, and we push what it saves.

use shipfs_tests::peers;
use shipfs_tests::program::{Running, privileged, run, tool};
use shipfs_tests::repository::Repository;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A Docker daemon of its own, which reaches no network.
struct Docker {
    _daemon: Running,
    socket: PathBuf,
}

impl Docker {
    fn start(dockerd: &Path, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let (socket, config) = (folder.join("docker.sock"), folder.join("daemon.json"));
        // Limits that a root without CAP_SYS_RESOURCE may set, too.
        let limits = r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":1024,"Soft":1024}}}"#;
        fs::write(&config, limits).expect("writes");
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(dockerd).arg("--config-file").arg(&config);
        command.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("pid")).arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--ip-masq=false", "--storage-driver=vfs"]);
        let (daemon, _) = Running::start(&mut command, "API listen on").expect("Docker starts");
        Self { _daemon: daemon, socket }
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(arguments);
        run(command.env("DOCKER_BUILDKIT", "0")).trim().to_owned()
    }

    fn id(&self, image: &str) -> String {
        self.run(&["image", "inspect", "--format", "{{.Id}}", image])
    }
}

#[test]
fn interop_docker_26_saves_what_we_push_and_loads_what_we_save() {
    const NAME: &str = "interop_docker_26_saves_what_we_push_and_loads_what_we_save";
    let Some(dockerd) = peers::program(NAME, "dockerd26") else { return };
    if !privileged(NAME) || !tool(NAME, "docker") {
        return;
    }
    let folder = TempDir::new().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let text = |path: PathBuf| path.to_str().expect("text").to_owned();
    fs::create_dir(at("context")).expect("a folder");
    for (file, content) in [
        ("one", "first"),
        ("two", "second"),
        ("Dockerfile", "FROM scratch\nCOPY one /one\nCOPY two /two\nENV A=b\nCMD [\"/one\"]\n"),
    ] {
        fs::write(at("context").join(file), content).expect("writes");
    }

    let builder = Docker::start(&dockerd, &at("builder"));
    builder.run(&["build", "--quiet", "--tag", "one/two:3", &text(at("context"))]);
    builder.run(&["save", "--output", &text(at("saved.tar")), "one/two:3"]);
    let built = builder.id("one/two:3");

    let repository = Repository::new(at("repository"));
    let cid = repository.run(&["push", &format!("docker-archive:{}", text(at("saved.tar")))]);
    fs::write(at("ours.tar"), repository.saved_as(&cid, "docker-archive")).expect("writes");

    let other = Docker::start(&dockerd, &at("other"));
    other.run(&["load", "--input", &text(at("ours.tar"))]);
    assert_eq!(other.id(&built), built, "the configuration, and so every layer, is the one that was built");
    let environment = other.run(&["image", "inspect", "--format", "{{.Config.Env}}", &built]);
    assert!(environment.ends_with(" A=b]"), "{environment}");
}
