//! JSON as Go's `encoding/json` reads and writes it.
//!
//! The CID of an image is the hash of JSON that other tools wrote with Go, so what decides a byte there decides one
//! here: which fields a key fills, what `null` does, what a second key with one name does, which characters are
//! escaped. Documents are read straight into their structs ([`Reader`]), so a hostile one costs no more memory than
//! the fields it fills. Imports nothing of this crate; never allocates for what it skips.

mod base64;
mod read;
mod write;

pub(crate) use self::{
    read::{Fields, Reader, field},
    write::{ObjectWriter, write_array, write_string},
};

/// Deepest nesting that is read. Go stops at 10,000; no document of ours goes past five, unknown fields included.
pub(crate) const MAX_NESTING: usize = 128;

/// Most elements of a list that is kept: an image of 127 layers is the largest that Docker makes, an index of a hundred
/// manifests the largest in the wild.
pub(crate) const MAX_LIST: usize = 1024;

/// Most entries of a map of annotations that is kept.
pub(crate) const MAX_ENTRIES: usize = 4096;

/// Why a document is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
#[non_exhaustive]
pub struct JsonError {
    /// Where in the document.
    pub offset: usize,
    /// What is wrong there.
    pub problem: JsonProblem,
}

/// What is wrong with a piece of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// The document breaks the grammar, or ends early.
    #[error("malformed JSON")]
    Syntax,
    /// A value of another type stands where this one belongs.
    #[error("a value that is not {0}")]
    Type(&'static str),
    /// Something follows the document.
    #[error("bytes after the end of the document")]
    Trailing,
    /// A list without end.
    #[error("a list of more than {MAX_LIST} elements")]
    List,
    /// Annotations without end.
    #[error("a map of more than {MAX_ENTRIES} entries")]
    Entries,
    /// Arrays and objects inside each other without end.
    #[error("nesting deeper than {MAX_NESTING}")]
    Nesting,
}

#[cfg(test)]
mod tests;
