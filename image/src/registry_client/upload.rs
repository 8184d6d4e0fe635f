//! Blobs and documents on their way to a registry.
//!
//! Imports its siblings. What is there is not sent; what a sibling repository has is taken over from it; everything else
//! is sent in one piece, again if the connection breaks.

use std::{io, sync::Arc};

use reqwest::{
    Method, StatusCode, Url,
    header::{CONTENT_TYPE, LOCATION},
};

use super::{
    RegistryClient, RegistryError,
    request::{Ask, Payload},
};
use crate::{
    blobs::Body,
    oci::{Descriptor, Digest},
};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;
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
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |problem| {
            let to = location.split('?').next().unwrap_or_default().chars().take(200).collect();
            RegistryError::Redirect { what: what.clone(), to, problem }
        };
        let url = base.join(location).map_err(|_| refused("it is no address"))?;
        if location.is_empty() || !self.endpoint.may_lead_to(&url) {
            return Err(refused("it is not encrypted"));
        }
        Ok(Some(url))
    }

    async fn fill_upload(&self, mut url: Url, blob: &Descriptor, body: &Body) -> Result<(), RegistryError> {
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let payload = Payload { length: blob.size, make: sender(body.clone(), blob.size) };
        let ask = Ask::new(Method::PUT, url).header(CONTENT_TYPE, OCTETS).payload(payload);
        let what = ask.what();
        let response = self.exchange(ask).await?;
        self.expect(&what, response).await.map(drop)
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

/// Makes the body of a request, as often as it is needed.
fn sender(body: Body, size: u64) -> Arc<dyn Fn() -> io::Result<reqwest::Body> + Send + Sync> {
    Arc::new(move || {
        let Some(file) = body.open_file()? else { return Ok(reqwest::Body::from(body.read(size)?)) };
        let limited = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file), size);
        let parts = tokio_util::io::ReaderStream::with_capacity(limited, READ_BYTES);
        Ok(reqwest::Body::wrap_stream(parts))
    })
}
