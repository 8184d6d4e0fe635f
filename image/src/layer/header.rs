//! The 512 bytes in front of every entry: V7, ustar, star and GNU.
//!
//! Imports the errors and `sparse` for its pieces. As strict as Go's `archive/tar`, and stricter where GNU tar would read something else.

use super::{failure::HeaderProblem, sparse::Pieces};

/// Bytes of a header, and what everything is padded to.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Clone, Debug)]
pub(super) struct Header([u8; BLOCK]);

/// Which fields there are beyond the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Header {
    pub(super) fn new(bytes: [u8; BLOCK]) -> Result<Self, HeaderProblem> {
        let stored = number(&bytes[148..156], "checksum")?;
        let field = 148..156;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if field.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            // Old tars added up signed characters.
            signed += i64::from(byte.cast_signed());
        }
        if stored != unsigned && stored != signed {
            return Err(HeaderProblem::Checksum);
        }
        let header = Self(bytes);
        if header.format() == Format::Gnu {
            // Times of another kind in GNU's headers. When they are none, Go takes them for a prefix of the name.
            for field in [345..357, 357..369] {
                if header.0[field.start] != 0 {
                    number(&header.0[field], "time")?;
                }
            }
        }
        Ok(header)
    }

    pub(super) fn format(&self) -> Format {
        match (&self.0[257..265], &self.0[508..512]) {
            (b"ustar\x0000", b"tar\0") => Format::Star,
            (b"ustar  \0", _) => Format::Gnu,
            ([b'u', b's', b't', b'a', b'r', 0, _, _], _) => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix that only some formats have.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match self.format() {
            Format::Ustar => text(&self.0[345..500]),
            Format::Star => text(&self.0[345..476]),
            Format::V7 | Format::Gnu => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u32, HeaderProblem> {
        let mode = number(&self.0[100..108], "mode")?;
        u32::try_from(mode).map_err(|_| HeaderProblem::Number("mode"))
    }

    pub(super) fn user(&self) -> Result<i64, HeaderProblem> {
        number(&self.0[108..116], "user")
    }

    pub(super) fn group(&self) -> Result<i64, HeaderProblem> {
        number(&self.0[116..124], "group")
    }

    pub(super) fn size(&self) -> Result<u64, HeaderProblem> {
        length(&self.0[124..136], "size")
    }

    pub(super) fn modified(&self) -> Result<i64, HeaderProblem> {
        number(&self.0[136..148], "time")
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(u32, u32), HeaderProblem> {
        if self.format() == Format::V7 {
            return Err(HeaderProblem::Number("device"));
        }
        let part = |range: std::ops::Range<usize>| {
            let value = number(&self.0[range], "device")?;
            u32::try_from(value).map_err(|_| HeaderProblem::Number("device"))
        };
        Ok((part(329..337)?, part(337..345)?))
    }

    /// The same, of an entry of any kind: zeros where nothing is said.
    pub(super) fn device_fields(&self) -> Result<(u32, u32), HeaderProblem> {
        if self.format() == Format::V7 { Ok((0, 0)) } else { self.device() }
    }

    /// Names of the owner and the group, which only newer formats have.
    pub(super) fn owners(&self) -> (&[u8], &[u8]) {
        match self.format() {
            Format::V7 => (&[], &[]),
            _ => (text(&self.0[265..297]), text(&self.0[297..329])),
        }
    }

    /// When it was last read, and when its inode last changed: seconds that only GNU's headers have.
    pub(super) fn other_times(&self) -> Result<(Option<i64>, Option<i64>), HeaderProblem> {
        let time = |field: std::ops::Range<usize>| match self.0[field.start] {
            0 => Ok(None),
            _ => number(&self.0[field], "time").map(Some),
        };
        if self.format() == Format::Gnu { Ok((time(345..357)?, time(357..369)?)) } else { Ok((None, None)) }
    }

    /// Whether a writer of POSIX's could have written it like this: no byte but ASCII, and a zero byte after each number.
    pub(super) fn is_posix(&self) -> bool {
        let ends = [107, 115, 123, 135, 147, 336, 344];
        self.format() == Format::Ustar && self.0.is_ascii() && ends.iter().all(|at| self.0[*at] == 0)
    }

    /// Of a sparse file as GNU tar used to write them: its real size, the first pieces, and whether more follow.
    pub(super) fn sparse(&self) -> Result<(u64, Pieces, bool), HeaderProblem> {
        if self.format() != Format::Gnu {
            return Err(HeaderProblem::Sparse);
        }
        let mut pieces = Vec::new();
        sparse_pieces(&self.0[386..482], &mut pieces)?;
        Ok((length(&self.0[483..495], "real size")?, pieces, self.0[482] != 0))
    }
}

/// Pieces out of a block of them.
pub(super) fn sparse_pieces(bytes: &[u8], pieces: &mut Pieces) -> Result<(), HeaderProblem> {
    for piece in bytes.chunks_exact(24) {
        // An empty one ends the list; Go looks at the offset, GNU tar at the length.
        match (piece[0], piece[12]) {
            (0, 0) => break,
            (0, _) | (_, 0) => return Err(HeaderProblem::Sparse),
            _ => {}
        }
        pieces.push((length(&piece[..12], "sparse offset")?, length(&piece[12..], "sparse length")?));
    }
    Ok(())
}

/// What stands before the first zero byte.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn length(field: &[u8], name: &'static str) -> Result<u64, HeaderProblem> {
    u64::try_from(number(field, name)?).map_err(|_| HeaderProblem::Number(name))
}

/// Octal digits between spaces and zero bytes, or GNU's big-endian binary.
fn number(field: &[u8], name: &'static str) -> Result<i64, HeaderProblem> {
    let wrong = HeaderProblem::Number(name);
    if let Some(first) = field.first()
        && first & 0x80 != 0
    {
        let negative = first & 0x40 != 0;
        // The mark is no part of the number; what is left is extended by its sign.
        let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for byte in &field[1..] {
            value = value.checked_mul(256).ok_or(wrong)? + i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| wrong);
    }
    let end = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !end(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(end).unwrap_or(digits.len())];
    if !field[start + digits.len()..].iter().all(end) {
        return Err(wrong);
    }
    let mut value = 0_i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(wrong);
        }
        value = value.checked_mul(8).ok_or(wrong)? + i64::from(digit - b'0');
    }
    Ok(value)
}
