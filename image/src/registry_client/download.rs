//! Blobs, from where they break off.
//!
//! Imports its siblings. A [`Download`] gives as many bytes as its descriptor says, however often the connection breaks;
//! who reads them checks what they hash to.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::runtime::Handle;

use super::{RegistryClient, RegistryError, endpoint::is_loopback, request::Ask};
use crate::oci::Descriptor;
use std::sync::Arc;

/// A blob on its way here.
pub(crate) struct Download {
    client: Arc<RegistryClient>,
    ask: Ask,
    size: u64,
    /// Bytes that came so far.
    at: u64,
    response: Option<Response>,
    /// Bytes of a whole answer that came before, when a part was asked for.
    skip: u64,
    /// Breaks in a row without a byte between them.
    broken: u32,
}

impl Download {
    /// Begins to fetch a blob: from the repository, else from where it says it is, if that is allowed.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Foreign`].
    pub(crate) async fn begin(client: Arc<RegistryClient>, blob: &Descriptor) -> Result<Self, RegistryError> {
        let url = client.endpoint.url(&format!("v2/{}/blobs/{}", client.repository, blob.digest))?;
        let own = Self::from(client.clone(), Ask::new(Method::GET, url), blob.size).await;
        let is_absent = matches!(&own, Err(RegistryError::NotFound { .. }));
        match blob.urls.iter().find(|url| url.starts_with("https://") || url.starts_with("http://")) {
            Some(url) if is_absent => {
                let foreign = client.foreign(url);
                let refused = || RegistryError::Foreign {
                    digest: blob.digest.clone(),
                    url: url.split('?').next().unwrap_or_default().chars().take(200).collect(),
                };
                let ask = Ask { is_let_in: false, ..Ask::new(Method::GET, foreign.ok_or_else(refused)?) };
                Self::from(client, ask, blob.size).await
            }
            _ => own,
        }
    }

    async fn from(client: Arc<RegistryClient>, ask: Ask, size: u64) -> Result<Self, RegistryError> {
        let mut download = Self { client, ask, size, at: 0, response: None, skip: 0, broken: 0 };
        download.open().await?;
        Ok(download)
    }

    /// Asks for what is left.
    async fn open(&mut self) -> Result<(), RegistryError> {
        let mut ask = self.ask.clone();
        if self.at > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.at));
        }
        let what = ask.what();
        let response = self.client.exchange(ask).await?;
        let response = self.client.expect(&what, response).await?;
        // Not every server knows ranges, and some lie about them.
        self.skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(self.at) => 0,
            StatusCode::PARTIAL_CONTENT => {
                let said = "another part than the one asked for".to_owned();
                return Err(RegistryError::Status { what, status: 206, said });
            }
            _ => self.at,
        };
        self.response = Some(response);
        Ok(())
    }

    /// The next bytes; nothing at the end. Never more than the blob's size and one byte.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        // One byte too many tells who checks that it is another blob; what follows is nobody's.
        let limit = self.size.saturating_add(1);
        while self.at < limit {
            let Some(response) = &mut self.response else {
                self.client.pauses.wait(self.broken, None).await;
                self.broken += 1;
                self.open().await?;
                continue;
            };
            let source = match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    chunk.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
                    chunk.truncate(usize::try_from(limit - self.at).unwrap_or(usize::MAX));
                    if chunk.is_empty() {
                        continue;
                    }
                    self.broken = 0;
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.at >= self.size => return Ok(None),
                Ok(None) => None,
                Err(source) => Some(source.without_url()),
            };
            self.response = None;
            if self.broken >= self.client.pauses.retries {
                let what = self.ask.what();
                return Err(match source {
                    Some(source) => RegistryError::Connection { what, source },
                    None => RegistryError::Cut { what, got: self.at, expected: self.size },
                });
            }
        }
        Ok(None)
    }

    /// The bytes for a thread that may block.
    pub(crate) fn reader(self, runtime: Handle) -> impl Read + Send {
        Reader { download: self, runtime, left: Bytes::new(), done: false }
    }
}

impl RegistryClient {
    /// An address outside the registry, if it may be asked.
    fn foreign(&self, text: &str) -> Option<Url> {
        let url: Url = text.parse().ok()?;
        let host = url.host_str()?;
        let is_allowed = self.foreign_hosts.iter().any(|allowed| allowed == host);
        let is_fit = url.scheme() == "https" || is_loopback(&url);
        (is_allowed && is_fit && url.username().is_empty() && url.password().is_none()).then_some(url)
    }
}

fn begins_at(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

struct Reader {
    download: Download,
    runtime: Handle,
    left: Bytes,
    done: bool,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() && !self.done {
            match self.runtime.block_on(self.download.chunk()).map_err(io::Error::other)? {
                Some(chunk) => self.left = chunk,
                None => self.done = true,
            }
        }
        let length = self.left.len().min(buffer.len());
        self.left.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
