//! Bitswap messages as bytes: protocols 1.2.0, 1.1.0 and 1.0.0.
//!
//! ```text
//! frame    = uvarint(length) message                                      length <= 4 MiB
//! message  = { 1: wantlist, 2: block*  (1.0.0), 3: payload*, 4: presence*, 5: pendingBytes }
//! wantlist = { 1: entry*{ 1: cid, 2: priority, 3: cancel, 4: 0 block | 1 have, 5: sendDontHave }, 2: full }
//! payload  = { 1: uvarint(version) uvarint(codec) uvarint(hash) uvarint(length), 2: data }
//! presence = { 1: cid, 2: 0 have | 1 dont have }
//! ```
//! (The Bitswap specification; protobuf encoding.) Decoding is zero-copy: blocks share the message's bytes. Pure
//! functions over bytes; this module imports only [`crate::block`] and never allocates more than its input's size.

use crate::block::{Block, BlockError, CODEC_DAG_PB, CODEC_RAW, Cid, check_cid};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Longest message, in bytes (4 MiB): boxo's and the specification's limit.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Most entries taken from one peer's wantlist: what Kubo keeps, too.
pub const MAX_WANTS: usize = 1024;
/// Most blocks taken from one message: a message as long as it may be, of blocks as short as 1 KiB. Without a bound, two
/// bytes on the wire would take 56 in memory.
pub const MAX_BLOCKS: usize = 4096;
/// Most presences taken from one message: nobody is asked for more than [`MAX_WANTS`] at a time.
pub const MAX_PRESENCES: usize = MAX_WANTS;
/// Longest length prefix, in bytes: four septets already reach past [`MAX_MESSAGE_BYTES`].
pub const MAX_LENGTH_BYTES: usize = 4;

/// What a peer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The block asked for.
    pub cid: Cid,
    /// The peer no longer wants it.
    pub cancel: bool,
    /// Only whether we have it, not the block itself.
    pub have_only: bool,
    /// It wants to be told when we do not have it.
    pub send_dont_have: bool,
}

/// A block as it came, not hashed yet.
#[derive(Clone, Debug)]
pub struct Payload {
    codec: u64,
    hash: u64,
    hash_length: usize,
    data: Bytes,
}

impl Payload {
    /// Bytes of the block.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// The same, in memory of its own.
    pub(super) fn detached(self) -> Self {
        Self { data: Bytes::copy_from_slice(&self.data), ..self }
    }

    /// Hashes the bytes: the only way from the wire to a [`Block`].
    ///
    /// # Errors
    /// [`BlockError`] for a hash that is not supported or a block past the size limit.
    pub fn into_block(self) -> Result<Block, BlockError> {
        Block::hash_as(self.codec, self.hash, self.hash_length, self.data)
    }
}

/// A decoded message.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The wantlist replaces what was wanted before.
    pub full: bool,
    /// At most [`MAX_WANTS`] entries; those with a CID that cannot be verified are left out.
    pub wants: Vec<Want>,
    /// At most [`MAX_BLOCKS`], not hashed yet.
    pub blocks: Vec<Payload>,
    /// Which blocks the peer has (`true`) or does not have; at most [`MAX_PRESENCES`].
    pub presences: Vec<(Cid, bool)>,
}

/// Why bytes are not a Bitswap message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A varint does not end or does not fit 64 bits.
    #[error("bitswap message has a malformed varint at byte {at}")]
    Varint {
        /// Offset in the message.
        at: usize,
    },
    /// A field is longer than what is left of the message.
    #[error("bitswap message ends inside a field of {length} bytes at byte {at}")]
    Truncated {
        /// Offset in the message.
        at: usize,
        /// Length the field claims.
        length: u64,
    },
    /// A protobuf wire type that Bitswap does not use.
    #[error("bitswap message has wire type {wire_type} at byte {at}")]
    WireType {
        /// Offset in the message.
        at: usize,
        /// The wire type.
        wire_type: u64,
    },
}

