//! The index: where each block lies. Everything in it can be rebuilt.
//!
//! ```text
//! key   = | multihash | link id u32 BE |                 link id 0: the block lies in a pack
//! value = | offset u64 LE | length u32 LE |              in the file of that link
//!         | pack u32 LE | offset u32 LE | length u32 LE |    link id 0
//! state = | journal u64 LE | its length u64 LE | pack u32 LE | its length u64 LE |
//! ```
//! A multihash is never the beginning of another one, so all locations of a block are neighbours. `state` says up to which
//! commit the rows are there; it is written after they are flushed, so it may lag and never leads. A row whose link is
//! not live is ignored by its readers and removed by `gc`.
//!
//! Imports nothing of this crate but positions. It never knows what is live.

use super::journal::Position;
use super::packs::Tail;
use crate::block::Multihash;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Memory for the pages of the index, in bytes. Enough for every page of 75 000 blocks (18 GiB), and a quarter of what a
/// process may use at its peak; more blocks only mean more reads.
const CACHE_BYTES: u64 = 16 << 20;
/// How often a lock that the last holder has not let go of yet is tried again, and how long after; two seconds in all.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 12;
/// Bytes of the state.
pub(crate) const STATE_BYTES: usize = 28;

/// Encoded value of a row.
pub(crate) type Value = [u8; VALUE_BYTES];

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// In a pack.
    Pack { pack: u32, offset: u32, length: u32 },
    /// In the file of a link.
    File { link: u32, offset: u64, length: u32 },
}

impl Location {
    /// Bytes of the block.
    pub(crate) fn length(&self) -> u32 {
        match self {
            Self::Pack { length, .. } | Self::File { length, .. } => *length,
        }
    }

    /// The row's key for a block of this multihash.
    pub(crate) fn key(&self, hash: &[u8]) -> Box<[u8]> {
        let link = if let Self::File { link, .. } = self { *link } else { 0 };
        [hash, &link.to_be_bytes()].concat().into()
    }

    /// The row's value.
    pub(crate) fn value(&self) -> Value {
        let mut value = [0; VALUE_BYTES];
        match self {
            Self::Pack { pack, offset, length } => {
                value[..4].copy_from_slice(&pack.to_le_bytes());
                value[4..8].copy_from_slice(&offset.to_le_bytes());
                value[8..].copy_from_slice(&length.to_le_bytes());
            }
            Self::File { offset, length, .. } => {
                value[..8].copy_from_slice(&offset.to_le_bytes());
                value[8..].copy_from_slice(&length.to_le_bytes());
            }
        }
        value
    }

    /// Reads a row; `None` when it is not one.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<(usize, Self)> {
        let hash_bytes = key.len().checked_sub(4)?;
        let link = u32::from_be_bytes(key[hash_bytes..].try_into().ok()?);
        let value: &Value = value.try_into().ok()?;
        let word = |at: usize| Some(u32::from_le_bytes(value[at..at + 4].try_into().ok()?));
        let length = word(8)?;
        let location = if link == 0 {
            Self::Pack { pack: word(0)?, offset: word(4)?, length }
        } else {
            Self::File { link, offset: u64::from_le_bytes(value[..8].try_into().ok()?), length }
        };
        Some((hash_bytes, location))
    }
}

/// Bytes of a multihash, as keys hold them.
pub(crate) fn hash_bytes(hash: &Multihash) -> Vec<u8> {
    hash.to_bytes()
}

/// Up to where the rows are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) journal: Position,
    pub(crate) packs: Tail,
}

impl State {
    pub(crate) fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        out[..8].copy_from_slice(&self.journal.journal.to_le_bytes());
        out[8..16].copy_from_slice(&self.journal.length.to_le_bytes());
        out[16..20].copy_from_slice(&self.packs.pack.to_le_bytes());
        out[20..].copy_from_slice(&self.packs.length.to_le_bytes());
        out
    }

    pub(crate) fn decode(input: &[u8]) -> Option<Self> {
        let input: &[u8; STATE_BYTES] = input.try_into().ok()?;
        let long = |at: usize| Some(u64::from_le_bytes(input[at..at + 8].try_into().ok()?));
        Some(Self {
            journal: Position { journal: long(0)?, length: long(8)? },
            packs: Tail { pack: u32::from_le_bytes(input[16..20].try_into().ok()?), length: long(20)? },
        })
    }
}

