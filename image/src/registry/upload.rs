//! Uploads: bytes that come in pieces, and are a blob only once their digest was found right.
//!
//! Imports the seam to storage. What was uploaded so far lies in a file without a name in the repository's folder of
//! uploads, so that nothing of it is left when the process ends, however that ends. Their number and their age are bounded, and
//! the disk is never filled up.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    error::{Code, Refusal},
    route::Repository,
};
use crate::{
    blobs::{Added, Blobs, BlobsError, Content, Expected},
    bring::blocking,
    oci::Digest,
};

/// Uploads at once. Docker sends five at a time, a build farm some more.
const MAX_UPLOADS: usize = 256;
/// How long an upload waits for its next piece: a client that lost its connection is back by then.
const MAX_IDLE: Duration = Duration::from_secs(60 * 60);
/// How long an upload is kept at least when others want its place.
const MIN_IDLE: Duration = Duration::from_secs(60);
/// How long a request may send nothing of its body.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(30);
/// Bytes of the disk that uploads leave free: the store needs them once more, and somebody else needs some, too.
const RESERVED_BYTES: u64 = 64 << 20;
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// What is being uploaded.
pub(super) struct Uploads {
    folder: PathBuf,
    running: Mutex<HashMap<String, Arc<Upload>>>,
    count: AtomicU64,
    /// Unknown to others, so that an upload is continued by who began it.
    secret: [u8; 32],
}

/// One upload.
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) repository: Repository,
    /// One request at a time.
    state: tokio::sync::Mutex<State>,
    touched: Mutex<Instant>,
}

struct State {
    file: Arc<File>,
    length: u64,
}

/// A request that works on an upload. No other one does meanwhile.
pub(super) struct Turn<'u> {
    state: tokio::sync::MutexGuard<'u, State>,
    upload: &'u Upload,
}

impl Uploads {
    /// Uploads into files without names in `folder`.
    ///
    /// # Errors
    /// What making the folder says.
    pub(super) fn new(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mut secret = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        Ok(Self { folder, running: Mutex::default(), count: AtomicU64::new(0), secret })
    }

    /// Begins an upload.
    pub(super) async fn begin(&self, repository: &Repository) -> Result<Arc<Upload>, Refusal> {
        let folder = self.folder.clone();
        let file = blocking(move || nameless(&folder)).await.map_err(|error| disk(&error))?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let id = Sha256::new().chain_update(self.secret).chain_update(number.to_le_bytes()).finalize();
        let id: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let state = tokio::sync::Mutex::new(State { file: Arc::new(file), length: 0 });
        let repository = repository.clone();
        let upload = Arc::new(Upload { id: id.clone(), repository, state, touched: Mutex::new(Instant::now()) });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, upload| !upload.is_idle(MAX_IDLE));
        if running.len() >= MAX_UPLOADS {
            let idle = running.values().filter(|upload| upload.is_idle(MIN_IDLE));
            let Some(oldest) = idle.min_by_key(|upload| upload.touched()).map(|upload| upload.id.clone()) else {
                return Err(Refusal::new(Code::TooManyRequests, format!("{MAX_UPLOADS} uploads are under way")));
            };
            running.remove(&oldest);
        }
        running.insert(id, upload.clone());
        Ok(upload)
    }

    /// The upload with this name, in its repository.
    pub(super) fn find(&self, repository: &Repository, id: &str) -> Result<Arc<Upload>, Refusal> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let found = running.get(id).filter(|upload| {
            (&upload.repository.domain, &upload.repository.path) == (&repository.domain, &repository.path)
        });
        found.cloned().ok_or_else(|| Refusal::new(Code::BlobUploadUnknown, "there is no such upload"))
    }

    /// Ends an upload. What was sent of it is gone once nobody works on it.
    pub(super) fn end(&self, upload: &Upload) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&upload.id);
    }
}