/// One protobuf field: its number, its value if it is a varint, its range if it has a length.
struct Field {
    number: u64,
    value: u64,
    range: Range<usize>,
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, WireError> {
    let start = *at;
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(WireError::Varint { at: start })?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Varint { at: start })
}

fn fields(bytes: &[u8], mut each: impl FnMut(Field) -> Result<(), WireError>) -> Result<(), WireError> {
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let tag = varint(bytes, &mut at)?;
        let field = match tag & 7 {
            0 => Field { number: tag >> 3, value: varint(bytes, &mut at)?, range: 0..0 },
            2 => {
                let claimed = varint(bytes, &mut at)?;
                let left = bytes.len() - at;
                let length = usize::try_from(claimed).ok().filter(|n| *n <= left);
                let length = length.ok_or(WireError::Truncated { at: start, length: claimed })?;
                at += length;
                Field { number: tag >> 3, value: 0, range: at - length..at }
            }
            // Fixed-width fields are skipped as protobuf asks: a later revision may add one.
            wide @ (1 | 5) => {
                let width = if wide == 1 { 8 } else { 4 };
                if bytes.len() - at < width {
                    return Err(WireError::Truncated { at: start, length: width as u64 });
                }
                at += width;
                Field { number: 0, value: 0, range: 0..0 }
            }
            wire_type => return Err(WireError::WireType { at: start, wire_type }),
        };
        each(field)?;
    }
    Ok(())
}

