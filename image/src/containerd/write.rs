//! Content on its way to containerd.
//!
//! Imports its parent. What is there is not sent; a write that broke off goes on where it was; labels tell containerd what
//! a document refers to, so that its collector keeps that.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::{
    Containerd, ContainerdError, failed, is_said,
    messages::{self, COMMIT, STAT, WRITE, Written},
};
use crate::{
    blobs::Body,
    bring::blocking,
    oci::{Descriptor, Index, Manifest, media},
};

/// Bytes sent at a time: a quarter of what a message may have.
const PART_BYTES: usize = 1 << 20;
/// Parts that are read ahead of the socket.
const PARTS_AHEAD: usize = 2;

/// Longest wait for somebody else who writes the same: time for the largest layer.
const LOCKED_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How often it is looked whether they have done it.
const LOCKED_PACE: Duration = Duration::from_millis(100);

pub(super) type Labels = BTreeMap<String, String>;

impl Containerd {
    /// Writes a blob, unless it is there.
    ///
    /// # Errors
    /// [`ContainerdError`]; it is not shown then.
    pub(crate) async fn write(&self, blob: &Descriptor, body: &Body) -> Result<(), ContainerdError> {
        let reading = |source| ContainerdError::Body { digest: blob.digest.clone(), source };
        let labels = labels(blob, body).map_err(reading)?;
        let begun = Instant::now();
        let written = loop {
            let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
            match self.stream_parts(blob, body, &labels, sender, receiver).await {
                // Somebody else writes the same this moment.
                Err(Broken::Status(status))
                    if status.code() == Code::Unavailable && is_said(&status) && begun.elapsed() < LOCKED_TIMEOUT =>
                {
                    tokio::time::sleep(LOCKED_PACE).await;
                }
                written => break written,
            }
        };
        match written {
            Err(Broken::Status(status)) if status.code() == Code::AlreadyExists => {
                self.hold(&blob.digest).await?;
                if labels.is_empty() { Ok(()) } else { self.label(&blob.digest, labels).await }
            }
            Err(Broken::Status(status)) => Err(failed("write content", &status)),
            Err(Broken::Body(source)) => Err(reading(source)),
            Ok(()) => Ok(()),
        }
    }

    async fn stream_parts(
        &self,
        blob: &Descriptor,
        body: &Body,
        labels: &Labels,
        sender: mpsc::Sender<messages::Write>,
        receiver: mpsc::Receiver<messages::Write>,
    ) -> Result<(), Broken> {
        let total = i64::try_from(blob.size).map_err(|_| Broken::Body(io::ErrorKind::FileTooLarge.into()))?;
        let part = |action, offset, data| messages::Write {
            action,
            reference: format!("shipfs-{}", blob.digest),
            total,
            expected: blob.digest.to_string(),
            offset,
            data,
            labels: Labels::new(),
        };
        let parts = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let gone = |_| Broken::Status(Status::aborted("containerd ended the conversation"));
        sender.send(part(STAT, 0, Bytes::new())).await.map_err(gone)?;
        let (mut client, path) = self.ready("/containerd.services.content.v1.Content/Write").await?;
        let codec = ProstCodec::<messages::Write, Written>::default();
        let mut answers = client.streaming(self.request(parts), path, codec).await?.into_inner();
        let mut offset = answers.message().await?.map_or(0, |written| written.offset).clamp(0, total);
        let mut rest = Some(open(body, offset).await?);
        let sending = async {
            while offset < total {
                let (reader, read) = next(rest.take(), total - offset).await;
                rest = Some(reader);
                let data = read.map_err(Broken::Body)?;
                let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
                sender.send(part(WRITE, offset, data)).await.map_err(gone)?;
                offset += length;
            }
            let commit = messages::Write { labels: labels.clone(), ..part(COMMIT, total, Bytes::new()) };
            sender.send(commit).await.map_err(gone)?;
            drop(sender);
            Ok(())
        };
        let listening = async {
            while answers.message().await?.is_some() {}
            Ok(())
        };
        // What containerd says counts more than that it stopped listening.
        let (sent, heard): (Result<(), Broken>, Result<(), Broken>) = futures::future::join(sending, listening).await;
        heard.and(sent)
    }
}

type Reader = Box<dyn io::Read + Send>;

async fn open(body: &Body, offset: i64) -> Result<Reader, Broken> {
    let body = body.clone();
    let opening = blocking(move || {
        let mut reader = body.open()?;
        io::copy(&mut io::Read::take(&mut reader, offset.unsigned_abs()), &mut io::sink())?;
        Ok(reader)
    });
    opening.await.map_err(Broken::Body)
}

/// Reads the next part, of at most `left` bytes; never none.
async fn next(reader: Option<Reader>, left: i64) -> (Reader, io::Result<Bytes>) {
    let mut reader = reader.unwrap_or_else(|| Box::new(io::empty()));
    blocking(move || {
        let mut part = Vec::with_capacity(PART_BYTES);
        let limit = left.unsigned_abs().min(PART_BYTES as u64);
        let read = io::Read::take(&mut reader, limit).read_to_end(&mut part);
        let part = read.and_then(|length| match length {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(Bytes::from(part)),
        });
        (reader, part)
    })
    .await
}

/// What containerd's collector is told of a blob.
fn labels(blob: &Descriptor, body: &Body) -> io::Result<Labels> {
    let label = |name: String, digest: &crate::oci::Digest| {
        (format!("containerd.io/gc.ref.content.{name}"), digest.to_string())
    };
    if media::is_index(&blob.media_type) {
        let index = Index::parse(&body.read(crate::oci::MAX_DOCUMENT_BYTES)?).map_err(io::Error::other)?;
        let entries = index.manifests().iter().enumerate();
        return Ok(entries.map(|(at, entry)| label(format!("m.{at}"), &entry.digest)).collect());
    }
    if media::is_manifest(&blob.media_type) {
        let manifest = Manifest::parse(&body.read(crate::oci::MAX_DOCUMENT_BYTES)?).map_err(io::Error::other)?;
        let layers = manifest.layers().iter().enumerate();
        let layers = layers.map(|(at, layer)| label(format!("l.{at}"), &layer.digest));
        return Ok(layers.chain([label("config".to_owned(), &manifest.config.digest)]).collect());
    }
    Ok(Labels::new())
}

/// Why a write broke off.
enum Broken {
    Status(Status),
    Body(io::Error),
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}
