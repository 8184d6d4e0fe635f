//! The key of a private network, as a file in the form that Kubo uses.
//!
//! ```text
//! /key/swarm/psk/1.0.0/
//! /base16/
//! 64 hexadecimal digits
//! ```
//! Imports the node's configuration. The key is in no message.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::{CWD, RenameFlags};
use shipfs_node::config::Network;

use super::{Failure, FailureKind};

/// Name of the file in the repository.
pub const SWARM_KEY_FILE: &str = "swarm.key";
/// Longest file that is read, in bytes: three short lines.
const MAX_KEY_BYTES: u64 = 1 << 10;
/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A new key, as the file's text.
///
/// # Errors
/// When the system has no random bytes.
pub fn generate_swarm_key() -> Result<String, Failure> {
    let mut key = [0; KEY_BYTES];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).map_err(|error| {
        Failure::from_error(FailureKind::Other, &error).while_doing("cannot get random bytes for a key")
    })?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("/key/swarm/psk/1.0.0/\n/base16/\n{hex}\n"))
}

/// Writes a key where there is none, for the owner alone.
///
/// # Errors
/// When there is a file already, which is never overwritten, or it cannot be written.
pub fn write_swarm_key(path: &Path, key: &str) -> Result<(), Failure> {
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        // Whole or not at all, and never in place of another: written aside first, for the owner alone from the start.
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let written = file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            rustix::fs::renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)
        });
        written.inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error: io::Error| {
        let failure = Failure::from_error(FailureKind::Other, &error)
            .while_doing(format!("cannot write the swarm key `{}`", path.display()));
        if error.kind() == io::ErrorKind::AlreadyExists {
            return failure.hint("a network whose key is lost cannot be entered any more: move the file away first");
        }
        failure
    })
}

/// The private network of the key in `repository`, and what is to be said about the file, if anything.
pub(super) fn private_network(repository: &Path) -> Result<(Network, Option<String>), Failure> {
    let path = repository.join(SWARM_KEY_FILE);
    let shown = path.display();
    let read = || {
        let file = File::open(&path)?;
        let mode = file.metadata()?.mode();
        let mut text = String::new();
        file.take(MAX_KEY_BYTES).read_to_string(&mut text)?;
        Ok((mode, text))
    };
    let (mode, text) = read().map_err(|error: io::Error| {
        Failure::from_error(FailureKind::Network, &error)
            .while_doing(format!("cannot read the swarm key `{shown}`"))
            .hint("`shipfs key gen` makes one; all nodes of a private network need the same")
    })?;
    let key = text.trim().parse().map_err(|_| {
        Failure::new(FailureKind::Network, format!("`{shown}` holds no swarm key"))
            .hint("expected three lines: /key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal digits")
    })?;
    let open = mode & 0o077 != 0;
    let warning = open.then(|| format!("others on this host can read the swarm key `{shown}`: chmod 600 it"));
    Ok((Network::Private(key), warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new").join(SWARM_KEY_FILE);
        let key = generate_swarm_key().expect("random bytes");
        assert_ne!(key, generate_swarm_key().expect("random bytes"));
        write_swarm_key(&path, &key).expect("writes");
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        let (network, warning) = private_network(&directory.path().join("new")).expect("reads");
        assert_eq!((network.name(), warning), ("private", None));
        let secret = key.lines().last().expect("three lines");
        assert!(!format!("{network:?}").contains(secret));
        let refused = write_swarm_key(&path, "other").expect_err("is there already");
        assert!(refused.hint.is_some());
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), key);
    }

    #[test]
    fn c12_a_key_that_others_can_read_is_warned_of_and_a_bad_one_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(private_network(directory.path()).expect_err("there is none").hint.is_some());
        let path = directory.path().join(SWARM_KEY_FILE);
        for bad in ["", "/key/swarm/psk/1.0.0/\n/base16/\nabc\n", "0123"] {
            std::fs::write(&path, bad).expect("writes");
            let failure = private_network(directory.path()).expect_err(bad);
            assert!(failure.message.contains("holds no swarm key"), "{failure}");
        }
        std::fs::write(&path, generate_swarm_key().expect("random bytes")).expect("writes");
        let (_, warning) = private_network(directory.path()).expect("reads");
        assert!(warning.is_some_and(|text| text.contains("chmod 600")));
    }
}
