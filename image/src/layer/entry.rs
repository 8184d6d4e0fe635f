//! The entries of a layer's archive, each checked before anything is done with it.
//!
//! Imports `stream`, `header`, `pax`, `sparse` and the errors. The `tar` crate is not used: of 0.4.46 the first of two
//! PAX sizes wins, one that is no number is passed over, a value with a line break in it (any `security.capability` may
//! have one) breaks the header, and headers may take all memory.

use std::collections::BTreeMap;

use super::{
    ApplyError, Limit, Limits,
    failure::{HeaderProblem, NameProblem, Shown},
    header::{BLOCK, Format, Header, sparse_pieces, text},
    pax::{self, Pax, Time},
    sparse::{Lines, Map},
    stream::Stream,
};

/// Longest name of a file, in bytes, on every filesystem of Linux.
const NAME_BYTES: usize = 255;

/// A path below the root of a layer: components that are names, joined by `/`; the root itself is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Cleans a name, as `..` at the root means: the root.
    ///
    /// # Errors
    /// When it is empty, has a zero byte, or is too long or too deep.
    pub fn new(name: &[u8], limits: &Limits) -> Result<Self, ApplyError> {
        let wrong = |problem| ApplyError::Name { name: Shown::new(name), problem };
        if name.is_empty() {
            return Err(wrong(NameProblem::Empty));
        }
        if name.contains(&0) {
            return Err(wrong(NameProblem::Zero));
        }
        let limited = |what, limit: usize| ApplyError::Limit { what, limit: limit as u64 };
        if name.len() > limits.path_bytes {
            return Err(limited(Limit::PathBytes, limits.path_bytes));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part if part.len() > NAME_BYTES => return Err(limited(Limit::NameBytes, NAME_BYTES)),
                part => parts.push(part),
            }
        }
        if parts.len() > limits.path_depth {
            return Err(limited(Limit::PathDepth, limits.path_depth));
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in, and its name there.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        }
    }

    /// Each name in it.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }
}

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Another name for an entry before it.
    HardLink(EntryPath),
    /// A symbolic link; its target is kept as it is.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device, of this major and minor number.
    Character(u32, u32),
    /// A block device, of this major and minor number.
    Block(u32, u32),
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it goes.
    pub path: EntryPath,
    /// What it makes.
    pub kind: Kind,
    /// Permissions, with the bits for setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// When it was last modified.
    pub modified: Time,
    /// Extended attributes, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the file, holes included.
    pub size: u64,
    pub(super) map: Option<Map>,
    /// How the archive says all that.
    pub(super) raw: Box<Raw>,
}

/// An entry as it is written in its archive, for whoever writes it again.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) header: Header,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) records: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) dialects: Dialects,
}

/// The formats that the headers of one entry can be told to be of, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialects {
    pub(super) ustar: bool,
    pub(super) pax: bool,
    pub(super) gnu: bool,
}

impl Dialects {
    pub(super) const ALL: Self = Self { ustar: true, pax: true, gnu: true };

    pub(super) fn and(self, other: Self) -> Self {
        Self { ustar: self.ustar && other.ustar, pax: self.pax && other.pax, gnu: self.gnu && other.gnu }
    }

    fn of(header: &Header) -> Self {
        let posix = header.is_posix();
        Self { ustar: posix, pax: posix, gnu: header.format() == Format::Gnu }
    }
}

/// Reads entry after entry.
pub(super) struct Entries<'s, 'p> {
    stream: &'s mut Stream<'p>,
    limits: Limits,
    /// Without a digest to check, only an archive with an end is known to be whole.
    needs_end: bool,
    headers: u64,
    /// Bytes left of the current entry, and of its padding.
    data: u64,
    padding: u64,
}

/// What headers in front of an entry's own say about it.
struct Said {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: u64,
    dialects: Dialects,
}

