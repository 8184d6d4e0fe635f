//! Owners, permissions, extended attributes and times, on what was opened rather than on a name.
//!
//! Imports `entry` and the options. Order matters: a new owner takes away setuid bits and capabilities, and everything
//! changes times. What is not a file or a directory is reached by its name in an open directory, and never followed.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::{
    fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags},
    io::{self, Errno},
};

use super::{
    Ownership,
    entry::{Entry, Kind},
    pax::Time,
};

/// Where attributes go.
#[derive(Clone, Copy)]
pub(super) enum Place<'f> {
    /// An open file or directory.
    Open(BorrowedFd<'f>),
    /// Something else, by its name in a directory.
    Named(BorrowedFd<'f>, &'f [u8]),
}

/// A failed step, and what it was.
pub(super) type Failure = (&'static str, Errno);

/// Attributes that say how overlays are put together, or whose meaning is this host's alone.
pub(super) fn is_foreign(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name == b"security.selinux"
}

/// Sets all but the times; calls `warn` for each attribute that cannot be kept.
pub(super) fn apply(
    place: Place<'_>,
    entry: &Entry,
    ownership: Ownership,
    mode: u32,
    warn: &mut dyn FnMut(&[u8], Errno),
) -> Result<(), Failure> {
    if ownership == Ownership::Keep {
        let (user, group) = (Some(Uid::from_raw(entry.user)), Some(Gid::from_raw(entry.group)));
        let done = match place {
            Place::Open(file) => fs::fchown(file, user, group),
            Place::Named(directory, name) => fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW),
        };
        done.map_err(|error| ("changing its owner", error))?;
    }
    for (name, value) in &entry.xattrs {
        if is_foreign(name) {
            continue;
        }
        match set_xattr(place, name, value) {
            Ok(()) => {}
            // No user may set these on links and pipes, and only root those that are not the user's.
            Err(error @ (Errno::PERM | Errno::ACCESS | Errno::INVAL))
                if ownership == Ownership::Squash || name.starts_with(b"user.") =>
            {
                warn(name, error);
            }
            Err(error @ (Errno::NOTSUP | Errno::NOENT | Errno::NOTDIR)) => warn(name, error),
            Err(error) => return Err(("setting an extended attribute", error)),
        }
    }
    if !matches!(entry.kind, Kind::Symlink(_)) {
        set_mode(place, mode).map_err(|error| ("changing its mode", error))?;
    }
    Ok(())
}

fn set_mode(place: Place<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match place {
        Place::Open(file) => fs::fchmod(file, mode),
        Place::Named(directory, name) => {
            // Opening it so touches neither pipe nor device, and a link would be refused below.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = fs::openat(directory, name, flags, Mode::empty())?;
            let kind = fs::FileType::from_raw_mode(fs::fstat(&open)?.st_mode);
            if kind == fs::FileType::Symlink {
                return Err(Errno::LOOP);
            }
            fs::chmod(format!("/proc/self/fd/{}", open.as_raw_fd()), mode)
        }
    }
}

fn set_xattr(place: Place<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    match place {
        Place::Open(file) => fs::fsetxattr(file, name, value, XattrFlags::empty()),
        Place::Named(directory, base) => {
            let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
            path.extend_from_slice(base);
            fs::lsetxattr(&path[..], name, value, XattrFlags::empty())
        }
    }
}

/// Sets when it was modified.
pub(super) fn set_time(place: Place<'_>, modified: Time) -> Result<(), Failure> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() },
    };
    let done = match place {
        Place::Open(file) => fs::futimens(file, &times),
        Place::Named(directory, name) => fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    };
    done.map_err(|error| ("changing its times", error))
}
