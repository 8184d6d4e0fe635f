//! Protobuf, as far as dag-pb and UnixFS need it: numbers and runs of bytes.
//!
//! Imports nothing of this crate but the errors above. It never copies a value, and never believes a length.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{CodecError, MAX_NODE_LINKS};

pub(super) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(super) fn put_number(out: &mut BytesMut, field: u8, value: u64) {
    out.put_u8(field << 3);
    put_varint(out, value);
}

pub(super) fn put_bytes(out: &mut BytesMut, field: u8, value: &[u8]) {
    out.put_u8(field << 3 | 2);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

/// Encoded length of a varint, in bytes.
pub(super) fn varint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Encoded length of a field that holds `length` bytes, its tag included.
pub(super) fn bytes_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

/// The value of one protobuf field.
pub(super) enum Value {
    Number(u64),
    Bytes(Bytes),
    /// Four or eight bytes, which no field we know has.
    Fixed,
}

impl Value {
    pub(super) fn number(self, field: &'static str) -> Result<u64, CodecError> {
        if let Self::Number(number) = self { Ok(number) } else { Err(CodecError::WireType { field }) }
    }

    pub(super) fn bytes(self, field: &'static str) -> Result<Bytes, CodecError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(CodecError::WireType { field }) }
    }

    /// Adds one number, or a packed run of them, to `numbers`.
    pub(super) fn numbers(self, field: &'static str, numbers: &mut Vec<u64>) -> Result<(), CodecError> {
        let mut add = |number| {
            if numbers.len() == MAX_NODE_LINKS {
                return Err(CodecError::TooManyLinks);
            }
            numbers.push(number);
            Ok(())
        };
        match self {
            Self::Number(number) => add(number),
            Self::Bytes(packed) => {
                let mut fields = Fields::new(&packed);
                while fields.position < packed.len() {
                    add(fields.varint()?)?;
                }
                Ok(())
            }
            Self::Fixed => Err(CodecError::WireType { field }),
        }
    }
}

/// The fields of one protobuf message, read one after the other.
pub(super) struct Fields<'a> {
    data: &'a Bytes,
    position: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(data: &'a Bytes) -> Self {
        Self { data, position: 0 }
    }

    /// The next field's number and value; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value)>, CodecError> {
        if self.position == self.data.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            wire_type => return Err(CodecError::UnknownWireType { wire_type }),
        };
        Ok(Some((tag >> 3, value)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.data.get(self.position).ok_or(CodecError::Truncated)?;
            self.position += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::VarintTooLong)
    }

    fn take(&mut self, length: u64) -> Result<Bytes, CodecError> {
        let left = self.data.len() - self.position;
        let length = usize::try_from(length).ok().filter(|length| *length <= left).ok_or(CodecError::Truncated)?;
        let start = self.position;
        self.position += length;
        Ok(self.data.slice(start..self.position))
    }
}
