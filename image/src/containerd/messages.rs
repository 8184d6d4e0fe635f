//! The messages of containerd's API that are sent and read here: a part of its `images`, `content`, `leases`,
//! `introspection`, `snapshots`, `diff`, `containers` and `tasks` services, version 1.
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

/// A name, the digest of content or the identifier of a container, as the whole of a question.
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

/// Something that is to be mounted.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) source: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotKey {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PrepareSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CommitSnapshot {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Apply {
    #[prost(message, optional, tag = "1")]
    pub(super) diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Applied {
    #[prost(message, optional, tag = "1")]
    pub(super) applied: Option<Descriptor>,
}

/// A message of a kind that is told beside it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Runtime {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) options: Option<Any>,
}

/// What the shim for runc is told.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RuncOptions {
    #[prost(string, tag = "6")]
    pub(super) program: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(super) image: String,
    #[prost(message, optional, tag = "4")]
    pub(super) runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    pub(super) spec: Option<Any>,
    #[prost(string, tag = "6")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "7")]
    pub(super) snapshot_key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OneContainer {
    #[prost(message, optional, tag = "1")]
    pub(super) container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateTask {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) root: Vec<Mount>,
    #[prost(string, tag = "4")]
    pub(super) input: String,
    #[prost(string, tag = "5")]
    pub(super) output: String,
    #[prost(string, tag = "6")]
    pub(super) error: String,
    #[prost(bool, tag = "7")]
    pub(super) terminal: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Kill {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(uint32, tag = "3")]
    pub(super) signal: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resize {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(uint32, tag = "3")]
    pub(super) width: u32,
    #[prost(uint32, tag = "4")]
    pub(super) height: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CloseStreams {
    #[prost(string, tag = "1")]
    pub(super) container: String,
    #[prost(bool, tag = "3")]
    pub(super) input: bool,
}

/// How a task ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ended {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
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

    /// What containerd's own Go module, `api` 1.12, makes of the same messages.
    #[test]
    fn messages_about_containers_are_encoded_as_containerd_does() {
        let text = |text: &str| text.to_owned();
        let any = |kind: &str, value: &[u8]| Some(Any { kind: kind.into(), value: value.to_vec() });
        let mount = Mount { kind: text("t"), source: text("s"), options: vec![text("o"), text("p")] };
        let (input, output, error) = (text("i"), text("o"), text("e"));
        let task = CreateTask { container: text("c"), root: vec![mount.clone()], input, output, error, terminal: true };
        let expected = b"\n\x01c\x1a\x0c\n\x01t\x12\x01s\"\x01o\"\x01p\"\x01i*\x01o2\x01e8\x01";
        assert_eq!(task.encode_to_vec(), expected);
        let container = Container {
            id: text("c"),
            labels: BTreeMap::from([(text("k"), text("v"))]),
            image: text("i"),
            runtime: Some(Runtime { name: text("r"), options: any("u", b"x") }),
            spec: any("s", b"{}"),
            snapshotter: text("o"),
            snapshot_key: text("n"),
        };
        let expected = b"\n*\n\x01c\x12\x06\n\x01k\x12\x01v\x1a\x01i\"\x0b\n\x01r\x12\x06\n\x01u\x12\x01x*\x07\n\x01s\x12\x02{}2\x01o:\x01n";
        assert_eq!(OneContainer { container: Some(container) }.encode_to_vec(), expected);
        let layer = Descriptor { media_type: text("m"), digest: text("d"), size: 300, annotations: BTreeMap::new() };
        let apply = Apply { diff: Some(layer), mounts: vec![mount] };
        let expected = b"\n\x09\n\x01m\x12\x01d\x18\xac\x02\x12\x0c\n\x01t\x12\x01s\"\x01o\"\x01p";
        assert_eq!(apply.encode_to_vec(), expected);
        let commit = CommitSnapshot { snapshotter: text("o"), name: text("n"), key: text("k") };
        assert_eq!(commit.encode_to_vec(), b"\n\x01o\x12\x01n\x1a\x01k");
        let prepare = PrepareSnapshot { snapshotter: text("o"), key: text("k"), parent: text("p") };
        assert_eq!(prepare.encode_to_vec(), b"\n\x01o\x12\x01k\x1a\x01p");
        assert_eq!(Kill { container: text("c"), signal: 15 }.encode_to_vec(), b"\n\x01c\x18\x0f");
        assert_eq!(Resize { container: text("c"), width: 80, height: 24 }.encode_to_vec(), b"\n\x01c\x18P \x18");
        assert_eq!(CloseStreams { container: text("c"), input: true }.encode_to_vec(), b"\n\x01c\x18\x01");
        assert_eq!(RuncOptions { program: text("b") }.encode_to_vec(), b"2\x01b");
        assert_eq!(Ended::decode(&b"\x08\x89\x01"[..]).expect("decodes").code, 137);
    }
}
