//! Blobs and documents on their way to a registry.
//!
//! Imports its siblings. What is there is not sent; what a sibling repository has is taken over from it; everything else
//! is sent in one piece; when the connection breaks, what the registry has of it by then is not sent again, if it says how
//! much that is. Docker's own forgets an upload that broke off, so it gets another from the beginning.

use std::{
    io::{self, Read, Seek as _},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};

use super::{
    RegistryClient, RegistryError,
    request::{Ask, Payload, asked_pause, is_for_later},
};
use crate::{
    blobs::Body,
    bring::blocking,
    oci::{Descriptor, Digest},
};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;
/// Bytes by which an upload has to get further before broken connections are counted from the beginning again.
const PROGRESS_BYTES: u64 = 1 << 20;
/// What a body of bytes is.
const OCTETS: &str = "application/octet-stream";

impl RegistryClient {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// [`RegistryError`] when it does not say.
    pub(crate) async fn has(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        let url = self.endpoint.url(&format!("v2/{}/blobs/{}", self.repository, blob.digest))?;
        let ask = Ask::new(Method::HEAD, url);
        let what = ask.what();
        let response = self.exchange(ask).await?;
        match self.expect(&what, response).await {
            Ok(response) => {
                let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                Ok(length.is_none_or(|length| length == blob.size))
            }
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob, unless a sibling has it.
    ///
    /// # Errors
    /// [`RegistryError`]; the blob is not there then.
    pub(crate) async fn send_blob(&self, blob: &Descriptor, body: &Body) -> Result<(), RegistryError> {
        for sibling in &self.siblings {
            let mount = [("mount", blob.digest.to_string()), ("from", sibling.clone())];
            match self.begin_upload(&mount).await {
                Ok(None) => return Ok(()),
                Ok(Some(url)) => return self.fill_upload(url, blob, body).await,
                // Not every registry knows how, or lets everybody look there.
                Err(RegistryError::Status { .. } | RegistryError::NotFound { .. } | RegistryError::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.begin_upload(&[]).await? {
            Some(url) => self.fill_upload(url, blob, body).await,
            None => Ok(()),
        }
    }

    /// Where to send a blob to; nothing when it was taken over from a sibling.
    async fn begin_upload(&self, query: &[(&str, String)]) -> Result<Option<Url>, RegistryError> {
        let mut url = self.endpoint.url(&format!("v2/{}/blobs/uploads/", self.repository))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let empty = Payload { length: 0, make: Arc::new(|| Ok(reqwest::Body::from(""))) };
        let ask = Ask::new(Method::POST, url).payload(empty);
        let (what, base) = (ask.what(), ask.url.clone());
        let response = self.exchange(ask).await?;
        let response = self.expect(&what, response).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        self.location(&what, &base, &response).map(Some)
    }

    /// Fills an upload that was begun, again and again if the connection breaks: from where it broke off if the registry
    /// has what came before, else from the beginning of another upload.
    async fn fill_upload(&self, url: Url, blob: &Descriptor, body: &Body) -> Result<(), RegistryError> {
        let mut upload = Upload { url, at: 0 };
        let (mut tried, mut reached) = (0, 0);
        loop {
            let was_resumed = upload.at > 0;
            let (error, asked) = match self.send_rest(&mut upload, blob, body).await {
                Ok(()) => return Ok(()),
                Err(Stopped::Broken(error)) => (error, None),
                Err(Stopped::Later(error, asked)) => (error, asked),
                // What it said that it has was not this blob's beginning.
                Err(Stopped::Refused(error)) if was_resumed => {
                    tracing::debug!(digest = %blob.digest, %error, "a resumed upload was refused");
                    upload.url = match self.begin_upload(&[]).await? {
                        Some(url) => url,
                        None => return Ok(()),
                    };
                    upload.at = 0;
                    tried += 1;
                    if tried > self.pauses.retries {
                        return Err(error);
                    }
                    continue;
                }
                Err(Stopped::Refused(error)) => return Err(error),
            };
            if tried >= self.pauses.retries {
                return Err(error);
            }
            self.pauses.wait(tried, asked).await;
            tried += 1;
            upload = match self.look_at_upload(&upload.url, blob.size).await {
                Some(upload) => upload,
                None => match self.begin_upload(&[]).await? {
                    Some(url) => Upload { url, at: 0 },
                    None => return Ok(()),
                },
            };
            tracing::debug!(digest = %blob.digest, at = upload.at, "an upload broke off and goes on");
            if upload.at >= reached + PROGRESS_BYTES {
                (tried, reached) = (0, upload.at);
            }
        }
    }

    /// Sends what the registry lacks of a blob, and ends the upload.
    async fn send_rest(&self, upload: &mut Upload, blob: &Descriptor, body: &Body) -> Result<(), Stopped> {
        let digest = blob.digest.to_string();
        let ended = |mut url: Url| {
            url.query_pairs_mut().append_pair("digest", &digest);
            Ask { is_repeatable: false, ..Ask::new(Method::PUT, url).header(CONTENT_TYPE, OCTETS) }
        };
        if upload.at == 0 {
            let payload = Payload { length: blob.size, make: sender(body.clone(), 0, blob.size) };
            return self.send_part(ended(upload.url.clone()).payload(payload)).await.map(drop);
        }
        if upload.at < blob.size {
            let left = blob.size - upload.at;
            let payload = Payload { length: left, make: sender(body.clone(), upload.at, left) };
            let ask = Ask::new(Method::PATCH, upload.url.clone())
                .header(CONTENT_TYPE, OCTETS)
                .header(CONTENT_RANGE, &format!("{}-{}", upload.at, blob.size - 1))
                .payload(payload);
            let what = ask.what();
            let response = self.send_part(Ask { is_repeatable: false, ..ask }).await?;
            upload.url = self.location(&what, &upload.url, &response).map_err(Stopped::Refused)?;
            upload.at = blob.size;
        }
        let empty = Payload { length: 0, make: Arc::new(|| Ok(reqwest::Body::from(""))) };
        self.send_part(ended(upload.url.clone()).payload(empty)).await.map(drop)
    }

    async fn send_part(&self, ask: Ask) -> Result<Response, Stopped> {
        let (what, method) = (ask.what(), ask.method.clone());
        let response = match self.exchange(ask).await {
            Ok(response) => response,
            Err(error @ (RegistryError::Connection { .. } | RegistryError::Proxied { .. })) => {
                return Err(Stopped::Broken(error));
            }
            Err(error) => return Err(Stopped::Refused(error)),
        };
        let (is_for_later, asked) = (is_for_later(response.status(), &method), asked_pause(&response));
        match self.expect(&what, response).await {
            Ok(response) => Ok(response),
            Err(error) if is_for_later => Err(Stopped::Later(error, asked)),
            Err(error) => Err(Stopped::Refused(error)),
        }
    }

    /// How far an upload came, if the registry knows that.
    async fn look_at_upload(&self, url: &Url, size: u64) -> Option<Upload> {
        let ask = Ask::new(Method::GET, url.clone());
        let what = ask.what();
        let response = self.exchange(ask).await.ok()?;
        let response = self.expect(&what, response).await.ok()?;
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
        // `0-0` is said of one byte and of none.
        if last == 0 || last >= size {
            return None;
        }
        let url = match response.headers().contains_key(LOCATION) {
            true => self.location(&what, url, &response).ok()?,
            false => url.clone(),
        };
        Some(Upload { url, at: last + 1 })
    }

    /// Where an answer says that an upload goes on.
    fn location(&self, what: &str, base: &Url, response: &Response) -> Result<Url, RegistryError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |problem| {
            let to = location.split('?').next().unwrap_or_default().chars().take(200).collect();
            RegistryError::Redirect { what: what.to_owned(), to, problem }
        };
        let url = base.join(location).map_err(|_| refused("it is no address"))?;
        if location.is_empty() || !self.endpoint.may_lead_to(&url) {
            return Err(refused("it is not encrypted"));
        }
        Ok(url)
    }

    /// Sends a document under its digest, or under a tag.
    ///
    /// # Errors
    /// [`RegistryError`], also when the registry says that it hashes to something else.
    pub(crate) async fn send_document(
        &self,
        reference: &str,
        media_type: &str,
        bytes: bytes::Bytes,
    ) -> Result<(), RegistryError> {
        let url = self.endpoint.url(&format!("v2/{}/manifests/{reference}", self.repository))?;
        let digest = Digest::of(&bytes);
        let payload =
            Payload { length: bytes.len() as u64, make: Arc::new(move || Ok(reqwest::Body::from(bytes.clone()))) };
        let ask = Ask::new(Method::PUT, url).header(CONTENT_TYPE, media_type).payload(payload);
        let what = ask.what();
        let response = self.exchange(ask).await?;
        let response = self.expect(&what, response).await?;
        let claimed = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match claimed.filter(|claimed| claimed.starts_with("sha256:") && *claimed != digest.to_string()) {
            Some(claimed) => {
                let got = claimed.chars().take(200).collect();
                Err(RegistryError::Mismatch { what, expected: digest, got })
            }
            None => Ok(()),
        }
    }
}

/// An upload, and how many bytes of its blob the registry has.
struct Upload {
    url: Url,
    at: u64,
}

/// Why a part of a blob was not taken.
enum Stopped {
    /// The connection broke.
    Broken(RegistryError),
    /// The registry has too much to do, and may have said until when.
    Later(RegistryError, Option<Duration>),
    /// It does not want it.
    Refused(RegistryError),
}

/// Makes the body of a request, the last `size` bytes, which are from `offset` on, as often as it is needed.
fn sender(body: Body, offset: u64, size: u64) -> Arc<dyn Fn() -> io::Result<reqwest::Body> + Send + Sync> {
    Arc::new(move || {
        if let Body::Made(_) = &body {
            return Ok(reqwest::Body::wrap_stream(parts_of(body.open()?, offset, size)));
        }
        let Some(mut file) = body.open_file()? else {
            let whole = body.read(offset.saturating_add(size))?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
            return Ok(reqwest::Body::from(whole.slice(from..)));
        };
        file.seek(io::SeekFrom::Start(offset))?;
        let limited = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), size);
        let parts = tokio_util::io::ReaderStream::with_capacity(limited, READ_BYTES);
        Ok(reqwest::Body::wrap_stream(parts))
    })
}

/// What a reader gives, `size` bytes from `offset` on, part by part, read where that may block.
fn parts_of(
    reader: Box<dyn Read + Send>,
    offset: u64,
    size: u64,
) -> impl futures::Stream<Item = io::Result<bytes::Bytes>> {
    futures::stream::try_unfold((reader, offset, size), |(mut reader, skip, left)| async move {
        let reading = blocking(move || -> io::Result<_> {
            if io::copy(&mut reader.by_ref().take(skip), &mut io::sink())? < skip {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut part = vec![0; READ_BYTES];
            let length = reader.by_ref().take(left).read(&mut part)?;
            part.truncate(length);
            Ok((part, (reader, 0, left - length as u64)))
        });
        let (part, rest) = reading.await?;
        Ok((!part.is_empty()).then(|| (bytes::Bytes::from(part), rest)))
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::blobs::Made;

    #[tokio::test]
    async fn the_rest_is_sent_of_whatever_holds_it_and_as_often_as_it_is_needed() {
        let bytes: Vec<u8> = (0..3 * READ_BYTES).map(|at| at as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, &bytes).expect("room");
        let made = bytes.clone();
        let made = Made::new(move || Ok(Box::new(io::Cursor::new(made.clone())) as Box<dyn Read + Send>));
        for body in [Body::Bytes(bytes.clone().into()), Body::Spooled(Arc::new(file)), Body::Made(made)] {
            for offset in [0, READ_BYTES + 5, bytes.len()] {
                let make = sender(body.clone(), offset as u64, (bytes.len() - offset) as u64);
                for _ in 0..2 {
                    let sent = make().expect("opens").collect().await.expect("reads").to_bytes();
                    assert!(sent == bytes[offset..], "{} from {offset} of {body:?}", sent.len());
                }
            }
        }
        let short = Body::Made(Made::new(|| Ok(Box::new(io::empty()) as Box<dyn Read + Send>)));
        assert!(sender(short, 1, 1)().expect("opens").collect().await.is_err());
    }
}
