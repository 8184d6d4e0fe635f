//! The facts that cannot be recomputed, as the journal writes them down.
//!
//! ```text
//! record = | kind u8 | fields |        integers little-endian; `bytes` and `cid` = | length u32 | that many bytes |
//!   1 link     | id u32 | digest 32 | size u64 | mtime i64 | cumulative u64 (all ones: unknown) | cid |
//!   2 unlink   | id u32 |
//!   3 pin      | cid | name bytes |
//!   4 unpin    | cid |
//!   5 keep     | name bytes | root cid | note bytes | incomplete u8 | count u32 | count x cid |
//!   6 release  | name bytes |
//!   7 reserve  | next id u32 |           ids below it are never given out again
//!   8 packed   | pack u32 | length u64 | every block before it is synced
//!   9 peers    | network bytes | count u32 | count x address bytes |     replaces those of that network
//! ```
//! Imports `pin`'s plain types. It never does I/O, and never allocates by a length that the input does not hold.
#![cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, reason = "the readers are public to be fuzzed")
)]

use super::packs::Tail;
use crate::block::Cid;
use crate::pin::{Keep, Pin};

/// Largest encoded record, in bytes: an image of 1024 members with a note of 3 MiB fits.
pub(crate) const MAX_RECORD_BYTES: usize = 4 << 20;

/// A complete file in `blobs/`, tied to a file CID. Two CIDs of one digest are two links to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Key of its rows in the index; never 0, never given out twice.
    pub id: u32,
    /// The file CID.
    pub cid: Cid,
    /// SHA-256 of the whole file, which is its name.
    pub digest: [u8; 32],
    /// Length in bytes.
    pub size: u64,
    /// Bytes of the whole DAG, nodes included, as far as known.
    pub cumulative: Option<u64>,
    /// Modification time when it was last known to be right, nanoseconds since the Unix epoch.
    pub mtime: i64,
}

/// Addresses of peers in one network, as the network's owner encodes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Which network.
    pub network: Vec<u8>,
    /// The addresses.
    pub addresses: Vec<Vec<u8>>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A file is complete; the same id again replaces what was said of it.
    Link(Link),
    /// A file is gone.
    Unlink(u32),
    /// A DAG is pinned; the same CID again renames the pin.
    Pin(Pin),
    /// A DAG is no longer pinned.
    Unpin(Cid),
    /// A thing is kept; the same name again replaces it.
    Keep(Keep),
    /// A thing is no longer kept.
    Release(String),
    /// Link ids below this one have been given out.
    Reserve(u32),
    /// The packs are synced up to here; what lies behind may be torn.
    Packed(Tail),
    /// Peers that delivered lately, the last first: a hint, and no more.
    Peers(Peers),
}

impl Record {
    /// Appends the encoded record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Link(link) => {
                out.push(1);
                out.extend_from_slice(&link.id.to_le_bytes());
                out.extend_from_slice(&link.digest);
                out.extend_from_slice(&link.size.to_le_bytes());
                out.extend_from_slice(&link.mtime.to_le_bytes());
                out.extend_from_slice(&link.cumulative.unwrap_or(u64::MAX).to_le_bytes());
                put_bytes(out, &link.cid.to_bytes());
            }
            Self::Unlink(id) => {
                out.push(2);
                out.extend_from_slice(&id.to_le_bytes());
            }
            Self::Pin(pin) => {
                out.push(3);
                put_bytes(out, &pin.cid.to_bytes());
                put_bytes(out, pin.name.as_bytes());
            }
            Self::Unpin(cid) => {
                out.push(4);
                put_bytes(out, &cid.to_bytes());
            }
            Self::Keep(keep) => {
                out.push(5);
                put_bytes(out, keep.name.as_bytes());
                put_bytes(out, &keep.root.to_bytes());
                put_bytes(out, &keep.note);
                out.push(u8::from(keep.incomplete));
                // A count past u32 is far past MAX_RECORD_BYTES, which is checked before anything is written.
                out.extend_from_slice(&u32::try_from(keep.members.len()).unwrap_or(u32::MAX).to_le_bytes());
                for member in &keep.members {
                    put_bytes(out, &member.to_bytes());
                }
            }
            Self::Release(name) => {
                out.push(6);
                put_bytes(out, name.as_bytes());
            }
            Self::Reserve(id) => {
                out.push(7);
                out.extend_from_slice(&id.to_le_bytes());
            }
            Self::Packed(tail) => {
                out.push(8);
                out.extend_from_slice(&tail.pack.to_le_bytes());
                out.extend_from_slice(&tail.length.to_le_bytes());
            }
            Self::Peers(peers) => {
                out.push(9);
                put_bytes(out, &peers.network);
                out.extend_from_slice(&u32::try_from(peers.addresses.len()).unwrap_or(u32::MAX).to_le_bytes());
                peers.addresses.iter().for_each(|address| put_bytes(out, address));
            }
        }
    }

    /// Takes one record off the front of `input`; `None` when it is not one.
    pub fn decode(input: &mut &[u8]) -> Option<Self> {
        Some(match take(input, 1)?[0] {
            1 => {
                let id = take_u32(input)?;
                let digest = take(input, 32)?.try_into().ok()?;
                let size = take_u64(input)?;
                let mtime = i64::from_le_bytes(take(input, 8)?.try_into().ok()?);
                let cumulative = Some(take_u64(input)?).filter(|&n| n != u64::MAX);
                Self::Link(Link { id, digest, size, mtime, cumulative, cid: take_cid(input)? })
            }
            2 => Self::Unlink(take_u32(input)?),
            3 => Self::Pin(Pin { cid: take_cid(input)?, name: take_string(input)? }),
            4 => Self::Unpin(take_cid(input)?),
            5 => {
                let (name, root) = (take_string(input)?, take_cid(input)?);
                let note = take_bytes(input)?.to_vec();
                let incomplete = take(input, 1)?[0] != 0;
                let count = take_u32(input)?;
                let members = (0..count).map_while(|_| take_cid(input)).collect::<Vec<_>>();
                if members.len() != count as usize {
                    return None;
                }
                Self::Keep(Keep { name, root, members, note, incomplete })
            }
            6 => Self::Release(take_string(input)?),
            7 => Self::Reserve(take_u32(input)?),
            8 => Self::Packed(Tail { pack: take_u32(input)?, length: take_u64(input)? }),
            9 => {
                let network = take_bytes(input)?.to_vec();
                let count = take_u32(input)?;
                let taken = (0..count).map_while(|_| take_bytes(input));
                let addresses = taken.map(<[u8]>::to_vec).collect::<Vec<_>>();
                if addresses.len() != count as usize {
                    return None;
                }
                Self::Peers(Peers { network, addresses })
            }
            _ => return None,
        })
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Longer than u32 is far past MAX_RECORD_BYTES, which is checked before anything is written.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (front, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(front)
}

fn take_u32(input: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(input, 4)?.try_into().ok()?))
}

fn take_u64(input: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(input, 8)?.try_into().ok()?))
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = take_u32(input)?;
    take(input, count as usize)
}

fn take_string(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(input)?.to_vec()).ok()
}

fn take_cid(input: &mut &[u8]) -> Option<Cid> {
    Cid::try_from(take_bytes(input)?).ok()
}
