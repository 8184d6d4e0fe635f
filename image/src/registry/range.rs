//! Which parts of a blob a request asks for.
//!
//! Imports nothing of this crate. Pure. What it allows is bounded: no request makes more bytes than the blob has.

use std::ops::Range;

/// Most ranges of one request. Nobody is known to send more than one; a lazy reader has use for a few.
const MAX_RANGES: usize = 16;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// All of it.
    Whole,
    /// These parts, each of at least one byte, in the order they were asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing: no part that was asked for is there, or too much was asked for.
    Unsatisfiable,
}

/// Reads a `Range` header for something of `size` bytes. Units that are not known, and what is no range at all, mean the
/// whole, as HTTP says.
pub(super) fn ranges(header: Option<&str>, size: u64) -> Ranges {
    let Some(list) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Ranges::Whole };
    let mut parts: Vec<Range<u64>> = Vec::new();
    for (count, text) in list.split(',').enumerate() {
        if count == MAX_RANGES {
            return Ranges::Unsatisfiable;
        }
        match range(text.trim(), size) {
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
            None => return Ranges::Whole,
        }
    }
    // Ranges that overlap, and more than one of them only to get more bytes than there are.
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.start);
    if parts.is_empty() || sorted.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Ranges::Unsatisfiable;
    }
    Ranges::Parts(parts)
}

/// One range: empty when it lies outside, nothing when it is none.
fn range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More than 64 bits is past the end of everything.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first, last) {
        ("", last) => Some(size.saturating_sub(number(last)?)..size),
        (first, "") => Some(number(first)?.min(size)..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            // Backwards is not satisfiable, rather than ignored: whoever sent it does not want the whole.
            Some(first.min(size)..last.saturating_add(1).min(size).max(first.min(size)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(u64, u64)]) -> Ranges {
        Ranges::Parts(parts.iter().map(|(start, end)| *start..*end).collect())
    }

    #[test]
    fn ranges_are_those_of_http() {
        for (text, expected) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=500-1499", parts(&[(500, 1500)])),
            ("bytes=500-", parts(&[(500, 2000)])),
            ("bytes=-500", parts(&[(1500, 2000)])),
            ("bytes=1900-9999", parts(&[(1900, 2000)])),
            ("bytes=0-1, 5-6 ,-1", parts(&[(0, 2), (5, 7), (1999, 2000)])),
            ("bytes=5000-, 0-1", parts(&[(0, 2)])),
            ("bytes=1999-1999", parts(&[(1999, 2000)])),
            ("bytes=2000-", Ranges::Unsatisfiable),
            ("bytes=500-0", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=", Ranges::Whole),
            ("bytes=a-b", Ranges::Whole),
            ("bytes=--1", Ranges::Whole),
            ("bytes=+1-2", Ranges::Whole),
            ("lines=0-1", Ranges::Whole),
            ("", Ranges::Whole),
        ] {
            assert_eq!(ranges(Some(text), 2000), expected, "{text}");
        }
        assert_eq!(ranges(None, 2000), Ranges::Whole);
        assert_eq!(ranges(Some("bytes=0-"), 0), Ranges::Unsatisfiable);
    }

    #[test]
    fn b10_no_request_asks_for_more_than_there_is() {
        // A suffix longer than the blob is the whole blob.
        assert_eq!(ranges(Some("bytes=-99999999999999999999999"), 2000), parts(&[(0, 2000)]));
        assert_eq!(ranges(Some("bytes=99999999999999999999999-"), 2000), Ranges::Unsatisfiable);
        assert_eq!(ranges(Some("bytes=0-99999999999999999999999"), 2000), parts(&[(0, 2000)]));
        assert_eq!(ranges(Some("bytes=0-,0-"), 2000), Ranges::Unsatisfiable, "overlapping");
        assert_eq!(ranges(Some("bytes=0-10,10-20"), 2000), Ranges::Unsatisfiable, "overlapping");
        let many = |count: u64| {
            let list: Vec<_> = (0..count).map(|at| format!("{0}-{0}", at * 2)).collect();
            format!("bytes={}", list.join(","))
        };
        assert!(matches!(ranges(Some(&many(16)), 2000), Ranges::Parts(parts) if parts.len() == 16));
        assert_eq!(ranges(Some(&many(17)), 2000), Ranges::Unsatisfiable);
        assert_eq!(ranges(Some(&many(100_000)), 2000), Ranges::Unsatisfiable);
    }

    proptest::proptest! {
        #[test]
        fn b10_what_is_sent_lies_inside(text in "bytes=([0-9]{0,5}-[0-9]{0,5},?){0,5}", size in 0_u64..3000) {
            if let Ranges::Parts(parts) = ranges(Some(&text), size) {
                proptest::prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                proptest::prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= size);
            }
        }
    }
}
