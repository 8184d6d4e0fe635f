//! Archives for layers, written a header at a time: right, and deliberately wrong in any field.
//!
//! Never checks what it writes.

/// Bytes of a header, and what everything is padded to.
const BLOCK: usize = 512;

/// One entry, with all that stands in front of it.
#[derive(Clone, Debug)]
pub struct Item {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    user: u64,
    group: u64,
    time: i64,
    size: Option<u64>,
    data: Vec<u8>,
    device: (u32, u32),
    gnu: bool,
    pax: Vec<u8>,
    long: Vec<(u8, Vec<u8>)>,
    patches: Vec<(usize, Vec<u8>)>,
    checksum: bool,
    padding: bool,
}

/// An entry of type `kind` (`b'0'` and so on) with mode 644, owned by nobody in particular.
pub fn item(kind: u8, name: impl AsRef<[u8]>) -> Item {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Item {
        kind,
        name: name.as_ref().to_vec(),
        link: Vec::new(),
        mode,
        user: 0,
        group: 0,
        time: 1_600_000_000,
        size: None,
        data: Vec::new(),
        device: (0, 0),
        gnu: false,
        pax: Vec::new(),
        long: Vec::new(),
        patches: Vec::new(),
        checksum: true,
        padding: true,
    }
}

/// A file with these bytes.
pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Item {
    item(b'0', name).data(data)
}

/// A directory.
pub fn directory(name: impl AsRef<[u8]>) -> Item {
    item(b'5', name)
}

/// A symbolic link.
pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'2', name).link(target).mode(0o777)
}

/// A hard link.
pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'1', name).link(target)
}

impl Item {
    /// Permissions, and any bits beyond them.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Owner and group; what octal digits cannot say is written in binary.
    #[must_use]
    pub fn owner(mut self, user: u64, group: u64) -> Self {
        (self.user, self.group) = (user, group);
        self
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn time(mut self, time: i64) -> Self {
        self.time = time;
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self
    }

    /// The size that the header claims.
    #[must_use]
    pub fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Where a link leads.
    #[must_use]
    pub fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    /// Major and minor number.
    #[must_use]
    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    /// GNU's magic instead of ustar's.
    #[must_use]
    pub fn gnu(mut self) -> Self {
        self.gnu = true;
        self
    }

    /// One more record of a PAX header.
    #[must_use]
    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.extend(record(key.as_ref(), value.as_ref()));
        self
    }

    /// Bytes of a PAX header as they are.
    #[must_use]
    pub fn raw_pax(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.pax.extend_from_slice(bytes.as_ref());
        self
    }

    /// An extended attribute.
    #[must_use]
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(format!("SCHILY.xattr.{name}"), value)
    }

    /// GNU's way to say a long name (`b'L'`) or a long target (`b'K'`).
    #[must_use]
    pub fn long(mut self, kind: u8, text: impl AsRef<[u8]>) -> Self {
        self.long.push((kind, [text.as_ref(), b"\0"].concat()));
        self
    }

    /// Other bytes at an offset of the header; the checksum covers them.
    #[must_use]
    pub fn patch(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((offset, bytes.as_ref().to_vec()));
        self
    }

    /// A checksum that is wrong.
    #[must_use]
    pub fn wrong_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    /// No padding after its bytes.
    #[must_use]
    pub fn unpadded(mut self) -> Self {
        self.padding = false;
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        if !self.pax.is_empty() {
            item(b'x', "pax").data(&self.pax).write(out);
        }
        for (kind, text) in &self.long {
            item(*kind, "././@LongLink").gnu().data(text).write(out);
        }
        out.extend_from_slice(&self.header());
        out.extend_from_slice(&self.data);
        if self.padding {
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
    }

    fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, &number(self.mode.into(), 8));
        put(108, &number(self.user.cast_signed(), 8));
        put(116, &number(self.group.cast_signed(), 8));
        put(124, &number(self.size.unwrap_or(self.data.len() as u64).cast_signed(), 12));
        put(136, &number(self.time, 12));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, if self.gnu { b"ustar  \0" } else { b"ustar\x0000" });
        if matches!(self.kind, b'3' | b'4') {
            put(329, &number(self.device.0.into(), 8));
            put(337, &number(self.device.1.into(), 8));
        }
        for (at, bytes) in &self.patches {
            put(*at, bytes);
        }
        if !self.patches.iter().any(|(at, _)| *at == 148) {
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            let sum = format!("{:06o}\0 ", if self.checksum { sum } else { sum + 1 });
            header[148..156].copy_from_slice(sum.as_bytes());
        }
        header
    }
}

/// Puts the checksum of a header right.
pub fn checksum(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `LENGTH KEY=VALUE\n`.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = body.len() + 1;
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &body].concat()
}

/// In octal, or where that has no room in binary.
fn number(value: i64, width: usize) -> Vec<u8> {
    let octal = format!("{value:0width$o}\0", width = width - 1);
    if value >= 0 && octal.len() == width {
        return octal.into_bytes();
    }
    let mut bytes = vec![if value < 0 { 0xff } else { 0 }; width];
    let binary = value.to_be_bytes();
    let used = width.min(8);
    bytes[width - used..].copy_from_slice(&binary[8 - used..]);
    bytes[0] |= 0x80;
    bytes
}

/// All of them, and the end.
pub fn archive(items: &[Item]) -> Vec<u8> {
    let mut bytes = unended(items);
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// All of them, and no end.
pub fn unended(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        item.write(&mut bytes);
    }
    bytes
}
