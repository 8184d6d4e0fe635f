//! An image's configuration whose layers became others: the one thing of it that is ever rewritten.
//!
//! Imports [`oci`](crate::oci). The result is what containerd's converter writes: keys sorted, every value that is not
//! concerned with its own text but for blanks, and no `Image` that names what no longer is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::oci::{Digest, json::write_string};

/// Members of an object, each as it is written; of two with one name the last.
type Object<'j> = BTreeMap<String, &'j RawValue>;

/// A configuration in which the digests of decompressed layers are replaced; `None` when none of them is one of those.
///
/// # Errors
/// When it is no JSON object of the right types.
pub(super) fn with_diff_ids(config: &[u8], became: &BTreeMap<Digest, Digest>) -> Result<Option<Vec<u8>>, ConfigError> {
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    let mut object: Object<'_> = serde_json::from_slice(config)?;
    let Some(rootfs) = object.get("rootfs") else { return Ok(None) };
    let Some(RootFs { kind, diff_ids }) = serde_json::from_str::<Option<RootFs>>(rootfs.get())? else {
        return Ok(None);
    };
    let new = |old: &String| old.parse().ok().and_then(|old: Digest| became.get(&old)).map(Digest::to_string);
    if kind != "layers" || !diff_ids.iter().any(|old| new(old).is_some_and(|new| new != *old)) {
        return Ok(None);
    }
    let mut changed: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut rootfs = br#"{"type":"layers","diff_ids":["#.to_vec();
    for (at, old) in diff_ids.iter().enumerate() {
        if at > 0 {
            rootfs.push(b',');
        }
        write_string(&mut rootfs, &new(old).unwrap_or_else(|| old.clone()));
    }
    rootfs.extend_from_slice(b"]}");
    changed.insert("rootfs", rootfs);
    for name in ["config", "container_config"] {
        // Nothing, or `null`, stays that.
        let Some(Some(mut inner)) =
            object.get(name).map(|value| serde_json::from_str::<Option<Object<'_>>>(value.get())).transpose()?
        else {
            continue;
        };
        inner.remove("Image");
        let mut text = Vec::new();
        write_object(&mut text, inner.into_iter().map(|(name, value)| (name, compact(value))));
        changed.insert(name, text);
    }
    let mut out = Vec::new();
    let members = std::mem::take(&mut object).into_iter().map(|(name, value)| {
        let text = changed.remove(&*name).unwrap_or_else(|| compact(value));
        (name, text)
    });
    write_object(&mut out, members);
    Ok(Some(out))
}

fn write_object(out: &mut Vec<u8>, members: impl Iterator<Item = (String, Vec<u8>)>) {
    out.push(b'{');
    for (at, (name, value)) in members.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(out, &name);
        out.push(b':');
        out.extend_from_slice(&value);
    }
    out.push(b'}');
}

/// A value without blanks between its parts, and with what Go escapes in text escaped.
fn compact(value: &RawValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.get().len());
    let (mut in_text, mut escaped) = (false, false);
    for character in value.get().chars() {
        match character {
            ' ' | '\t' | '\r' | '\n' if !in_text => continue,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        in_text ^= character == '"' && !escaped;
        escaped = in_text && character == '\\' && !escaped;
    }
    out
}

/// Why a configuration could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("it is not the JSON of a configuration")]
pub struct ConfigError(#[from] serde_json::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_concerned_changes() {
        let (one, two, new) = (Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3"));
        let config = format!(
            r#" {{"os": "linux", "z": [1.0, {{"b": 1e2, "a": "x \" y <&"}}], "config": {{"Image": "sha256:00", "Cmd": ["a b"], "Aaa": null}},
            "container_config": null, "rootfs": {{"type": "layers", "more": 1, "diff_ids": ["{one}", "{two}", "{one}"]}} }} "#
        );
        let became = BTreeMap::from([(one.clone(), new.clone())]);
        let changed = with_diff_ids(config.as_bytes(), &became).expect("a configuration").expect("changes");
        let expected = format!(
            r#"{{"config":{{"Aaa":null,"Cmd":["a b"]}},"container_config":null,"os":"linux","rootfs":{{"type":"layers","diff_ids":["{new}","{two}","{new}"]}},"z":[1.0,{{"b":1e2,"a":"x \" y \u003c\u0026"}}]}}"#
        );
        assert_eq!(String::from_utf8(changed).expect("text"), expected);
        for none in [
            BTreeMap::new(),
            BTreeMap::from([(new.clone(), one.clone())]),
            BTreeMap::from([(one.clone(), one.clone())]),
        ] {
            assert_eq!(with_diff_ids(config.as_bytes(), &none).expect("a configuration"), None);
        }
        for other in ["{}", r#"{"rootfs":null}"#, r#"{"rootfs":{"type":"x","diff_ids":[]}}"#] {
            assert_eq!(with_diff_ids(other.as_bytes(), &became).expect("a configuration"), None);
        }
        for wrong in ["", "[]", r#"{"rootfs":5}"#] {
            assert!(with_diff_ids(wrong.as_bytes(), &became).is_err(), "{wrong}");
        }
    }
}