impl Said {
    fn nothing() -> Self {
        Self { pax: None, name: None, link: None, bytes: 0, dialects: Dialects::ALL }
    }

    fn something(&self) -> bool {
        self.pax.is_some() || self.name.is_some() || self.link.is_some()
    }
}

impl<'s, 'p> Entries<'s, 'p> {
    pub(super) fn new(stream: &'s mut Stream<'p>, limits: &Limits, needs_end: bool) -> Self {
        Self { stream, limits: limits.clone(), needs_end, headers: 0, data: 0, padding: 0 }
    }

    /// The next entry; what is left of the one before is passed over. `None` once the stream has been read to its end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ApplyError> {
        self.pass_over()?;
        let mut said = Said::nothing();
        loop {
            let Some(bytes) = self.block("a header")? else {
                if said.something() {
                    return Err(self.wrong(HeaderProblem::Dangling));
                }
                return if self.needs_end { Err(ApplyError::Truncated { what: "its archive" }) } else { Ok(None) };
            };
            if bytes.iter().all(|byte| *byte == 0) {
                if said.something() {
                    return Err(self.wrong(HeaderProblem::Dangling));
                }
                return self.end().map(|()| None);
            }
            let header = Header::new(bytes).map_err(|problem| self.wrong(problem))?;
            self.headers += 1;
            let size = header.size().map_err(|problem| self.wrong_before(problem))?;
            match header.kind() {
                b'x' | b'g' | b'L' | b'K' => self.extension(&header, size, &mut said)?,
                _ => return self.entry(header, size, said).map(Some),
            }
        }
    }

    /// The next stored bytes of the current entry; none at its end.
    pub(super) fn data(&mut self) -> Result<&[u8], ApplyError> {
        self.data_up_to(u64::MAX)
    }

    /// As [`Self::data`], but at most so many.
    pub(super) fn data_up_to(&mut self, most: u64) -> Result<&[u8], ApplyError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let next = self.stream.next(self.data.min(most))?;
        if next.is_empty() {
            return Err(ApplyError::Truncated { what: "a file" });
        }
        self.data -= next.len() as u64;
        Ok(next)
    }

    fn pass_over(&mut self) -> Result<(), ApplyError> {
        while !self.data()?.is_empty() {}
        while self.padding > 0 {
            let next = self.stream.next(self.padding)?;
            if next.is_empty() {
                return Err(ApplyError::Truncated { what: "the padding of a file" });
            }
            self.padding -= next.len() as u64;
        }
        Ok(())
    }

    fn begin_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn block(&mut self, what: &'static str) -> Result<Option<[u8; BLOCK]>, ApplyError> {
        let mut bytes = [0; BLOCK];
        match self.stream.fill(&mut bytes)? {
            0 => Ok(None),
            BLOCK => Ok(Some(bytes)),
            _ => Err(ApplyError::Truncated { what }),
        }
    }

    fn wrong(&self, problem: HeaderProblem) -> ApplyError {
        ApplyError::Header { number: self.headers, problem }
    }

    /// For the header that was counted last.
    fn wrong_before(&self, problem: HeaderProblem) -> ApplyError {
        ApplyError::Header { number: self.headers.saturating_sub(1), problem }
    }

    /// After the first empty block: another one, and nothing but zeros.
    fn end(&mut self) -> Result<(), ApplyError> {
        if let Some(second) = self.block("its end")?
            && second.iter().any(|byte| *byte != 0)
        {
            return Err(self.wrong(HeaderProblem::LoneEmptyBlock));
        }
        loop {
            let rest = self.stream.next(u64::MAX)?;
            if rest.is_empty() {
                return Ok(());
            }
            if rest.iter().any(|byte| *byte != 0) {
                return Err(ApplyError::TrailingBytes);
            }
        }
    }

    fn extension(&mut self, header: &Header, size: u64, said: &mut Said) -> Result<(), ApplyError> {
        said.bytes = said.bytes.saturating_add(size).saturating_add(BLOCK as u64);
        let limit = self.limits.header_bytes;
        if said.bytes > limit {
            return Err(ApplyError::Limit { what: Limit::HeaderBytes, limit });
        }
        // No more than the limit, so it fits.
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        if self.stream.fill(&mut bytes)? < bytes.len() {
            return Err(ApplyError::Truncated { what: "a header" });
        }
        self.begin_data(size);
        self.data = 0;
        self.pass_over()?;
        let number = self.headers.saturating_sub(1);
        let wrong = move |problem| ApplyError::Header { number, problem };
        let twice = |what| wrong(HeaderProblem::Twice(what));
        if header.kind() != b'g' {
            let (pax, own) = (header.kind() == b'x', Dialects::of(header));
            said.dialects = said.dialects.and(own).and(Dialects { ustar: false, pax, gnu: !pax });
        }
        match header.kind() {
            b'x' => {
                let pax = pax::parse(&bytes).map_err(wrong)?;
                if said.pax.replace(pax).is_some() {
                    return Err(twice("PAX header"));
                }
            }
            b'g' => pax::parse(&bytes).and_then(|pax| pax.must_be_silent()).map_err(wrong)?,
            kind => {
                let (slot, what) = if kind == b'L' { (&mut said.name, "path") } else { (&mut said.link, "link") };
                if slot.replace(text(&bytes).to_vec()).is_some() {
                    return Err(twice(what));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: Header, size: u64, said: Said) -> Result<Entry, ApplyError> {
        let pax = said.pax.unwrap_or_default();
        let number = self.headers.saturating_sub(1);
        let problem = move |problem| ApplyError::Header { number, problem };
        let either = |pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, what| match (pax, gnu) {
            (Some(_), Some(_)) => Err(problem(HeaderProblem::Twice(what))),
            (pax, gnu) => Ok(pax.or(gnu)),
        };
        let kind = header.kind();
        let sparse = kind == b'S';
        if sparse && pax.size.is_some_and(|pax_size| pax_size != size) {
            return Err(problem(HeaderProblem::Twice("size")));
        }
        let size = pax.size.unwrap_or(size);
        if i64::try_from(size).is_err() {
            return Err(problem(HeaderProblem::Number("size")));
        }
        let mut name = either(pax.path, said.name, "path")?.unwrap_or_else(|| header.name());
        let link = either(pax.link, said.link, "link")?.unwrap_or_else(|| header.link().to_vec());
        let id = |given: Option<i64>, field: Result<i64, HeaderProblem>, what| {
            let id = u32::try_from(given.map_or(field, Ok).map_err(problem)?).ok();
            // The largest one means "leave it" to the kernel.
            id.filter(|id| *id != u32::MAX).ok_or(problem(HeaderProblem::Number(what)))
        };
        let user = id(pax.user, header.user(), "user")?;
        let group = id(pax.group, header.group(), "group")?;
        let mode = header.mode().map_err(problem)? & 0o7777;
        let modified = match pax.modified {
            Some(time) => time,
            None => Time { seconds: header.modified().map_err(problem)?, nanoseconds: 0 },
        };
        let regular = matches!(kind, 0 | b'0' | b'7');
        if pax.sparse.given() {
            let known = (pax.sparse.major, pax.sparse.minor) == (Some(1), Some(0)) && !pax.sparse.old;
            if !known || !regular {
                return Err(problem(HeaderProblem::SparseFormat));
            }
            // What `path` says then is for readers that know no holes.
            name = pax.sparse.name.clone().unwrap_or(name);
        }
        let path = EntryPath::new(&name, &self.limits)?;
        let named = |problem| ApplyError::Name { name: Shown::new(&name), problem };
        let (kind, what) = match kind {
            // Before ustar, a name said what is a directory.
            0 if name.ends_with(b"/") => (Kind::Directory, "directory"),
            0 | b'0' | b'7' | b'S' => (Kind::File, "file"),
            b'1' if link.is_empty() => return Err(named(NameProblem::Target)),
            b'1' => (Kind::HardLink(EntryPath::new(&link, &self.limits)?), "hard link"),
            b'2' if link.is_empty() => return Err(named(NameProblem::Target)),
            b'2' if link.contains(&0) => return Err(named(NameProblem::Zero)),
            b'2' if link.len() >= self.limits.path_bytes => {
                let limit = self.limits.path_bytes as u64;
                return Err(ApplyError::Limit { what: Limit::PathBytes, limit });
            }
            b'2' => (Kind::Symlink(link.clone()), "symbolic link"),
            b'3' => {
                let (major, minor) = header.device().map_err(problem)?;
                (Kind::Character(major, minor), "device")
            }
            b'4' => {
                let (major, minor) = header.device().map_err(problem)?;
                (Kind::Block(major, minor), "device")
            }
            b'5' => (Kind::Directory, "directory"),
            b'6' => (Kind::Fifo, "pipe"),
            other => return Err(problem(HeaderProblem::Type(other))),
        };
        if kind != Kind::File && size != 0 {
            return Err(problem(HeaderProblem::Bytes(what)));
        }
        if kind != Kind::Directory {
            if path.is_root() {
                return Err(named(NameProblem::Root));
            }
            if matches!(name.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b"..")) {
                return Err(named(NameProblem::Slash));
            }
        }
        let map = if sparse {
            Some(self.gnu_map(&header, size, said.bytes)?)
        } else if pax.sparse.given() {
            let real_size = pax.sparse.real_size.ok_or(problem(HeaderProblem::Sparse))?;
            Some(self.pax_map(size, real_size)?)
        } else {
            self.begin_data(size);
            None
        };
        let size = map.as_ref().map_or(size, |map| map.size);
        let dialects = said.dialects.and(Dialects::of(&header));
        let raw = Box::new(Raw { header, name, link, records: pax.records, dialects });
        Ok(Entry { path, kind, mode, user, group, modified, xattrs: pax.xattrs, size, map, raw })
    }

    /// The pieces in the header, and in blocks after it.
    fn gnu_map(&mut self, header: &Header, stored: u64, mut bytes: u64) -> Result<Map, ApplyError> {
        let (size, mut pieces, mut more) = header.sparse().map_err(|problem| self.wrong_before(problem))?;
        while more {
            bytes += BLOCK as u64;
            let limit = self.limits.header_bytes;
            if bytes > limit {
                return Err(ApplyError::Limit { what: Limit::HeaderBytes, limit });
            }
            let block = self.block("a header")?.ok_or(ApplyError::Truncated { what: "a header" })?;
            sparse_pieces(&block[..504], &mut pieces).map_err(|problem| self.wrong_before(problem))?;
            more = block[504] != 0;
        }
        let map = Map::new(pieces, size, stored).map_err(|problem| self.wrong_before(problem))?;
        self.begin_data(stored);
        Ok(map)
    }

    /// The pieces in front of the bytes themselves.
    fn pax_map(&mut self, stored: u64, size: u64) -> Result<Map, ApplyError> {
        let mut lines = Lines::default();
        let mut bytes = 0;
        loop {
            bytes += BLOCK as u64;
            let limit = self.limits.header_bytes;
            if bytes > limit {
                return Err(ApplyError::Limit { what: Limit::HeaderBytes, limit });
            }
            if bytes > stored {
                return Err(self.wrong_before(HeaderProblem::Sparse));
            }
            let block = self.block("a header")?.ok_or(ApplyError::Truncated { what: "a header" })?;
            if lines.take(&block).map_err(|problem| self.wrong_before(problem))? {
                break;
            }
        }
        let map = Map::new(lines.pieces(), size, stored - bytes).map_err(|problem| self.wrong_before(problem))?;
        self.begin_data(stored - bytes);
        Ok(map)
    }
}
