//! The table of contents: an entry for each file, and more for each further chunk of a large one.
//!
//! Imports the JSON writer of [`oci`](crate::oci) for its escapes. Fields have the order and the names of upstream's, and
//! those that say nothing are left out. Everything read here is unchecked: [`Estargz`](super::Estargz) checks it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::oci::json::write_string;

/// What stands before the first entry of a table, and after the last one.
pub(super) const TOC_START: &[u8] = b"{\n\t\"version\": 1,\n\t\"entries\": [";
pub(super) const TOC_END: &[u8] = b"\n\t]\n}";

/// One entry, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct TocEntry {
    /// The name in the archive; of a chunk, that of its file.
    pub name: String,
    /// `dir`, `reg`, `symlink`, `hardlink`, `char`, `block`, `fifo`, or `chunk` for what follows of a file.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a file.
    pub size: u64,
    /// When it was modified, in RFC 3339 to the second; empty for the beginning of 1970.
    pub modtime: String,
    /// Target of a link.
    pub link_name: String,
    /// The mode as the archive says it.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, where it is another one than the last that was said for this number.
    pub user_name: String,
    /// Name of the group, likewise.
    pub group_name: String,
    /// Where the member that holds the chunk begins, in compressed bytes.
    pub offset: u64,
    /// Where the chunk begins in its member, in uncompressed bytes.
    pub inner_offset: u64,
    /// Major number of a device.
    pub dev_major: u32,
    /// Minor number of a device.
    pub dev_minor: u32,
    /// Extended attributes.
    #[serde(deserialize_with = "xattrs")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Digest of the file.
    pub digest: String,
    /// Where in its file the chunk begins.
    pub chunk_offset: u64,
    /// Bytes of the chunk; 0 when it goes to the end of its file.
    pub chunk_size: u64,
    /// Digest of the chunk.
    pub chunk_digest: String,
}

impl TocEntry {
    /// Whether it names bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.kind == "chunk" || (self.kind == "reg" && self.size > 0)
    }

    /// Appends it as JSON, indented as an element of the table's list.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\n\t\t{");
        let mut fields = Fields { out, first: true };
        fields.value("name", |out| write_string(out, &self.name));
        fields.value("type", |out| write_string(out, &self.kind));
        fields.number("size", self.size);
        fields.text("modtime", &self.modtime);
        fields.text("linkName", &self.link_name);
        fields.number("mode", self.mode.into());
        fields.number("uid", self.uid.into());
        fields.number("gid", self.gid.into());
        fields.text("userName", &self.user_name);
        fields.text("groupName", &self.group_name);
        fields.number("offset", self.offset);
        fields.number("innerOffset", self.inner_offset);
        fields.number("devMajor", self.dev_major.into());
        fields.number("devMinor", self.dev_minor.into());
        if !self.xattrs.is_empty() {
            fields.value("xattrs", |out| write_xattrs(out, &self.xattrs));
        }
        fields.text("digest", &self.digest);
        fields.number("chunkOffset", self.chunk_offset);
        fields.number("chunkSize", self.chunk_size);
        fields.text("chunkDigest", &self.chunk_digest);
        out.extend_from_slice(b"\n\t\t}");
    }
}

/// The members of one entry, a line each.
struct Fields<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Fields<'_> {
    fn value(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        self.out.extend_from_slice(format!("{comma}\n\t\t\t\"{name}\": ").as_bytes());
        write(self.out);
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.value(name, |out| write_string(out, text));
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        if number != 0 {
            self.value(name, |out| out.extend_from_slice(number.to_string().as_bytes()));
        }
    }
}

fn write_xattrs(out: &mut Vec<u8>, xattrs: &BTreeMap<String, Vec<u8>>) {
    for (at, (name, value)) in xattrs.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\n\t\t\t\t" } else { b",\n\t\t\t\t" });
        write_string(out, name);
        out.extend_from_slice(b": ");
        write_string(out, &STANDARD.encode(value));
    }
    out.extend_from_slice(b"\n\t\t\t}");
}

fn xattrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let decoded = texts.into_iter().map(|(name, text)| Ok((name, STANDARD.decode(text).map_err(D::Error::custom)?)));
    decoded.collect()
}
