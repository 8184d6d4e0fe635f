//! Reads blobs: from the store, or from its first block on while it is still being fetched.
//!
//! Imports the node. However many ask for one blob, it is fetched once, into the store, and all of them read what has
//! arrived. Every byte was checked against its CID before it is sent; the last one of a blob is sent only when the digest
//! of the whole was found right.

use std::{
    collections::HashMap,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use shipfs_node::{
    Cid,
    fetch::{Expected, FetchError},
    node::{Node, Prefix},
    store::FileInfo,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    answer::{BodyError, Chunks, Readable},
    error::{Code, Refusal},
};
use crate::{bring::blocking, oci::Digest};

/// Bytes read at a time, and how many reads are made ahead of the client: enough for the disk and the socket to work at
/// the same time.
const CHUNK_BYTES: u64 = 256 << 10;
const READ_AHEAD: usize = 2;
/// A part that begins no further than this past what has arrived waits for it; any other is asked for by itself. As much
/// as a fetch has under way.
const NEAR_BYTES: u64 = 8 << 20;
/// How long a fetch goes on after the last who wanted it went away: clients that want a blob in many parts ask for the
/// next one by then.
const LINGER: Duration = Duration::from_secs(5);

/// How long to wait for what must come from peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// Time without a byte, after which an answer is given up.
    pub(super) wait: Duration,
    /// How often a fetch that failed for want of an answer is begun again.
    pub(super) retries: u32,
}

/// What fetches blobs for the registry.
pub(super) struct Fetches {
    pub(super) node: Node,
    /// Whether peers may be asked.
    pub(super) asks: bool,
    pub(super) deadlines: Deadlines,
    running: Mutex<HashMap<Cid, Weak<Fetch>>>,
    tasks: TaskTracker,
}

type Done = Option<Result<FileInfo, Arc<FetchError>>>;

/// A fetch of one blob; goes on while anybody holds it.
struct Fetch {
    done: watch::Receiver<Done>,
    _stop: DropGuard,
}

impl Fetches {
    pub(super) fn new(node: Node, asks: bool, deadlines: Deadlines, tasks: TaskTracker) -> Self {
        Self { node, asks, deadlines, running: Mutex::default(), tasks }
    }

    /// The fetch of a blob, if there is one that did not fail.
    fn running(&self, cid: &Cid) -> Option<Arc<Fetch>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, fetch| fetch.strong_count() > 0);
        running.get(cid).and_then(Weak::upgrade).filter(|fetch| !matches!(&*fetch.done.borrow(), Some(Err(_))))
    }

    /// Begins to fetch a blob, or joins whoever did.
    fn join(&self, blob: &Blob) -> Arc<Fetch> {
        if let Some(fetch) = self.running(&blob.cid) {
            return fetch;
        }
        let token = CancellationToken::new();
        let (sender, done) = watch::channel(None);
        let fetch = Arc::new(Fetch { done, _stop: token.clone().drop_guard() });
        let (node, cid, size, digest) = (self.node.clone(), blob.cid, blob.size, blob.digest.clone());
        self.tasks.spawn(async move {
            let lease = node.lease();
            let expected = digest.sha256().map(|digest| Expected { digest, size });
            let got = token.run_until_cancelled(node.get(&cid, expected, size, &lease, &|_| {})).await;
            let Some(got) = got else { return };
            let got = match got {
                Ok(info) if info.size != size => Err(FetchError::Size { cid, expected: size, got: info.size }),
                Ok(info) => check(info, digest).await,
                Err(error) => Err(error),
            };
            sender.send_replace(Some(got.map_err(Arc::new)));
        });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.cid, Arc::downgrade(&fetch));
        fetch
    }

    /// A whole file of the store with these bytes.
    async fn local(&self, blob: &Blob) -> Result<Option<FileInfo>, Refusal> {
        let (store, cid, digest) = (self.node.store().clone(), blob.cid, blob.digest.clone());
        let info =
            blocking(move || store.file(&cid).or_else(|| store.file_by_digest(&digest.sha256()?).into_iter().next()));
        let Some(info) = info.await else { return Ok(None) };
        let is_right = match blob.digest.sha256() {
            Some(digest) => digest == info.digest,
            None => check(info.clone(), blob.digest.clone()).await.is_ok(),
        };
        if is_right && info.size == blob.size {
            return Ok(Some(info));
        }
        Err(Refusal::failed(&FetchError::Digest {
            cid: blob.cid,
            expected: blob.digest.sha256().unwrap_or_default(),
            got: info.digest,
        }))
    }
}