impl Upload {
    fn touched(&self) -> Instant {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self, time: Duration) -> bool {
        // Whoever works on it holds its lock.
        self.state.try_lock().is_ok() && self.touched().elapsed() > time
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Refusal> {
        let late = |_| Refusal::new(Code::BlobUploadInvalid, "another request works on this upload");
        let state = timeout(BODY_IDLE, self.state.lock()).await.map_err(late)?;
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(Turn { state, upload: self })
    }
}

impl Turn<'_> {
    /// Bytes that are here.
    pub(super) fn length(&self) -> u64 {
        self.state.length
    }

    /// Takes a piece in. What arrived before a failure stays, and the client may go on from there.
    pub(super) async fn append(&mut self, mut body: Incoming) -> Result<(), Refusal> {
        let mut gathered: Vec<Bytes> = Vec::new();
        let mut waiting = 0;
        loop {
            let next = timeout(BODY_IDLE, body.frame()).await;
            let data = match next {
                Ok(Some(Ok(frame))) => frame.into_data().ok(),
                Ok(None) => {
                    self.write(std::mem::take(&mut gathered)).await?;
                    return Ok(());
                }
                broken => {
                    self.write(std::mem::take(&mut gathered)).await?;
                    let what =
                        if broken.is_err() { "nothing came of the body for too long" } else { "the body broke off" };
                    return Err(Refusal::new(Code::BlobUploadInvalid, what).status(hyper::StatusCode::REQUEST_TIMEOUT));
                }
            };
            let Some(data) = data else { continue };
            waiting += data.len();
            gathered.push(data);
            if waiting >= WRITE_BYTES {
                waiting = 0;
                self.write(std::mem::take(&mut gathered)).await?;
            }
        }
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<(), Refusal> {
        if pieces.is_empty() {
            return Ok(());
        }
        let (file, start) = (self.state.file.clone(), self.state.length);
        let written = blocking(move || {
            leave_room(&file)?;
            let mut offset = start;
            for piece in &pieces {
                file.write_all_at(piece, offset)?;
                offset += piece.len() as u64;
            }
            Ok(offset)
        });
        self.state.length = written.await.map_err(|error: io::Error| disk(&error))?;
        *self.upload.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(())
    }

    /// Makes it a blob, if it is what its digest says.
    pub(super) async fn finish(&mut self, blobs: &dyn Blobs, digest: &Digest) -> Result<Added, Refusal> {
        let (file, size) = (self.state.file.clone(), self.state.length);
        let expected = match digest.sha256() {
            Some(digest) => Some(Expected { digest, size }),
            None => {
                let (mut reader, expected) = (Shared { file: file.clone(), offset: 0 }, digest.clone());
                let hashed = blocking(move || expected.matches_reader(&mut reader)).await;
                if !hashed.map_err(|error| disk(&error))? {
                    return Err(wrong(digest));
                }
                None
            }
        };
        let content = Content::Reader(Box::new(Shared { file, offset: 0 }));
        match blobs.add(content, expected, &|_| {}).await {
            Ok(added) => Ok(added),
            Err(BlobsError::Mismatch { .. }) => Err(wrong(digest)),
            Err(error) => Err(Refusal::failed(&error)),
        }
    }
}

/// A file that others hold, too, read from its start.
struct Shared {
    file: Arc<File>,
    offset: u64,
}

impl io::Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// What was sent is not what it was said to be.
pub(super) fn wrong(digest: &Digest) -> Refusal {
    Refusal::new(Code::DigestInvalid, format!("the content does not hash to `{digest}`"))
}

fn disk(error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::StorageFull {
        return Refusal::new(Code::Unavailable, "the disk is full").status(hyper::StatusCode::INSUFFICIENT_STORAGE);
    }
    Refusal::new(Code::Unknown, format!("cannot keep the upload: {error}"))
}

/// Fails when little of the disk is left.
fn leave_room(file: &File) -> io::Result<()> {
    // Where the free space cannot be told, the disk itself says when it is full.
    let Ok(space) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let left = space.f_bavail.saturating_mul(space.f_frsize);
    if left < RESERVED_BYTES { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// A file in `folder` that never has a name, or loses it at once where the file system knows no others.
fn nameless(folder: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("upload-{}-{count}", std::process::id()));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(path)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}
