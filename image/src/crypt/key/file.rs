//! What a user names: files of keys, and whom a layer is to be sealed for.
//!
//! ```text
//! recipient   jwe:FILE
//! key         FILE
//! file        PEM or DER: X.509's public keys, PKCS #1, PKCS #8, SEC 1; or a JWK
//! ```
//! Imports the keys beside it. Files are read by the process of their user, and travel to the one that holds the
//! repository as bytes: a pipe is as good as a file, and nobody's rights are borrowed. Those bytes are in no `Debug`.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Private, Public, jwk};
use crate::control::{Failure, FailureKind};

/// Longest file that is read, in bytes: an RSA key of 16384 bits in PEM takes 13 000.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// The way of sealing envelopes that is known here.
pub(in crate::crypt) const JWE: &str = "jwe";
/// Those that others know.
const OTHER_SCHEMES: [&str; 4] = ["pkcs7", "pgp", "pkcs11", "provider"];

/// A file with a private key in it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// What its user calls it.
    pub name: String,
    /// Whether others on this host can read it.
    pub is_open: bool,
    bytes: Zeroizing<Vec<u8>>,
}

/// A file with the public key of somebody who may open what is sealed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recipient(KeyFile);

impl fmt::Debug for KeyFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("KeyFile").field(&self.name).finish()
    }
}

/// How a file of keys travels.
#[derive(Serialize, Deserialize)]
struct Wire {
    name: String,
    is_open: bool,
    bytes: String,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Serialize for KeyFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire { name: self.name.clone(), is_open: self.is_open, bytes: STANDARD.encode(&self.bytes[..]) }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&wire.bytes).map_err(|_| D::Error::custom("a key is no base64"))?;
        Ok(Self { name: wire.name.clone(), is_open: wire.is_open, bytes: Zeroizing::new(bytes) })
    }
}

impl KeyFile {
    /// Reads the file of a private key. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be read, or is none that can be used; it says nothing of what is in it.
    pub fn read(name: &str) -> Result<Self, KeyError> {
        let file = match Self::load(name) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound && has_password(name) => {
                return Err(KeyError::Password { name: name.split(':').next().unwrap_or_default().to_owned() });
            }
            file => file?,
        };
        file.private().map(|_| file)
    }

    fn load(name: &str) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { name: name.to_owned(), source };
        let file = File::open(name).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_KEY_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(Self { name: name.to_owned(), is_open: metadata.is_file() && metadata.mode() & 0o077 != 0, bytes })
    }

    pub(in crate::crypt) fn private(&self) -> Result<Private, KeyError> {
        let found = match self.form()? {
            Form::Json(json) => jwk::private(json),
            Form::Der(der) => Private::from_der(&der),
        };
        found.ok_or_else(|| KeyError::NotPrivate { name: self.name.clone() })
    }

    fn public(&self) -> Result<Public, KeyError> {
        let found = match self.form()? {
            Form::Json(json) => jwk::public(json),
            Form::Der(der) => Public::from_der(&der),
        };
        found.ok_or_else(|| KeyError::NotPublic { name: self.name.clone() })
    }

    fn form(&self) -> Result<Form<'_>, KeyError> {
        if self.bytes.trim_ascii_start().first() == Some(&b'{') {
            return Ok(Form::Json(&self.bytes));
        }
        let text = std::str::from_utf8(&self.bytes).unwrap_or_default();
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Password { name: self.name.clone() });
        }
        // What OpenSSL writes of a curve's key may begin with the name of the curve.
        let parts = pem::parse_many(text).unwrap_or_default();
        let part = parts.into_iter().find(|part| part.tag().ends_with(" KEY"));
        Ok(Form::Der(Zeroizing::new(part.map_or_else(|| self.bytes.to_vec(), pem::Pem::into_contents))))
    }
}

enum Form<'f> {
    Json(&'f [u8]),
    Der(Zeroizing<Vec<u8>>),
}

/// Whether a name says how to get the password of a key, as others' tools have it: after the file's name.
fn has_password(name: &str) -> bool {
    name.split_once(':').is_some_and(|(file, _)| std::fs::exists(file).unwrap_or(false))
}

impl Recipient {
    /// Reads the public key of a recipient: `jwe:FILE`. Blocks.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be understood or read, or is none that can be used.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let (scheme, name) = text.split_once(':').ok_or_else(|| KeyError::Form { text: text.to_owned() })?;
        check_scheme(scheme)?;
        let file = KeyFile::load(name)?;
        file.public().map(|_| Self(file))
    }

    pub(in crate::crypt) fn public(&self) -> Result<Public, KeyError> {
        self.0.public()
    }
}

