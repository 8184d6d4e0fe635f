//! From a request to its answer.
//!
//! Imports everything beside it. Whatever the request, the answer says which protocol this is, and a refusal says why in
//! the words of the specification.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{self, HeaderName},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    answer::{Answer, CONTENT_DIGEST, Content, IPFS_PATH, content, empty, set, text},
    blob::{Blob, Fetches},
    error::{Code, Refusal},
    guard::Guard,
    image::{Found, media_type},
    list,
    publish::Published,
    repository::{Repositories, is_manifest},
    route::{Place, Repository, Route, Wanted, query, route, tag, value},
    upload::{BODY_IDLE, Uploads},
};
use crate::{
    blobs::Blobs,
    event::Event,
    names::Image,
    oci::{Digest, Index, MAX_DOCUMENT_BYTES, media},
};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAGS: HeaderName = HeaderName::from_static("oci-tag");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";
/// Tags that one manifest is sent with.
const MAX_TAGS: usize = 64;

/// Answers requests.
pub(super) struct Handler {
    pub(super) guard: Guard,
    pub(super) fetches: Arc<Fetches>,
    pub(super) repositories: Repositories,
    pub(super) uploads: Uploads,
    /// Told of every image that is new.
    pub(super) published: Arc<dyn Fn(Vec<Image>) + Send + Sync>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What was asked, without the body.
struct Asked {
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
}

impl Handler {
    /// Answers one request.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let mut answer = self.answer(request).await.unwrap_or_else(|refusal| {
            tracing::debug!(%method, %path, status = refusal.status.as_u16(), %refusal, "refused");
            refusal.into_answer()
        });
        tracing::debug!(%method, %path, status = answer.status().as_u16(), "answered");
        set(&mut answer, API_VERSION, "registry/2.0");
        set(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        answer
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        self.guard.check(&head.headers, !is_read)?;
        let route = route(head.uri.path())?;
        let asked = Asked { query: query(head.uri.query()), method: head.method, headers: head.headers };
        if !is_read && !matches!(route, Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..)) {
            self.guard.authorize(&asked.headers)?;
        }
        match (route, asked.method.as_str()) {
            (Route::Base, "GET" | "HEAD") => self.base(&asked),
            (Route::Catalog, "GET" | "HEAD") => list::catalog(self.repositories.catalog().await?, &asked.query),
            (Route::Tags(place), "GET" | "HEAD") => self.tags(place, &asked).await,
            (Route::Referrers(place, digest), "GET" | "HEAD") => self.referrers(&place, &digest, &asked).await,
            (Route::Manifest(place, wanted), "GET" | "HEAD") => self.manifest(&place, &wanted, &asked).await,
            (Route::Blob(place, digest), "GET" | "HEAD") => self.blob(&place, &digest, &asked).await,
            (Route::Upload(place, id), "GET" | "HEAD") => self.upload_status(&named(place)?, &id).await,
            (Route::Manifest(place, wanted), "PUT") => self.put_manifest(&named(place)?, wanted, &asked, body).await,
            (Route::Manifest(place, wanted), "DELETE") => {
                self.tell(self.repositories.remove(&named(place)?, &wanted).await?);
                Ok(empty(StatusCode::ACCEPTED))
            }
            (Route::Blob(place, digest), "DELETE") => {
                self.repositories.remove_blob(&named(place)?, &digest).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            (Route::Uploads(place), "POST") => self.begin_upload(&named(place)?, &asked, body).await,
            (Route::Upload(place, id), "PATCH") => self.continue_upload(&named(place)?, &id, &asked, body).await,
            (Route::Upload(place, id), "PUT") => self.end_upload(&named(place)?, &id, &asked, body).await,
            (Route::Upload(place, id), "DELETE") => {
                self.uploads.end(&*self.uploads.find(&named(place)?, &id)?);
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (route, method) => {
                let message = format!("`{}` cannot be done here", method.escape_debug());
                Err(Refusal::new(Code::Unsupported, message).header(header::ALLOW, allowed(&route)))
            }
        }
    }

    /// Says that this is a registry; with a token, clients learn here that they need it to push.
    fn base(&self, asked: &Asked) -> Result<Answer, Refusal> {
        if self.guard.token.is_some() {
            self.guard.authorize(&asked.headers)?;
        }
        Ok(text(JSON, "{}"))
    }

    async fn tags(&self, place: Place, asked: &Asked) -> Result<Answer, Refusal> {
        match place {
            Place::Root(cid, text) => {
                self.repositories.images.open(&cid).await?;
                list::tags(&text, vec!["latest".to_owned()], &asked.query)
            }
            Place::Named(repository) => {
                let tags = self.repositories.tags(&repository).await?;
                list::tags(&repository.text, tags, &asked.query)
            }
        }
    }

    async fn referrers(&self, place: &Place, digest: &Digest, asked: &Asked) -> Result<Answer, Refusal> {
        let mut found: Vec<_> = match place {
            Place::Root(cid, _) => {
                let images = &self.repositories.images;
                images.referrers(&*images.open(cid).await?).await?.to_vec()
            }
            Place::Named(repository) => {
                let members = self.repositories.members(repository).await?;
                self.repositories.referrers(&members).await?.into_values().collect()
            }
        };
        let wanted = value(&asked.query, "artifactType");
        found.retain(|referrer| {
            referrer.subject == *digest && wanted.is_none_or(|wanted| referrer.descriptor.artifact_type == wanted)
        });
        let index = Index {
            schema_version: 2,
            media_type: media::INDEX.to_owned(),
            artifact_type: String::new(),
            manifests: Some(found.into_iter().map(|referrer| referrer.descriptor).collect()),
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let mut answer = text(media::INDEX, index.to_json());
        if wanted.is_some() {
            set(&mut answer, FILTERS_APPLIED, "artifactType");
        }
        Ok(answer)
    }

    /// What a digest names at a place.
    async fn find(&self, place: &Place, digest: &Digest) -> Result<Option<Found>, Refusal> {
        match place {
            Place::Root(cid, _) => {
                let images = &self.repositories.images;
                images.find(&*images.open(cid).await?, digest).await
            }
            Place::Named(repository) => self.repositories.blob(repository, digest).await,
        }
    }

    async fn manifest(&self, place: &Place, wanted: &Wanted, asked: &Asked) -> Result<Answer, Refusal> {
        let unknown = |what: String| Refusal::new(Code::ManifestUnknown, format!("{what} is not in this image"));
        let images = &self.repositories.images;
        let found = match (place, wanted) {
            (Place::Named(repository), wanted) => self.repositories.manifest(repository, wanted).await?,
            (Place::Root(cid, _), Wanted::Digest(digest)) => {
                let found = images.find(&*images.open(cid).await?, digest).await?;
                found.ok_or_else(|| unknown(format!("`{digest}`")))?
            }
            (Place::Root(cid, _), Wanted::Tag(tag)) => {
                let image = images.open(cid).await?;
                if tag != "latest" {
                    return Err(unknown(format!("tag `{tag}`, which is not `latest`,")));
                }
                let digest = image.root.top.digest.clone();
                images.find(&image, &digest).await?.ok_or_else(|| unknown(format!("`{digest}`")))?
            }
        };
        if !is_manifest(&found) {
            return Err(unknown(format!("`{}` as a manifest", found.digest)));
        }
        let is_pinned = matches!(wanted, Wanted::Digest(_));
        let Found { root, cid, digest, size, media_type: known } = found;
        if asked.method == Method::HEAD && !known.is_empty() {
            let told = Content { digest, size, media_type: known, root: Some(root), is_pinned };
            return content(&asked.method, &asked.headers, &told, Arc::new(Bytes::new())).await;
        }
        let bytes = images.bytes(&cid, &digest, Some(size)).await?;
        let known = if known.is_empty() { media_type(&bytes) } else { Some(known) };
        let media_type = known.ok_or_else(|| unknown(format!("`{digest}` as a manifest")))?;
        let told = Content { digest, size, media_type, root: Some(root), is_pinned };
        content(&asked.method, &asked.headers, &told, Arc::new(bytes)).await
    }

    async fn blob(&self, place: &Place, digest: &Digest, asked: &Asked) -> Result<Answer, Refusal> {
        let found = self.find(place, digest).await?;
        let found = found.ok_or_else(|| Refusal::new(Code::BlobUnknown, format!("`{digest}` is not here")))?;
        let Found { cid, digest, size, media_type, .. } = found;
        let is_told = media::is_config(&media_type) || media::is_index(&media_type) || media::is_manifest(&media_type);
        let media_type = if is_told { media_type } else { OCTETS.to_owned() };
        let told = Content { digest: digest.clone(), size, media_type, root: None, is_pinned: true };
        let blob = Blob { fetches: self.fetches.clone(), cid, digest, size };
        content(&asked.method, &asked.headers, &told, Arc::new(blob)).await
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        wanted: Wanted,
        asked: &Asked,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let content_type = asked.header(header::CONTENT_TYPE).unwrap_or_default();
        let mut all = vec![wanted];
        for (_, text) in asked.query.iter().filter(|(key, _)| key == "tag").take(MAX_TAGS) {
            all.push(Wanted::Tag(tag(text)?));
        }
        let tags: Vec<_> = asked.query.iter().filter(|(key, _)| key == "tag").map(|(_, tag)| tag.clone()).collect();
        let bytes = whole(body).await?;
        let published = self.repositories.publish(repository, all, content_type, bytes).await?;
        let Published { digest, root, subject, images } = published;
        self.tell(images);
        let mut answer = empty(StatusCode::CREATED);
        set(&mut answer, header::LOCATION, format!("/v2/{}/manifests/{digest}", repository.text));
        set(&mut answer, CONTENT_DIGEST, digest.to_string());
        set(&mut answer, IPFS_PATH, format!("/ipfs/{root}"));
        if let Some(subject) = subject {
            set(&mut answer, SUBJECT, subject.to_string());
        }
        if !tags.is_empty() {
            set(&mut answer, TAGS, tags.join(", "));
        }
        Ok(answer)
    }

    /// Tells those who want to know of images that are new here, or have a new root.
    fn tell(&self, images: Vec<Image>) {
        for image in &images {
            let name = image.own_name().map(|name| name.familiar()).unwrap_or_default();
            let text = format!("`{name}` is {}", image.root);
            tracing::info!(%name, root = %image.root, "an image was pushed");
            // Whoever shows it may be slow; the answer says it, too.
            let _ = self.events.try_send(Event::Note(text));
        }
        (self.published)(images);
    }

    async fn begin_upload(&self, repository: &Repository, asked: &Asked, body: Incoming) -> Result<Answer, Refusal> {
        if let Some(mounted) = value(&asked.query, "mount").and_then(|text| text.parse::<Digest>().ok())
            && let Some(answer) = self.mount(repository, &mounted, value(&asked.query, "from")).await?
        {
            return Ok(answer);
        }
        let upload = self.uploads.begin(repository).await?;
        if let Some(digest) = value(&asked.query, "digest") {
            let ended = self.finish(repository, &upload.id, digest, body).await;
            self.uploads.end(&upload);
            return ended;
        }
        Ok(progress(StatusCode::ACCEPTED, repository, &upload.id, 0))
    }

    /// Puts a blob that is here into another repository.
    async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<Option<Answer>, Refusal> {
        let blobs: Arc<dyn Blobs> = Arc::from((self.repositories.storage)());
        let found = match from.map(Repository::parse) {
            Some(Some(from)) => self.repositories.blob(&from, digest).await?,
            Some(None) => None,
            // From anywhere: whatever has this digest here.
            None => self.anywhere(digest).await,
        };
        let Some(found) = found else { return Ok(None) };
        // It has to be here, and to stay.
        let want = match digest.sha256() {
            Some(digest) => crate::blobs::Want::Exactly(crate::blobs::Expected { digest, size: found.size }),
            None => crate::blobs::Want::AtMost(found.size),
        };
        let Ok(file) = blobs.fetch(&found.cid, want, &|_| {}).await else { return Ok(None) };
        let expected = crate::blobs::Expected { digest: file.digest, size: file.size };
        let Some(added) =
            blobs.find(&expected.digest, Some(expected.size)).await.map_err(|error| Refusal::failed(&error))?
        else {
            return Ok(None);
        };
        self.repositories.put_loose(repository, digest.clone(), added, blobs);
        Ok(Some(created(repository, digest)))
    }

    async fn anywhere(&self, digest: &Digest) -> Option<Found> {
        let (cid, size) = match (self.repositories.loose_anywhere(digest), digest.sha256()) {
            (Some(added), _) => (added.cid, added.size),
            (None, Some(sha256)) => {
                let store = self.fetches.node.store().clone();
                let info = crate::bring::blocking(move || store.file_by_digest(&sha256).into_iter().next()).await?;
                (info.cid, info.size)
            }
            (None, None) => return None,
        };
        Some(Found { root: cid, cid, digest: digest.clone(), size, media_type: String::new() })
    }

    async fn upload_status(&self, repository: &Repository, id: &str) -> Result<Answer, Refusal> {
        let upload = self.uploads.find(repository, id)?;
        let length = upload.turn().await?.length();
        Ok(progress(StatusCode::NO_CONTENT, repository, id, length))
    }

    async fn continue_upload(
        &self,
        repository: &Repository,
        id: &str,
        asked: &Asked,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let upload = self.uploads.find(repository, id)?;
        let mut turn = upload.turn().await?;
        in_order(asked, turn.length(), repository, id)?;
        turn.append(body).await?;
        Ok(progress(StatusCode::ACCEPTED, repository, id, turn.length()))
    }

    async fn end_upload(
        &self,
        repository: &Repository,
        id: &str,
        asked: &Asked,
        body: Incoming,
    ) -> Result<Answer, Refusal> {
        let upload = self.uploads.find(repository, id)?;
        let digest = value(&asked.query, "digest");
        let digest = digest.ok_or_else(|| Refusal::new(Code::DigestInvalid, "an upload ends with `?digest=`"))?;
        {
            let turn = upload.turn().await?;
            in_order(asked, turn.length(), repository, id)?;
        }
        self.finish(repository, id, digest, body).await
    }

    /// Takes the last piece, and makes a blob of all of them.
    async fn finish(&self, repository: &Repository, id: &str, digest: &str, body: Incoming) -> Result<Answer, Refusal> {
        let upload = self.uploads.find(repository, id)?;
        let digest = super::route::digest(digest)?;
        let mut turn = upload.turn().await?;
        turn.append(body).await?;
        let blobs: Arc<dyn Blobs> = Arc::from((self.repositories.storage)());
        let added = turn.finish(&*blobs, &digest).await;
        drop(turn);
        // Right or wrong: it cannot be gone on with.
        self.uploads.end(&upload);
        self.repositories.put_loose(repository, digest.clone(), added?, blobs);
        Ok(created(repository, &digest))
    }
}

impl Asked {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Only what has a name can be changed: what a CID names never does.
fn named(place: Place) -> Result<Repository, Refusal> {
    match place {
        Place::Named(repository) => Ok(repository),
        Place::Root(..) => {
            let refusal = Refusal::new(Code::Unsupported, "what a CID names cannot be changed; push to a name");
            Err(refusal.header(header::ALLOW, "GET, HEAD"))
        }
    }
}

fn allowed(route: &Route) -> &'static str {
    match route {
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD",
        Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
        Route::Blob(..) => "GET, HEAD, DELETE",
        Route::Uploads(_) => "POST",
        Route::Upload(..) => "GET, PATCH, PUT, DELETE",
    }
}

/// Refuses a piece that does not follow the last one.
fn in_order(asked: &Asked, length: u64, repository: &Repository, id: &str) -> Result<(), Refusal> {
    let Some(range) = asked.header(header::CONTENT_RANGE) else { return Ok(()) };
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let range = range.split('/').next().unwrap_or_default();
    let start = range.split_once('-').and_then(|(start, _)| start.trim().parse::<u64>().ok());
    if start == Some(length) {
        return Ok(());
    }
    let refusal = Refusal::new(Code::BlobUploadInvalid, format!("the next piece begins at {length}"));
    Err(refusal
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
        .header(header::LOCATION, format!("/v2/{}/blobs/uploads/{id}", repository.text))
        .header(header::RANGE, format!("0-{}", length.saturating_sub(1))))
}

fn progress(status: StatusCode, repository: &Repository, id: &str, length: u64) -> Answer {
    let mut answer = empty(status);
    set(&mut answer, header::LOCATION, format!("/v2/{}/blobs/uploads/{id}", repository.text));
    set(&mut answer, header::RANGE, format!("0-{}", length.saturating_sub(1)));
    set(&mut answer, UPLOAD_UUID, id);
    answer
}

fn created(repository: &Repository, digest: &Digest) -> Answer {
    let mut answer = empty(StatusCode::CREATED);
    set(&mut answer, header::LOCATION, format!("/v2/{}/blobs/{digest}", repository.text));
    set(&mut answer, CONTENT_DIGEST, digest.to_string());
    answer
}

/// The body of a manifest.
async fn whole(body: Incoming) -> Result<Bytes, Refusal> {
    // No document is longer than a slow line brings in this time.
    let reading = Limited::new(body, MAX_DOCUMENT_BYTES as usize).collect();
    match timeout(BODY_IDLE, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("a manifest has at most {MAX_DOCUMENT_BYTES} bytes");
            Err(Refusal::new(Code::ManifestInvalid, message).status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        _ => Err(Refusal::new(Code::ManifestInvalid, "the body broke off").status(StatusCode::REQUEST_TIMEOUT)),
    }
}
