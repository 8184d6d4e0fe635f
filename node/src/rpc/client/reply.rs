//! An answer while it arrives.
//!
//! Imports its sibling errors. The end of an answer is believed only when the trailer does not say that the daemon failed
//! half-way and the length is the one that was announced.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use reqwest::{Body, Response, header::HeaderMap};
use serde::de::DeserializeOwned;

use super::{RpcError, error};

/// Longest answer that is read as JSON, in bytes: pinning for an hour with two lines of progress a second.
pub(super) const MAX_JSON_BYTES: usize = 4 << 20;
/// Longest explanation of a failure that is read, in bytes.
pub(super) const MAX_SAID_BYTES: usize = 16 << 10;
/// The trailer in which Kubo says that it failed after it began to answer.
const STREAM_ERROR: &str = "x-stream-error";
/// The header in which Kubo says how many bytes of a file come, since a chunked body does not.
const CONTENT_LENGTH: &str = "x-content-length";

/// An answer.
pub(super) struct Reply {
    endpoint: String,
    command: &'static str,
    body: Body,
    /// Bytes that are said to come.
    pub(super) announced: Option<u64>,
    received: u64,
}

impl Reply {
    pub(super) fn new(endpoint: String, command: &'static str, response: Response) -> Self {
        let number = |headers: &HeaderMap, name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let announced = number(response.headers(), CONTENT_LENGTH);
        Self { endpoint, command, body: Body::from(response), announced, received: 0 }
    }

    /// The next bytes, waited for no longer than `wait`; `None` once all came.
    pub(super) async fn next(&mut self, wait: Duration) -> Result<Option<Bytes>, RpcError> {
        let (command, received) = (self.command, self.received);
        loop {
            let Ok(frame) = tokio::time::timeout(wait, self.body.frame()).await else {
                return Err(RpcError::Silent { endpoint: self.endpoint.clone(), command, waited: wait });
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => {
                        self.received += bytes.len() as u64;
                        if let Some(expected) = self.announced.filter(|announced| self.received > *announced) {
                            return Err(RpcError::Length { command, expected, got: self.received });
                        }
                        return Ok(Some(bytes));
                    }
                    Err(frame) => {
                        let said = frame.into_trailers().ok().and_then(|trailers| trailers.get(STREAM_ERROR).cloned());
                        if let Some(said) = said.filter(|said| !said.is_empty()) {
                            let message = error::shown(&String::from_utf8_lossy(said.as_bytes()));
                            return Err(RpcError::GaveUp { command, received, message });
                        }
                    }
                },
                Some(Err(error)) => {
                    let (endpoint, source) = (self.endpoint.clone(), super::link::root(error));
                    return Err(RpcError::Broken { endpoint, command, received, source });
                }
                None => match self.announced.filter(|announced| *announced != received) {
                    Some(expected) => return Err(RpcError::Length { command, expected, got: received }),
                    None => return Ok(None),
                },
            }
        }
    }

    /// The JSON values of a whole answer.
    pub(super) fn values<T: DeserializeOwned>(&self, body: &[u8]) -> Result<Vec<T>, RpcError> {
        let values: Result<Vec<T>, _> = serde_json::Deserializer::from_slice(body).into_iter().collect();
        values.map_err(|_| self.garbage(body))
    }

    /// An answer that makes no sense.
    pub(super) fn garbage(&self, body: &[u8]) -> RpcError {
        RpcError::Garbage { endpoint: self.endpoint.clone(), command: self.command, said: error::said(body) }
    }
}

/// Adds to what came so far, up to a limit.
pub(super) fn collect(body: &mut Vec<u8>, bytes: &[u8], limit: usize, command: &'static str) -> Result<(), RpcError> {
    if body.len() + bytes.len() > limit {
        return Err(RpcError::TooLong { command, limit: limit as u64 });
    }
    body.extend_from_slice(bytes);
    Ok(())
}
