//! Layers that were kept for an overlay, copied into one plain directory: for whoever can mount no overlay.
//!
//! Imports `tree`, `remove` and `metadata`. Both sides are directories that nobody else writes to meanwhile; still each is
//! reached by descriptors and never left. What is copied shares no inode with what is kept: whoever writes to the copy
//! changes nothing else. Files share their blocks where the filesystem can.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid},
    io::Errno,
};

use super::{
    Whiteouts,
    metadata::{self, Place, is_foreign, set_xattr},
    pax::Time,
    remove::remove,
    tree::Tree,
    whiteout::PREFIX,
};

/// Longest list of attributes, and longest value, that Linux gives.
const MAX_XATTR_BYTES: usize = 64 << 10;
/// What marks a directory that hides what lower layers have in theirs.
const OPAQUE: [&[u8]; 2] = [b"user.overlay.opaque", b"trusted.overlay.opaque"];

/// Copies `layers`, lowest first, into the empty directory `target`.
///
/// # Errors
/// What the disk says; `target` holds a part of them then.
pub(crate) fn merge(layers: &[PathBuf], target: BorrowedFd<'_>) -> io::Result<()> {
    for layer in layers {
        let source = fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut merging = Merging {
            source: Tree::new(source.as_fd(), Whiteouts::Apply, false),
            target: Tree::new(target, Whiteouts::Apply, false),
            linked: HashMap::new(),
            times: Vec::new(),
        };
        merging.run()?;
    }
    Ok(())
}

struct Merging<'t> {
    source: Tree<'t>,
    target: Tree<'t>,
    /// Where the first name of a file lies that has several.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// Directories, the outer ones first: they change while something is put into them.
    times: Vec<(Vec<u8>, Time)>,
}

impl Merging<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut ahead = vec![Vec::new()];
        while let Some(path) = ahead.pop() {
            self.directory(&path, &mut ahead)?;
        }
        for (path, modified) in std::mem::take(&mut self.times).into_iter().rev() {
            let directory = open_readable(&*self.target.directory(&path, false)?)?;
            metadata::set_time(Place::Open(directory.as_fd()), modified).map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    /// All that lies in one directory, which is there on both sides.
    fn directory(&mut self, path: &[u8], ahead: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let source = open_readable(&*self.source.directory(path, false)?)?;
        let target = open_readable(&*self.target.directory(path, false)?)?;
        let stat = fs::fstat(&source)?;
        own_and_mark(&source, &stat, &target)?;
        self.times.push((path.to_vec(), modified(&stat)));
        for entry in fs::Dir::read_from(&source)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let stat = fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mut inner = path.to_vec();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = fs::openat(&source, name, readable(), Mode::empty())?;
                    if is_opaque(&below) || !is_directory(&target, name) {
                        self.clear(&target, name)?;
                    }
                    match fs::mkdirat(&target, name, Mode::RWXU) {
                        Err(Errno::EXIST) => {}
                        other => other?,
                    }
                    ahead.push(inner);
                }
                FileType::CharacterDevice if stat.st_rdev == 0 => self.clear(&target, name)?,
                FileType::RegularFile if name.starts_with(PREFIX) => self.clear(&target, &name[PREFIX.len()..])?,
                kind => {
                    self.clear(&target, name)?;
                    self.file(kind, &source, &target, name, &stat, inner)?;
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self, directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.target.forget();
        Ok(remove(directory.as_fd(), name)?)
    }

    fn file(
        &mut self,
        kind: FileType,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        path: Vec<u8>,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&inode) {
                let at = first.iter().rposition(|byte| *byte == b'/');
                let (parent, base) = at.map_or((&first[..0], &first[..]), |at| (&first[..at], &first[at + 1..]));
                let parent = self.target.directory(parent, false)?;
                return Ok(fs::linkat(&*parent, base, target, name, AtFlags::empty())?);
            }
            self.linked.insert(inode, path);
        }
        let place = Place::Named(target.as_fd(), name);
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = fs::openat(source, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
                let to = contents(from.try_clone()?, to, stat)?;
                own_and_mark(&from, stat, &to)?;
            }
            FileType::Symlink => {
                let link = fs::readlinkat(source, name, Vec::new())?;
                fs::symlinkat(&link, target, name)?;
                own(target, name, stat)?;
            }
            FileType::Fifo => {
                fs::mknodat(target, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
                own(target, name, stat)?;
                metadata::set_mode(place, stat.st_mode & 0o7777)?;
            }
            // None is in a layer.
            _ => return Ok(()),
        }
        Ok(metadata::set_time(place, modified(stat)).map_err(|(_, error)| error)?)
    }
}

