//! Tar headers with the bytes of Go's `archive/tar`, which every other builder of eStargz writes with.
//!
//! Imports what its parent's siblings read of an entry. A header that was read is written in the format it was read in,
//! and in the first of ustar, PAX and GNU that can hold it where that format is none of them; records of PAX that nobody
//! here understands are kept. Sparse files become plain ones, so what tells their holes is dropped.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use super::super::{
    block::{Block, GNU, NAME, POSIX, decimal, fits_octal, padded, record},
    entry::{Dialects, Entry, Kind},
    failure::HeaderProblem,
    pax::{self, Time},
};

/// No format at all.
const NONE: Dialects = Dialects { ustar: false, pax: false, gnu: false };
/// Records that repeat a field of the header; everything else that a PAX header says is kept as it is.
const BASIC: [&[u8]; 10] =
    [b"path", b"linkpath", b"size", b"uid", b"gid", b"uname", b"gname", b"mtime", b"atime", b"ctime"];

/// All that a header says.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) size: u64,
    pub(super) modified: Time,
    pub(super) user_name: Vec<u8>,
    pub(super) group_name: Vec<u8>,
    pub(super) device: (u32, u32),
    accessed: Option<Time>,
    changed: Option<Time>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    dialects: Dialects,
}

impl Head {
    /// Of a regular file about which nothing is known but this.
    pub(super) fn file(name: &str, size: u64) -> Self {
        Self {
            kind: b'0',
            name: name.as_bytes().to_vec(),
            link: Vec::new(),
            mode: 0,
            user: 0,
            group: 0,
            size,
            modified: Time::default(),
            user_name: Vec::new(),
            group_name: Vec::new(),
            device: (0, 0),
            accessed: None,
            changed: None,
            records: BTreeMap::new(),
            dialects: NONE,
        }
    }

    /// Of an entry that was read.
    pub(super) fn of(entry: &Entry) -> Result<Self, HeaderProblem> {
        let raw = &*entry.raw;
        let record = |key: &[u8]| raw.records.get(key).filter(|value| !value.is_empty());
        let (user_name, group_name) = raw.header.owners();
        let owner = |key: &[u8], field: &[u8]| match record(key) {
            Some(name) if name.contains(&0) => Err(HeaderProblem::Pax),
            Some(name) => Ok(name.clone()),
            None => Ok(field.to_vec()),
        };
        let (accessed, changed) = raw.header.other_times()?;
        let time = |key: &[u8], field: Option<i64>| match record(key) {
            Some(text) => pax::time(text).map(Some).ok_or(HeaderProblem::Number("time")),
            None => Ok(field.map(|seconds| Time { seconds, nanoseconds: 0 })),
        };
        Ok(Self {
            kind: match entry.kind {
                Kind::Directory => b'5',
                Kind::File => b'0',
                Kind::HardLink(_) => b'1',
                Kind::Symlink(_) => b'2',
                Kind::Character(..) => b'3',
                Kind::Block(..) => b'4',
                Kind::Fifo => b'6',
            },
            name: raw.name.clone(),
            link: raw.link.clone(),
            mode: raw.header.mode()?,
            user: entry.user,
            group: entry.group,
            size: entry.size,
            modified: entry.modified,
            user_name: owner(b"uname", user_name)?,
            group_name: owner(b"gname", group_name)?,
            device: raw.header.device_fields()?,
            accessed: time(b"atime", accessed)?,
            changed: time(b"ctime", changed)?,
            records: raw.records.clone(),
            dialects: raw.dialects,
        })
    }

    /// The blocks in front of the entry's bytes; `None` when no format can hold what it says.
    pub(super) fn encode(mut self) -> Option<Vec<u8>> {
        if self.dialects == NONE {
            self.modified = rounded(self.modified);
            (self.accessed, self.changed) = (None, None);
        }
        let (fitting, records) = self.formats();
        match fitting {
            Dialects { ustar: true, .. } => Some(self.ustar()),
            Dialects { pax: true, .. } => Some(self.pax(&records)),
            Dialects { gnu: true, .. } => Some(self.gnu()),
            _ => None,
        }
    }