/// Decodes one message (without its length prefix).
///
/// # Errors
/// [`WireError`] when the protobuf is malformed. Entries that are well-formed but refer to a CID this node cannot
/// verify are left out, as is what goes past [`MAX_WANTS`], [`MAX_BLOCKS`] and [`MAX_PRESENCES`].
pub fn decode(message: &Bytes) -> Result<Message, WireError> {
    let mut out = Message::default();
    fields(message, |field| {
        let body = message.slice(field.range.clone());
        match field.number {
            1 => decode_wantlist(&body, &mut out)?,
            2 | 3 if out.blocks.len() == MAX_BLOCKS => {}
            4 if out.presences.len() == MAX_PRESENCES => {}
            2 => out.blocks.push(Payload { codec: CODEC_DAG_PB, hash: 0x12, hash_length: 32, data: body }),
            3 => out.blocks.extend(decode_payload(&body)?),
            4 => out.presences.extend(decode_presence(&body)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(out)
}

fn decode_wantlist(body: &Bytes, out: &mut Message) -> Result<(), WireError> {
    fields(body, |field| {
        match field.number {
            1 if out.wants.len() < MAX_WANTS => {
                let entry = body.slice(field.range);
                let (mut cid, mut cancel, mut have_only, mut send_dont_have) = (None, false, false, false);
                fields(&entry, |field| {
                    match field.number {
                        1 => cid = parse_cid(&entry[field.range]),
                        3 => cancel = field.value != 0,
                        4 => have_only = field.value == 1,
                        5 => send_dont_have = field.value != 0,
                        _ => {}
                    }
                    Ok(())
                })?;
                out.wants.extend(cid.map(|cid| Want { cid, cancel, have_only, send_dont_have }));
            }
            2 => out.full = field.value != 0,
            _ => {}
        }
        Ok(())
    })
}

fn decode_payload(body: &Bytes) -> Result<Option<Payload>, WireError> {
    let (mut prefix, mut data) = (0..0, Bytes::new());
    fields(body, |field| {
        match field.number {
            1 => prefix = field.range,
            2 => data = body.slice(field.range),
            _ => {}
        }
        Ok(())
    })?;
    let (prefix, mut at) = (&body[prefix], 0);
    let mut next = || varint(prefix, &mut at);
    let (_version, codec, hash, length) = (next()?, next()?, next()?, next()?);
    // A length past any digest is cut to the digest's own when it is hashed.
    Ok(Some(Payload { codec, hash, hash_length: usize::try_from(length).unwrap_or(usize::MAX), data }))
}

fn decode_presence(body: &Bytes) -> Result<Option<(Cid, bool)>, WireError> {
    let (mut cid, mut have) = (None, true);
    fields(body, |field| {
        match field.number {
            1 => cid = parse_cid(&body[field.range]),
            2 => have = field.value == 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok(cid.map(|cid| (cid, have)))
}

fn parse_cid(bytes: &[u8]) -> Option<Cid> {
    Cid::try_from(bytes).ok().filter(|cid| check_cid(cid).is_ok())
}

fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_length(value: u64) -> usize {
    (64 - value.max(1).leading_zeros() as usize).div_ceil(7)
}

fn put_bytes(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    put_varint(out, body.len() as u64);
    out.put_slice(body);
}

fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + MAX_LENGTH_BYTES);
    put_varint(&mut out, message.len() as u64);
    out.put_slice(message);
    out.freeze()
}

/// Encodes a wantlist as a framed message. `full` says that it replaces what was sent before.
///
/// Every message carries a wantlist field, even an empty one: old Kubo crashed without it.
pub fn encode_wants(wants: &[Want], full: bool) -> Bytes {
    let mut list = BytesMut::new();
    let mut entry = BytesMut::new();
    for want in wants {
        entry.clear();
        put_bytes(&mut entry, 0x0a, &want.cid.to_bytes());
        entry.put_slice(&[0x10, 1]);
        if want.cancel {
            entry.put_slice(&[0x18, 1]);
        }
        if want.have_only {
            entry.put_slice(&[0x20, 1]);
        }
        if want.send_dont_have {
            entry.put_slice(&[0x28, 1]);
        }
        put_bytes(&mut list, 0x0a, &entry);
    }
    if full {
        list.put_slice(&[0x10, 1]);
    }
    let mut message = BytesMut::with_capacity(list.len() + 8);
    put_bytes(&mut message, 0x0a, &list);
    frame(&message)
}

/// Encodes which blocks we have and do not have as a framed message.
pub fn encode_presences(presences: &[(Cid, bool)]) -> Bytes {
    let mut message = BytesMut::from(&[0x0a, 0][..]);
    let mut entry = BytesMut::new();
    for (cid, have) in presences {
        entry.clear();
        put_bytes(&mut entry, 0x0a, &cid.to_bytes());
        if !have {
            entry.put_slice(&[0x10, 1]);
        }
        put_bytes(&mut message, 0x22, &entry);
    }
    frame(&message)
}

/// The head of a framed message that carries one block; the block's bytes follow it as they are, so they are never
/// copied into a message.
pub fn encode_block_head(cid: &Cid, size: usize) -> Bytes {
    let mut prefix = BytesMut::with_capacity(16);
    for value in [u64::from(cid.version()), cid.codec(), cid.hash().code(), u64::from(cid.hash().size())] {
        put_varint(&mut prefix, value);
    }
    let payload = 2 + prefix.len() + 1 + varint_length(size as u64) + size;
    let message = 2 + 1 + varint_length(payload as u64) + payload;
    let mut out = BytesMut::with_capacity(64);
    put_varint(&mut out, message as u64);
    out.put_slice(&[0x0a, 0]);
    out.put_u8(0x1a);
    put_varint(&mut out, payload as u64);
    put_bytes(&mut out, 0x0a, &prefix);
    out.put_u8(0x12);
    put_varint(&mut out, size as u64);
    out.freeze()
}

/// The head of a framed 1.0.0 message that carries one block, which that protocol sends without a prefix.
pub fn encode_legacy_block_head(size: usize) -> Bytes {
    let message = 2 + 1 + varint_length(size as u64) + size;
    let mut out = BytesMut::with_capacity(16);
    put_varint(&mut out, message as u64);
    out.put_slice(&[0x0a, 0, 0x12]);
    put_varint(&mut out, size as u64);
    out.freeze()
}

/// Whether a 1.0.0 peer can be served or asked for this CID: without a prefix it must be CIDv0-shaped.
pub fn legacy_can_carry(cid: &Cid) -> bool {
    cid.hash().code() == 0x12 && cid.hash().size() == 32 && matches!(cid.codec(), CODEC_DAG_PB | CODEC_RAW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(byte: u8) -> Want {
        let cid = *Block::raw(Bytes::copy_from_slice(&[byte])).cid();
        Want {
            cid,
            cancel: byte.is_multiple_of(2),
            have_only: byte.is_multiple_of(3),
            send_dont_have: byte.is_multiple_of(5),
        }
    }

    /// Strips the length prefix and checks it.
    fn unframe(frame: &[u8]) -> Bytes {
        let mut at = 0;
        let length = varint(frame, &mut at).expect("a length");
        assert_eq!(length as usize, frame.len() - at);
        Bytes::copy_from_slice(&frame[at..])
    }

    #[test]
    fn wantlists_survive_the_wire() {
        let wants: Vec<_> = (0..60).map(want).collect();
        let message = decode(&unframe(&encode_wants(&wants, true))).expect("decodes");
        assert_eq!((message.wants, message.full), (wants, true));
    }

    #[test]
    fn blocks_survive_the_wire_at_varint_boundaries() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 262_144, crate::block::MAX_BLOCK_BYTES] {
            let block = Block::raw(vec![9; size].into());
            let frame = [&encode_block_head(block.cid(), size)[..], block.data()].concat();
            let mut message = decode(&unframe(&frame)).expect("decodes");
            assert_eq!(message.blocks.remove(0).into_block().expect("hashes"), block);
            let frame = [&encode_legacy_block_head(size)[..], block.data()].concat();
            let mut message = decode(&unframe(&frame)).expect("decodes");
            let legacy = message.blocks.remove(0).into_block().expect("hashes");
            assert_eq!(legacy.under(*block.cid()), Some(block));
        }
    }

    #[test]
    fn presences_survive_the_wire() {
        let presences = vec![(want(1).cid, true), (want(2).cid, false)];
        assert_eq!(decode(&unframe(&encode_presences(&presences))).expect("decodes").presences, presences);
    }

    #[test]
    fn c8_wants_past_the_limit_are_left_out() {
        let wants: Vec<_> = (0..=255).cycle().take(MAX_WANTS * 3).map(want).collect();
        assert_eq!(decode(&unframe(&encode_wants(&wants, false))).expect("decodes").wants.len(), MAX_WANTS);
    }

    #[test]
    fn c7_a_message_full_of_nothing_takes_no_memory() {
        for nothing in [&[0x12, 0][..], &[0x1a, 6, 0x0a, 4, 1, 0x55, 0x12, 0x20]] {
            let message = Bytes::from(nothing.repeat(MAX_MESSAGE_BYTES / nothing.len()));
            assert_eq!(decode(&message).expect("decodes").blocks.len(), MAX_BLOCKS);
        }
        let presences = vec![(want(1).cid, true); MAX_PRESENCES + 1];
        assert_eq!(decode(&unframe(&encode_presences(&presences))).expect("decodes").presences.len(), MAX_PRESENCES);
    }

    #[test]
    fn c7_lengths_that_lie_are_refused() {
        assert!(matches!(decode(&Bytes::from_static(&[0x1a, 0xff, 0xff, 0x03])), Err(WireError::Truncated { .. })));
        assert!(matches!(decode(&Bytes::from_static(&[0x1a, 0xff])), Err(WireError::Varint { .. })));
        assert!(matches!(decode(&Bytes::from_static(&[0x0b])), Err(WireError::WireType { wire_type: 3, .. })));
    }
}
