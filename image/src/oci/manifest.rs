//! Manifests and indexes: parsing within bounds, and writing as Go does.
//!
//! Imports its siblings. A document that could be read as both kinds is refused, and nothing is held of one that is too
//! large. Unknown fields are dropped, since the tools whose CIDs we match drop them.

use std::collections::BTreeMap;

use super::{
    Descriptor, DocumentError, MAX_DOCUMENT_BYTES,
    descriptor::RawDescriptor,
    json::{Fields, JsonError, ObjectWriter, Reader, field, write_array},
    media,
};

/// One platform's image: a configuration and its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// 2 in every manifest that means anything.
    pub schema_version: i64,
    /// What it says it is; empty when it does not.
    pub media_type: String,
    /// What the artifact is; empty for images.
    pub artifact_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first; absent when it says `null` or nothing.
    pub layers: Option<Vec<Descriptor>>,
    /// What it is about.
    pub subject: Option<Descriptor>,
    /// Free text, sorted by key.
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// 2 in every index that means anything.
    pub schema_version: i64,
    /// What it says it is; empty when it does not.
    pub media_type: String,
    /// What the artifact is; empty for images.
    pub artifact_type: String,
    /// The manifests, in order; absent when it says `null` or nothing.
    pub manifests: Option<Vec<Descriptor>>,
    /// What it is about.
    pub subject: Option<Descriptor>,
    /// Free text, sorted by key.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`DocumentError`] says which rule it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw = RawDocument::parse(bytes)?;
        if raw.has_manifests {
            return Err(DocumentError::Confused { expected: "a manifest", found: "`manifests`" });
        }
        if !raw.media_type.is_empty() && !media::is_manifest(&raw.media_type) {
            return Err(DocumentError::MediaType { expected: "a manifest", found: raw.media_type });
        }
        let layers = raw.layers.map(check_all).transpose()?;
        Ok(Self {
            schema_version: raw.schema_version,
            media_type: raw.media_type,
            artifact_type: raw.artifact_type,
            config: raw.config.check()?,
            layers,
            subject: raw.subject.map(RawDescriptor::check).transpose()?,
            annotations: raw.annotations,
        })
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        self.layers.as_deref().unwrap_or_default()
    }

    /// The bytes Go would write.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = ObjectWriter::open(&mut out);
        object
            .integer("schemaVersion", self.schema_version)
            .string_unless_empty("mediaType", &self.media_type)
            .string_unless_empty("artifactType", &self.artifact_type)
            .value("config", |out| self.config.write(out))
            .value("layers", |out| write_descriptors(out, self.layers.as_deref()));
        close(object, self.subject.as_ref(), &self.annotations);
        out
    }
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`DocumentError`] says which rule it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw = RawDocument::parse(bytes)?;
        if raw.has_config || raw.has_layers {
            let found = if raw.has_config { "`config`" } else { "`layers`" };
            return Err(DocumentError::Confused { expected: "an index", found });
        }
        if !raw.media_type.is_empty() && !media::is_index(&raw.media_type) {
            return Err(DocumentError::MediaType { expected: "an index", found: raw.media_type });
        }
        Ok(Self {
            schema_version: raw.schema_version,
            media_type: raw.media_type,
            artifact_type: raw.artifact_type,
            manifests: raw.manifests.map(check_all).transpose()?,
            subject: raw.subject.map(RawDescriptor::check).transpose()?,
            annotations: raw.annotations,
        })
    }

    /// The manifests, in order.
    pub fn manifests(&self) -> &[Descriptor] {
        self.manifests.as_deref().unwrap_or_default()
    }

    /// The bytes Go would write.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = ObjectWriter::open(&mut out);
        object
            .integer("schemaVersion", self.schema_version)
            .string_unless_empty("mediaType", &self.media_type)
            .string_unless_empty("artifactType", &self.artifact_type)
            .value("manifests", |out| write_descriptors(out, self.manifests.as_deref()));
        close(object, self.subject.as_ref(), &self.annotations);
        out
    }
}

fn write_descriptors(out: &mut Vec<u8>, list: Option<&[Descriptor]>) {
    match list {
        Some(list) => write_array(out, list, |out, descriptor| descriptor.write(out)),
        None => out.extend_from_slice(b"null"),
    }
}

fn close(mut object: ObjectWriter<'_>, subject: Option<&Descriptor>, annotations: &BTreeMap<String, String>) {
    if let Some(subject) = subject {
        object.value("subject", |out| subject.write(out));
    }
    object.map_unless_empty("annotations", annotations).close();
}

fn check_all(list: Vec<RawDescriptor>) -> Result<Vec<Descriptor>, DocumentError> {
    list.into_iter().map(|raw| raw.check().map_err(DocumentError::from)).collect()
}

/// Every field that either kind of document has, so that one with both is seen for what it is.
#[derive(Default)]
struct RawDocument {
    schema_version: i64,
    media_type: String,
    artifact_type: String,
    config: RawDescriptor,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: BTreeMap<String, String>,
    has_config: bool,
    has_layers: bool,
    has_manifests: bool,
    is_schema_1: bool,
}

impl RawDocument {
    fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge { size: bytes.len() as u64 });
        }
        let raw: Self = Reader::document(bytes)?;
        if raw.is_schema_1 { Err(DocumentError::Schema1) } else { Ok(raw) }
    }
}

impl Fields for RawDocument {
    fn fill(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        const NAMES: &[&str] = &[
            "schemaVersion",
            "mediaType",
            "artifactType",
            "config",
            "layers",
            "manifests",
            "subject",
            "annotations",
            "fsLayers",
        ];
        match field(key, NAMES) {
            Some("schemaVersion") => reader.integer(&mut self.schema_version),
            Some("mediaType") => reader.string(&mut self.media_type),
            Some("artifactType") => reader.string(&mut self.artifact_type),
            Some("config") => {
                self.has_config = true;
                reader.fields(&mut self.config)
            }
            Some("layers") => {
                self.has_layers = true;
                reader.structs(&mut self.layers)
            }
            Some("manifests") => {
                self.has_manifests = true;
                reader.structs(&mut self.manifests)
            }
            Some("subject") => reader.optional(&mut self.subject),
            Some("annotations") => reader.map(&mut self.annotations),
            Some("fsLayers") => {
                self.is_schema_1 = true;
                reader.skip()
            }
            _ => reader.skip(),
        }
    }
}
