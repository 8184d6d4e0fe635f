//! Buffers that messages are read into, used again once every block in them is done with.
//!
//! Fresh memory for every 256 KiB costs page faults and zeroing on one thread and is given back on another, which leaves
//! allocators holding three times what is in use. A buffer goes home when the last [`Bytes`] that shares it is dropped,
//! wherever that is.

use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a pooled buffer: one block of the usual size and the message around it.
pub(super) const BUFFER_BYTES: usize = (256 << 10) + 128;
/// Buffers kept for the next message, in all: what one fetch has under way.
const MAX_KEPT: usize = 32;

/// Buffers of [`BUFFER_BYTES`] that are not in use.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer of at least [`BUFFER_BYTES`], filled with whatever was in it.
    pub(super) fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    /// The first `length` bytes of a buffer, as shared bytes; the buffer comes back when nobody holds them any more.
    pub(super) fn share(&self, buffer: Vec<u8>, length: usize) -> Bytes {
        Bytes::from_owner(Lent { buffer, length, home: self.clone() })
    }
}

struct Lent {
    buffer: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.buffer.len() == BUFFER_BYTES && kept.len() < MAX_KEPT {
            kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_slice_is_dropped() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer[..3].copy_from_slice(b"abc");
        let bytes = buffers.share(buffer, 3);
        let slice = bytes.slice(1..);
        drop(bytes);
        assert_eq!((&slice[..], buffers.0.lock().expect("sound").len()), (&b"bc"[..], 0));
        drop(slice);
        assert_eq!(buffers.0.lock().expect("sound").len(), 1);
        assert_eq!(buffers.take().len(), BUFFER_BYTES);
    }

    #[test]
    fn grown_buffers_are_not_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.resize(BUFFER_BYTES * 2, 0);
        drop(buffers.share(buffer, 5));
        assert!(buffers.0.lock().expect("sound").is_empty());
    }
}