/// Whether envelopes can be sealed in this way.
///
/// # Errors
/// [`KeyError`] tells those that others know from what nobody does.
pub(in crate::crypt) fn check_scheme(scheme: &str) -> Result<(), KeyError> {
    match scheme {
        JWE => Ok(()),
        known if OTHER_SCHEMES.contains(&known) => Err(KeyError::Scheme { scheme: known.to_owned() }),
        other => Err(KeyError::UnknownScheme { scheme: other.chars().take(100).collect() }),
    }
}

/// Why a key cannot be used. What is in its file is in no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A recipient is no pair of a way and a file.
    #[error("invalid recipient format: `{}`, expected `jwe:FILE`", text.escape_debug())]
    Form {
        /// What it is.
        text: String,
    },
    /// A way that others know.
    #[error("envelopes of `{scheme}` are not supported, only those of `jwe`")]
    Scheme {
        /// The way.
        scheme: String,
    },
    /// A way that nobody knows.
    #[error("provided protocol not recognized: `{}`", scheme.escape_debug())]
    UnknownScheme {
        /// The way.
        scheme: String,
    },
    /// The file cannot be read.
    #[error("cannot read the key `{}`", name.escape_debug())]
    Read {
        /// What its user calls it.
        name: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("file provided is not a public key: `{}`, expected RSA of 2048 to 8192 bits, or P-256, P-384 or P-521", name.escape_debug())]
    NotPublic {
        /// What its user calls it.
        name: String,
    },
    /// The file holds something else, a public key for instance.
    #[error("file provided is not a private key: `{}`, expected RSA of 2048 to 8192 bits, or P-256, P-384 or P-521", name.escape_debug())]
    NotPrivate {
        /// What its user calls it.
        name: String,
    },
    /// The key is encrypted itself.
    #[error("the key `{}` has a password, which is not supported", name.escape_debug())]
    Password {
        /// What its user calls it.
        name: String,
    },
}

impl KeyError {
    /// What may help.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Form { .. } | Self::Scheme { .. } | Self::UnknownScheme { .. } => Some(
                "`openssl genrsa -out KEY 3072` and `openssl rsa -in KEY -pubout -out PUB` make keys for `jwe:PUB`",
            ),
            Self::Password { .. } => Some("`openssl pkcs8 -topk8 -nocrypt -in KEY -out PLAIN` writes it without one"),
            Self::NotPrivate { .. } => Some("what decrypts is the other half of what it was encrypted for"),
            Self::Read { .. } | Self::NotPublic { .. } => None,
        }
    }

    /// What a user is told.
    pub fn failure(&self) -> Failure {
        let failure = Failure::from_error(FailureKind::Other, self);
        match self.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> String {
        format!("{}/../tests/data/ocicrypt/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn keys_are_read_and_not_shown() {
        for name in ["rsa2048.priv.pem", "ec256.priv.pem"] {
            let key = KeyFile::read(&data(name)).expect("reads");
            let text = serde_json::to_string(&key).expect("serialises");
            assert_eq!(serde_json::from_str::<KeyFile>(&text).expect("parses"), key);
            let shown = format!("{key:?}");
            assert!(shown.ends_with(&format!("{name}\")")), "{shown}");
            assert_eq!(format!("{:?}", key.private().expect("a key")), "Private(..)");
        }
    }

    #[test]
    fn b12_what_is_no_key_is_told_apart() {
        let public = KeyFile::read(&data("rsa2048.pub.pem"));
        assert!(matches!(public, Err(KeyError::NotPrivate { .. })), "{public:?}");
        for name in ["rsa2048.priv.pem", "ec256.priv.pem", "README"] {
            let refused = Recipient::read(&format!("jwe:{}", data(name)));
            assert!(matches!(refused, Err(KeyError::NotPublic { .. })), "{name}: {refused:?}");
        }
        assert!(matches!(Recipient::read("file"), Err(KeyError::Form { .. })));
        assert!(matches!(Recipient::read("pgp:me"), Err(KeyError::Scheme { .. })));
        assert!(matches!(Recipient::read("rot13:me"), Err(KeyError::UnknownScheme { .. })));
        assert!(matches!(KeyFile::read("/nowhere"), Err(KeyError::Read { .. })));
        let with = KeyFile::read(&(data("rsa2048.priv.pem") + ":pass=secret")).expect_err("a password");
        assert!(matches!(with, KeyError::Password { .. }) && !with.to_string().contains("secret"), "{with}");
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("key").display().to_string();
        let begin = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
        for locked in [begin, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"] {
            std::fs::write(&path, locked).expect("writes");
            assert!(matches!(KeyFile::read(&path), Err(KeyError::Password { .. })));
        }
        std::fs::write(&path, vec![b'A'; 70_000]).expect("writes");
        assert!(matches!(KeyFile::read(&path), Err(KeyError::Read { .. })));
    }
}
