//! Headers as every reader of today understands them: ustar, and PAX records for what that has no room for.
//!
//! Imports `block`, which fills them, and `pax` for times. Pure: the same fields give the same bytes.

use super::super::{
    block::{Block, NAME, POSIX, decimal, fits_octal, padded, record},
    pax::Time,
};

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
            let mut about = Block::new();
            about.kind(b'x');
            about.text(NAME, RECORDS);
            about.octal(100..108, 0o644);
            // Attributes are shorter than that, or the kernel would not have them.
            about.octal(124..136, i64::try_from(records.len()).unwrap_or(i64::MAX));
            blocks.extend_from_slice(&about.finish(POSIX));
            blocks.extend_from_slice(&records);
            blocks.resize(padded(blocks.len()), 0);
        }
        let mut block = Block::new();
        block.kind(self.kind as u8);
        block.text(NAME, self.path);
        block.text(157..257, self.link);
        // Zeros where a number does not fit: a record has it.
        for (field, number) in [
            (100..108, self.mode.into()),
            (108..116, self.user.into()),
            (116..124, self.group.into()),
            (124..136, self.size.cast_signed()),
            (136..148, self.modified.seconds),
            (329..337, self.device.0.into()),
            (337..345, self.device.1.into()),
        ] {
            block.octal(field, number);
        }
        blocks.extend_from_slice(&block.finish(POSIX));
        blocks
    }

    /// What the header has no room for, sorted by key: extended attributes last.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.extend_from_slice(&record(key, value));
        if !fits_octal(8, self.group.into()) {
            add(b"gid", self.group.to_string().as_bytes());
        }
        if self.link.len() > NAME.len() {
            add(b"linkpath", self.link);
        }
        if !fits_octal(12, self.modified.seconds) || self.modified.nanoseconds > 0 {
            add(b"mtime", &decimal(self.modified));
        }
        if self.path.len() > NAME.len() {
            add(b"path", self.path);
        }
        if !fits_octal(12, self.size.cast_signed()) {
            add(b"size", self.size.to_string().as_bytes());
        }
        if !fits_octal(8, self.user.into()) {
            add(b"uid", self.user.to_string().as_bytes());
        }
        for (name, value) in self.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::header::BLOCK;

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
}
