//! The registry and the conformance suite of the distribution specification.
//!
//! What the suite says is kept beside this file, written by the test with `SHIPFS_RECORD` set:
//! `registry-conformance.md`.

use shipfs_tests::peers;
use shipfs_tests::program::said;
use shipfs_tests::repository::Repository;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Where a table beside the tests lies.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// Writes a table beside the tests, with `SHIPFS_RECORD` set.
pub(crate) fn keep(name: &str, text: &str) {
    if std::env::var_os("SHIPFS_RECORD").is_some() {
        std::fs::write(path(name), text).expect("the table can be written");
    }
}

#[test]
fn interop_registry_conforms_to_the_distribution_specification() {
    let test = "interop_registry_conforms_to_the_distribution_specification";
    let Some(suite) = peers::program(test, "conformance") else { return };
    let folder = TempDir::new().expect("a folder");
    let repository = Repository::new(folder.path().join("repository"));
    let (_registry, address) = repository.registry(&["--offline"], &[]);
    let mut table = String::from(
        "# Conformance of the registry\n\nMade by `SHIPFS_RECORD=1 cargo test -p shipfs-tests --test interop registry_conforms`: what the \
         conformance suite of the OCI distribution specification says about `shipfs registry serve`. `dev` adds what the \
         next version of the specification asks for.\n",
    );
    for version in ["1.1", "dev"] {
        let mut command = Command::new(&suite);
        command.current_dir(folder.path()).env_clear().env("OCI_REGISTRY", address.to_string());
        command.env("OCI_TLS", "disabled").env("OCI_REPO1", "a/first").env("OCI_REPO2", "b/second");
        let output = command.env("OCI_VERSION", version).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let start = text.find("OCI Conformance Result").unwrap_or_else(|| panic!("no result: {}", said(&output)));
        let result = text[start..].trim_end();
        let failed: Vec<_> = text.lines().filter(|line| line.ends_with(": FAIL") || line.ends_with(": Skip")).collect();
        assert!(output.status.success() && failed.is_empty(), "{version}: {failed:#?}\n{result}");
        table.push_str(&format!("\n## Version {version}\n\n```text\n{result}\n```\n"));
    }
    keep("registry-conformance.md", &table);
    let kept = std::fs::read_to_string(path("registry-conformance.md")).expect("a table");
    assert_eq!(kept, table, "the table says something else; SHIPFS_RECORD=1 writes it anew");
}