/// An ordered map of rows, and the state.
pub(crate) trait Index: Send + Sync + Debug {
    /// All locations of a block.
    fn locations(&self, hash: &[u8]) -> Result<Vec<Location>, IndexError>;
    /// Adds or replaces a row.
    fn insert(&self, key: &[u8], value: &Value) -> Result<(), IndexError>;
    /// Removes a row.
    fn remove(&self, key: &[u8]) -> Result<(), IndexError>;
    /// Calls `row` for every row from key `from` on, in key order, until it says `false`. `row` does not call back.
    fn for_each(&self, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), IndexError>;
    /// Makes everything so far durable.
    fn flush(&self) -> Result<(), IndexError>;
    /// The state, as last set; `None` when there is none or it is not one.
    fn state(&self) -> Result<Option<State>, IndexError>;
    /// Sets the state.
    fn set_state(&self, state: State) -> Result<(), IndexError>;
}

/// The index on disk. sled panics on some damage where it should say so; both come out as an error here.
#[derive(Debug)]
pub(crate) struct SledIndex {
    db: sled::Db,
    rows: sled::Tree,
}

impl SledIndex {
    /// Opens or creates the index in a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        guarded(|| {
            let mut attempts = 0;
            let db = loop {
                match config.open() {
                    // Its threads let go of the file a moment after the last handle is dropped, also in the process that
                    // held the repository before this one.
                    Err(sled::Error::Io(error)) if attempts < LOCK_ATTEMPTS && is_locked(&error) => {
                        attempts += 1;
                        std::thread::sleep(LOCK_PAUSE);
                    }
                    opened => break opened?,
                }
            };
            let rows = db.open_tree("blocks")?;
            Ok(Self { db, rows })
        })
    }
}

/// sled has no error of its own for this.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Runs a call into sled. Whatever it leaves behind when it panics is thrown away with the index.
fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_or(Err(IndexError::Panic))
}

const STATE_KEY: &[u8] = b"state";

impl Index for SledIndex {
    fn locations(&self, hash: &[u8]) -> Result<Vec<Location>, IndexError> {
        guarded(|| {
            let mut found = Vec::new();
            for row in self.rows.scan_prefix(hash) {
                let (key, value) = row?;
                found.extend(Location::decode(&key, &value).map(|(_, location)| location));
            }
            Ok(found)
        })
    }

    fn insert(&self, key: &[u8], value: &Value) -> Result<(), IndexError> {
        guarded(|| Ok(self.rows.insert(key, value.as_slice()).map(|_| ())?))
    }

    fn remove(&self, key: &[u8]) -> Result<(), IndexError> {
        guarded(|| Ok(self.rows.remove(key).map(|_| ())?))
    }

    fn for_each(&self, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), IndexError> {
        guarded(|| {
            for entry in self.rows.range(from..) {
                let (key, value) = entry?;
                if !row(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), IndexError> {
        guarded(|| Ok(self.db.flush().map(|_| ())?))
    }

    fn state(&self) -> Result<Option<State>, IndexError> {
        guarded(|| Ok(self.db.get(STATE_KEY)?.and_then(|state| State::decode(&state))))
    }

    fn set_state(&self, state: State) -> Result<(), IndexError> {
        guarded(|| Ok(self.db.insert(STATE_KEY, state.encode().as_slice()).map(|_| ())?))
    }
}

/// The index failed; it can be rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The database says so.
    #[error("the block index failed")]
    Sled(#[from] sled::Error),
    /// The database gave up where it should have said why.
    #[error("the block index broke down")]
    Panic,
    /// It is being opened again.
    #[error("the block index is not open")]
    Unavailable,
    /// What it is made of could not be read.
    #[error("what the block index is made of could not be read")]
    Io(#[source] io::Error),
}

impl IndexError {
    /// Whether nothing is wrong but that no space is left.
    pub(crate) fn is_full(&self) -> bool {
        let (Self::Sled(sled::Error::Io(error)) | Self::Io(error)) = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}
