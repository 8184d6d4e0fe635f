//! Archives of the Docker of today: it loads what we write, and we push what it saves.

use shipfs_tests::engines::Docker;
use shipfs_tests::peers;
use shipfs_tests::program::{privileged, tool};
use shipfs_tests::repository::Repository;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

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

    let start = |name: &str| Docker::without_network(&dockerd, "vfs", &at(name));
    let id = |docker: &Docker, image: &str| docker.docker(&["image", "inspect", "--format", "{{.Id}}", image]);
    let builder = start("builder");
    builder.docker(&["build", "--quiet", "--tag", "one/two:3", &text(at("context"))]);
    builder.docker(&["save", "--output", &text(at("saved.tar")), "one/two:3"]);
    let built = id(&builder, "one/two:3");

    let repository = Repository::new(at("repository"));
    let cid = repository.run(&["push", &format!("docker-archive:{}", text(at("saved.tar")))]);
    fs::write(at("ours.tar"), repository.saved_as(&cid, "docker-archive")).expect("writes");

    let other = start("other");
    other.docker(&["load", "--input", &text(at("ours.tar"))]);
    assert_eq!(id(&other, &built), built, "the configuration, and so every layer, is the one that was built");
    let environment = other.docker(&["image", "inspect", "--format", "{{.Config.Env}}", &built]);
    assert!(environment.ends_with(" A=b]"), "{environment}");
}
