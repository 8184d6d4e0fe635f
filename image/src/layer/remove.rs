//! Removes a directory with all that is in it, however deep it is.
//!
//! Imports nothing. Goes by descriptors, follows no link, calls itself never, and holds at most [`OPEN`] directories open:
//! what lies deeper is moved up first.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::{self, Errno},
};

/// Directories that are open at once.
const OPEN: usize = 32;
/// How often a directory is read again that somebody else keeps filling.
const ROUNDS: u32 = 1 << 20;

struct Level {
    directory: OwnedFd,
    name: Vec<u8>,
    names: fs::Dir,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match fs::openat(parent, name, flags, Mode::empty()) {
            // Ours, but closed to ourselves.
            Err(Errno::ACCESS) => {
                let closed = fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
                open_up(closed.as_fd())?;
                fs::openat(parent, name, flags, Mode::empty())?
            }
            other => other?,
        };
        let names = fs::Dir::read_from(&directory)?;
        Ok(Self { directory, name: name.to_vec(), names })
    }
}

/// Gives the owner all permissions. The descriptor may be one that was opened without any.
fn open_up(directory: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // The link leads to what is open, whatever its name is by now.
    fs::chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), Mode::RWXU)
}

/// Removes what is at `path`, whatever it is; nothing there is fine.
pub(crate) fn remove_all(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let parent = match fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    Ok(remove(parent.as_fd(), name.as_bytes())?)
}

/// Removes `name`, whatever it is; nothing there is fine.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    if unlink(parent, name)? {
        return Ok(());
    }
    let mut levels = vec![Level::open(parent, name)?];
    let (mut moved, mut rounds) = (0_u64, 0_u32);
    while let Some(level) = levels.last_mut() {
        match level.names.next().transpose()? {
            Some(found) if matches!(found.file_name().to_bytes(), b"." | b"..") => {}
            Some(found) => {
                let name = found.file_name().to_bytes().to_vec();
                if unlink(level.directory.as_fd(), &name)? {
                    continue;
                }
                if levels.len() < OPEN {
                    let next = Level::open(levels[levels.len() - 1].directory.as_fd(), &name)?;
                    levels.push(next);
                } else {
                    lift(&levels, &name, &mut moved)?;
                }
            }
            None => {
                let done = levels.pop();
                let Some(done) = done else { break };
                let parent = levels.last().map_or(parent, |level| level.directory.as_fd());
                match fs::unlinkat(parent, &done.name[..], AtFlags::REMOVEDIR) {
                    // Something was moved here, or a name was missed while others went.
                    Err(Errno::NOTEMPTY | Errno::EXIST) if rounds < ROUNDS => {
                        rounds += 1;
                        let again = Level::open(parent, &done.name)?;
                        levels.push(again);
                    }
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

/// Moves a directory from the lowest level to the top one.
fn lift(levels: &[Level], name: &[u8], moved: &mut u64) -> io::Result<()> {
    let (Some(top), Some(lowest)) = (levels.first(), levels.last()) else { return Ok(()) };
    loop {
        *moved += 1;
        let new = format!(".removed-{moved}");
        let flags = fs::RenameFlags::NOREPLACE;
        match fs::renameat_with(&lowest.directory, name, &top.directory, &new, flags) {
            Err(Errno::EXIST) => {}
            Err(Errno::ACCESS) => {
                let closed = fs::openat(&lowest.directory, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
                open_up(closed.as_fd())?;
                return fs::renameat_with(&lowest.directory, name, &top.directory, &new, flags);
            }
            other => return other,
        }
    }
}

/// Whether `name` is gone; not so when it is a directory with something in it.
fn unlink(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        // Ours, but closed to ourselves.
        Err(Errno::ACCESS) => {
            open_up(directory)?;
            match fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(true),
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    }
    match fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        // Not a directory after all, so the first error stands: it may not be removed.
        Err(Errno::NOTDIR) => Err(Errno::PERM),
        Err(error) => Err(error),
    }
}

/// Removes what is in `directory` but whatever has an inode that `keep` wants, and the directories it lies in.
pub(super) fn prune(directory: BorrowedFd<'_>, keep: &dyn Fn(u64) -> bool) -> io::Result<()> {
    let mut ahead: Vec<(Vec<u8>, bool)> = vec![(Vec::new(), false)];
    while let Some((path, looked_into)) = ahead.pop() {
        if looked_into {
            let at = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = at.map_or((&path[..0], &path[..]), |at| (&path[..at], &path[at + 1..]));
            match fs::unlinkat(below(directory, parent)?, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let open = Level::open(below(directory, &path)?.as_fd(), b".")?;
        for found in open.names {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = fs::statat(&open.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kept = keep(stat.st_ino);
            if fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory {
                let mut inner = path.clone();
                if !inner.is_empty() {
                    inner.push(b'/');
                }
                inner.extend_from_slice(name.to_bytes());
                if !kept {
                    ahead.push((inner.clone(), true));
                }
                ahead.push((inner, false));
            } else if !kept {
                unlink(open.directory.as_fd(), name.to_bytes())?;
            }
        }
    }
    Ok(())
}

/// A directory below another, through directories and nothing else.
fn below(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = fs::openat(directory, c".", flags, Mode::empty())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        open = fs::openat(&open, name, flags, Mode::empty())?;
    }
    Ok(open)
}
