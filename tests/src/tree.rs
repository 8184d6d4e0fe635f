//! What lies in a directory, to compare it with what should.
//!
//! Follows no link, reads no device, and never changes anything.

use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Names, each with a line that says all about it: type, mode, owner, time, extended attributes, contents.
pub type Tree = BTreeMap<String, String>;

/// What of a tree matters.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Owner and group.
    pub owners: bool,
    /// Times, for all but the root.
    pub times: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Mode, owner and so on of the root itself.
    pub root: bool,
}

impl Look {
    /// At everything.
    pub const ALL: Self = Self { owners: true, times: true, xattrs: true, root: true };
}

/// Everything below `root`, and `root` itself as `.`.
///
/// # Errors
/// When something cannot be read.
pub fn look(root: &Path, look: Look) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut first: HashMap<(u64, u64), String> = HashMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(relative) = ahead.pop() {
        let path = root.join(&relative);
        let meta = fs::symlink_metadata(&path)?;
        let name = relative.as_os_str().as_bytes().escape_ascii().to_string();
        let is_root = relative.as_os_str().is_empty();
        let name = if is_root { ".".to_owned() } else { name };
        let kind = meta.file_type();
        let mut line = String::new();
        let mut names: Vec<PathBuf> = Vec::new();
        if kind.is_dir() {
            line.push_str("directory");
            names =
                fs::read_dir(&path)?.map(|entry| Ok(relative.join(entry?.file_name()))).collect::<io::Result<_>>()?;
            // In the order of names once they are popped, so that the first of a file's names is the same everywhere.
            names.sort();
            names.reverse();
        } else if kind.is_symlink() {
            let _ = write!(line, "link to {}", fs::read_link(&path)?.as_os_str().as_bytes().escape_ascii());
        } else if kind.is_file() {
            let hash = Sha256::digest(fs::read(&path)?);
            let _ = write!(line, "file {} {}", meta.size(), &crate::image::hex(&hash)[..12]);
        } else if kind.is_fifo() {
            line.push_str("pipe");
        } else if kind.is_char_device() || kind.is_block_device() {
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            let _ = write!(line, "{} {major}:{minor}", if kind.is_char_device() { "character" } else { "block" });
        } else {
            line.push_str("something else");
        }
        if look.root || !is_root {
            if !kind.is_symlink() {
                let _ = write!(line, " {:o}", meta.mode() & 0o7777);
            }
            if look.owners {
                let _ = write!(line, " {}:{}", meta.uid(), meta.gid());
            }
            if look.times && !is_root {
                let _ = write!(line, " {}.{:09}", meta.mtime(), meta.mtime_nsec());
            }
            if look.xattrs {
                for (name, value) in xattrs(&path)? {
                    let _ = write!(line, " {name}={}", value.escape_ascii());
                }
            }
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let same = first.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
            if *same != name {
                let _ = write!(line, " same as {same}");
            }
        }
        tree.insert(name, line);
        ahead.extend(names);
    }
    Ok(tree)
}

/// Extended attributes of what is at `path` itself, by name.
fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        found.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    found.sort();
    Ok(found)
}

/// The tree as text, a line an entry.
pub fn shown(tree: &Tree) -> String {
    tree.iter().fold(String::new(), |mut text, (name, line)| {
        let _ = writeln!(text, "{name}: {line}");
        text
    })
}
