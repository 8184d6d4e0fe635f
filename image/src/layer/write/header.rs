//! Headers as every reader of today understands them: ustar, and PAX records for what that has no room for.
//!
//! Imports `header` for the size of a block and `pax` for times. Pure: the same fields give the same bytes.

use super::super::{header::BLOCK, pax::Time};

/// Largest number in a field of eight bytes.
const MAX_SHORT: u64 = 0o7_777_777;
/// Largest number in a field of twelve bytes.
const MAX_LONG: u64 = 0o77_777_777_777;
/// Longest name, and longest target of a link, in a header.
const NAME_BYTES: usize = 100;
/// What the entry is called that holds the records of the next one; nobody looks.
const RECORDS: &[u8] = b"././@PaxHeader";

/// What an entry is, by its letter in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    Character = b'3' as isize,
    Block = b'4' as isize,
    Directory = b'5' as isize,
    Pipe = b'6' as isize,
}

/// All that a header says.
#[derive(Debug)]
pub(super) struct Fields<'f> {
    pub(super) path: &'f [u8],
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Bytes that follow.
    pub(super) size: u64,
    pub(super) modified: Time,
    /// Where a link leads to.
    pub(super) link: &'f [u8],
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    pub(super) xattrs: &'f [(Vec<u8>, Vec<u8>)],
}

impl Fields<'_> {
    /// The blocks in front of an entry's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let records = self.records();
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let about = Block::new(RECORDS, b'x').number(100..108, 0o644).number(124..136, records.len() as u64);
            blocks.extend_from_slice(&about.finish());
            blocks.extend_from_slice(&records);
            blocks.resize(padded(blocks.len()), 0);
        }
        let modified = u64::try_from(self.modified.seconds).unwrap_or(0);
        let block = Block::new(self.path, self.kind as u8)
            .number(100..108, self.mode.into())
            .number(108..116, fitting(self.user.into(), MAX_SHORT))
            .number(116..124, fitting(self.group.into(), MAX_SHORT))
            .number(124..136, fitting(self.size, MAX_LONG))
            .number(136..148, fitting(modified, MAX_LONG))
            .bytes(157, self.link, NAME_BYTES)
            .number(329..337, self.device.0.into())
            .number(337..345, self.device.1.into());
        blocks.extend_from_slice(&block.finish());
        blocks
    }

    /// What the header has no room for, sorted by key: extended attributes last.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.extend_from_slice(&record(key, value));
        if u64::from(self.group) > MAX_SHORT {
            add(b"gid", self.group.to_string().as_bytes());
        }
        if self.link.len() > NAME_BYTES {
            add(b"linkpath", self.link);
        }
        let fits = u64::try_from(self.modified.seconds).is_ok_and(|at| at <= MAX_LONG);
        if !fits || self.modified.nanoseconds > 0 {
            add(b"mtime", time(self.modified).as_bytes());
        }
        if self.path.len() > NAME_BYTES {
            add(b"path", self.path);
        }
        if self.size > MAX_LONG {
            add(b"size", self.size.to_string().as_bytes());
        }
        if u64::from(self.user) > MAX_SHORT {
            add(b"uid", self.user.to_string().as_bytes());
        }
        for (name, value) in self.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        records
    }
}

/// So many bytes with what fills the last block.
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

