//! The unit everything else is made of: bytes and the CID that names them.
//!
//! A [`Block`] exists only by hashing, so holding one proves that its bytes belong to its CID. This module imports
//! nothing of this crate. It never does I/O, and never lets a CID through whose hash could not be checked.

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

/// Codec of a block that is plain bytes (multicodec `raw`).
pub const CODEC_RAW: u64 = 0x55;
/// Codec of a block that links to others (multicodec `dag-pb`).
pub const CODEC_DAG_PB: u64 = 0x70;

/// Multihash code of the identity function: the digest *is* the data.
const HASH_IDENTITY: u64 = 0x00;
/// Multihash code of SHA2-256, the only hash this crate writes.
const HASH_SHA2_256: u64 = 0x12;
/// Multihash code of SHA2-512, read only.
const HASH_SHA2_512: u64 = 0x13;

/// Largest block that is read, stored or served, in bytes: what every Bitswap implementation accepts (2 MiB).
pub const MAX_BLOCK_BYTES: usize = 2 << 20;
/// Longest digest, in bytes, as boxo's `verifcid` has it; it bounds identity CIDs, whose digest is their data.
pub const MAX_DIGEST_BYTES: usize = 128;
/// Shortest digest, in bytes, as boxo's `verifcid` has it: a truncated hash proves little.
const MIN_DIGEST_BYTES: usize = 20;

/// What names a block: a version, a codec and a [`Multihash`]. As long as Kubo's may be, which inlines 128 bytes of data.
pub type Cid = cid::CidGeneric<MAX_DIGEST_BYTES>;
/// Which hash function, and what it gave.
pub type Multihash = multihash::Multihash<MAX_DIGEST_BYTES>;

/// Bytes that are known to belong to their CID.
///
/// There is no way to make one but by hashing ([`Block::raw`], [`Block::dag_pb`], [`Block::verify`]). Cloning shares
/// the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

impl Block {
    /// Hashes `data` as a raw block (CIDv1, SHA2-256).
    pub fn raw(data: Bytes) -> Self {
        Self { cid: cid_of(CODEC_RAW, &data), data }
    }

    /// Hashes `data`, an encoded dag-pb node, as a CIDv1 block with SHA2-256.
    pub fn dag_pb(data: Bytes) -> Self {
        Self { cid: cid_of(CODEC_DAG_PB, &data), data }
    }

    /// Checks that `data` hashes to `cid`.
    ///
    /// # Errors
    /// [`BlockError::Cid`] when the CID itself is refused (see [`check_cid`]), [`BlockError::TooLarge`] past
    /// [`MAX_BLOCK_BYTES`], [`BlockError::Mismatch`] when the bytes are others.
    pub fn verify(cid: Cid, data: Bytes) -> Result<Self, BlockError> {
        check_cid(&cid)?;
        if data.len() > MAX_BLOCK_BYTES {
            return Err(BlockError::TooLarge { cid, size: data.len() });
        }
        if matches(&cid, &data) { Ok(Self { cid, data }) } else { Err(BlockError::Mismatch { cid, size: data.len() }) }
    }

    /// Unpacks the block that an identity CID carries in itself; `None` for every other hash.
    ///
    /// # Errors
    /// [`CidError`] when the CID is refused (see [`check_cid`]).
    pub fn inline(cid: &Cid) -> Result<Option<Self>, CidError> {
        check_cid(cid)?;
        Ok((cid.hash().code() == HASH_IDENTITY)
            .then(|| Self { cid: *cid, data: Bytes::copy_from_slice(cid.hash().digest()) }))
    }

    /// Hashes `data` with the function that multihash `code` names, truncated to `length` bytes: how a Bitswap peer
    /// says what it sends, since the wire carries everything of a CID but its digest.
    ///
    /// # Errors
    /// [`BlockError::TooLarge`] past [`MAX_BLOCK_BYTES`]; [`BlockError::Cid`] for a hash or length that is refused.
    pub(crate) fn hash_as(codec: u64, code: u64, length: usize, data: Bytes) -> Result<Self, BlockError> {
        let mut digest = [0; MAX_DIGEST_BYTES];
        let full = match code {
            HASH_IDENTITY if data.len() <= digest.len() => {
                digest[..data.len()].copy_from_slice(&data);
                data.len()
            }
            HASH_SHA2_256 => {
                digest[..32].copy_from_slice(&Sha256::digest(&data));
                32
            }
            HASH_SHA2_512 => {
                digest[..64].copy_from_slice(&Sha512::digest(&data));
                64
            }
            _ => return Err(CidError::UnknownHash { code }.into()),
        };
        let wrapped = Multihash::wrap(code, &digest[..length.min(full)]).expect("as many bytes as a multihash has");
        let cid = Cid::new_v1(codec, wrapped);
        check_cid(&cid)?;
        if data.len() > MAX_BLOCK_BYTES {
            return Err(BlockError::TooLarge { cid, size: data.len() });
        }
        Ok(Self { cid, data })
    }

    /// The same bytes under another CID of the same multihash (another version or codec); `None` when it differs.
    pub(crate) fn under(self, cid: Cid) -> Option<Self> {
        (self.cid.hash() == cid.hash()).then_some(Self { cid, data: self.data })
    }

    /// The CID, in the version and codec it was asked for.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The bytes, without a copy.
    pub fn into_data(self) -> Bytes {
        self.data
    }
}

