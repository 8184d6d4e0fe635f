//! The node's key: who it is to other peers.
//!
//! ```text
//! identity = the private key in libp2p's protobuf encoding, file mode 0600
//! ```

use libp2p::identity::Keypair;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Longest key file read, in bytes: an RSA key of 4096 bits needs about 2400.
const MAX_KEY_BYTES: u64 = 8 << 10;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot {action} the identity file `{}`", path.display())]
    Io {
        /// `read`, `create` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("`{}` holds no private key in libp2p's encoding: move it away to get a new identity", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A new Ed25519 key that is kept nowhere.
pub fn generate() -> Keypair {
    Keypair::generate_ed25519()
}

/// Reads the key in `path`, or makes an Ed25519 key and keeps it there.
///
/// The file appears complete or not at all, readable by its owner alone.
///
/// # Errors
/// [`IdentityError`]; a malformed file is never overwritten.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    let failed = |action| move |source| IdentityError::Io { action, path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_KEY_BYTES).read_to_end(&mut bytes).map_err(failed("read"))?;
            Keypair::from_protobuf_encoding(&bytes).map_err(|_| IdentityError::Malformed { path: path.to_owned() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = generate();
            let bytes = key.to_protobuf_encoding().expect("an Ed25519 key always has an encoding");
            let temporary = path.with_extension("new");
            let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR);
            let mut file = File::from(file.map_err(|error| failed("create")(error.into()))?);
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write"))?;
            std::fs::rename(&temporary, path).map_err(failed("write"))?;
            Ok(key)
        }
        Err(error) => Err(failed("read")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_identity_is_made_once_and_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("identity");
        let first = load_or_create(&path).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).expect("read").public(), first.public());
        std::fs::write(&path, b"garbage").expect("written");
        assert!(matches!(load_or_create(&path), Err(IdentityError::Malformed { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"garbage");
    }
}