/// Checks a digest that the store did not check.
async fn check(info: FileInfo, digest: Digest) -> Result<FileInfo, FetchError> {
    if digest.sha256().is_some() {
        return Ok(info);
    }
    let path = info.path.clone();
    let matches = blocking(move || digest.matches_reader(&mut File::open(path)?)).await;
    match matches {
        Ok(true) => Ok(info),
        _ => Err(FetchError::Digest { cid: info.cid, expected: [0; 32], got: info.digest }),
    }
}

/// One blob, wherever it is.
pub(super) struct Blob {
    pub(super) fetches: Arc<Fetches>,
    pub(super) cid: Cid,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Readable for Blob {
    fn open(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Chunks, Refusal>> {
        Box::pin(async move {
            if let Some(info) = self.fetches.local(&self).await? {
                let file = blocking(move || File::open(info.path)).await;
                let file =
                    file.map_err(|error| Refusal::new(Code::Unknown, format!("cannot open the blob: {error}")))?;
                return Ok(read_file(Arc::new(file), range));
            }
            if !self.fetches.asks {
                let message = format!("blob `{}` is not here, and the registry is offline", self.digest);
                return Err(Refusal::new(Code::Unavailable, message));
            }
            let prefix = self.fetches.node.prefix(&self.cid);
            let fetch = match self.fetches.running(&self.cid) {
                _ if range.start == 0 => Some(self.fetches.join(&self)),
                Some(fetch) if range.start <= prefix.bytes().saturating_add(NEAR_BYTES) => Some(fetch),
                // It goes on for whoever reads it from the start.
                _ => None,
            };
            match fetch {
                Some(fetch) => self.follow(range, fetch, prefix).await,
                None => self.directly(range).await,
            }
        })
    }
}

impl Blob {
    /// A part far from what has arrived: its blocks are asked for by themselves, and not kept.
    async fn directly(&self, range: Range<u64>) -> Result<Chunks, Refusal> {
        let wait = self.fetches.deadlines.wait;
        let mut chunks = self.fetches.node.cat(&self.cid, range.clone()).boxed();
        let mut tries = self.fetches.deadlines.retries;
        let first = loop {
            match timeout(wait, chunks.next()).await {
                Ok(Some(Ok(first))) => break first,
                Ok(Some(Err(error))) if tries == 0 => return Err(Refusal::failed(&error)),
                Ok(None) => return Err(Refusal::new(Code::BlobUnknown, "the blob ends before this part")),
                Err(_) if tries == 0 => return Err(Refusal::late(&format!("blob `{}`", self.digest))),
                _ => {
                    tries -= 1;
                    chunks = self.fetches.node.cat(&self.cid, range.clone()).boxed();
                }
            }
        };
        let rest = stream::try_unfold(chunks, move |mut chunks| async move {
            let next = timeout(wait, chunks.next()).await.map_err(|_| BodyError::from("no block arrived in time"))?;
            Ok(next.transpose()?.map(|bytes| (bytes, chunks)))
        });
        Ok(stream::once(async move { Ok(first) }).chain(rest).boxed())
    }

    /// Follows a fetch from its beginning on.
    async fn follow(self: Arc<Self>, range: Range<u64>, fetch: Arc<Fetch>, prefix: Prefix) -> Result<Chunks, Refusal> {
        let retries = self.fetches.deadlines.retries;
        let tasks = self.fetches.tasks.clone();
        let held = Held { done: fetch.done.clone(), fetch: Some(fetch), tasks };
        let follower = Follower { blob: self, held, prefix, file: None, range, retries };
        // Errors of the first step are told in words.
        let (first, follower) = match follower.step().await? {
            Some(next) => next,
            None => return Ok(stream::empty().boxed()),
        };
        let rest = stream::try_unfold(follower, |follower| async move {
            follower.step().await.map_err(|refusal| BodyError::from(refusal.message))
        });
        Ok(stream::once(async move { Ok(first) }).chain(rest).boxed())
    }
}

/// Holds a fetch, and for a while longer.
struct Held {
    done: watch::Receiver<Done>,
    fetch: Option<Arc<Fetch>>,
    tasks: TaskTracker,
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(fetch) = self.fetch.take().filter(|_| self.done.borrow().is_none()) else { return };
        // At the end of the process there may be nothing left to linger on.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let lingering = async move {
                tokio::time::sleep(LINGER).await;
                drop(fetch);
            };
            self.tasks.spawn_on(lingering, &runtime);
        }
    }
}

