//! What a running push, pull, load or save tells whoever watches it.
//!
//! An [`Event`] is plain data that survives a socket; an [`EventSink`] takes them. This module imports nothing of this
//! crate. It never renders, never blocks, and no operation depends on an event having arrived.

use serde::{Deserialize, Serialize};

/// What role a blob has in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// What the image's CID names: the top descriptor's JSON, or the directory of a layout.
    Root,
    /// A list of manifests.
    Index,
    /// One platform's manifest.
    Manifest,
    /// An image configuration.
    Config,
    /// A filesystem layer.
    Layer,
    /// Anything else, an attestation for instance.
    Other,
}

/// How a blob was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was read from the source, and it is in the store now.
    Stored,
    /// It was in the store already; nothing was read or fetched.
    Present,
    /// It came from a peer, and it is in the store now.
    Fetched,
    /// It was written to a sink outside the store.
    Written,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Work on a blob begins. Sent exactly once for each blob and each direction, before its other events.
    Started {
        /// The blob's digest (`sha256:…`), or its CID where no digest is known yet; names it in the later events.
        digest: String,
        /// Its role.
        kind: BlobKind,
        /// Its size in bytes as declared; 0 when unknown.
        size: u64,
    },
    /// Bytes went through. May be skipped, may be merged; never goes backwards.
    Progress {
        /// The blob.
        digest: String,
        /// Bytes done so far, in total.
        bytes: u64,
    },
    /// A blob is done. Sent exactly once for each blob that was started, unless the operation fails.
    Finished {
        /// The blob.
        digest: String,
        /// How it was dealt with.
        outcome: Outcome,
    },
    /// Something a user may want to know.
    Note(#[serde(with = "text")] String),
    /// Something a user should look at, though the operation goes on.
    Warning(#[serde(with = "text")] String),
}

/// Takes events. `()` is the silent one.
pub trait EventSink: Send + Sync {
    /// Takes one event. Must not block: an operation calls this between two reads of a layer.
    fn emit(&self, event: Event);
}

impl EventSink for () {
    fn emit(&self, _event: Event) {}
}

impl<S: EventSink + ?Sized> EventSink for &S {
    fn emit(&self, event: Event) {
        (**self).emit(event);
    }
}

impl<S: EventSink + ?Sized> EventSink for std::sync::Arc<S> {
    fn emit(&self, event: Event) {
        (**self).emit(event);
    }
}

/// Writes a bare string as `{"text": …}`, since a tagged enum can only hold objects.
mod text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text {
        text: String,
    }

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        Text { text: text.to_owned() }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Text::deserialize(deserializer).map(|text| text.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_json() {
        let events = [
            Event::Started { digest: "sha256:ab".into(), kind: BlobKind::Layer, size: 7 },
            Event::Progress { digest: "sha256:ab".into(), bytes: 3 },
            Event::Finished { digest: "sha256:ab".into(), outcome: Outcome::Stored },
            Event::Note("a".into()),
            Event::Warning("b".into()),
        ];
        let lines: Vec<_> = events.iter().map(|event| serde_json::to_string(event).expect("serialises")).collect();
        assert_eq!(lines[0], r#"{"event":"started","digest":"sha256:ab","kind":"layer","size":7}"#);
        assert_eq!(lines[3], r#"{"event":"note","text":"a"}"#);
        for (event, line) in events.iter().zip(&lines) {
            assert_eq!(&serde_json::from_str::<Event>(line).expect("parses"), event);
        }
    }
}
