//! Why a layer is refused, or could not be unpacked.
//!
//! Imports [`Digest`]. Names out of archives are shown escaped and shortened.

use std::{fmt, io};

use crate::oci::Digest;

/// What exceeded its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// Too many entries.
    #[error("entries")]
    Entries,
    /// Too many decompressed bytes.
    #[error("decompressed bytes")]
    Bytes,
    /// Files too large, holes included.
    #[error("bytes of files")]
    FileBytes,
    /// Too many decompressed bytes for each compressed one.
    #[error("decompressed bytes for each compressed byte")]
    Ratio,
    /// A path of too many components.
    #[error("components of a path")]
    PathDepth,
    /// A path of too many bytes.
    #[error("bytes of a path")]
    PathBytes,
    /// A name of too many bytes.
    #[error("bytes of a file name")]
    NameBytes,
    /// Too many bytes describe one entry.
    #[error("bytes of headers for one entry")]
    HeaderBytes,
    /// Too many directories with long names.
    #[error("bytes of directory names")]
    DirectoryNames,
    /// Too many files with several long names.
    #[error("bytes of names of files that have several")]
    LinkNames,
    /// Directories nested too deeply in the target.
    #[error("nested directories")]
    TreeDepth,
}

/// A name out of an archive, for a message: escaped, at most 200 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub(super) fn new(name: &[u8]) -> Self {
        let mut text: String =
            name.iter().take(200).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
        if name.len() > 200 {
            text.push_str("...");
        }
        Self(text)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It takes more than it may.
    #[error("the layer exceeds the limit of {limit} {what}")]
    Limit {
        /// Of what.
        what: Limit,
        /// As many are allowed.
        limit: u64,
    },
    /// Its type names no archive that can be read, an encrypted one for instance.
    #[error("layers of type `{}` cannot be unpacked", media_type.escape_debug())]
    MediaType {
        /// The type.
        media_type: String,
    },
    /// The blob could not be read.
    #[error("reading the layer")]
    Read(#[source] io::Error),
    /// The blob is not what a compressor wrote, or has bytes after its end.
    #[error("decompressing the layer")]
    Decompress(#[source] io::Error),
    /// The stream ends before the archive does.
    #[error("the layer ends in the middle of {what}")]
    Truncated {
        /// Where.
        what: &'static str,
    },
    /// There is something after the archive's end.
    #[error("the layer goes on after the end of its archive")]
    TrailingBytes,
    /// A header says what none may say, or what two readers could understand in two ways.
    #[error("header {number} of the layer's archive is malformed: {problem}")]
    Header {
        /// Which, from 0 on; those that only describe the next one are counted, too.
        number: u64,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// A name that nothing in a layer may have.
    #[error("entry `{name}`: {problem}")]
    Name {
        /// The name.
        name: Shown,
        /// What is wrong.
        problem: NameProblem,
    },
    /// The place of an entry is taken by something that has no entries.
    #[error("entry `{name}` lies in something that is not a directory")]
    NotADirectory {
        /// The entry.
        name: Shown,
    },
    /// A hard link to what is not there, or cannot be linked to.
    #[error("entry `{name}`: linking it to `{target}`")]
    HardLink {
        /// The entry.
        name: Shown,
        /// What it names.
        target: Shown,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The target could not be written to.
    #[error("entry `{name}`: {doing}")]
    Write {
        /// The entry.
        name: Shown,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The layer is another one than the image's configuration says.
    #[error("the layer unpacks to `{got}`, expected `{expected}`")]
    DiffId {
        /// As the configuration says.
        expected: Digest,
        /// What came out.
        got: Digest,
    },
    /// A directory of layers that other users can reach, where programs with setuid bits lie.
    #[error("the directory of layers `{path}` has mode {mode:o}, expected 700")]
    Exposed {
        /// The directory.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The directory of layers cannot be used.
    #[error("`{path}`: {doing}")]
    Place {
        /// The directory.
        path: String,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// A field is no number, or one out of range.
    #[error("its {0} is not a number in range")]
    Number(&'static str),
    /// A record of a PAX header is not one.
    #[error("a PAX record is malformed")]
    Pax,
    /// One field is given twice, in ways that readers disagree about.
    #[error("its {0} is given twice")]
    Twice(&'static str),
    /// A header for all that follow sets what only some readers would take from it.
    #[error("a global header sets the {0} of entries")]
    Global(&'static str),
    /// Headers describe an entry that never comes.
    #[error("it describes an entry that does not follow")]
    Dangling,
    /// Only regular files have bytes.
    #[error("a {0} has bytes")]
    Bytes(&'static str),
    /// There is no such type, or layers have none of it.
    #[error("entries of type `{}` are not supported", std::ascii::escape_default(*.0))]
    Type(u8),
    /// The map of a sparse file makes no sense.
    #[error("the map of a sparse file is malformed")]
    Sparse,
    /// A way to describe sparse files that is not supported.
    #[error("sparse files of this format are not supported")]
    SparseFormat,
    /// One empty block, where the end has two.
    #[error("an empty block is followed by another header")]
    LoneEmptyBlock,
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// It is empty.
    #[error("the name is empty")]
    Empty,
    /// There is a zero byte in it.
    #[error("there is a zero byte in the name")]
    Zero,
    /// It names the root, which can only be a directory.
    #[error("the root of a layer is a directory")]
    Root,
    /// It ends like the name of a directory but is none.
    #[error("something that is not a directory has a name that ends with `/`")]
    Slash,
    /// A whiteout of nothing, of the directory itself or of its parent.
    #[error("a whiteout needs the name of an entry")]
    Whiteout,
    /// A directory that is called like a whiteout.
    #[error("names that begin with `.wh.` are reserved for whiteouts")]
    Reserved,
    /// A link to nothing.
    #[error("the link has no target")]
    Target,
}
