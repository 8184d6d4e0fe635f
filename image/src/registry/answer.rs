//! Answers: what is sent of a manifest or a blob, and under which headers.
//!
//! Imports the ranges beside it. A body that cannot go on as announced ends in an error, which cuts the connection: no
//! client takes half of something for the whole.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Frame,
    header::{self, HeaderName, HeaderValue},
};
use shipfs_node::Cid;

use super::{
    error::{Code, Refusal},
    range::{Ranges, ranges},
};
use crate::oci::Digest;

/// Why a body ends before its end.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// An answer.
pub(super) type Answer = Response<Body>;
/// Bytes in their order.
pub(super) type Chunks = BoxStream<'static, Result<Bytes, BodyError>>;

/// Says what the content of an answer hashes to.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says under which CID all of the image can be had.
pub(super) const IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");

/// Something that can be read in parts.
pub(super) trait Readable: Send + Sync {
    /// Opens a part that is not empty. The first bytes are there when this returns, so that what fails before them can
    /// still be told in words.
    fn open(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Chunks, Refusal>>;
}

/// What is sent, whoever reads it.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
    /// The image that it was found in.
    pub(super) root: Option<Cid>,
    /// Whether the request named the digest, so that the answer stays true for ever.
    pub(super) is_pinned: bool,
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// An answer of a few bytes.
pub(super) fn text(media_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// Sets a header, whose text is known to be harmless.
pub(super) fn set(answer: &mut Answer, name: HeaderName, value: impl AsRef<str>) {
    if let Ok(value) = value.as_ref().parse() {
        answer.headers_mut().insert(name, value);
    }
}

/// Answers a GET or HEAD: with all of it, with the parts that were asked for, or that the client has it already.
pub(super) async fn content(
    method: &Method,
    asked: &HeaderMap,
    content: &Content,
    source: Arc<dyn Readable>,
) -> Result<Answer, Refusal> {
    let tag = format!("\"{}\"", content.digest);
    let said = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let is_same = |text: &str| {
        text.split(',')
            .any(|one| matches!(one.trim().trim_start_matches("W/"), "*") || one.trim().trim_start_matches("W/") == tag)
    };
    if said(header::IF_NONE_MATCH).is_some_and(is_same) {
        let mut answer = empty(StatusCode::NOT_MODIFIED);
        describe(&mut answer, content, &tag);
        answer.headers_mut().remove(header::CONTENT_TYPE);
        return Ok(answer);
    }
    let is_current = said(header::IF_RANGE).is_none_or(|text| text == tag);
    let asked_ranges = if is_current && method == Method::GET { said(header::RANGE) } else { None };
    let size = content.size;
    let mut answer = match ranges(asked_ranges, size) {
        Ranges::Unsatisfiable => {
            let refusal =
                Refusal::new(Code::SizeInvalid, format!("no part of the {size} bytes can be sent as asked for"));
            return Err(refusal
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
        Ranges::Whole if method == Method::HEAD || size == 0 => {
            let mut answer = empty(StatusCode::OK);
            set(&mut answer, header::CONTENT_LENGTH, size.to_string());
            answer
        }
        Ranges::Whole => streamed(StatusCode::OK, size, source.open(0..size).await?),
        Ranges::Parts(parts) if parts.len() == 1 => {
            let part = parts[0].clone();
            let length = part.end - part.start;
            let mut answer = streamed(StatusCode::PARTIAL_CONTENT, length, source.open(part.clone()).await?);
            set(&mut answer, header::CONTENT_RANGE, content_range(&part, size));
            answer
        }
        Ranges::Parts(parts) => return multipart(content, &tag, parts, source).await,
    };
    describe(&mut answer, content, &tag);
    Ok(answer)
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

fn describe(answer: &mut Answer, content: &Content, tag: &str) {
    set(answer, header::CONTENT_TYPE, &content.media_type);
    set(answer, header::ACCEPT_RANGES, "bytes");
    set(answer, header::ETAG, tag);
    set(answer, CONTENT_DIGEST, content.digest.to_string());
    set(answer, header::CACHE_CONTROL, if content.is_pinned { "max-age=31536000, immutable" } else { "no-cache" });
    if let Some(root) = content.root {
        set(answer, IPFS_PATH, format!("/ipfs/{root}"));
    }
}

fn streamed(status: StatusCode, length: u64, chunks: Chunks) -> Answer {
    let mut answer = Response::new(StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync());
    *answer.status_mut() = status;
    set(&mut answer, header::CONTENT_LENGTH, length.to_string());
    answer
}

/// Several parts, one after the other.
async fn multipart(
    content: &Content,
    tag: &str,
    parts: Vec<Range<u64>>,
    source: Arc<dyn Readable>,
) -> Result<Answer, Refusal> {
    // It cannot be told from content by a client that reads lengths, and needs not be.
    let boundary = &content.digest.hex()[..32];
    let size = content.size;
    let heads: Vec<Bytes> = parts
        .iter()
        .map(|part| {
            let range = content_range(part, size);
            let media_type = &content.media_type;
            format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n").into()
        })
        .collect();
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let lengths = heads.iter().map(|head| head.len() as u64).chain(parts.iter().map(|part| part.end - part.start));
    let length = lengths.sum::<u64>() + end.len() as u64;
    let mut opened = Some(source.clone().open(parts[0].clone()).await?);
    let bodies = heads.into_iter().zip(parts).map(move |(head, part)| {
        let (source, opened) = (source.clone(), opened.take());
        let body = async move {
            match opened {
                Some(opened) => Ok(opened),
                None => source.open(part).await.map_err(|refusal| BodyError::from(refusal.message)),
            }
        };
        stream::once(async move { Ok(head) }).chain(stream::once(body).try_flatten())
    });
    let chunks = stream::iter(bodies).flatten().chain(stream::once(async move { Ok(end) })).boxed();
    let mut answer = streamed(StatusCode::PARTIAL_CONTENT, length, chunks);
    describe(&mut answer, content, tag);
    set(&mut answer, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    Ok(answer)
}

/// Bytes in memory, whole.
impl Readable for Bytes {
    fn open(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Result<Chunks, Refusal>> {
        Box::pin(async move {
            // Both ends lie inside: the range was made for these bytes.
            let part = self.slice(range.start as usize..range.end as usize);
            Ok(stream::once(async move { Ok(part) }).boxed())
        })
    }
}
