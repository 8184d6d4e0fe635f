//! The last bytes of a blob, which say where its table of contents is.
//!
//! Imports nothing of this crate. Four footers are known: eStargz's, that of the older stargz, zstd:chunked's, and the one
//! of a layer whose table lies in another image, which is no self-contained layer and is not taken for one.

/// Bytes of eStargz's footer: an empty gzip member whose extra field holds the offset of the table.
pub(super) const FOOTER_BYTES: usize = 51;
/// Bytes of the older one, which lacks the header of the field.
const LEGACY_BYTES: usize = 47;
/// Bytes of zstd:chunked's, without the eight of the skippable frame that it lies in.
const ZSTD_BYTES: usize = 40;
/// The most bytes that [`Footer::parse`] wants to see.
pub(super) const MOST_BYTES: usize = FOOTER_BYTES;

/// What the end of a blob says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Footer {
    /// The table is a member of gzip that begins here and reaches to the footer, which has so many bytes.
    Gzip {
        /// Where it begins.
        toc: u64,
        /// Bytes of the footer.
        footer: u64,
    },
    /// The table is a frame of zstd.
    Zstd {
        /// Where it begins.
        toc: u64,
        /// Bytes of the frame.
        compressed: u64,
        /// Bytes of the table.
        uncompressed: u64,
    },
}

impl Footer {
    /// Reads the end of a blob: its last 51 bytes, or all that it has.
    pub fn parse(end: &[u8]) -> Option<Self> {
        gzip(end, FOOTER_BYTES, b"SG\x16\0").or_else(|| gzip(end, LEGACY_BYTES, b"")).or_else(|| zstd(end))
    }

    /// The bytes of eStargz's.
    pub(super) fn bytes(toc: u64) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..16].copy_from_slice(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0");
        bytes[16..38].copy_from_slice(format!("{toc:016x}STARGZ").as_bytes());
        // A stored block without bytes, the last one; checksum and length are zeros.
        bytes[38..43].copy_from_slice(b"\x01\0\0\xff\xff");
        bytes
    }
}

fn gzip(end: &[u8], bytes: usize, field: &[u8]) -> Option<Footer> {
    let footer = end.get(end.len().checked_sub(bytes)?..)?;
    let rest = footer.strip_prefix(b"\x1f\x8b\x08\x04")?;
    // The time, the flags and the system that wrote it mean nothing.
    let rest = rest.get(6..)?.strip_prefix(&u16::try_from(field.len() + 22).ok()?.to_le_bytes())?;
    let rest = rest.strip_prefix(field)?;
    let (digits, rest) = rest.split_at_checked(16)?;
    let empty = rest.strip_prefix(b"STARGZ")?;
    if empty.len() != 13 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let toc = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    Some(Footer::Gzip { toc, footer: bytes as u64 })
}

fn zstd(end: &[u8]) -> Option<Footer> {
    let footer = end.get(end.len().checked_sub(ZSTD_BYTES)?..)?.strip_suffix(b"GnUlInUx")?;
    let number = |at: usize| footer.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match (number(0)?, number(8)?, number(16)?, number(24)?) {
        (toc, compressed, uncompressed, 1) => Some(Footer::Zstd { toc, compressed, uncompressed }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
        text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn footers_are_those_of_upstream() {
        let ours = unhex(
            "1f8b08040000000000ff1a00534716003030303030303030303030343935653753544152475a010000ffff0000000000000000",
        );
        assert_eq!(Footer::bytes(0x495e7)[..], ours);
        assert_eq!(Footer::parse(&ours), Some(Footer::Gzip { toc: 300_519, footer: 51 }));
        let legacy = [&ours[..10], b"\x16\0", &ours[16..]].concat();
        assert_eq!(Footer::parse(&legacy), Some(Footer::Gzip { toc: 300_519, footer: 47 }));
        let zstd =
            unhex("502a4d182800000089950400000000008c01000000000000da040000000000000100000000000000476e556c496e5578");
        assert_eq!(Footer::parse(&zstd), Some(Footer::Zstd { toc: 300_425, compressed: 396, uncompressed: 1242 }));
    }

    #[test]
    fn what_is_no_footer_is_none() {
        let right = Footer::bytes(7);
        for at in 0..38 {
            let mut wrong = right;
            wrong[at] = b'!';
            let is_ignored = (4..10).contains(&at);
            assert_eq!(Footer::parse(&wrong).is_some(), is_ignored, "{at}");
        }
        for end in [&b""[..], &right[1..], &[0; 40], b"GnUlInUx"] {
            assert_eq!(Footer::parse(end), None);
        }
    }
}
