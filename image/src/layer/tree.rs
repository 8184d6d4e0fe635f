//! One directory that is never left, whatever links lie in it and whoever else writes to it.
//!
//! Imports `remove`. Paths are resolved by the kernel with the directory as their root (`openat2`), or a component at a
//! time without following anything: where a link has to be followed, its target is read and walked from the root of
//! the tree again. What is returned are descriptors of directories, in which the caller works with single names; `..` is
//! never handed to the kernel.

use std::{
    cell::Cell,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags},
    io::{self, Errno},
};

use super::{Whiteouts, remove::remove, whiteout::PREFIX};

/// Links that are followed on the way to one directory, as the kernel does.
const MAX_LINKS: usize = 40;
/// How often the kernel is asked again when somebody renames directories meanwhile.
const RETRIES: usize = 64;
/// Directories nested in each other through which a new one is reached by its name in each.
const MAX_DEPTH: usize = 4096;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory in which a layer is made.
pub(super) struct Tree<'t> {
    root: BorrowedFd<'t>,
    whiteouts: Whiteouts,
    component_wise: Cell<bool>,
    /// Whether whiteouts are files here: the filesystem lets nobody make them as the kernel has them.
    has_whiteout_files: Cell<bool>,
    /// The directory that was asked for last: archives list a directory's files one after another.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories that no entry has made yet, by their real path.
    pub(super) implied: Vec<Vec<u8>>,
    pub(super) implied_bytes: u64,
}

impl<'t> Tree<'t> {
    pub(super) fn new(root: BorrowedFd<'t>, whiteouts: Whiteouts, component_wise: bool) -> Self {
        let component_wise = Cell::new(component_wise);
        let has_whiteout_files = Cell::new(false);
        Self { root, whiteouts, component_wise, has_whiteout_files, last: None, implied: Vec::new(), implied_bytes: 0 }
    }

    /// The directory at `path`, made if it is not there and `make` says so. It may only be used with `*at` calls.
    pub(super) fn directory(&mut self, path: &[u8], make: bool) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match self.resolve(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if make => self.walk(path, true)?,
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => self.walk(path, make)?,
            other => other?,
        };
        let directory = Rc::new(directory);
        self.last = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Has to be called when a directory or a link may have gone.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Removes whatever is called `name`, with all that is in it.
    pub(super) fn remove(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.forget();
        remove(directory, name)
    }

    /// By the kernel.
    fn resolve(&self, path: &[u8]) -> io::Result<OwnedFd> {
        if self.component_wise.get() {
            return Err(Errno::NOSYS);
        }
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let confined = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match fs::openat2(self.root, path, flags, Mode::empty(), confined) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Old filters of system calls say that it is not permitted, instead of not there.
                Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                    self.component_wise.set(true);
                    return Err(error);
                }
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// A component at a time.
    fn walk(&mut self, path: &[u8], make: bool) -> io::Result<OwnedFd> {
        let mut ahead: Vec<Vec<u8>> = Vec::new();
        push(&mut ahead, path);
        let mut behind: Vec<Vec<u8>> = Vec::new();
        let mut directory = self.reopen(&behind)?;
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                behind.pop();
                directory = self.reopen(&behind)?;
                continue;
            }
            if behind.len() >= MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match fs::openat(&directory, &name[..], flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) if make => {
                    self.make(directory.as_fd(), &behind, &name)?;
                    fs::openat(&directory, &name[..], DIRECTORY, Mode::empty())?
                }
                Err(error) => return Err(error),
            };
            let stat = fs::fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    behind.push(name);
                    directory = next;
                }
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = fs::readlinkat(&next, c"", Vec::new())?.into_bytes();
                    if target.first() == Some(&b'/') {
                        behind.clear();
                        directory = self.reopen(&behind)?;
                    }
                    push(&mut ahead, &target);
                }
                _ if make && self.is_whiteout(&stat) => {
                    fs::unlinkat(&directory, &name[..], AtFlags::empty())?;
                    self.make(directory.as_fd(), &behind, &name)?;
                    directory = fs::openat(&directory, &name[..], DIRECTORY, Mode::empty())?;
                    self.hide(directory.as_fd())?;
                    behind.push(name);
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok(directory)
    }

    /// From the root, through directories and nothing else.
    fn reopen(&self, path: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let mut directory = fs::openat(self.root, c".", DIRECTORY, Mode::empty())?;
        for name in path {
            directory = fs::openat(&directory, &name[..], DIRECTORY, Mode::empty())?;
        }
        Ok(directory)
    }

    fn make(&mut self, directory: BorrowedFd<'_>, behind: &[Vec<u8>], name: &[u8]) -> io::Result<()> {
        match fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
            // Somebody else did, or it is a whiteout; what it is shows when it is opened.
            Err(Errno::EXIST) => return Ok(()),
            other => other?,
        }
        // Whatever the process's mask is.
        let made = fs::openat(directory, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        if self.remove_whiteout_file(directory, name)? {
            self.hide(made.as_fd())?;
        }
        let mut path = behind.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.implied_bytes += path.len() as u64;
        self.implied.push(path);
        Ok(())
    }

    /// Whether this is a whiteout that an entry of this layer has left here.
    pub(super) fn is_whiteout(&self, stat: &Stat) -> bool {
        self.whiteouts != Whiteouts::Apply
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    /// Whether whiteouts are files here.
    pub(super) fn has_whiteout_files(&self) -> bool {
        self.has_whiteout_files.get()
    }

    /// Makes a whiteout as an archive has it, for those who put layers together without the kernel. Its name is nothing
    /// else's: no entry may be called so.
    pub(super) fn make_whiteout_file(&self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        self.has_whiteout_files.set(true);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(directory, [PREFIX, name].concat(), flags, Mode::empty()) {
            Err(Errno::EXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Takes such a whiteout away, as there is something of that name now; says whether there was one.
    pub(super) fn remove_whiteout_file(&self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
        if !self.has_whiteout_files() {
            return Ok(false);
        }
        match fs::unlinkat(directory, [PREFIX, name].concat(), AtFlags::empty()) {
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes a directory hide what lower layers have in theirs.
    pub(super) fn hide(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let name = match self.whiteouts {
            Whiteouts::Overlay => c"trusted.overlay.opaque",
            Whiteouts::OverlayUser => c"user.overlay.opaque",
            Whiteouts::Apply => return Ok(()),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(directory, c".", flags, Mode::empty())?;
        fs::fsetxattr(&directory, name, b"y", XattrFlags::empty())
    }
}

/// Puts the components of a path in front of what is ahead.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|byte| *byte == b'/').rev().filter(|part| !matches!(*part, b"" | b"."));
    ahead.extend(parts.map(<[u8]>::to_vec));
}
