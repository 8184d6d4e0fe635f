//! Adds a file to the daemon, hashed here while it is sent.
//!
//! Imports `dag`, `add`'s plain types and its siblings. The daemon is told how to cut the file, and the name that it gives
//! is compared with ours. The last piece is sent only once the whole is known to be what was expected: of content that is
//! not, the daemon never sees the end, and makes nothing.

use std::{
    hash::{BuildHasher as _, RandomState},
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use reqwest::Body;
use serde::Deserialize;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Kubo, RpcError, link::Form, patience::Patience, reply, reply::Reply};
use crate::{
    add::{self, Added, Content, ContentError},
    block::Cid,
    dag::{self, Hashed, Tree},
    fetch::{Expected, threads},
};

/// Pieces, of at most 1 MiB, that wait to be sent.
const PIECES_AHEAD: usize = 2;
/// Uploads of one file that may break off half-way.
const MAX_BROKEN: usize = 3;
/// How often it is looked whether bytes are still taken.
const LOOK: Duration = Duration::from_millis(100);
/// How the file is cut: what Kubo does by default, said aloud, since a user may have changed that.
const ARGUMENTS: &[(&str, &str)] = &[
    ("chunker", "size-262144"),
    ("cid-version", "1"),
    ("hash", "sha2-256"),
    ("inline", "false"),
    ("max-file-links", "174"),
    ("pin", "false"),
    ("progress", "false"),
    ("raw-leaves", "true"),
    ("trickle", "false"),
];

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "Hash", default)]
    hash: String,
}

type Sent = Result<Bytes, io::Error>;

