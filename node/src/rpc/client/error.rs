//! Why a daemon did not do what it was asked.
//!
//! Imports nothing of this crate but the address. What a daemon said is foreign text: it is cut and escaped here, and no
//! message holds credentials.

use std::{io, path::PathBuf, time::Duration};

use crate::block::Cid;

use super::super::AddressError;

/// Most characters of a daemon's words that are repeated.
const MAX_SAID: usize = 400;

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No daemon says where it is.
    #[error("no IPFS daemon runs: there is no {}", listed(files))]
    NoDaemon {
        /// The files where it would say so.
        files: Vec<PathBuf>,
    },
    /// The file where a daemon says its address cannot be read.
    #[error("cannot read the IPFS daemon's address from `{}`", path.display())]
    ApiFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("`{}` does not hold the address of an IPFS daemon", path.display())]
    ApiFileAddress {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: AddressError,
    },
    /// It could only be reached through a network socket, and none is to be opened.
    #[error("`offline` opens no network socket, but the IPFS daemon at `{endpoint}` is reached through one")]
    Offline {
        /// Its address.
        endpoint: String,
    },
    /// It cannot be reached.
    #[error("cannot reach the IPFS daemon at `{endpoint}`")]
    Connect {
        /// Its address.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was silent for too long.
    #[error("the IPFS daemon at `{endpoint}` said nothing for {:.1} s during `{command}`", waited.as_secs_f32())]
    Silent {
        /// Its address.
        endpoint: String,
        /// What it was to do.
        command: &'static str,
        /// How long nothing came.
        waited: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the connection to the IPFS daemon at `{endpoint}` broke during `{command}`, after {received} bytes")]
    Broken {
        /// Its address.
        endpoint: String,
        /// What it was to do.
        command: &'static str,
        /// Bytes of the answer that had come.
        received: u64,
        /// What the connection says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it could not.
    #[error("the IPFS daemon could not carry out `{command}` (status {status}): {message}")]
    Refused {
        /// What it was to do.
        command: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said; cut and escaped.
        message: String,
    },
    /// It does not let us in.
    #[error("the IPFS daemon at `{endpoint}` does not allow `{command}` (status {status}): {message}")]
    Denied {
        /// Its address.
        endpoint: String,
        /// What it was to do.
        command: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said; cut and escaped.
        message: String,
    },
    /// It sent us elsewhere, where nobody goes.
    #[error("`{endpoint}` redirects `{command}` elsewhere (status {status}); redirects are not followed")]
    Redirected {
        /// Its address.
        endpoint: String,
        /// What it was to do.
        command: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// It began to answer, and then said that it failed.
    #[error("the IPFS daemon gave up on `{command}` after {received} bytes: {message}")]
    GaveUp {
        /// What it was to do.
        command: &'static str,
        /// Bytes of the answer that had come.
        received: u64,
        /// What it said; cut and escaped.
        message: String,
    },
    /// The answer is not what a daemon answers.
    #[error("`{endpoint}` does not answer `{command}` as an IPFS daemon does: {said}")]
    Garbage {
        /// Its address.
        endpoint: String,
        /// What it was to do.
        command: &'static str,
        /// How it answers; cut and escaped.
        said: String,
    },
    /// The answer has another length than announced, or than asked for.
    #[error("the IPFS daemon's answer to `{command}` has {got} bytes, expected {expected}")]
    Length {
        /// What it was to do.
        command: &'static str,
        /// Bytes announced, or asked for.
        expected: u64,
        /// Bytes that came, at least.
        got: u64,
    },
    /// The answer is longer than any may be.
    #[error("the IPFS daemon's answer to `{command}` is longer than {limit} bytes")]
    TooLong {
        /// What it was to do.
        command: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// It calls what it was given by another name.
    #[error("the IPFS daemon calls it `{got}`, expected `{expected}`: it does not cut files as this program does")]
    OtherCid {
        /// What it is called here.
        expected: Cid,
        /// What it is called there.
        got: Cid,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up a connection to `{endpoint}`")]
    Setup {
        /// The daemon's address.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RpcError {
    /// Whether the same command may succeed a moment later: the daemon, or the way to it, went away.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Silent { .. } | Self::Broken { .. } | Self::NoDaemon { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the daemon said that it does not have what was asked for, or went silent while it looked.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Refused { message, .. } | Self::GaveUp { message, .. } => {
                message.contains("not found")
                    || message.contains("could not find")
                    || message.contains("deadline exceeded")
            }
            Self::Silent { .. } => true,
            _ => false,
        }
    }

    /// Whether the daemon said that its disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Refused { message, .. } | Self::GaveUp { message, .. } => {
                message.contains("no space left")
                    || message.contains("storage limit")
                    || message.contains("quota exceeded")
            }
            _ => false,
        }
    }
}

fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(" or ")
}

/// What a daemon said in place of an answer: Kubo's message if it is Kubo's JSON, otherwise how it begins.
pub(super) fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(rename = "Message")]
        message: String,
    }
    if let Ok(said) = serde_json::from_slice::<Said>(body) {
        return shown(&said.message);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() {
        return "it says nothing".to_owned();
    }
    let is_page = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("<html") || start.starts_with("<!"));
    if is_page { format!("an HTML page, `{}`", shown(text)) } else { shown(text) }
}

/// Foreign text, cut and escaped.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(MAX_SAID).collect::<String>().escape_debug().to_string();
    shown = shown.replace("\\'", "'").replace("\\\"", "\"");
    if text.chars().nth(MAX_SAID).is_some() {
        shown.push('…');
    }
    shown
}
