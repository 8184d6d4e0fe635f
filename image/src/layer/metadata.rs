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

/// What became of an entry's attributes.
#[derive(Clone, Copy)]
pub(super) struct Got {
    /// The permissions that it has.
    pub(super) mode: u32,
    /// Whether its owner is another than it should be.
    pub(super) is_flattened: bool,
}

/// The setuid bit.
const SET_USER: u32 = 0o4000;
/// The setgid bit.
const SET_GROUP: u32 = 0o2000;

/// Attributes that say how overlays are put together, or whose meaning is this host's alone.
pub(super) fn is_foreign(name: &[u8]) -> bool {
    const OF_OVERLAYS: [&[u8]; 4] =
        [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers."];
    OF_OVERLAYS.iter().any(|prefix| name.starts_with(prefix)) || name == b"security.selinux"
}

/// Sets all but the times; calls `warn` for each attribute that cannot be kept.
pub(super) fn apply(
    place: Place<'_>,
    entry: &Entry,
    ownership: Ownership,
    mode: u32,
    warn: &mut dyn FnMut(&[u8], Errno),
) -> Result<Got, Failure> {
    let lost = own(place, entry, ownership).map_err(|error| ("changing its owner", error))?;
    // Whoever gets a file that was somebody else's must not lend it more than that somebody would have.
    let mode = mode & !lost;
    for (name, value) in &entry.xattrs {
        if is_foreign(name) {
            continue;
        }
        match set_xattr(place, name, value) {
            Ok(()) => {}
            // No user may set these on links and pipes, and only root those that are not the user's.
            Err(error @ (Errno::PERM | Errno::ACCESS | Errno::INVAL))
                if ownership != Ownership::Keep || name.starts_with(b"user.") =>
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
    Ok(Got { mode, is_flattened: lost != 0 })
}

/// Gives it its owner. Gives the bits that mean nothing any more because their owner is not there: none when all is well.
fn own(place: Place<'_>, entry: &Entry, ownership: Ownership) -> io::Result<u32> {
    let chown = |user: Option<u32>, group: Option<u32>| {
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        match place {
            Place::Open(file) => fs::fchown(file, user, group),
            Place::Named(directory, name) => fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW),
        }
    };
    match ownership {
        Ownership::Squash => return Ok(0),
        Ownership::Keep => return chown(Some(entry.user), Some(entry.group)).map(|()| 0),
        Ownership::Mapped => {}
    }
    match chown(Some(entry.user), Some(entry.group)) {
        // What the namespace has no id for.
        Err(Errno::INVAL) => {}
        other => return other.map(|()| 0),
    }
    let mut lost = 0;
    for (user, group, bit) in [(Some(entry.user), None, SET_USER), (None, Some(entry.group), SET_GROUP)] {
        match chown(user, group) {
            Err(Errno::INVAL) => lost |= bit,
            other => other?,
        }
    }
    Ok(lost)
}

pub(super) fn set_mode(place: Place<'_>, mode: u32) -> io::Result<()> {
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

pub(super) fn set_xattr(place: Place<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
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