/// The CIDv1 of `data` under `codec`, with SHA2-256.
pub fn cid_of(codec: u64, data: &[u8]) -> Cid {
    cid_from_sha256(codec, &Sha256::digest(data).into())
}

/// The CIDv1 under `codec` of bytes whose SHA2-256 is already known.
///
/// For a raw block this ties an OCI digest and a CID together: they hold the same 32 bytes.
pub fn cid_from_sha256(codec: u64, digest: &[u8; 32]) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(HASH_SHA2_256, digest).expect("32 bytes fit a multihash of up to 128"))
}

/// The SHA2-256 inside a CID; `None` when another hash made it.
pub fn sha256_of(cid: &Cid) -> Option<[u8; 32]> {
    (cid.hash().code() == HASH_SHA2_256).then(|| cid.hash().digest().try_into().ok()).flatten()
}

/// Checks that a CID names bytes in a way that can be verified: a known hash, a digest neither truncated nor bloated.
///
/// # Errors
/// [`CidError`] says which rule is broken.
pub fn check_cid(cid: &Cid) -> Result<(), CidError> {
    let length = cid.hash().digest().len();
    match cid.hash().code() {
        HASH_IDENTITY if length <= MAX_DIGEST_BYTES => Ok(()),
        HASH_IDENTITY => Err(CidError::DigestLength { length }),
        HASH_SHA2_256 | HASH_SHA2_512 => {
            let full = if cid.hash().code() == HASH_SHA2_256 { 32 } else { 64 };
            if (MIN_DIGEST_BYTES..=full).contains(&length) { Ok(()) } else { Err(CidError::DigestLength { length }) }
        }
        code => Err(CidError::UnknownHash { code }),
    }
}

/// Whether `data` hashes to the (checked) CID; truncated digests compare by their length.
fn matches(cid: &Cid, data: &[u8]) -> bool {
    let digest = cid.hash().digest();
    match cid.hash().code() {
        HASH_IDENTITY => digest == data,
        HASH_SHA2_256 => Sha256::digest(data)[..digest.len()] == *digest,
        HASH_SHA2_512 => Sha512::digest(data)[..digest.len()] == *digest,
        _ => false,
    }
}

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The CID is refused whatever the bytes are.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// More bytes than any peer may send.
    #[error("block `{cid}` has {size} bytes, at most {MAX_BLOCK_BYTES} are accepted")]
    TooLarge {
        /// The CID that was asked for.
        cid: Cid,
        /// Bytes received.
        size: usize,
    },
    /// The bytes hash to something else.
    #[error("{size} bytes received for block `{cid}` do not hash to it")]
    Mismatch {
        /// The CID that was asked for.
        cid: Cid,
        /// Bytes received.
        size: usize,
    },
}

/// Why a CID is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// The hash function is not one this node can check.
    #[error("hash function 0x{code:x} is not supported, use sha2-256")]
    UnknownHash {
        /// The multihash code.
        code: u64,
    },
    /// The digest is truncated too far, or carries too much inline data.
    #[error("a digest of {length} bytes is refused, {MIN_DIGEST_BYTES} to {MAX_DIGEST_BYTES} are accepted")]
    DigestLength {
        /// Digest length in bytes.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_only_made_by_hashing() {
        let block = Block::raw(Bytes::from_static(b"\0"));
        assert_eq!(block.cid().to_string(), "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu");
        assert!(Block::verify(*block.cid(), Bytes::from_static(b"\0")).is_ok());
        assert!(matches!(Block::verify(*block.cid(), Bytes::from_static(b"\x01")), Err(BlockError::Mismatch { .. })));
    }

    /// The vector of boxo's `verifcid`: identity CIDs end at 128 bytes.
    #[test]
    fn c4_identity_and_truncated_cids_are_bounded() {
        let identity = |n: usize| Multihash::wrap(HASH_IDENTITY, &vec![7; n]).map(|hash| Cid::new_v1(CODEC_RAW, hash));
        for length in [0, 1, 64, 65, 127, 128] {
            let cid = identity(length).expect("fits");
            assert_eq!(Block::inline(&cid).expect("accepted").expect("inline").data().len(), length);
            assert_eq!(Cid::try_from(cid.to_string()).expect("parses"), cid);
            assert_eq!(Cid::try_from(&cid.to_bytes()[..]).expect("parses"), cid);
            let block = Block::hash_as(CODEC_RAW, HASH_IDENTITY, length, vec![7; length].into()).expect("accepted");
            assert_eq!(block.cid(), &cid);
        }
        assert!(identity(129).is_err());
        let longer = [&[1, 0x55, 0, 129, 1][..], &[7; 129]].concat();
        assert!(Cid::try_from(&longer[..]).is_err(), "nor out of bytes");
        assert!(Block::hash_as(CODEC_RAW, HASH_IDENTITY, 129, vec![7; 129].into()).is_err());
        let cut = Cid::new_v1(CODEC_RAW, Multihash::wrap(HASH_SHA2_256, &[1; 19]).expect("fits"));
        assert_eq!(check_cid(&cut), Err(CidError::DigestLength { length: 19 }));
        let unknown = Cid::new_v1(CODEC_RAW, Multihash::wrap(0x1e, &[1; 32]).expect("fits"));
        assert_eq!(check_cid(&unknown), Err(CidError::UnknownHash { code: 0x1e }));
    }

    #[test]
    fn c7_blocks_past_two_mebibytes_are_refused() {
        let data = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
        assert!(matches!(Block::verify(cid_of(CODEC_RAW, &data), data), Err(BlockError::TooLarge { .. })));
    }
}
