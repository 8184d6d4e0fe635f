//! The messages of containerd's API that are sent and read here: a part of its `images`, `content`, `leases` and
//! `introspection` services, version 1.
//!
//! Imports nothing of this crate. Written by hand after the published `.proto` files, whose numbers never change; fields
//! that are not used here are left out, which the encoding allows.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Descriptor>,
}

/// A name, or the digest of content, as the whole of a question.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ByName {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// An image as the whole of a question or an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OneImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub(super) paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateImage {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub(super) update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(int64, tag = "2")]
    pub(super) size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OneInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Info>,
    #[prost(message, optional, tag = "2")]
    pub(super) update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Read {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ReadPart {
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: bytes::Bytes,
}

/// Say how far it is.
pub(super) const STAT: i32 = 0;
/// Take these bytes.
pub(super) const WRITE: i32 = 1;
/// Take these bytes, if any, and show it.
pub(super) const COMMIT: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Write {
    #[prost(int32, tag = "1")]
    pub(super) action: i32,
    #[prost(string, tag = "2")]
    pub(super) reference: String,
    #[prost(int64, tag = "3")]
    pub(super) total: i64,
    #[prost(string, tag = "4")]
    pub(super) expected: String,
    #[prost(int64, tag = "5")]
    pub(super) offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) data: bytes::Bytes,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Written {
    #[prost(int64, tag = "4")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateLease {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AddResource {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Filters {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Plugin {
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) exports: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Plugins {
    #[prost(message, repeated, tag = "1")]
    pub(super) plugins: Vec<Plugin>,
}

/// An answer that says nothing, or nothing that is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// What `protoc --encode` of libprotoc 3.21 gives for the same messages and containerd's own `.proto` files.
    #[test]
    fn messages_are_encoded_as_containerd_does() {
        let image = Image {
            name: "a".into(),
            labels: BTreeMap::from([("k".into(), "v".into())]),
            target: Some(Descriptor {
                media_type: "m".into(),
                digest: "d".into(),
                size: 300,
                annotations: BTreeMap::new(),
            }),
        };
        let update = UpdateImage { image: Some(image), update_mask: Some(FieldMask { paths: vec!["target".into()] }) };
        let bytes = update.encode_to_vec();
        assert_eq!(
            bytes,
            b"\x0a\x16\x0a\x01a\x12\x06\x0a\x01k\x12\x01v\x1a\x09\x0a\x01m\x12\x01d\x18\xac\x02\x12\x08\x0a\x06target"
        );
        let write = Write {
            action: COMMIT,
            reference: "r".into(),
            total: 5,
            expected: "e".into(),
            offset: 4,
            data: bytes::Bytes::from_static(b"x"),
            labels: BTreeMap::new(),
        };
        assert_eq!(write.encode_to_vec(), b"\x08\x02\x12\x01r\x18\x05\x22\x01e\x28\x04\x32\x01x");
    }
}
