//! What the user's command and the processes that work for it tell each other: messages with descriptors beside.
//!
//! Imports failures, which are messages, too. Both ends are the same program of the same user, on a socket that nobody else can name;
//! one message is one packet.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::control::Failure;

/// Longest message, in bytes: paths, error messages, the names of an image's layers.
const MAX_MESSAGE_BYTES: usize = 128 << 10;
/// Most descriptors beside a message: a lock and three streams.
const MAX_DESCRIPTORS: usize = 4;

/// What one end tells the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "lowercase")]
pub(crate) enum Message {
    /// To the watcher: run the container in this directory. Beside it: its lock, then the streams it is to have.
    Start {
        /// Where it lies.
        directory: PathBuf,
        /// The runtime.
        runtime: PathBuf,
        /// Rows and columns of the user's terminal.
        size: Option<(u16, u16)>,
    },
    /// To the watcher: give the container a signal.
    Signal {
        /// Its number.
        number: i32,
    },
    /// To the command: the container has a terminal. Beside it: the end that a user's terminal is joined to.
    Terminal,
    /// To the command: something a user may want to know.
    Note {
        /// What.
        text: String,
    },
    /// To the command: it runs.
    Started,
    /// To the command: it has ended, and nothing of it is left to be cleared away.
    Ended {
        /// What it ended with.
        code: u8,
    },
    /// To the command: it could not be run.
    Failed {
        /// What to exit with: 125, 126 or 127.
        code: u8,
        /// Why.
        failure: Failure,
    },
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Two ends.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that this process was given as its standard input.
    pub(crate) fn inherited() -> io::Result<Self> {
        Ok(Self(rustix::stdio::stdin().try_clone_to_owned()?))
    }

    /// Lets the other end know that nothing more comes.
    pub(crate) fn close(&self) {
        // It may be gone already.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Sends a message.
    pub(crate) fn send<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message; `None` once the other end is gone.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut buffers, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, descriptors)))
    }
}

/// Receives one descriptor, as runtimes send the end of a terminal.
pub(crate) fn receive_descriptor(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(socket, &mut buffers, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let found = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no terminal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read as _, Seek as _, Write as _},
    };

    #[test]
    fn messages_cross_with_what_is_beside_them() {
        let (ours, theirs) = Link::pair().expect("a pair");
        let theirs = Link(theirs);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"hello").expect("written");
        file.rewind().expect("rewound");
        let start = Message::Start { directory: "/a".into(), runtime: "/runc".into(), size: None };
        ours.send(&start, &[file.as_fd(), file.as_fd()]).expect("sent");
        ours.send(&Message::Signal { number: 15 }, &[]).expect("sent");
        let (message, mut beside) = theirs.receive::<Message>().expect("received").expect("a message");
        assert_eq!((message, beside.len()), (start, 2));
        let mut text = String::new();
        File::from(beside.remove(0)).read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        assert_eq!(
            theirs.receive::<Message>().expect("received").expect("a message").0,
            Message::Signal { number: 15 }
        );
        drop(ours);
        assert!(theirs.receive::<Message>().expect("ended").is_none());
    }
}
