//! What a header of an archive is put together of: blocks, their fields, and records of PAX.
//!
//! Imports `header` for the size of a block and `pax` for times. Pure. Which format an entry is written in, and what of it
//! becomes a record, is for those who write archives.

use std::ops::Range;

use super::{header::BLOCK, pax::Time};

/// Where the name lies in a block.
pub(super) const NAME: Range<usize> = 0..100;
/// What marks a block of ustar and PAX.
pub(super) const POSIX: &[u8; 8] = b"ustar\x0000";
/// What marks a block of GNU's.
pub(super) const GNU: &[u8; 8] = b"ustar  \0";

/// One block of 512 bytes that is being filled.
pub(super) struct Block([u8; BLOCK]);

impl Block {
    pub(super) fn new() -> Self {
        Self([0; BLOCK])
    }

    /// The letter that says what the entry is.
    pub(super) fn kind(&mut self, letter: u8) {
        self.0[156] = letter;
    }

    /// As much of a text as the field holds.
    pub(super) fn text(&mut self, field: Range<usize>, text: &[u8]) {
        let field = &mut self.0[field];
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
        // What is cut off behind a slash would be taken for a directory.
        if text.len() > field.len() && field.last() == Some(&b'/') {
            let kept = field.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
            field[kept] = 0;
        }
    }

    /// Zeros where it does not fit: a record of PAX says it then.
    pub(super) fn octal(&mut self, field: Range<usize>, number: i64) {
        let digits = field.len() - 1;
        let number = if fits_octal(field.len(), number) { number } else { 0 };
        self.text(field, format!("{number:0digits$o}").as_bytes());
    }

    /// In GNU's binary form where octal digits do not do.
    pub(super) fn number(&mut self, field: Range<usize>, number: i64) {
        if fits_octal(field.len(), number) {
            return self.octal(field, number);
        }
        let bytes = i128::from(number).to_be_bytes();
        let field = &mut self.0[field];
        field.copy_from_slice(&bytes[bytes.len() - field.len()..]);
        field[0] |= 0x80;
    }

    /// With its format, and the sum of its bytes.
    pub(super) fn finish(mut self, magic: &[u8; 8]) -> [u8; BLOCK] {
        self.0[257..265].copy_from_slice(magic);
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

/// A record of PAX, whose length counts its own digits.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let bytes = key.len() + value.len() + 3;
    let mut length = bytes + bytes.to_string().len();
    if bytes + length.to_string().len() != length {
        length = bytes + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// So many bytes with what fills the last block.
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

/// Whether a field of so many bytes has room for the octal digits of a number.
pub(super) fn fits_octal(room: usize, number: i64) -> bool {
    number >= 0 && number < 1 << ((room - 1) * 3)
}

/// As PAX writes it: no digits that say nothing.
pub(super) fn decimal(time: Time) -> Vec<u8> {
    let Time { seconds, nanoseconds } = time;
    if nanoseconds == 0 {
        return seconds.to_string().into_bytes();
    }
    let text = if seconds < 0 {
        format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    };
    text.trim_end_matches('0').as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [0, 1, 90, 91, 92, 93, 94, 95, 985, 986, 987, 988, 989, 990, 9_990] {
            let record = record(b"path", &vec![b'x'; length]);
            let said: usize =
                String::from_utf8_lossy(&record).split(' ').next().expect("a length").parse().expect("it");
            assert_eq!(said, record.len(), "{length}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (seconds, nanoseconds, text) in
            [(0, 0, "0"), (0, 1, "0.000000001"), (-1, 0, "-1"), (-1, 999_999_999, "-0.000000001"), (10, 0, "10")]
        {
            assert_eq!(decimal(Time { seconds, nanoseconds }), text.as_bytes());
        }
    }
}
