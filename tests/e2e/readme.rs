//! Runs what the README says: its shell blocks, and the two hosts' walk-through on two hosts.

use shipfs_tests::netns::Lan;
use shipfs_tests::program::{self, Running};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

/// The fenced blocks of the README: what stands behind the fence, and the text.
fn blocks() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(info) if !open => {
                open = true;
                blocks.push((info.to_owned(), String::new()));
            }
            Some(_) => open = false,
            None if open => {
                let (_, text) = blocks.last_mut().expect("a block is open");
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// A shell in a folder, with the programs that were built beside this one on its path.
fn shell(mut command: Command, script: &str, repository: &Path) -> Command {
    let programs = program::shipfs_path().parent().expect("a folder").to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    command.args(["-euo", "pipefail", "-c", script]).current_dir(root());
    command.env("PATH", path).env("SHIPFS_PATH", repository);
    // As in a user's shell: what cargo tells its tests makes a cargo inside build half the dependencies anew.
    let told = |name: &str| {
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"].contains(&name);
        (name.starts_with("CARGO") || name == "LD_LIBRARY_PATH") && !kept
    };
    for name in std::env::vars().map(|(name, _)| name).filter(|name| told(name)) {
        command.env_remove(name);
    }
    command
}

#[test]
fn every_block_is_run_or_marked_as_text() {
    for (info, text) in blocks() {
        assert!(["sh", "sh host=1", "sh host=2", "rust", "text", "toml"].contains(&info.as_str()), "`{info}`: {text}");
    }
}

/// The example of a `config.toml` is one: each of its settings counts.
#[test]
fn the_example_of_a_configuration_counts() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_, example) = blocks().into_iter().find(|(info, _)| info == "toml").expect("an example");
    std::fs::write(folder.path().join("config.toml"), &example).expect("written");
    let shown = program::run(program::shipfs(folder.path()).args(["--json", "config"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let from_file = shown["settings"].as_array().expect("a list").iter();
    let from_file = from_file.filter(|row| row["from"].as_str().is_some_and(|from| from.contains("config.toml:")));
    assert_eq!(from_file.count(), example.lines().count(), "{shown:#}");
}

/// `.ci/test` is what runs this test; everything else in a plain block is run.
#[test]
fn plain_blocks_run() {
    let repository = tempfile::tempdir().expect("a directory");
    for (info, text) in blocks() {
        if info == "sh" && text != ".ci/test\n" {
            // The examples were built with everything else; building them again would only wait for the same lock.
            let script = text.replace("cargo run --quiet -p shipfs-examples --bin ", "");
            program::run(&mut shell(Command::new("bash"), &script, repository.path()));
        }
    }
}

#[test]
fn rust_blocks_are_pieces_of_the_examples() {
    let example = root().join("examples/src/bin/add_and_cat.rs");
    let example = std::fs::read_to_string(example).expect("the example");
    for (info, text) in blocks() {
        assert!(info != "rust" || example.contains(&text), "no example says:\n{text}");
    }
}

#[test]
fn privileged_the_walk_through_works_on_two_hosts() {
    if !program::privileged("privileged_the_walk_through_works_on_two_hosts") {
        return;
    }
    let (lan, folder) = (Lan::new(2), tempfile::tempdir().expect("a directory"));
    let script = |host: &str| {
        let (_, text) = blocks().into_iter().find(|(info, _)| info == host).expect("the README has such a block");
        text
    };
    let first = lan.on(1, Path::new("bash"));
    let mut first =
        shell(first, &script("sh host=1").replace("echo \"$CID\"", "echo \"cid $CID\""), &folder.path().join("1"));
    let (daemon, lines) = Running::start_after(&mut first, "ready").expect("the first host serves");
    let cid = lines.iter().find_map(|line| line.strip_prefix("cid ")).expect("a CID").to_owned();
    let second = lan.on(2, Path::new("bash"));
    // Relative paths of the reader's are this test's folder.
    let text = script("sh host=2").replace("oci:hello", &format!("oci:{}/hello", folder.path().display()));
    let mut second = shell(second, &text, &folder.path().join("2"));
    let said = program::run(second.env("CID", &cid));
    assert!(said.contains(&cid), "{said}");
    let names = |layout: &Path| shipfs_tests::image::check_blobs(layout).expect("every blob is what its name says");
    let (theirs, ours) = (names(&folder.path().join("hello")), names(&root().join("tests/data/hello")));
    // Layers and configs are the same; the manifest has `urls` now.
    assert_eq!(theirs.iter().filter(|name| ours.contains(name)).count(), ours.len() - 1);
    drop(daemon);
}
