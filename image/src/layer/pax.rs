//! PAX headers: records that say more about the next entry than its own header can.
//!
//! Imports the errors. A record is `LENGTH KEY=VALUE\n`; values may hold any byte. Keys that readers agree to ignore are
//! ignored, a key whose second value only some readers would take is refused.

use std::collections::BTreeMap;

use super::failure::HeaderProblem;

/// Extended attributes of Schilling's star, which is how all tools of Linux write them.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records say.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) user: Option<i64>,
    pub(super) group: Option<i64>,
    pub(super) modified: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
    /// All of them as they are, for whoever writes the entry again; of two with one key the last.
    pub(super) records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What they say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Keys of the older ways.
    pub(super) old: bool,
}

impl Sparse {
    pub(super) fn given(&self) -> bool {
        self.old || self.major.is_some() || self.minor.is_some() || self.name.is_some() || self.real_size.is_some()
    }
}

/// A time, of any sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And as many billionths, always forward.
    pub nanoseconds: u32,
}

/// Reads all records of a header.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Pax, HeaderProblem> {
    let mut pax = Pax::default();
    while !bytes.is_empty() {
        let (key, value, rest) = record(bytes).ok_or(HeaderProblem::Pax)?;
        bytes = rest;
        apply(&mut pax, key, value)?;
        pax.records.insert(key.to_vec(), value.to_vec());
    }
    Ok(pax)
}

/// Key, value and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    if length > bytes.len() || length < space + 2 {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let record = record.strip_suffix(b"\n")?.get(space + 1..)?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn apply(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), HeaderProblem> {
    fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), HeaderProblem> {
        if slot.replace(value).is_some() { Err(HeaderProblem::Twice(name)) } else { Ok(()) }
    }
    // An empty value takes back what a global header said, and those say nothing here. Of a size, GNU tar refuses it.
    if value.is_empty() && !key.starts_with(XATTR) && key != b"size" {
        return Ok(());
    }
    let size = |name| decimal(value).ok_or(HeaderProblem::Number(name));
    let id = |name| decimal(value).and_then(|id| i64::try_from(id).ok()).ok_or(HeaderProblem::Number(name));
    match key {
        b"path" => once(&mut pax.path, value.to_vec(), "path"),
        b"linkpath" => once(&mut pax.link, value.to_vec(), "link"),
        b"size" => once(&mut pax.size, size("size")?, "size"),
        b"uid" => once(&mut pax.user, id("user")?, "user"),
        b"gid" => once(&mut pax.group, id("group")?, "group"),
        b"mtime" => once(&mut pax.modified, time(value).ok_or(HeaderProblem::Number("time"))?, "time"),
        b"GNU.sparse.major" => once(&mut pax.sparse.major, size("sparse version")?, "sparse version"),
        b"GNU.sparse.minor" => once(&mut pax.sparse.minor, size("sparse version")?, "sparse version"),
        b"GNU.sparse.name" => once(&mut pax.sparse.name, value.to_vec(), "path"),
        b"GNU.sparse.realsize" => once(&mut pax.sparse.real_size, size("real size")?, "real size"),
        _ if key.starts_with(b"GNU.sparse.") => {
            pax.sparse.old = true;
            Ok(())
        }
        _ => match key.strip_prefix(XATTR) {
            Some(b"") => Err(HeaderProblem::Pax),
            Some(name) if pax.xattrs.iter().any(|(there, _)| there == name) => {
                Err(HeaderProblem::Twice("extended attribute"))
            }
            Some(name) => {
                pax.xattrs.push((name.to_vec(), value.to_vec()));
                Ok(())
            }
            None => Ok(()),
        },
    }
}

impl Pax {
    /// For a header about all entries that follow: GNU tar takes it to heart and Go does not, so it may set nothing.
    pub(super) fn must_be_silent(&self) -> Result<(), HeaderProblem> {
        let set = [
            (self.path.is_some(), "path"),
            (self.link.is_some(), "link"),
            (self.size.is_some(), "size"),
            (self.user.is_some(), "user"),
            (self.group.is_some(), "group"),
            (self.modified.is_some(), "time"),
            (!self.xattrs.is_empty(), "extended attributes"),
            (self.sparse.given(), "holes"),
        ];
        set.into_iter().find(|(given, _)| *given).map_or(Ok(()), |(_, what)| Err(HeaderProblem::Global(what)))
    }
}

/// Digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-12.345`: seconds, and as many digits after the point as the writer wanted.
pub(super) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or_default());
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, nanoseconds) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}
