//! Why a registry did not do what it was asked.
//!
//! Imports the errors beside it. What strangers said is in here shortened and is shown escaped; no secret ever is.

use std::path::PathBuf;

use super::{CertificateProblem, CredentialError};
use crate::oci::{Digest, DocumentError};

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It is no address.
    #[error("`{}` is not the address of a registry", text.escape_debug())]
    Address {
        /// What was read.
        text: String,
    },
    /// The client cannot be set up.
    #[error("cannot set up a client for registries")]
    Setup(#[source] reqwest::Error),
    /// The registry could not be reached, or the connection broke too often.
    #[error("`{what}` failed")]
    Connection {
        /// Method and address.
        what: String,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// It is not who it should be, or does not believe that of us.
    #[error("`{host}` is not spoken with: {problem}")]
    Certificate {
        /// The host, with its port.
        host: String,
        /// What is wrong.
        problem: CertificateProblem,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// Certificates that are to be trusted, or shown, cannot be read.
    #[error("cannot read certificates from `{}`", path.display())]
    Certificates {
        /// Where they should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The proxy is none.
    #[error("the proxy `{proxy}` cannot be used, expected `http://HOST:PORT` or `https://HOST:PORT`")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
    },
    /// The proxy did not lead there.
    #[error("`{what}` failed, by way of the proxy `{proxy}`")]
    Proxied {
        /// Method and address.
        what: String,
        /// The proxy, without its password.
        proxy: String,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// It answered with an error.
    #[error("`{what}` was answered with {status}{}", told(said))]
    Status {
        /// Method and address.
        what: String,
        /// The status.
        status: u16,
        /// Its own words, shortened.
        said: String,
    },
    /// It has no such thing.
    #[error("`{what}` is not in the registry")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It lets nobody in with what there is.
    #[error("the registry `{domain}` refuses {}{}", if *anonymous { "those who are not logged in" } else { "these credentials" }, told(said))]
    Denied {
        /// The registry.
        domain: String,
        /// Whether there were no credentials.
        anonymous: bool,
        /// Its own words, shortened.
        said: String,
    },
    /// It wants something that is not understood.
    #[error("the registry `{domain}` answers 401, and does not say what it wants")]
    Challenge {
        /// The registry.
        domain: String,
    },
    /// Tokens are given out by somebody who must not be asked.
    #[error("the registry `{domain}` sends for a token to `{}`, which is not encrypted", realm.escape_debug())]
    Realm {
        /// The registry.
        domain: String,
        /// Who gives tokens out.
        realm: String,
    },
    /// Whoever gives tokens out gave none.
    #[error("`{realm}` gave no token{}", told(said))]
    Token {
        /// Who gives tokens out.
        realm: String,
        /// What it said, shortened.
        said: String,
    },
    /// It leads elsewhere, where a client must not go.
    #[error("`{what}` leads to `{}`: {problem}", to.escape_debug())]
    Redirect {
        /// Method and address.
        what: String,
        /// Where to.
        to: String,
        /// Why not.
        problem: &'static str,
    },
    /// An answer is longer than it may be.
    #[error("the answer to `{what}` has more than {limit} bytes")]
    TooLong {
        /// Method and address.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// An answer is not what was asked for.
    #[error("`{what}` gave `{got}`, expected `{expected}`")]
    Mismatch {
        /// Method and address.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        got: String,
    },
    /// A blob ended early, again and again.
    #[error("`{what}` broke off after {got} of {expected} bytes")]
    Cut {
        /// Method and address.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// What the reference names is no document of an image.
    #[error("`{what}` is not an image")]
    Document {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// A layer lies elsewhere, which nobody allowed.
    #[error("layer `{digest}` is not in the registry, only at `{}`, which is not fetched unless its host is allowed", url.escape_debug())]
    Foreign {
        /// The layer.
        digest: Digest,
        /// Where it is said to be.
        url: String,
    },
    /// A body to be sent cannot be read.
    #[error("cannot read `{what}`")]
    Body {
        /// What.
        what: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Credentials cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

fn told(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {}", said.escape_debug()) }
}
