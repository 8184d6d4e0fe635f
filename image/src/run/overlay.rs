//! Mounts a container's root: its layers below, a directory of its own on top.
//!
//! Imports nothing of this crate. The mount is made in a mount namespace that belongs to the process which watches the
//! container, so the kernel takes it away when the last process that uses it is gone, however it went. Nothing is ever
//! mounted where other programs see it.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// Where the container's root appears, below the directory that is worked in.
pub(crate) const ROOT: &str = "rootfs";
/// What the container changes.
pub(crate) const UPPER: &str = "upper";
/// What overlayfs works with.
const WORK: &str = "work";
/// Links to the layers, named so briefly that hundreds fit into one page of mount options.
const LINKS: &str = "l";
/// Most layers that overlayfs takes.
pub(crate) const MAX_LAYERS: usize = 500;

/// Leaves the mounts of the other processes behind: what this one mounts from now on, nobody else sees.
#[expect(deprecated, reason = "the flag leaves file descriptors alone, which is what the safe function is unsafe for")]
pub(crate) fn enter_own_namespace() -> io::Result<()> {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    // What is unmounted outside is unmounted here, too, so that no disk stays busy because of a container.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Layers as an overlay wants them named.
#[derive(Debug)]
pub(crate) struct Layout {
    lower: Vec<String>,
}

impl Layout {
    /// What the filesystem is told.
    pub(crate) fn options(&self) -> String {
        format!("lowerdir={},upperdir={UPPER},workdir={WORK}", self.lower.join(":"))
    }
}

/// Makes, in the working directory, everything that an overlay of `layers` is made of. Twice is as good as once.
pub(crate) fn lay_out(layers: &[PathBuf]) -> io::Result<Layout> {
    for directory in [ROOT, UPPER, WORK, LINKS] {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    like_the_layer(layers.last().map(PathBuf::as_path), Path::new(UPPER))?;
    // Overlayfs wants at least one.
    let nothing = [PathBuf::from("../empty")];
    let below = if layers.is_empty() {
        fs::create_dir_all("empty")?;
        &nothing[..]
    } else {
        layers
    };
    let mut lower = Vec::new();
    for (number, layer) in below.iter().rev().enumerate() {
        let link = format!("{LINKS}/{number}");
        match symlink(layer, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => lower.push(link),
        }
    }
    Ok(Layout { lower })
}

/// Mounts `layers`, lowest first, at [`ROOT`] of the working directory. With `is_short_lived`, what the container writes
/// is not synced when it ends.
pub(crate) fn mount(layers: &[PathBuf], is_short_lived: bool, options: &str) -> io::Result<()> {
    let data = format!("{}{options}", lay_out(layers)?.options());
    let mount = |data: String| {
        let data = std::ffi::CString::new(data)?;
        Ok(rustix::mount::mount("overlay", ROOT, "overlay", MountFlags::empty(), Some(data.as_c_str()))?)
    };
    if is_short_lived {
        // Kernels before 5.10 do not know it.
        if mount(format!("{data},volatile")).is_ok() {
            return Ok(());
        }
    }
    mount(data)
}

/// Takes the root away again.
pub(crate) fn unmount() -> io::Result<()> {
    Ok(rustix::mount::unmount(ROOT, UnmountFlags::DETACH)?)
}

/// The container's root has the owner and the mode of its topmost layer's.
fn like_the_layer(layer: Option<&Path>, upper: &Path) -> io::Result<()> {
    let Some(layer) = layer else {
        return fs::set_permissions(upper, fs::Permissions::from_mode(0o755));
    };
    let metadata = fs::metadata(layer)?;
    let own = fs::metadata(upper)?;
    if (metadata.uid(), metadata.gid()) != (own.uid(), own.gid()) {
        chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}