/// Reads a file behind whoever writes it.
struct Follower {
    blob: Arc<Blob>,
    held: Held,
    prefix: Prefix,
    file: Option<Arc<File>>,
    range: Range<u64>,
    retries: u32,
}

impl Follower {
    /// The next bytes, as soon as there are any.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>, Refusal> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let mut waited = tokio::time::Instant::now();
        loop {
            let done = self.held.done.borrow_and_update().clone();
            let there = match &done {
                Some(Ok(info)) => {
                    if self.file.is_none() {
                        self.file = open(info.path.clone()).await;
                    }
                    self.blob.size
                }
                Some(Err(error)) => {
                    self.again(error)?;
                    waited = tokio::time::Instant::now();
                    continue;
                }
                // The last byte waits for the digest.
                None => self.prefix.bytes().min(self.blob.size.saturating_sub(1)),
            };
            if self.file.is_none() && there > self.range.start {
                self.file = open(self.blob.fetches.node.store().partial_path(&self.blob.cid)).await;
            }
            if let (Some(file), true) = (&self.file, there > self.range.start) {
                let part = self.range.start..there.min(self.range.end).min(self.range.start + CHUNK_BYTES);
                let bytes = read(file.clone(), part.clone()).await.map_err(|error| {
                    Refusal::new(Code::Unknown, format!("cannot read what has arrived of the blob: {error}"))
                })?;
                self.range.start = part.end;
                return Ok(Some((bytes, self)));
            }
            if done.is_some() {
                return Err(Refusal::new(Code::Unknown, "the blob vanished from the store"));
            }
            let changed = async {
                tokio::select! {
                    () = self.prefix.changed() => {}
                    changed = self.held.done.changed() => {
                        // Nobody tells how a fetch ended that was stopped.
                        if changed.is_err() {
                            std::future::pending().await
                        }
                    }
                }
            };
            let left = self.blob.fetches.deadlines.wait.saturating_sub(waited.elapsed());
            if timeout(left, changed).await.is_err() {
                if self.retries == 0 {
                    return Err(Refusal::late(&format!("blob `{}`", self.blob.digest)));
                }
                self.retries -= 1;
                waited = tokio::time::Instant::now();
            }
        }
    }

    /// Begins a fetch again that failed for want of an answer.
    fn again(&mut self, error: &Arc<FetchError>) -> Result<(), Refusal> {
        let can_help = matches!(**error, FetchError::Unavailable { .. } | FetchError::Net(_));
        if !can_help || self.retries == 0 {
            tracing::warn!(%error, digest = %self.blob.digest, "a blob cannot be served");
            return Err(Refusal::failed(&**error));
        }
        self.retries -= 1;
        let fetch = self.blob.fetches.join(&self.blob);
        self.held.done = fetch.done.clone();
        self.held.fetch = Some(fetch);
        self.file = None;
        Ok(())
    }
}

async fn open(path: std::path::PathBuf) -> Option<Arc<File>> {
    blocking(move || File::open(path)).await.ok().map(Arc::new)
}

async fn read(file: Arc<File>, part: Range<u64>) -> Result<Bytes, std::io::Error> {
    blocking(move || {
        // A chunk is far smaller than memory.
        let mut bytes = vec![0; (part.end - part.start) as usize];
        file.read_exact_at(&mut bytes, part.start)?;
        Ok(bytes.into())
    })
    .await
}

/// Reads part of a file that lies still.
fn read_file(file: Arc<File>, range: Range<u64>) -> Chunks {
    let starts = range.clone().step_by(CHUNK_BYTES as usize);
    let parts = starts.map(move |start| start..range.end.min(start + CHUNK_BYTES));
    stream::iter(parts).map(move |part| read(file.clone(), part)).buffered(READ_AHEAD).map_err(BodyError::from).boxed()
}
