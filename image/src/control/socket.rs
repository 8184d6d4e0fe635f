//! The socket in the repository: who may use it, and how long its path may be.
//!
//! Imports nothing of this crate. Only the process that holds the repository's lock binds, so whatever lies at that path
//! before is left over from one that is gone. Nothing but a socket is ever removed.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::FileTypeExt as _, net},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::{UnixListener, UnixStream};

/// Name of the socket in the repository.
const NAME: &str = "control.sock";
/// Longest path that a socket address takes, in bytes, with room for the zero at its end.
const MAX_PATH_BYTES: usize = 107;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;

/// A socket that others can connect to; removed when dropped.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Binds the socket of the repository in `directory`, whose lock the caller holds.
    pub(super) fn bind(directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        remove(&path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Before it is bound, so that there is no moment in which others could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        let reach = Reach::of(directory)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(reach.path().as_path())?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
        Ok(Self { listener, path })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

/// Connects to whoever holds the repository in `directory`; `None` when nobody listens.
pub(super) async fn connect(directory: &Path) -> io::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound, WouldBlock};
    let reach = match Reach::of(directory) {
        Ok(reach) => reach,
        Err(error) if error.kind() == NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match UnixStream::connect(reach.path()).await {
        Ok(stream) => Ok(Some(stream)),
        // Nobody is there, or goes away this moment, or is there with a full backlog: all of it is to be tried again.
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | WouldBlock) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A way to name the socket that fits into an address.
enum Reach {
    Path(PathBuf),
    /// Through the directory, opened: its number stands for any path, however long.
    Directory(OwnedFd),
}

impl Reach {
    fn of(directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        if path.as_os_str().len() <= MAX_PATH_BYTES {
            return Ok(Self::Path(path));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::Directory(rustix::fs::open(directory, flags, Mode::empty())?))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Directory(directory) => PathBuf::from(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{}` is not a socket", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the process at the other end belongs to the same user, or to root.
pub(super) fn is_own(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Sends whether a standard stream comes along, and the stream itself.
pub(super) async fn send_stream(socket: &UnixStream, stream: Option<&OwnedFd>) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let descriptors = stream.map(|stream| [std::os::fd::AsFd::as_fd(stream)]);
    let byte = [u8::from(descriptors.is_some())];
    let send = || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if let Some(descriptors) = &descriptors {
            beside.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let sent = rustix::net::sendmsg(socket, &[io::IoSlice::new(&byte)], &mut beside, SendFlags::NOSIGNAL)?;
        if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    };
    socket.async_io(tokio::io::Interest::WRITABLE, send).await
}

/// Receives what [`send_stream`] sent.
pub(super) async fn receive_stream(socket: &UnixStream) -> io::Result<Option<File>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let receive = || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = {
            let mut buffers = [io::IoSliceMut::new(&mut byte)];
            rustix::net::recvmsg(socket, &mut buffers, &mut beside, RecvFlags::CMSG_CLOEXEC)?
        };
        let stream = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (received.bytes, byte[0], stream) {
            (0, ..) => Err(io::ErrorKind::UnexpectedEof.into()),
            (_, 0, None) => Ok(None),
            (_, 1, Some(stream)) => Ok(Some(File::from(stream))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "expected a file descriptor, or none")),
        }
    };
    socket.async_io(tokio::io::Interest::READABLE, receive).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Seek as _, Write as _},
        os::unix::fs::MetadataExt as _,
    };

    #[tokio::test]
    async fn only_the_owner_can_reach_it_and_it_goes_away() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(connect(directory.path()).await.expect("looks").is_none(), "nobody listens yet");
        let bound = Bound::bind(directory.path()).expect("binds");
        let path = directory.path().join(NAME);
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        let guest = connect(directory.path()).await.expect("looks").expect("somebody listens");
        let (host, _) = bound.listener.accept().await.expect("accepts");
        assert!(is_own(&host) && is_own(&guest));
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_but_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(NAME);
        drop(net::UnixListener::bind(&path).expect("binds"));
        assert!(connect(directory.path()).await.expect("looks").is_none(), "stale");
        drop(Bound::bind(directory.path()).expect("replaces it"));
        fs::write(&path, "mine").expect("writes");
        assert_eq!(Bound::bind(directory.path()).expect_err("refuses").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("is still there"), b"mine");
    }

    #[tokio::test]
    async fn a_path_may_be_longer_than_an_address() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
        assert!(connect(&deep).await.expect("looks").is_none(), "not even a directory");
        fs::create_dir_all(&deep).expect("makes it");
        let bound = Bound::bind(&deep).expect("binds");
        assert!(deep.join(NAME).exists());
        let guest = connect(&deep).await.expect("looks");
        assert!(guest.is_some());
        drop(bound);
        assert!(!deep.join(NAME).exists());
    }

    #[tokio::test]
    async fn a_stream_crosses_as_it_is() {
        let (guest, host) = UnixStream::pair().expect("a pair");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"hello").expect("writes");
        file.rewind().expect("rewinds");
        send_stream(&guest, Some(&file.into())).await.expect("sends");
        let mut text = String::new();
        receive_stream(&host).await.expect("receives").expect("a stream").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "hello");
        send_stream(&guest, None).await.expect("sends");
        assert!(receive_stream(&host).await.expect("receives").is_none());
        rustix::io::write(&guest, &[1]).expect("a promise that is not kept");
        assert_eq!(receive_stream(&host).await.expect_err("refuses").kind(), io::ErrorKind::InvalidData);
        drop(guest);
        assert_eq!(receive_stream(&host).await.expect_err("ends").kind(), io::ErrorKind::UnexpectedEof);
    }
}