impl Kubo {
    /// Adds a file, unpinned. What the daemon collects as garbage before it is pinned has to be added again.
    ///
    /// A file or bytes are sent again when the connection breaks; a reader can be read only once. Dropping the future stops
    /// it, and the daemon makes nothing of what came.
    ///
    /// # Errors
    /// [`UploadError`]; content that is not what `expected` says is nothing to the daemon.
    pub async fn add(
        &self,
        content: Content,
        expected: Option<Expected>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Added, UploadError> {
        let mut patience = Patience::new(self);
        let (mut content, mut broken) = (Some(content), 0);
        loop {
            let (attempt, again) = match content.take() {
                Some(Content::File(path)) => (Content::File(path.clone()), Some(Content::File(path))),
                Some(Content::Bytes(bytes)) => (Content::Bytes(bytes.clone()), Some(Content::Bytes(bytes))),
                Some(reader) => (reader, None),
                None => (Content::Bytes(Bytes::new()), None),
            };
            let taken = Arc::new(AtomicU64::new(0));
            let sent = self.add_once(attempt, expected, &taken, progress).await;
            let error = match sent {
                Err(UploadError::Rpc(error)) if again.is_some() => error,
                sent => return sent,
            };
            if taken.load(Ordering::Relaxed) > 0 {
                // The daemon was there; but one that never takes all of it is not waited for for ever.
                broken += 1;
                if broken == MAX_BROKEN {
                    return Err(error.into());
                }
                patience.progress();
            }
            patience.after(error).await?;
            content = again;
        }
    }

    async fn add_once(
        &self,
        content: Content,
        expected: Option<Expected>,
        taken: &Arc<AtomicU64>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Added, UploadError> {
        let (sender, receiver) = mpsc::channel::<Sent>(PIECES_AHEAD);
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let out = Out { sender, stop: stop.clone(), runtime: Handle::current() };
        let hashing = tokio::task::spawn_blocking(move || hash(content, expected, &out));
        let (content_type, head, tail) = multipart();
        let counted = taken.clone();
        let pieces = stream::unfold((receiver, counted), |(mut receiver, counted)| async move {
            let piece = receiver.recv().await?;
            if let Ok(bytes) = &piece {
                counted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Some((piece, (receiver, counted)))
        });
        let head = stream::once(async move { Ok(Bytes::from(head)) });
        // After an error nothing follows, so the end is never sent then.
        let tail = stream::once(async move { Ok(Bytes::from(tail)) });
        let body = Body::wrap_stream(stream::StreamExt::chain(stream::StreamExt::chain(head, pieces), tail));
        let form = Form { content_type, body };
        let sending = self.send("add", ARGUMENTS, Some(form), Duration::MAX);
        let answered = self.watched(sending, taken, progress).await;
        if answered.is_err() {
            // A connection that is stuck takes nothing, and lets go of nothing.
            stop.cancel();
        }
        let hashed = match hashing.await {
            Ok(hashed) => hashed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        // What was wrong with the content is the reason for what became of the upload.
        let (hashed, tree) = match hashed {
            Err(UploadError::Stopped) => return Err(answered.err().map_or(UploadError::Stopped, UploadError::Rpc)),
            hashed => hashed?,
        };
        let got = answered?;
        if got != tree.root {
            return Err(RpcError::OtherCid { expected: tree.root, got }.into());
        }
        progress(hashed.size);
        let (digest, size, cumulative) = (hashed.digest, hashed.size, tree.cumulative);
        Ok(Added { cid: tree.root, digest, size, cumulative, existed: false })
    }

    /// Waits for the answer for as long as bytes are taken, and tells how many were.
    async fn watched(
        &self,
        sending: impl Future<Output = Result<Reply, RpcError>>,
        taken: &AtomicU64,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Cid, RpcError> {
        let answering = async {
            let mut reply = sending.await?;
            let mut body = Vec::new();
            while let Some(bytes) = reply.next(Duration::MAX).await? {
                reply::collect(&mut body, &bytes, reply::MAX_JSON_BYTES, "add")?;
            }
            let said: Option<Said> = reply.values(&body)?.pop();
            let cid = said.and_then(|said| said.hash.parse().ok());
            cid.ok_or_else(|| reply.garbage(&body))
        };
        tokio::pin!(answering);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut answering => return answer,
                () = tokio::time::sleep(LOOK) => {
                    let now = taken.load(Ordering::Relaxed);
                    if now != seen {
                        (seen, since) = (now, Instant::now());
                        progress(now);
                    } else if since.elapsed() >= self.patience() {
                        let endpoint = self.shown().await;
                        return Err(RpcError::Silent { endpoint, command: "add", waited: since.elapsed() });
                    }
                }
            }
        }
    }
}

/// The way out for what was hashed.
struct Out {
    sender: mpsc::Sender<Sent>,
    stop: CancellationToken,
    runtime: Handle,
}

impl Out {
    /// Waits until a piece is taken; says whether it was.
    fn send(&self, piece: Sent) -> bool {
        let sending = self.stop.run_until_cancelled(self.sender.send(piece));
        matches!(self.runtime.block_on(sending), Some(Ok(())))
    }
}

/// Hashes the content and hands it on, the last piece only when all of it is as expected.
fn hash(content: Content, expected: Option<Expected>, out: &Out) -> Result<(Hashed, Tree), UploadError> {
    let failed = |error: ContentError| {
        // Nobody may be there any more to hear it.
        out.send(Err(io::Error::other("the content is not what it should be")));
        UploadError::Content(error)
    };
    let (mut source, what) = content.open().map_err(failed)?;
    let (mut held, mut is_gone) = (None, false);
    let mut sink = |_: u64, bytes: &[u8]| {
        if let Some(piece) = held.replace(Bytes::copy_from_slice(bytes))
            && !out.send(Ok(piece))
        {
            is_gone = true;
            return Err(io::Error::other("nobody takes the bytes any more"));
        }
        Ok(())
    };
    let hashed = dag::ingest(&mut (&mut source).take(add::limit(expected)), &mut sink, threads(), &|_| {});
    let hashed = match hashed {
        Ok(hashed) => hashed,
        Err(_) if is_gone => return Err(UploadError::Stopped),
        Err(source) => return Err(failed(ContentError::Read { what, source })),
    };
    add::check(expected, &hashed).map_err(failed)?;
    if let Some(last) = held
        && !out.send(Ok(last))
    {
        return Err(UploadError::Stopped);
    }
    let tree = dag::balanced(&hashed.leaves);
    Ok((hashed, tree))
}

/// The type, beginning and end of a form with one file in it.
pub(super) fn multipart() -> (String, String, String) {
    let draws = RandomState::new();
    // 128 bits that no file can foresee.
    let boundary = format!("{:016x}{:016x}", draws.hash_one(1), draws.hash_one(2));
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    (format!("multipart/form-data; boundary={boundary}"), head, format!("\r\n--{boundary}--\r\n"))
}

/// Why a file was not added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The daemon did not take it.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The content cannot be read, or is another than expected.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Nobody took the bytes any more.
    #[error("adding a file was stopped")]
    Stopped,
}
