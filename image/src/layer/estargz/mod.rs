//! eStargz: layers that can be mounted before they are there.
//!
//! Reading order: `footer` (where the table of contents is), `toc` (what it says), `tar` (headers as every other builder
//! writes them), `members` (gzip in pieces, on several threads), `collect` (pieces and table put together), `write` (a
//! layer becomes one of these), `read` (one of these, at random, verified). Imports the readers of the parent's siblings, [`oci`](crate::oci) and
//! the nameless files of [`source`](crate::source).
//!
//! The uncompressed archive and the table are those of upstream's builder at its defaults, but for what depends on
//! compressed bytes; each layer comes out the same wherever it is converted. Deviations: sparse files are written out
//! (upstream fails on them, or writes other bytes), headers for all entries and the type of contiguous files are dropped
//! (upstream refuses them), and names that are not UTF-8 are refused (upstream's table holds others instead).

mod collect;
mod footer;
mod members;
mod read;
mod tar;
mod toc;
mod write;

use std::{io, ops::RangeInclusive, path::PathBuf};

use super::{ApplyError, Limits, Shown, failure::HeaderProblem};
use crate::oci::Digest;

pub use self::{
    footer::Footer,
    read::{Estargz, ReadAt, ReadError},
    toc::TocEntry,
    write::convert,
};

/// The annotation of a layer that names the digest of its table of contents: what makes a snapshotter mount it.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The annotation of a layer that says how many bytes it decompresses to.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// The entry that holds the table of contents.
const TOC_NAME: &str = "stargz.index.json";
/// The entry up to which a layer is fetched ahead.
const PREFETCH_LANDMARK: &str = ".prefetch.landmark";
/// The entry that says that nothing is to be fetched ahead.
const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";
/// What either of these holds.
const LANDMARK: u8 = 0x0f;
/// Bytes of a file that are compressed by themselves, where nothing else is asked: upstream's 4 MiB.
pub const CHUNK_BYTES: u64 = 4 << 20;
/// How large a chunk may be: small ones make the table long, large ones are in memory whole.
pub const CHUNK_RANGE: RangeInclusive<u64> = 1 << 10..=read::MAX_CHUNK_BYTES;
/// Most bytes of a table of contents: that of a layer with 300,000 files, some of the largest there are, has 130 MiB.
const MAX_TOC_BYTES: u64 = 256 << 20;
/// Most threads that compress one layer: each holds a chunk.
const MAX_THREADS: usize = 8;

/// How a layer is converted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// Bytes of a file that can be had without the rest of it, in [`CHUNK_RANGE`]. As many are in memory for each thread.
    pub chunk_bytes: u64,
    /// How much the layer may take.
    pub limits: Limits,
    /// Threads that compress.
    pub threads: usize,
    /// Where the table of contents is laid aside, in a file without a name.
    pub spool: PathBuf,
}

impl ConvertOptions {
    /// As upstream's builder does it at its defaults, on all cores.
    pub fn new(spool: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { chunk_bytes: CHUNK_BYTES, limits: Limits::default(), threads: cores.min(MAX_THREADS), spool }
    }
}

/// What came of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// Digest of the decompressed layer as it was.
    pub before: Digest,
    /// Digest of the decompressed layer that was written.
    pub diff_id: Digest,
    /// Bytes of the same.
    pub uncompressed_size: u64,
    /// Digest of its table of contents.
    pub toc_digest: Digest,
}

/// Why a layer could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The layer is malformed, or takes more than it may.
    #[error(transparent)]
    Layer(#[from] ApplyError),
    /// Something of an entry is no text, as which a table of contents holds it.
    #[error("entry `{name}`: its {what} is not UTF-8, and the table of an eStargz layer holds nothing else")]
    NotText {
        /// The entry.
        name: Shown,
        /// What of it.
        what: &'static str,
    },
    /// An entry is of a time that nobody writes down.
    #[error("entry `{name}`: its time lies outside the years 0 to 9999")]
    Time {
        /// The entry.
        name: Shown,
    },
    /// A header says what none may say.
    #[error("entry `{name}`: {problem}")]
    Head {
        /// The entry.
        name: Shown,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// A header cannot be written again.
    #[error("entry `{name}`: no format of tar holds all that its headers say")]
    Unwritable {
        /// The entry.
        name: Shown,
    },
    /// The layer had other bytes when it was read again.
    #[error("the layer changed while it was converted")]
    Changed,
    /// The table of contents would be longer than anybody reads.
    #[error("the table of contents of the layer would have more than {MAX_TOC_BYTES} bytes")]
    TocTooLong,
    /// The table of contents could not be laid aside.
    #[error("laying the table of contents aside")]
    Toc(#[source] io::Error),
    /// Compressing failed.
    #[error("compressing the layer")]
    Deflate(#[source] io::Error),
    /// What was written was not taken.
    #[error("writing the layer")]
    Output(#[source] io::Error),
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

#[cfg(test)]
mod tests;
