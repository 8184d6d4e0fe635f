//! Messages on a byte stream: a length in four bytes, most significant first, then JSON.
//!
//! Imports nothing of this crate. Lengths are checked before anything is allocated for them.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Why a message was not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The stream ended before a message began, or inside of one.
    #[error("the other process went away")]
    Ended,
    /// It is longer than messages of its kind may be.
    #[error("a message has {size} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// It is not what was expected.
    #[error("a message cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// The stream failed.
    #[error("the connection to the other process failed")]
    Stream(#[source] io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Ended,
            _ => Self::Stream(error),
        }
    }
}

/// Reads one message of at most `limit` bytes. Dropping the future may lose part of it.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<T, FrameError> {
    let size = stream.read_u32().await? as usize;
    if size > limit {
        return Err(FrameError::TooLong { size, limit });
    }
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes).await?;
    serde_json::from_slice(&bytes).map_err(FrameError::Malformed)
}

/// Writes one message of at most `limit` bytes; nothing is written of a longer one.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
    limit: usize,
) -> Result<(), FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Malformed)?;
    let size = bytes.len() - 4;
    let length = u32::try_from(size).ok().filter(|_| size <= limit).ok_or(FrameError::TooLong { size, limit })?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&bytes).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_out_as_they_went_in() {
        let mut wire = Vec::new();
        write(&mut wire, &"one", 5).await.expect("fits exactly");
        write(&mut wire, &[1, 2], 100).await.expect("fits");
        let mut reader = &wire[..];
        assert_eq!(read::<String>(&mut reader, 5).await.expect("reads"), "one");
        assert_eq!(read::<Vec<u8>>(&mut reader, 100).await.expect("reads"), [1, 2]);
        assert!(matches!(read::<String>(&mut reader, 5).await, Err(FrameError::Ended)));
    }

    #[tokio::test]
    async fn a_long_message_is_refused_before_it_is_held() {
        let wire = u32::MAX.to_be_bytes();
        let refused = read::<String>(&mut &wire[..], 1000).await;
        assert!(matches!(refused, Err(FrameError::TooLong { size: 0xffff_ffff, limit: 1000 })), "{refused:?}");
        let mut nothing = Vec::new();
        assert!(matches!(write(&mut nothing, &"one", 4).await, Err(FrameError::TooLong { size: 5, limit: 4 })));
        assert!(nothing.is_empty());
    }

    #[tokio::test]
    async fn cut_and_garbled_messages_are_told_apart() {
        for cut in [&[0, 0][..], &[0, 0, 0, 9, b'"']] {
            assert!(matches!(read::<String>(&mut &cut[..], 100).await, Err(FrameError::Ended)), "{cut:?}");
        }
        for garbled in [&[0, 0, 0, 0][..], &[0, 0, 0, 2, b'"', b'a'], &[0, 0, 0, 1, 0xff]] {
            assert!(
                matches!(read::<String>(&mut &garbled[..], 100).await, Err(FrameError::Malformed(_))),
                "{garbled:?}"
            );
        }
    }
}
