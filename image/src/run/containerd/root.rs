//! Looks into the root of a container of containerd's, and puts there what it has of its own in `/etc`.
//!
//! Imports its siblings and the client's mounts. The root is mounted for a moment, in a mount namespace of one thread's
//! alone: nobody else sees it, and it goes with the thread. The files in `/etc` become part of the container's own snapshot,
//! so that nothing outlives the container.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::{
    containerd::Mount,
    run::{
        RunError,
        bundle::Surroundings,
        compose::{Composer, EtcFile},
        overlay,
        rootfs::Rootfs,
        settings::Settings,
    },
};

/// What is needed to look into a root.
pub(super) struct Root {
    /// How containerd says that it is mounted.
    pub(super) mounts: Vec<Mount>,
    /// An empty directory to mount it at.
    pub(super) place: PathBuf,
    /// What the container finds around it.
    pub(super) surroundings: Surroundings,
}

/// Gives the bytes of `config.json`. Blocks, and changes the thread that it is called on for good.
pub(super) fn compose(root: &Root, composer: Composer<'_>) -> Result<Vec<u8>, RunError> {
    let failed = |source| RunError::Process { action: "look into the root of the container", source };
    overlay::enter_own_namespace().map_err(RunError::Namespace)?;
    let mut mounted = Mounted(&root.place, 0);
    for mount in &root.mounts {
        self::mount(mount, &root.place).map_err(failed)?;
        mounted.1 += 1;
    }
    let rootfs = Rootfs::open(&root.place).map_err(failed)?;
    for EtcFile { path, text } in composer.etc_files() {
        let failed = |source| RunError::State { path: PathBuf::from(path), source };
        rootfs.replace(path, &text).map_err(failed)?;
    }
    composer.finish(&rootfs, root.surroundings.clone())
}

/// Does on a thread of its own what blocks and changes the thread.
pub(super) async fn on_a_thread(
    root: Root,
    settings: Settings,
    config: String,
    name: String,
) -> Result<Vec<u8>, RunError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = move || {
        let composed = Composer::new(&settings, &config, &name, None).and_then(|composer| compose(&root, composer));
        // Nobody waits for it any more when its user gave up.
        let _ = sender.send(composed);
    };
    let started = std::thread::Builder::new().name("root".to_owned()).spawn(work);
    let failed = |source| RunError::Process { action: "start a thread", source };
    let thread = started.map_err(failed)?;
    let composed = receiver.await.unwrap_or_else(|_| Err(failed(io::Error::other("it ended early"))));
    // Its mounts are gone by then: the runtime must not find them busy.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    joined.map(drop).map_err(|error| failed(io::Error::other(error)))?;
    composed
}

/// So many mounts at a place. They are gone when this is dropped: the thread that made them ends a moment later.
struct Mounted<'p>(&'p Path, usize);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        for _ in 0..self.1 {
            if let Err(error) = rustix::mount::unmount(self.0, UnmountFlags::DETACH) {
                tracing::debug!(%error, "a mount goes with its thread");
            }
        }
    }
}

/// Mounts what containerd says, for this thread alone.
fn mount(mount: &Mount, place: &Path) -> io::Result<()> {
    match mount.kind.as_str() {
        "overlay" => {
            let (folder, data) = shortened(&mount.options);
            std::env::set_current_dir(folder)?;
            let data = std::ffi::CString::new(data)?;
            Ok(rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), Some(data.as_c_str()))?)
        }
        "bind" => Ok(rustix::mount::mount_bind_recursive(&mount.source, place)?),
        other => {
            let message = format!("it is mounted as `{}`, which is not known here", other.escape_debug());
            Err(io::Error::new(io::ErrorKind::Unsupported, message))
        }
    }
}

/// The options of an overlay with their paths shortened by what all have in common: the kernel takes one page of them.
fn shortened(options: &[String]) -> (PathBuf, String) {
    const PATHS: [&str; 3] = ["lowerdir=", "upperdir=", "workdir="];
    let paths = |option: &str| -> Option<Vec<String>> {
        let rest = PATHS.iter().find_map(|name| option.strip_prefix(name))?;
        Some(rest.split(':').map(str::to_owned).collect())
    };
    let all: Vec<String> = options.iter().filter_map(|option| paths(option)).flatten().collect();
    let mut common = all.first().map(|path| Path::new(path).to_owned()).unwrap_or_default();
    while !common.as_os_str().is_empty() && !all.iter().all(|path| Path::new(path).starts_with(&common)) {
        common.pop();
    }
    // A path that is all that is common would be shortened to nothing.
    if all.iter().any(|path| Path::new(path) == common) {
        common.pop();
    }
    let short = |path: &str| {
        let rest = Path::new(path).strip_prefix(&common).ok().and_then(Path::to_str);
        rest.unwrap_or(path).to_owned()
    };
    let option = |option: &String| match (paths(option), option.split_once('=')) {
        (Some(paths), Some((name, _))) => {
            format!("{name}={}", paths.iter().map(|path| short(path)).collect::<Vec<_>>().join(":"))
        }
        _ => option.clone(),
    };
    // Those are flags of the call, not options of overlayfs.
    let is_data = |option: &&String| !matches!(option.as_str(), "rw" | "ro");
    let data = options.iter().filter(is_data).map(option).collect::<Vec<_>>().join(",");
    (common, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_many_layers_fit_into_a_page() {
        let path = |number: usize, name: &str| format!("/var/lib/containerd/overlayfs/snapshots/{number}/{name}");
        let lower: Vec<_> = (0..400).map(|number| path(number, "fs")).collect();
        let options = [
            "index=off".to_owned(),
            format!("workdir={}", path(400, "work")),
            format!("upperdir={}", path(400, "fs")),
            format!("lowerdir={}", lower.join(":")),
        ];
        let (folder, data) = shortened(&options);
        assert_eq!(folder, Path::new("/var/lib/containerd/overlayfs/snapshots"));
        assert!(data.starts_with("index=off,workdir=400/work,upperdir=400/fs,lowerdir=0/fs:1/fs:2/fs:"), "{data}");
        assert!(data.len() < 4096, "{}", data.len());
        let one = ["lowerdir=/a/b".to_owned(), "ro".to_owned()];
        assert_eq!(shortened(&one), (PathBuf::from("/a"), "lowerdir=b".to_owned()));
    }
}