/// The number, or 0 where a record holds it.
fn fitting(number: u64, largest: u64) -> u64 {
    if number > largest { 0 } else { number }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let mut length = rest + digits(rest);
    // One more digit than without it, at most once.
    if rest + digits(length) != length {
        length = rest + digits(length);
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Seconds with their fraction; before 1970, both count backwards.
fn time(time: Time) -> String {
    let (mut seconds, mut nanoseconds) = (i128::from(time.seconds), time.nanoseconds);
    let sign = if seconds < 0 { "-" } else { "" };
    if seconds < 0 && nanoseconds > 0 {
        (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds);
    }
    let text = format!("{sign}{}.{nanoseconds:09}", seconds.abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// One block of a header.
struct Block([u8; BLOCK]);

impl Block {
    fn new(name: &[u8], kind: u8) -> Self {
        let mut block = [0; BLOCK];
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block).bytes(0, name, NAME_BYTES)
    }

    /// At most so many bytes of a text.
    fn bytes(mut self, at: usize, text: &[u8], most: usize) -> Self {
        let text = &text[..text.len().min(most)];
        self.0[at..at + text.len()].copy_from_slice(text);
        self
    }

    /// A number in octal digits that fill a field but for its last byte.
    fn number(mut self, field: std::ops::Range<usize>, number: u64) -> Self {
        let width = field.len() - 1;
        let digits = format!("{number:0width$o}");
        self.0[field.start..field.start + width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
        self
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.0[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        self.0[154] = 0;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields<'static> {
        Fields {
            path: b"a",
            kind: Kind::File,
            mode: 0o4755,
            user: 1000,
            group: 100,
            size: 3,
            modified: Time { seconds: 1_700_000_000, nanoseconds: 0 },
            link: b"",
            device: (0, 0),
            xattrs: &[],
        }
    }

    /// As another implementation understands it.
    fn read(fields: &Fields<'_>) -> (tar::Header, Vec<(String, Vec<u8>)>) {
        let mut archive = fields.encode();
        archive.resize(archive.len() + 4 * BLOCK, 0);
        let mut archive = tar::Archive::new(&archive[..]);
        let mut entry = archive.entries().expect("entries").next().expect("an entry").expect("well-formed");
        let records = entry.pax_extensions().expect("readable");
        let own =
            |record: tar::PaxExtension<'_>| (record.key().expect("text").to_owned(), record.value_bytes().to_vec());
        let records = records.map(|records| records.map(|record| own(record.expect("a record"))).collect());
        (entry.header().clone(), records.unwrap_or_default())
    }

    #[test]
    fn what_fits_into_a_header_has_no_records() {
        assert_eq!(fields().encode().len(), BLOCK);
        let (header, records) = read(&fields());
        assert!(records.is_empty());
        assert_eq!((header.mode().expect("a mode"), header.uid().expect("an id")), (0o4755, 1000));
        assert_eq!((header.gid().expect("an id"), header.size().expect("a size")), (100, 3));
        assert_eq!(header.mtime().expect("a time"), 1_700_000_000);
    }

    #[test]
    fn what_does_not_fit_becomes_a_record() {
        let long = [b'x'; 101];
        let xattrs = [(b"user.a".to_vec(), vec![0, b'\n', 255])];
        let large = Fields {
            path: &long,
            user: 0o10_000_000,
            group: u32::MAX,
            size: 1 << 33,
            modified: Time { seconds: -2, nanoseconds: 250_000_000 },
            link: &long,
            kind: Kind::Symlink,
            xattrs: &xattrs,
            ..fields()
        };
        let encoded = large.encode();
        assert_eq!(encoded.len() % BLOCK, 0);
        let text = encoded.escape_ascii().to_string();
        for record in [
            "gid=4294967295\\n",
            "linkpath=xxx",
            "mtime=-1.75\\n",
            "path=xxx",
            "size=8589934592\\n",
            "uid=2097152\\n",
            "SCHILY.xattr.user.a=\\x00\\n\\xff\\n",
        ] {
            assert!(text.contains(record), "{record} in {text}");
        }
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [0, 1, 90, 91, 92, 93, 94, 95, 985, 986, 987, 988, 989, 990, 9_990] {
            let record = record(b"path", &vec![b'x'; length]);
            let said: usize =
                String::from_utf8_lossy(&record).split(' ').next().expect("a length").parse().expect("it");
            assert_eq!(said, record.len(), "{length}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (seconds, nanoseconds, text) in
            [(0, 0, "0"), (0, 1, "0.000000001"), (-1, 0, "-1"), (-1, 999_999_999, "-0.000000001"), (10, 0, "10")]
        {
            assert_eq!(time(Time { seconds, nanoseconds }), text);
        }
    }
}