    /// In which formats it can be written, and which records PAX needs for it.
    fn formats(&self) -> (Dialects, BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut fit = Fit { can: Dialects::ALL, records: BTreeMap::new(), given: &self.records, prefers_pax: false };
        fit.text(&self.name, 100, b"path");
        fit.text(&self.link, 100, b"linkpath");
        fit.text(&self.user_name, 32, b"uname");
        fit.text(&self.group_name, 32, b"gname");
        fit.number(self.mode.into(), 8, None);
        fit.number(self.user.into(), 8, Some(b"uid"));
        fit.number(self.group.into(), 8, Some(b"gid"));
        fit.number(self.size, 12, Some(b"size"));
        fit.number(self.device.0.into(), 8, None);
        fit.number(self.device.1.into(), 8, None);
        fit.time(Some(self.modified), b"mtime");
        fit.time(self.accessed, b"atime");
        fit.time(self.changed, b"ctime");
        for (key, value) in &self.records {
            if !fit.records.contains_key(key) && !BASIC.contains(&&key[..]) && !key.starts_with(b"GNU.sparse.") {
                fit.records.insert(key.clone(), value.clone());
            }
        }
        let pax_only = Dialects { ustar: false, pax: true, gnu: false };
        if !self.records.is_empty() {
            fit.can = fit.can.and(pax_only);
        }
        let mut wanted = self.dialects;
        if wanted.ustar && wanted.pax {
            wanted.pax = false;
        }
        if wanted != NONE {
            wanted.ustar |= wanted.pax && !fit.prefers_pax;
            fit.can = fit.can.and(wanted);
        }
        (fit.can, fit.records)
    }

    fn ustar(&self) -> Vec<u8> {
        let mut block = Block::new();
        let (prefix, name) = split(&self.name).unwrap_or((b"", &self.name));
        self.fill(&mut block, name, as_is, Block::octal);
        block.text(345..500, prefix);
        block.finish(POSIX).to_vec()
    }

    fn pax(&self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
        let mut out = Vec::new();
        if !records.is_empty() {
            let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let at = self.name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let (folder, file) = self.name.split_at(at);
            let name = clean(&[folder, b"PaxHeaders.0/", file].concat());
            extension(&mut out, b'x', &name, &data, POSIX);
        }
        let mut block = Block::new();
        self.fill(&mut block, &ascii(&self.name), ascii, Block::octal);
        out.extend_from_slice(&block.finish(POSIX));
        out
    }

    fn gnu(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, long) in [(b'L', &self.name), (b'K', &self.link)] {
            if long.len() > NAME.len() {
                extension(&mut out, kind, b"././@LongLink", &[long, &b"\0"[..]].concat(), GNU);
            }
        }
        let mut block = Block::new();
        self.fill(&mut block, &self.name, as_is, Block::number);
        for (field, time) in [(345..357, self.accessed), (357..369, self.changed)] {
            if let Some(time) = time {
                block.number(field, time.seconds);
            }
        }
        out.extend_from_slice(&block.finish(GNU));
        out
    }

    fn fill(
        &self,
        block: &mut Block,
        name: &[u8],
        text: fn(&[u8]) -> Cow<'_, [u8]>,
        number: fn(&mut Block, Range<usize>, i64),
    ) {
        block.kind(self.kind);
        block.text(NAME, name);
        block.text(157..257, &text(&self.link));
        number(block, 100..108, self.mode.into());
        number(block, 108..116, self.user.into());
        number(block, 116..124, self.group.into());
        // No more than a signed number holds: the reader saw to that.
        number(block, 124..136, self.size.cast_signed());
        number(block, 136..148, self.modified.seconds);
        block.text(265..297, &text(&self.user_name));
        block.text(297..329, &text(&self.group_name));
        number(block, 329..337, self.device.0.into());
        number(block, 337..345, self.device.1.into());
    }
}

