//! What a client is told when something is not done: a status, a code of the distribution specification, a sentence.
//!
//! Imports the errors of the storage seam and of reading an image. Nothing is hidden as "not found": whether something is
//! not there, does not arrive, or is not allowed can be told by the status alone.

use std::error::Error;

use http_body_util::{BodyExt as _, Full};
use hyper::{Response, StatusCode, header};
use shipfs_node::fetch::FetchError;

use super::answer::Answer;
use crate::{
    blobs::{BlobsError, NOBODY, OFFLINE},
    bring::BringError,
    names::NamesError,
    oci::DocumentError,
    plan::PlanError,
    root::RootError,
};

/// Longest chain of causes that is told.
const MAX_CAUSES: usize = 8;

/// The error codes of the distribution specification, and Docker's for what is not to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationInvalid,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unknown,
    Unsupported,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationInvalid => "PAGINATION_NUMBER_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: Code,
    pub(super) message: String,
    /// Headers that go with the status: what would be allowed, or how to authenticate.
    pub(super) headers: Vec<(header::HeaderName, String)>,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: code.status(), code, message: message.into(), headers: Vec::new() }
    }

    /// The same with another status than its code has.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What was asked for did not arrive in time.
    pub(super) fn late(what: &str) -> Self {
        let message = format!("{what} did not arrive in time; somebody must serve it on this network");
        Self::new(Code::Unavailable, message).status(StatusCode::GATEWAY_TIMEOUT)
    }

    /// Another failure, told with its causes.
    pub(super) fn failed(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        for _ in 0..MAX_CAUSES {
            let Some(cause) = next else { break };
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = cause.source();
        }
        let (code, status) = classify(error);
        Self::new(code, message).status(status)
    }

    /// The answer that tells it.
    pub(super) fn into_answer(self) -> Answer {
        let body =
            serde_json::json!({ "errors": [{ "code": self.code.text(), "message": self.message, "detail": null }] });
        let mut answer =
            Response::new(Full::new(body.to_string().into()).map_err(|never| match never {}).boxed_unsync());
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        answer
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Error for Refusal {}

/// Whose matter a failure is: not there (404), does not arrive (504, or 503 without a network), not what it says it is
/// (502), or ours (500, 507).
fn classify(error: &(dyn Error + 'static)) -> (Code, StatusCode) {
    let mut next = Some(error);
    for _ in 0..MAX_CAUSES {
        let Some(cause) = next else { break };
        if let Some(found) = of(cause) {
            return found;
        }
        next = inner(cause).or_else(|| cause.source());
    }
    (Code::Unknown, StatusCode::INTERNAL_SERVER_ERROR)
}

/// What an error that only wraps another one wraps.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(BlobsError::Other(inner)) = error.downcast_ref() {
        return Some(&**inner);
    }
    if let Some(inner) = error.downcast_ref::<Box<BlobsError>>() {
        return Some(&**inner);
    }
    match error.downcast_ref::<BringError>() {
        Some(BringError::Root(inner)) => return Some(inner),
        Some(BringError::Blob { source, .. }) => return Some(&**source),
        _ => {}
    }
    if let Some(RootError::Blobs(inner)) = error.downcast_ref() {
        return Some(inner);
    }
    if let Some(NamesError::Blobs(inner)) = error.downcast_ref() {
        return Some(inner);
    }
    if let Some(PlanError::Read(inner)) = error.downcast_ref::<PlanError<BringError>>() {
        return Some(inner);
    }
    match error.downcast_ref() {
        Some(FetchError::Net(inner)) => Some(inner),
        Some(FetchError::Store(inner)) => Some(inner),
        _ => None,
    }
}

fn of(error: &(dyn Error + 'static)) -> Option<(Code, StatusCode)> {
    use shipfs_node::store::StoreError;
    let unavailable = Some((Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE));
    let late = Some((Code::Unavailable, StatusCode::GATEWAY_TIMEOUT));
    let wrong = Some((Code::DigestInvalid, StatusCode::BAD_GATEWAY));
    if let Some(error) = error.downcast_ref::<FetchError>() {
        return match error {
            FetchError::Offline { .. } => unavailable,
            FetchError::Unavailable { .. } => late,
            FetchError::Net(_) => unavailable,
            FetchError::Store(_) => None,
            FetchError::Stopped { .. } => unavailable,
            _ => wrong,
        };
    }
    if let Some(error) = error.downcast_ref::<BlobsError>() {
        return match error {
            BlobsError::NotFound { asked, .. } if matches!(asked.as_str(), NOBODY | OFFLINE) => unavailable,
            BlobsError::NotFound { .. } => late,
            BlobsError::Mismatch { .. } | BlobsError::TooLarge { .. } => wrong,
            BlobsError::NotAFile { .. } | BlobsError::NotADirectory { .. } => wrong,
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<RootError>() {
        return match error {
            RootError::Blobs(_) => None,
            RootError::NotAnImage { .. } | RootError::NotALayout { .. } | RootError::Images { .. } => {
                Some((Code::NameUnknown, StatusCode::NOT_FOUND))
            }
            _ => wrong,
        };
    }
    if let Some(StoreError::Full { .. }) = error.downcast_ref() {
        return Some((Code::Unavailable, StatusCode::INSUFFICIENT_STORAGE));
    }
    if let Some(NamesError::Unknown { .. } | NamesError::OtherDigest { .. }) = error.downcast_ref() {
        return Some((Code::ManifestUnknown, StatusCode::NOT_FOUND));
    }
    error.downcast_ref::<DocumentError>().map(|_| (Code::ManifestInvalid, StatusCode::BAD_GATEWAY))
}
