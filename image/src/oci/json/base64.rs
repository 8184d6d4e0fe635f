//! Standard base64 as Go's `encoding/json` treats `[]byte`: written padded, read leniently.
//!
//! Imports nothing of this crate. Line ends are skipped and left-over bits ignored, as Go does.

/// Encodes with the standard alphabet and padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    multibase::Base::Base64Pad.encode(bytes)
}

/// Decodes; `None` when a character, the padding or the length is wrong.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let symbols: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let mut bytes = Vec::with_capacity(symbols.len() / 4 * 3);
    let groups = symbols.len() / 4;
    for (at, group) in symbols.chunks(4).enumerate() {
        let last = at + 1 == groups;
        let kept = match group {
            [_, _, b'=', b'='] if last => 2,
            [_, _, _, b'='] if last => 3,
            [_, _, _, _] => 4,
            _ => return None,
        };
        let mut bits = 0_u32;
        for symbol in &group[..kept] {
            bits = bits << 6 | u32::from(value(*symbol)?);
        }
        bits <<= 6 * (4 - kept);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..kept]);
    }
    Some(bytes)
}

/// The six bits that a symbol stands for.
fn value(symbol: u8) -> Option<u8> {
    match symbol {
        b'A'..=b'Z' => Some(symbol - b'A'),
        b'a'..=b'z' => Some(symbol - b'a' + 26),
        b'0'..=b'9' => Some(symbol - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}
