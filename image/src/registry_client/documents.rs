//! Manifests and indexes: by tag or digest, read within bounds, hashed.
//!
//! Imports its siblings. Whatever a tag says, a digest that was asked for is what is given.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderName},
};

use super::{
    RegistryClient, RegistryError,
    request::{self, Ask},
};
use crate::{
    oci::{Descriptor, Digest, DocumentError, Index, MAX_DOCUMENT_BYTES, Manifest, media},
    reference::Name,
};

/// What kinds of documents are understood, the new ones first.
const ACCEPTED: [&str; 4] = [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST];
/// What a registry says that a document hashes to.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A document, and what names it.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

impl RegistryClient {
    /// Reads what `name` names: by its digest when it has one, whatever its tag.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Mismatch`] when it hashes to something else.
    pub(crate) async fn top(&self, name: &Name) -> Result<Document, RegistryError> {
        let reference = match (&name.digest, &name.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let (bytes, media_type, claimed) = self.read_document(&reference).await?;
        let what = format!("{}/{}:{reference}", name.domain, name.path);
        let digest = match &name.digest {
            Some(digest) => digest.clone(),
            // A digest in another algorithm is a name as good as ours, once it was checked.
            None => claimed.as_deref().and_then(|text| text.parse().ok()).unwrap_or_else(|| Digest::of(&bytes)),
        };
        if !digest.matches(&bytes) {
            return Err(RegistryError::Mismatch { what, expected: digest, got: Digest::of(&bytes).to_string() });
        }
        let media_type = understood(&bytes, &media_type).map_err(|source| RegistryError::Document { what, source })?;
        let descriptor = Descriptor::new(&media_type, digest, bytes.len() as u64);
        Ok(Document { descriptor, bytes })
    }

    /// Reads the document that `descriptor` names, unchecked but for its length.
    ///
    /// # Errors
    /// As [`Self::top`].
    pub(crate) async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        self.read_document(&descriptor.digest.to_string()).await.map(|(bytes, ..)| bytes)
    }

    async fn read_document(&self, reference: &str) -> Result<(Bytes, String, Option<String>), RegistryError> {
        let url = self.endpoint.url(&format!("v2/{}/manifests/{reference}", self.repository))?;
        let mut ask = Ask::new(Method::GET, url);
        for accepted in ACCEPTED {
            ask = ask.header(ACCEPT, accepted);
        }
        let what = ask.what();
        let response = self.exchange(ask).await?;
        let response = self.expect(&what, response).await?;
        let header = |name: HeaderName| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.split(';').next().unwrap_or_default().trim().to_owned())
        };
        let (media_type, claimed) = (header(CONTENT_TYPE).unwrap_or_default(), header(CONTENT_DIGEST));
        let bytes = request::read(&what, response, MAX_DOCUMENT_BYTES).await?;
        Ok((bytes.into(), media_type, claimed))
    }
}

/// What a document is: what it says itself, else what the registry says; which must not be two things.
fn understood(bytes: &[u8], announced: &str) -> Result<String, DocumentError> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Outline {
        schema_version: i64,
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline = serde_json::from_slice(bytes).unwrap_or_default();
    if outline.schema_version == 1 || announced.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err(DocumentError::Schema1);
    }
    let is_known = |media_type: &str| media::is_index(media_type) || media::is_manifest(media_type);
    let media_type = match (outline.media_type.as_str(), announced) {
        ("", announced) if is_known(announced) => announced,
        ("", _) if outline.manifests.is_some() => media::INDEX,
        ("", _) => media::MANIFEST,
        (own, announced) if is_known(announced) && own != announced => {
            let expected = if media::is_index(announced) { "an index" } else { "a manifest" };
            return Err(DocumentError::MediaType { expected, found: own.to_owned() });
        }
        (own, _) => own,
    };
    if media::is_index(media_type) {
        Index::parse(bytes)?;
    } else {
        Manifest::parse(bytes)?;
    }
    Ok(media_type.to_owned())
}
