//! A writer with the bytes of Go's `json.Marshal`: no blanks, HTML characters escaped, empty fields left out on demand.
//!
//! Imports its sibling's base64. It never fails: every value these types hold can be written.

use std::collections::BTreeMap;

use super::base64;

/// Writes the members of one object in the order they are given.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object at the end of `out`.
    pub(crate) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a member whose value `write` appends. Names are ours and need no escaping.
    pub(crate) fn value(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        write(self.out);
        self
    }

    /// Writes a string, even an empty one.
    pub(crate) fn string(&mut self, name: &str, text: &str) -> &mut Self {
        self.value(name, |out| write_string(out, text))
    }

    /// Writes a string unless it is empty.
    pub(crate) fn string_unless_empty(&mut self, name: &str, text: &str) -> &mut Self {
        if text.is_empty() { self } else { self.string(name, text) }
    }

    /// Writes a number.
    pub(crate) fn integer(&mut self, name: &str, number: impl std::fmt::Display) -> &mut Self {
        self.value(name, |out| out.extend_from_slice(number.to_string().as_bytes()))
    }

    /// Writes a list of strings unless it is empty.
    pub(crate) fn strings_unless_empty(&mut self, name: &str, list: &[String]) -> &mut Self {
        if list.is_empty() {
            return self;
        }
        self.value(name, |out| write_array(out, list, |out, text| write_string(out, text)))
    }

    /// Writes a map, sorted by the bytes of its keys, unless it is empty.
    pub(crate) fn map_unless_empty(&mut self, name: &str, map: &BTreeMap<String, String>) -> &mut Self {
        if map.is_empty() {
            return self;
        }
        self.value(name, |out| {
            for (at, (key, value)) in map.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                write_string(out, key);
                out.push(b':');
                write_string(out, value);
            }
            out.push(b'}');
        })
    }

    /// Writes bytes as base64 unless there are none.
    pub(crate) fn base64_unless_empty(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        if bytes.is_empty() { self } else { self.string(name, &base64::encode(bytes)) }
    }

    /// Closes the object.
    pub(crate) fn close(&mut self) {
        self.out.push(b'}');
    }
}

/// Writes a list whose elements `write` appends.
pub(crate) fn write_array<T>(out: &mut Vec<u8>, list: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, element) in list.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

/// Writes a string with Go's escapes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '<' | '>' | '&' | '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
