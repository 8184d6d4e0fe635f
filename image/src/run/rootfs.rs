//! Looks into a root that a stranger made, or puts a file there, and never reaches out of it.
//!
//! Imports nothing of this crate. Every path is resolved by the kernel as if the root were `/`
//! (`openat2`, `RESOLVE_IN_ROOT`); devices and pipes are never read.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::settings::cleaned;

/// Longest file of names that is read: hundreds of thousands of users.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most parts of a working directory.
const MAX_DEPTH: usize = 256;
/// Directories that hold no files of the image once a container runs: what a path in them means is decided elsewhere.
const NOT_OF_THE_IMAGE: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A directory that is to be a container's root.
#[derive(Debug)]
pub(crate) struct Rootfs(OwnedFd);

impl Rootfs {
    /// Opens the root at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// The bytes of a file, or nothing where there is none.
    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // Opened for its path first: opening a device can do things.
        let place = match self.open_in(path, OFlags::PATH | OFlags::CLOEXEC) {
            Ok(place) => place,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        File::from(self.open_in(path, flags)?).take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts a file that everybody may read in the place of whatever file or link has its path, `/etc/hosts` for instance,
    /// and makes the directory that it lies in.
    pub(crate) fn replace(&self, path: &str, text: &str) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidFilename);
        let (directory, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(invalid)?;
        let relative = directory.trim_start_matches('/');
        if !relative.is_empty() {
            match rustix::fs::mkdirat(&self.0, relative, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let inside = format!("/{relative}");
        let place = self.open_in(&inside, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        match rustix::fs::unlinkat(&place, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&place, name, flags, mode)?;
        rustix::fs::fchmod(&file, mode)?;
        io::Write::write_all(&mut File::from(file), text.as_bytes())
    }

    /// Where a working directory really lies, without any link on the way. What does not exist yet is left for the
    /// runtime to make.
    ///
    /// `None` when it leads into what the host shows to a container: through `/proc/self/fd` there, a runtime's own open
    /// directories could be reached.
    pub(crate) fn working_directory(&self, path: &str) -> io::Result<Option<String>> {
        if path.is_empty() {
            return Ok(Some("/".to_owned()));
        }
        let wanted = cleaned(path);
        let parts: Vec<&str> = wanted.split('/').filter(|part| !part.is_empty()).collect();
        if parts.len() > MAX_DEPTH || !is_of_the_image(&wanted) {
            return Ok(None);
        }
        for end in (0..=parts.len()).rev() {
            let existing = format!("/{}", parts[..end].join("/"));
            let place = match self.open_in(&existing, OFlags::PATH | OFlags::CLOEXEC) {
                Ok(place) => place,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let parent = self.real(&place)?;
            let rest = &parts[end..];
            // A link to nothing yet: it may lead to something once the container runs.
            if let Some(next) = rest.first()
                && rustix::fs::statat(&place, *next, AtFlags::SYMLINK_NOFOLLOW).is_ok()
            {
                return Ok(None);
            }
            let real = cleaned(&format!("{parent}/{}", rest.join("/")));
            return Ok(is_of_the_image(&real).then_some(real));
        }
        Ok(None)
    }

    /// The path from the root to something that lies below it.
    fn real(&self, place: &OwnedFd) -> io::Result<String> {
        let read = |file: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let (root, place) = (read(&self.0)?, read(place)?);
        let below = place.strip_prefix(&root).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let text = below.to_str().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(format!("/{text}"))
    }

    fn open_in(&self, path: &str, flags: OFlags) -> Result<OwnedFd, rustix::io::Errno> {
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }
}

/// Where the root of a process shows.
pub(crate) fn root_of(pid: u32) -> String {
    format!("/proc/{pid}/root")
}

fn is_of_the_image(path: &str) -> bool {
    let is_below = |above: &str| path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !NOT_OF_THE_IMAGE.iter().any(|above| is_below(above))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn root() -> (tempfile::TempDir, Rootfs) {
        let folder = tempfile::tempdir().expect("a directory");
        for directory in ["etc", "app/deep", "proc"] {
            fs::create_dir_all(folder.path().join(directory)).expect("made");
        }
        let rootfs = Rootfs::open(folder.path()).expect("opens");
        (folder, rootfs)
    }

    #[test]
    fn a14_names_are_read_inside_and_nowhere_else() {
        let (folder, rootfs) = root();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(rootfs.read("/etc/passwd").expect("reads"), b"", "there is none");
        fs::write(path("etc/real"), "inside").expect("written");
        symlink("/etc/real", path("etc/passwd")).expect("linked");
        assert_eq!(rootfs.read("/etc/passwd").expect("reads"), b"inside");
        symlink("../../../../../../etc/hostname", path("etc/group")).expect("linked");
        assert_eq!(rootfs.read("/etc/group").expect("reads"), b"", "the host's is out of reach");
        symlink("loop", path("etc/loop")).expect("linked");
        assert_eq!(rootfs.read("/etc/loop").expect("reads"), b"");
        let made = rustix::fs::mknodat(rustix::fs::CWD, path("etc/pipe"), FileType::Fifo, Mode::RUSR, 0);
        made.expect("a pipe");
        assert_eq!(rootfs.read("/etc/pipe").expect("reads"), b"", "a pipe would be waited for");
    }

    #[test]
    fn a14_a_file_is_put_inside_and_through_no_link() {
        let (folder, rootfs) = root();
        let path = |name: &str| folder.path().join(name);
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("file"), "outside").expect("written");
        symlink(outside.path().join("file"), path("etc/hosts")).expect("linked");
        rootfs.replace("/etc/hosts", "inside").expect("put");
        assert_eq!(fs::read_to_string(path("etc/hosts")).expect("read"), "inside");
        assert!(path("etc/hosts").symlink_metadata().expect("there").is_file());
        fs::remove_dir_all(path("etc")).expect("removed");
        rootfs.replace("/etc/hosts", "anew").expect("put");
        assert_eq!(fs::read_to_string(path("etc/hosts")).expect("read"), "anew");
        // The directory is a link out of the root: it leads nowhere, or back into the root.
        fs::remove_dir_all(path("etc")).expect("removed");
        symlink(outside.path(), path("etc")).expect("linked");
        assert!(rootfs.replace("/etc/hosts", "x").is_err());
        fs::remove_file(path("etc")).expect("removed");
        symlink("../../../app", path("etc")).expect("linked");
        rootfs.replace("/etc/hosts", "back").expect("put");
        assert_eq!(fs::read_to_string(path("app/hosts")).expect("read"), "back");
        assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 1, "nothing came out");
    }

    #[test]
    fn a14_a_working_directory_never_leads_out_of_the_image() {
        let (folder, rootfs) = root();
        let path = |name: &str| folder.path().join(name);
        let real = |text: &str| rootfs.working_directory(text).expect("looks");
        assert_eq!(real("").as_deref(), Some("/"));
        assert_eq!(real("/app").as_deref(), Some("/app"));
        assert_eq!(real("app/./deep/../new/x").as_deref(), Some("/app/new/x"));
        symlink("app/deep", path("link")).expect("linked");
        assert_eq!(real("/link/new").as_deref(), Some("/app/deep/new"));
        symlink("/../../../app", path("far")).expect("linked");
        assert_eq!(real("/far").as_deref(), Some("/app"));
        for (name, target) in [("fd", "/proc/self/fd/8"), ("up", "../../proc"), ("out", "/nowhere"), ("sys", "/sys")] {
            symlink(target, path(name)).expect("linked");
        }
        for text in
            ["/proc/self/fd/8", "/proc", "/../proc/self/cwd", "/fd", "/fd/x", "/up/self", "/out", "/sys/x", "/dev"]
        {
            assert_eq!(real(text), None, "{text}");
        }
        fs::write(path("file"), "").expect("written");
        assert_eq!(real("/file/x"), None);
    }
}
