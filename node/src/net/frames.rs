//! yamux frames, cut before the muxer sees them.
//!
//! A frame may be as long as the window that the receiver granted; the muxer takes no more than 1 MiB and ends the
//! connection otherwise. Most senders cut their frames at 16 or 64 KiB, js-libp2p's newer ones do not: once a window has
//! grown, the first large message would end the connection with them. So a long frame is handed on as several, which mean
//! the same. That also bounds what is allocated for a frame before a byte of it is there.
//!
//! ```text
//! version 1 | type 1 (0 = data) | flags 2 (SYN 1, ACK 2, FIN 4, RST 8) | stream 4 | length 4, all big-endian | data
//! ```
//! Imports nothing of this crate. It never looks at data, and changes nothing on its way out.

use futures::{AsyncRead, AsyncWrite, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Longest frame that is handed on, in bytes: a chunk of a file. Nobody else sends longer ones.
const MAX_FRAME_BYTES: u32 = 256 << 10;
const HEADER_BYTES: usize = 12;
/// Flags that belong to the first piece of a frame, and those that belong to the last.
const OPENING: u16 = 1 | 2;
const CLOSING: u16 = 4 | 8;

/// A stream of frames none of which is long.
pub(super) struct Frames<C> {
    inner: C,
    /// The header that is being read, or handed on.
    header: [u8; HEADER_BYTES],
    /// Bytes of it that have come.
    come: usize,
    /// Bytes of it that were handed on.
    given: usize,
    /// Bytes of the piece that are still to be handed on.
    piece: u32,
    /// Bytes of the frame after that piece.
    rest: u32,
    /// The frame's own flags.
    flags: u16,
}

impl<C> Frames<C> {
    pub(super) fn new(inner: C) -> Self {
        let header = [0; HEADER_BYTES];
        Self { inner, header, come: 0, given: HEADER_BYTES, piece: 0, rest: 0, flags: 0 }
    }

    /// A header has come: its frame, or the first piece of it, is next.
    fn begin(&mut self) {
        let [version, kind, flags @ .., _, _, _, _, _, _, _, _] = self.header;
        let length = u32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]]);
        (self.come, self.given) = (0, 0);
        // What has no body, or is not understood, is for the muxer to judge.
        if (version, kind) != (0, 0) {
            return;
        }
        self.flags = u16::from_be_bytes(flags);
        self.rest = length;
        if length > MAX_FRAME_BYTES {
            self.cut(OPENING);
        } else {
            (self.piece, self.rest) = (length, 0);
        }
    }

    /// Goes on with the next piece of a frame; only the last may have `CLOSING` flags, only the first `opening` ones.
    fn cut(&mut self, opening: u16) {
        self.piece = self.rest.min(MAX_FRAME_BYTES);
        self.rest -= self.piece;
        let closing = if self.rest == 0 { CLOSING } else { 0 };
        self.header[2..4].copy_from_slice(&(self.flags & (opening | closing)).to_be_bytes());
        self.header[8..].copy_from_slice(&self.piece.to_be_bytes());
        self.given = 0;
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Frames<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.given < HEADER_BYTES {
                let length = buffer.len().min(HEADER_BYTES - this.given);
                buffer[..length].copy_from_slice(&this.header[this.given..this.given + length]);
                this.given += length;
                return Poll::Ready(Ok(length));
            }
            if this.piece > 0 {
                let length = buffer.len().min(usize::try_from(this.piece).unwrap_or(usize::MAX));
                let read = ready!(Pin::new(&mut this.inner).poll_read(context, &mut buffer[..length]))?;
                this.piece -= u32::try_from(read).unwrap_or(this.piece);
                return Poll::Ready(Ok(read));
            }
            if this.rest > 0 {
                this.cut(0);
                continue;
            }
            match ready!(Pin::new(&mut this.inner).poll_read(context, &mut this.header[this.come..]))? {
                0 if this.come == 0 => return Poll::Ready(Ok(0)),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => this.come += read,
            }
            if this.come == HEADER_BYTES {
                this.begin();
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Frames<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::AsyncReadExt as _;
    use futures::executor::block_on;
    use futures::io::Cursor;

    /// A stream that gives a few bytes at a time.
    struct Drip(Cursor<Vec<u8>>, usize);

    impl AsyncRead for Drip {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let length = buffer.len().min(self.1);
            Pin::new(&mut self.0).poll_read(context, &mut buffer[..length])
        }
    }

    fn frame(kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
        let [high, low] = flags.to_be_bytes();
        [&[0, kind, high, low][..], &stream.to_be_bytes(), &length.to_be_bytes(), body].concat()
    }

    fn handed_on(bytes: Vec<u8>, drip: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        block_on(Frames::new(Drip(Cursor::new(bytes), drip)).read_to_end(&mut out)).map(|_| out)
    }

    /// js-libp2p sends a message of 2 MiB as one frame where the window allows it; with stock rust-yamux that was the end
    /// of the connection (`frame body is too large`).
    #[test]
    fn a_long_frame_is_handed_on_as_several() {
        let (max, stream) = (MAX_FRAME_BYTES, 7);
        let body: Vec<u8> = (0..2 * max + 5).map(|at| (at % 251) as u8).collect();
        let (first, second, third) =
            (&body[..max as usize], &body[max as usize..][..max as usize], &body[2 * max as usize..]);
        let before = frame(1, 1, 5, 400_000, b"");
        let after = [frame(0, 4, 9, 3, b"end"), frame(2, 1, 0, 77, b""), frame(3, 0, 0, 0, b"")].concat();
        let long = [before.clone(), frame(0, 1 | 4, stream, 2 * max + 5, &body), after.clone()].concat();
        let pieces = [
            before,
            frame(0, 1, stream, max, first),
            frame(0, 0, stream, max, second),
            frame(0, 4, stream, 5, third),
            after,
        ];
        for drip in [1, 13, usize::MAX] {
            assert!(handed_on(long.clone(), drip).expect("well-formed") == pieces.concat(), "{drip} at a time");
        }
    }

    #[test]
    fn other_frames_are_handed_on_as_they_are() {
        let body = vec![3; MAX_FRAME_BYTES as usize];
        let all = [
            frame(0, 2, 1, 0, b""),
            frame(0, 0, 1, MAX_FRAME_BYTES, &body),
            frame(0, 8, 1, 3, b"abc"),
            frame(1, 0, 1, u32::MAX, b""),
            frame(2, 2, 0, u32::MAX, b""),
        ]
        .concat();
        assert!(handed_on(all.clone(), 10_000).expect("well-formed") == all);
        assert_eq!(handed_on(all[..20].to_vec(), 7).map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
