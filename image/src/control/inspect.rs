//! Everything known about an image, as JSON.
//!
//! Imports [`inspect`](crate::inspect). Text in it comes from whoever made the image: whoever shows it escapes it.

use serde_json::{Value, json};

use super::{Failure, Reply, explain::explain};
use crate::{
    blobs::Blobs,
    inspect::{self, Inspected},
    names::Image,
    oci::Descriptor,
};

/// Describes an image.
pub(super) async fn inspect(blobs: &dyn Blobs, image: &Image) -> Result<Reply, Failure> {
    let seen = inspect::inspect(blobs, &image.root, &image.platforms()).await.map_err(|error| explain(&error))?;
    Ok(Reply::Inspected(described(image, &seen)))
}

fn described(image: &Image, seen: &Inspected) -> Value {
    let documents = seen.plan.documents().into_iter().filter_map(|part| {
        let body = parsed(&part.document.as_ref()?.bytes);
        Some(json!({ "descriptor": descriptor(&part.descriptor), "body": body }))
    });
    json!({
        "name": image.own_name().map(|name| name.familiar()),
        "cid": image.root.to_string(),
        "root": seen.root.shape(),
        "incomplete": image.incomplete,
        "platforms": seen.configs.iter().map(|config| config.parsed.platform.to_string()).collect::<Vec<_>>(),
        "size": seen.plan.size(),
        "descriptor": descriptor(&seen.root.top),
        "documents": documents.collect::<Vec<_>>(),
        "configs": seen.configs.iter().map(|config| parsed(&config.bytes)).collect::<Vec<_>>(),
        "blobs": seen.plan.blobs().into_iter().map(descriptor).collect::<Vec<_>>(),
        "members": image.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn descriptor(descriptor: &Descriptor) -> Value {
    parsed(&descriptor.to_json())
}

/// JSON as a value; as text, where it is none after all.
fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
