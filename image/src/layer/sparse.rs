//! Files with holes: where their bytes lie.
//!
//! Imports the errors and `pax` for its numbers. Pieces are in order, do not overlap, lie in the file, begin at blocks of the
//! archive, and are as long as what it stores.

use super::{failure::HeaderProblem, header::BLOCK, pax::decimal};

/// Offset and length of each piece of a file that is stored.
pub(super) type Pieces = Vec<(u64, u64)>;

/// Where the stored bytes of a file belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// What is stored, in order.
    pub(super) pieces: Pieces,
    /// Length of the file.
    pub(super) size: u64,
}

impl Map {
    /// A map for `stored` bytes.
    pub(super) fn new(pieces: Pieces, size: u64, stored: u64) -> Result<Self, HeaderProblem> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, length) in &pieces {
            // GNU tar looks for each piece at the start of a block, others right after the one before.
            let aligned = *length == 0 || sum.is_multiple_of(BLOCK as u64);
            if *offset < end || !aligned {
                return Err(HeaderProblem::Sparse);
            }
            end = offset.checked_add(*length).ok_or(HeaderProblem::Sparse)?;
            // No overflow: the pieces do not overlap, so their sum is no more than where the last one ends.
            sum += length;
        }
        if end > size || sum != stored || i64::try_from(size).is_err() {
            return Err(HeaderProblem::Sparse);
        }
        Ok(Self { pieces, size })
    }
}

/// Reads the lines of a map as PAX 1.0 stores it in front of the bytes: a count, then offsets and lengths in turn.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    count: Option<u64>,
    numbers: Vec<u64>,
}

impl Lines {
    /// Takes a block; says whether it was the last one.
    pub(super) fn take(&mut self, block: &[u8]) -> Result<bool, HeaderProblem> {
        for byte in block {
            if self.whole() {
                // Padding.
                return Ok(true);
            }
            if *byte != b'\n' {
                // As long as a number can be.
                if self.line.len() == 20 {
                    return Err(HeaderProblem::Sparse);
                }
                self.line.push(*byte);
                continue;
            }
            let number = decimal(&self.line).ok_or(HeaderProblem::Sparse)?;
            self.line.clear();
            match self.count {
                None => self.count = Some(number),
                Some(_) => self.numbers.push(number),
            }
        }
        Ok(self.whole())
    }

    fn whole(&self) -> bool {
        self.count.is_some_and(|count| count.checked_mul(2) == Some(self.numbers.len() as u64))
    }

    pub(super) fn pieces(self) -> Pieces {
        self.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
    }
}
