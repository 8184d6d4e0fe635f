//! Descriptors: the pointers that an image is held together by.
//!
//! Imports its siblings [`digest`](super::digest), [`platform`](super::platform) and the JSON reader. A [`Descriptor`]
//! always has a well-formed digest and a size that fits a signed 64-bit integer; nothing here follows it.

use std::collections::BTreeMap;

use super::{
    Digest, DigestError, DocumentError, Platform,
    json::{Fields, JsonError, ObjectWriter, Reader, field},
};

/// Annotation that holds an image's tag in a layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation that holds an image's full name, as containerd and Docker write it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// What a URL of a blob on IPFS begins with; the rest is its CID.
pub const IPFS_URL: &str = "ipfs://";

/// Names a blob: what it is, which bytes it has, where else it may be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its hash.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Where it may be had; on IPFS, exactly one `ipfs://` URL.
    pub urls: Vec<String>,
    /// Free text, sorted by key.
    pub annotations: BTreeMap<String, String>,
    /// The blob itself, if it was inlined. Unchecked.
    pub data: Vec<u8>,
    /// What the image it names runs on.
    pub platform: Option<Platform>,
    /// What the artifact it names is; empty for images.
    pub artifact_type: String,
}

impl Descriptor {
    /// Names a blob with nothing but what is needed.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: Vec::new(),
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// Reads the first JSON value of `bytes`, which is what the root of an image is; what follows is ignored.
    ///
    /// # Errors
    /// [`DocumentError`] when it is no descriptor.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        Reader::first::<RawDescriptor>(bytes)?.check().map_err(DocumentError::from)
    }

    /// The bytes Go would write.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The CID text of the first `ipfs://` URL, unchecked.
    pub fn ipfs_cid(&self) -> Option<&str> {
        self.urls.iter().find_map(|url| url.strip_prefix(IPFS_URL))
    }

    /// The inlined bytes, if there are any and they are what the descriptor names.
    pub fn inlined(&self) -> Option<&[u8]> {
        let is_whole = !self.data.is_empty() && self.data.len() as u64 == self.size;
        (is_whole && self.digest.matches(&self.data)).then_some(&self.data)
    }

    /// Appends the bytes Go would write.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::open(out);
        object
            .string("mediaType", &self.media_type)
            .string("digest", &self.digest.to_string())
            .integer("size", self.size)
            .strings_unless_empty("urls", &self.urls)
            .map_unless_empty("annotations", &self.annotations)
            .base64_unless_empty("data", &self.data);
        if let Some(platform) = &self.platform {
            object.value("platform", |out| platform.write(out));
        }
        object.string_unless_empty("artifactType", &self.artifact_type).close();
    }
}

/// A descriptor as it was read, before its digest and size are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawDescriptor {
    media_type: String,
    digest: String,
    size: i64,
    urls: Vec<String>,
    annotations: BTreeMap<String, String>,
    data: Vec<u8>,
    platform: Option<Platform>,
    artifact_type: String,
}

impl RawDescriptor {
    /// Checks digest and size.
    pub(crate) fn check(self) -> Result<Descriptor, DescriptorError> {
        let size = u64::try_from(self.size).map_err(|_| DescriptorError::Size { size: self.size })?;
        Ok(Descriptor {
            media_type: self.media_type,
            digest: self.digest.parse()?,
            size,
            urls: self.urls,
            annotations: self.annotations,
            data: self.data,
            platform: self.platform,
            artifact_type: self.artifact_type,
        })
    }
}

impl Fields for RawDescriptor {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        const NAMES: &[&str] =
            &["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];
        match field(key, NAMES) {
            Some("mediaType") => reader.string(&mut self.media_type),
            Some("digest") => reader.string(&mut self.digest),
            Some("size") => reader.integer(&mut self.size),
            Some("urls") => reader.strings(&mut self.urls),
            Some("annotations") => reader.map(&mut self.annotations),
            Some("data") => reader.base64(&mut self.data),
            Some("platform") => reader.optional(&mut self.platform),
            Some("artifactType") => reader.string(&mut self.artifact_type),
            _ => reader.skip(),
        }
    }
}

/// Why a descriptor is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The size is negative.
    #[error("a descriptor says its blob has {size} bytes")]
    Size {
        /// What it says.
        size: i64,
    },
}
