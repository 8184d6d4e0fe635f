//! Checks the tree itself: who imports whom, that every module says what it is, that names mean something.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines (tests excluded) past which a file has lost its one reason to exist.
const MAX_FILE_LINES: usize = 500;
/// Crates in the lock file past which a dependency needs a better reason than convenience.
const MAX_LOCKED_CRATES: usize = 520;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "misc", "manager"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !["target", "data", "corpus", "artifacts"].contains(&name.as_str()) {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every Rust file of the workspace: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for member in ["node", "image", "cli", "examples", "tests"] {
        rust_files(&root().join(member), &mut files);
    }
    assert!(files.len() > 40, "only {} files were found", files.len());
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("readable text"))
    };
    files.into_iter().map(read).collect()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Whether a file holds tests alone.
fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/") || file.ends_with("interop.rs")
}

/// The lines of a file before its own test module.
fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

#[test]
fn crates_depend_in_one_direction() {
    let forbidden = |file: &str| -> &[&str] {
        match file.split('/').next().expect("a folder") {
            "node" => &["shipfs_image", "shipfs::"],
            "image" => &["shipfs::"],
            _ => &[],
        }
    };
    let mut found = Vec::new();
    for (file, text) in sources() {
        for name in forbidden(&file) {
            found.extend(text.lines().filter(|line| line.contains(name)).map(|line| format!("{file}: {line}")));
        }
    }
    for (manifest, name) in [("node", "shipfs-image"), ("image", "shipfs ")] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).expect("a manifest");
        found.extend(text.lines().filter(|line| line.starts_with(name)).map(|line| format!("{manifest}: {line}")));
    }
    assert_none("a lower crate names a higher one", &found);
}

#[test]
fn every_module_says_what_it_is() {
    let silent = |(file, text): &(String, String)| {
        let head = text.lines().next().unwrap_or_default();
        (!head.starts_with("//! ") || head.len() < 12).then(|| file.clone())
    };
    assert_none("no module documentation at the top of", &sources().iter().filter_map(silent).collect::<Vec<_>>());
}

#[test]
fn files_have_one_reason_to_exist() {
    let long = |(file, text): &(String, String)| {
        let lines = without_tests(text).count();
        (lines > MAX_FILE_LINES && !is_test(file)).then(|| format!("{file}: {lines} lines"))
    };
    assert_none("files to split", &sources().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn names_mean_something() {
    let empty = |(file, _): &(String, String)| {
        let parts = file.trim_end_matches(".rs").split('/');
        parts.into_iter().any(|part| EMPTY_NAMES.contains(&part)).then(|| file.clone())
    };
    assert_none("modules named for nothing", &sources().iter().filter_map(empty).collect::<Vec<_>>());
    let files: BTreeSet<_> = sources().into_iter().map(|(file, _)| file).collect();
    let doubled = files.iter().filter(|file| root().join(file.trim_end_matches(".rs")).is_dir());
    assert_none("a folder and a file of one name", &doubled.cloned().collect::<Vec<_>>());
}

/// Only `cli/src/output.rs` prints and only `cli/src/config.rs` reads the environment; a lint sees prints, this the rest.
#[test]
fn libraries_read_no_environment() {
    let mut found = Vec::new();
    for (file, text) in sources() {
        let library = (file.starts_with("node/src") || file.starts_with("image/src"))
            && !is_test(&file)
            && !file.contains("/testing/");
        if library || (file.starts_with("cli/src") && file != "cli/src/config.rs") {
            let reads = |line: &&str| line.contains("env::var") || line.contains("env::home_dir");
            found.extend(without_tests(&text).filter(reads).map(|line| format!("{file}: {}", line.trim())));
        }
    }
    assert_none("the environment is read in", &found);
}

#[test]
fn the_readme_names_every_folder_and_nothing_else() {
    let readme = fs::read_to_string(root().join("README.md")).expect("a README");
    let top = ["Cargo.toml", "node", "image", "cli", "examples", "tests", "README.md"];
    let allowed = ["Cargo.lock", "CHANGELOG.md", "LICENSE", "target"];
    for name in top {
        assert!(root().join(name).exists(), "{name} is missing");
        assert!(readme.contains(name), "README.md does not name {name}");
    }
    for entry in fs::read_dir(root()).expect("the root") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let known = top.contains(&name.as_str()) || allowed.contains(&name.as_str()) || name.starts_with('.');
        assert!(known, "{name} has no place at the top level");
    }
    for krate in ["node", "image", "cli"] {
        for entry in fs::read_dir(root().join(krate).join("src")).expect("a crate") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                assert!(readme.contains(&name), "README.md does not name {krate}/src/{name}");
            }
        }
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let folder = root().join("tests/e2e");
    let main = fs::read_to_string(folder.join("main.rs")).expect("the main file");
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(name == "main" || main.contains(&format!("mod {name};")), "tests/e2e/{name}.rs is not in main.rs");
    }
}

#[test]
fn the_lock_file_stays_small() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("a lock file");
    let crates = lock.lines().filter(|line| *line == "[[package]]").count();
    assert!(crates <= MAX_LOCKED_CRATES, "{crates} crates are locked, at most {MAX_LOCKED_CRATES} are wanted");
    assert!(!lock.contains("git+"), "a dependency comes from git");
}