/// The bytes of a file; where there are none, there stay none.
fn contents(from: OwnedFd, to: OwnedFd, stat: &Stat) -> io::Result<OwnedFd> {
    if fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(to);
    }
    let (mut from, mut to) = (File::from(from), File::from(to));
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let begin = match fs::seek(&from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // This filesystem knows of no holes.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = fs::seek(&from, SeekFrom::Hole(begin)).unwrap_or(size);
        from.seek(io::SeekFrom::Start(begin))?;
        to.seek(io::SeekFrom::Start(begin))?;
        io::copy(&mut (&mut from).take(end - begin), &mut to)?;
        at = end.max(begin + 1);
    }
    Ok(to.into())
}

/// Owner, extended attributes and permissions, in the order in which none takes another away.
fn own_and_mark(from: &OwnedFd, stat: &Stat, to: &OwnedFd) -> io::Result<()> {
    fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = match fs::flistxattr(from, &mut names[..]) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_foreign(name)) {
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = fs::fgetxattr(from, name, &mut value[..])?;
        set_xattr(Place::Open(to.as_fd()), name, &value[..length])?;
    }
    Ok(fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

fn own(directory: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(fs::chownat(directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn readable() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn open_readable(directory: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(fs::openat(directory, c".", readable(), Mode::empty())?)
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let is_set = |name: &[u8]| {
        let mut value = [0; 2];
        fs::fgetxattr(directory, name, &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
    };
    OPAQUE.into_iter().any(is_set)
}

fn is_directory(directory: &OwnedFd, name: &[u8]) -> bool {
    fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn modified(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs as files,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::Path,
    };

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        files::create_dir_all(path.parent().expect("a folder")).expect("made");
        files::write(path, text).expect("written");
    }

    fn merged(layers: &[PathBuf]) -> tempfile::TempDir {
        let target = tempfile::tempdir().expect("a directory");
        let open = File::open(target.path()).expect("opens");
        merge(layers, open.as_fd()).expect("merged");
        target
    }

    #[test]
    fn upper_layers_win_and_nothing_is_shared() {
        let folder = tempfile::tempdir().expect("a directory");
        let (lower, upper) = (folder.path().join("lower"), folder.path().join("upper"));
        write(&lower, "d/a", "lower");
        write(&lower, "d/kept", "kept");
        write(&lower, "opaque/old", "old");
        write(&lower, "file", "a file");
        write(&lower, "folder/x", "x");
        files::hard_link(lower.join("d/kept"), lower.join("same")).expect("linked");
        symlink("/etc/passwd", lower.join("link")).expect("linked");
        write(&upper, "d/a", "upper");
        write(&upper, "opaque/new", "new");
        write(&upper, "file/now", "a folder");
        write(&upper, "folder", "a file now");
        write(&upper, "link", "no link");
        files::set_permissions(upper.join("d/a"), files::Permissions::from_mode(0o4711)).expect("set");
        let opaque = File::open(upper.join("opaque")).expect("opens");
        // Some filesystems of test machines know no such attributes.
        let knows = fs::fsetxattr(&opaque, OPAQUE[0], b"y", fs::XattrFlags::empty()).is_ok();
        let target = merged(&[lower.clone(), upper.clone()]);
        let path = |name: &str| target.path().join(name);
        let read = |name: &str| files::read_to_string(path(name)).expect(name);
        assert_eq!(
            [read("d/a"), read("d/kept"), read("file/now"), read("folder"), read("link")],
            ["upper", "kept", "a folder", "a file now", "no link"]
        );
        assert_eq!(path("opaque/old").exists(), !knows);
        assert_eq!(read("opaque/new"), "new");
        let inode = |path: PathBuf| files::metadata(path).expect("there").ino();
        assert_eq!(inode(path("same")), inode(path("d/kept")), "a hard link stays one");
        assert_ne!(inode(path("same")), inode(lower.join("same")), "but not with what is kept");
        assert_eq!(files::metadata(path("d/a")).expect("there").mode() & 0o7777, 0o4711);
        let time = |path: PathBuf| files::metadata(path).expect("there").mtime_nsec();
        assert_eq!([time(path("d")), time(path("d/a"))], [time(upper.join("d")), time(upper.join("d/a"))]);
    }

    #[test]
    fn holes_stay_holes() {
        let folder = tempfile::tempdir().expect("a directory");
        let layer = folder.path().join("layer");
        write(&layer, "sparse", "begin");
        let file = File::options().write(true).open(layer.join("sparse")).expect("opens");
        file.set_len(64 << 20).expect("grown");
        let target = merged(&[layer]);
        let copy = files::metadata(target.path().join("sparse")).expect("there");
        assert_eq!(copy.len(), 64 << 20);
        assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
        let text = files::read(target.path().join("sparse")).expect("read");
        assert!(text.starts_with(b"begin\0") && text[5..].iter().all(|byte| *byte == 0));
    }
}