/// What can hold the fields seen so far.
struct Fit<'h> {
    can: Dialects,
    /// What PAX needs records for.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Records that the entry was read with: one that repeats its field stays.
    given: &'h BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether something would be lost without PAX that ustar would take.
    prefers_pax: bool,
}

impl Fit<'_> {
    fn text(&mut self, text: &[u8], room: usize, key: &[u8]) {
        let is_long = text.len() > room;
        let (is_path, is_link) = (key == b"path", key == b"linkpath");
        self.can.gnu &= !is_long || is_path || is_link;
        if is_long || !text.is_ascii() {
            self.can.ustar &= is_path && split(text).is_some();
            self.records.insert(key.to_vec(), text.to_vec());
        }
        self.keep(key, text);
    }

    fn number(&mut self, number: u64, room: usize, key: Option<&[u8]>) {
        // What GNU's binary numbers leave of eight bytes; more bytes hold every number there is.
        self.can.gnu &= room > 8 || number < 1 << 56;
        let fits = fits_octal(room, number.cast_signed());
        self.can.ustar &= fits;
        match key {
            Some(key) => {
                if !fits {
                    self.records.insert(key.to_vec(), number.to_string().into_bytes());
                }
                self.keep(key, number.to_string().as_bytes());
            }
            None => self.can.pax &= fits,
        }
    }

    fn time(&mut self, time: Option<Time>, key: &[u8]) {
        let Some(time) = time else { return };
        let fits = key == b"mtime" && fits_octal(12, time.seconds);
        self.can.ustar &= fits;
        let text = decimal(time);
        if !fits || time.nanoseconds != 0 {
            self.prefers_pax = true;
            self.records.insert(key.to_vec(), text.clone());
        }
        self.keep(key, &text);
    }

    fn keep(&mut self, key: &[u8], value: &[u8]) {
        if self.given.get(key).is_some_and(|given| given == value) {
            self.records.insert(key.to_vec(), value.to_vec());
        }
    }
}

/// An entry that only describes the next one.
fn extension(out: &mut Vec<u8>, kind: u8, name: &[u8], data: &[u8], magic: &[u8; 8]) {
    let mut block = Block::new();
    let name = ascii(name);
    let name = &name[..name.len().min(NAME.len())];
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    block.kind(kind);
    block.text(NAME, &name[..end]);
    for field in [100..108, 108..116, 116..124, 136..148] {
        block.octal(field, 0);
    }
    // Headers are shorter than what the reader takes of them.
    block.octal(124..136, i64::try_from(data.len()).unwrap_or(i64::MAX));
    out.extend_from_slice(&block.finish(magic));
    out.extend_from_slice(data);
    out.resize(padded(out.len()), 0);
}

/// Prefix and name, where ustar can hold a long path in two parts.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    const PREFIX: usize = 155;
    if name.len() <= NAME.len() || !name.is_ascii() {
        return None;
    }
    let end = if name.len() > PREFIX + 1 {
        PREFIX + 1
    } else if name.last() == Some(&b'/') {
        name.len() - 1
    } else {
        name.len()
    };
    let at = name[..end].iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0)?;
    let rest = &name[at + 1..];
    (!rest.is_empty() && rest.len() <= NAME.len() && at <= PREFIX).then_some((&name[..at], rest))
}

/// The shortest path that means the same, as Go's `path.Clean` gives it.
fn clean(path: &[u8]) -> Vec<u8> {
    let is_rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    if is_rooted { [b"/", &joined[..]].concat() } else { joined }
}

fn as_is(text: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(text)
}

fn ascii(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.iter().copied().filter(u8::is_ascii).collect())
}

/// To the second, half of one upwards.
pub(super) fn rounded(time: Time) -> Time {
    let up = i64::from(time.nanoseconds >= 500_000_000);
    Time { seconds: time.seconds.saturating_add(up), nanoseconds: 0 }
}
