//! One root out of layers, by the best way that works here.
//!
//! Imports `overlay` and `fuse`, which are two of the ways, and what copies layers, which is the third. Root has the
//! kernel's overlay. Other users have it from Linux 5.11 on, where no policy forbids it; else fuse-overlayfs, where it is
//! installed and `/dev/fuse` is open to them; else each container gets a copy of its image's files. What works is found out
//! by trying, in this order.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{RunError, fuse::Fuse, overlay, settings::RootWay};
use crate::layer::merge::merge;

/// What an overlay is told that root mounts: to keep nothing in a way that no layer has words for, which are part of a file,
/// and a directory under another name.
const FOR_ROOT: &str = ",redirect_dir=off,metacopy=off";
/// What an overlay is told that a user mounts. It does neither by itself then, and must not be told so.
const FOR_USERS: &str = ",userxattr";

/// A root that is there.
#[derive(Debug)]
pub(crate) struct Stack {
    /// How it was put together.
    pub(crate) way: RootWay,
    /// What keeps it there, when that is a program.
    pub(crate) fuse: Option<Fuse>,
    /// The better ways that do not work, and why.
    refused: Vec<(RootWay, io::Error)>,
}

impl Stack {
    /// Puts `layers`, lowest first, together at [`overlay::ROOT`] of the working directory. `is_for_the_kernel` says whether
    /// its overlay understands all of them; `asked` is the only way that is tried, if it is there.
    pub(crate) fn make(
        layers: &[PathBuf],
        is_for_the_kernel: bool,
        is_short_lived: bool,
        is_rootless: bool,
        asked: Option<RootWay>,
    ) -> Result<Self, RunError> {
        let ways: &[RootWay] = match &asked {
            Some(way) => std::slice::from_ref(way),
            None if is_rootless => &[RootWay::Overlay, RootWay::FuseOverlayfs, RootWay::Copy],
            None => &[RootWay::Overlay],
        };
        let mut stack = Self { way: RootWay::Overlay, fuse: None, refused: Vec::new() };
        for way in ways {
            stack.way = *way;
            let made = if *way == RootWay::Overlay && !is_for_the_kernel {
                Err(io::Error::other("no user can make its whiteouts on this filesystem"))
            } else {
                stack.attempt(layers, is_short_lived, is_rootless)
            };
            match made {
                Ok(()) => return Ok(stack),
                Err(source) => stack.refused.push((*way, source)),
            }
        }
        let source = stack.refused.pop().map_or_else(|| io::ErrorKind::Unsupported.into(), |(_, source)| source);
        Err(RunError::Mount { layers: layers.len(), way: stack.way, source })
    }

    fn attempt(&mut self, layers: &[PathBuf], is_short_lived: bool, is_rootless: bool) -> io::Result<()> {
        let options = if is_rootless { FOR_USERS } else { FOR_ROOT };
        match self.way {
            RootWay::Overlay => overlay::mount(layers, is_short_lived, options),
            RootWay::FuseOverlayfs => {
                self.fuse = Some(Fuse::mount(&overlay::lay_out(layers)?)?);
                Ok(())
            }
            RootWay::Copy => copy(layers),
        }
    }

    /// What a user may want to know about the way: nothing, when it is the best one.
    pub(crate) fn note(&self) -> Option<String> {
        if self.refused.is_empty() {
            return None;
        }
        let why: Vec<_> = self.refused.iter().map(|(way, error)| format!("{way}: {error}")).collect();
        let what = match self.way {
            RootWay::Copy => "the image's files are copied for each container",
            _ => "containers have their roots by fuse-overlayfs",
        };
        Some(format!("{what}, as better ways do not work here ({})", why.join("; ")))
    }
}

fn copy(layers: &[PathBuf]) -> io::Result<()> {
    let root = Path::new(overlay::ROOT);
    match fs::create_dir(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(root, fs::Permissions::from_mode(0o755))?,
    }
    merge(layers, fs::File::open(root)?.as_fd())
}
