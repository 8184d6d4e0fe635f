//! Everything between what was asked and what the runtime is told: mounts the root, writes the bundle.
//!
//! Imports its siblings. Runs in the watcher, in the container's directory.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use crate::run::{
    RunError,
    bundle::Surroundings,
    compose::{Composer, EtcFile},
    fuse::Fuse,
    layers::Layers,
    overlay,
    rootfs::Rootfs,
    rootless::ids::Inside,
    runtime::Runtime,
    settings::{RootWay, Settings},
    stack::Stack,
    state::Container,
};

/// Where the files lie that appear in the container's `/etc`.
const ETC: &str = "etc";
/// Where the way is noted that users were told last, below the folder of the containers.
const ROOT_WAY: &str = "root-way";
/// What the second version of cgroups can limit, on hosts that mount the first one, too.
const UNIFIED: &str = "/sys/fs/cgroup/unified/cgroup.controllers";

/// Where a container is made.
pub(super) struct Place<'w> {
    /// The container.
    pub(super) container: &'w Container,
    /// The layers of its user.
    pub(super) layers: &'w Layers,
    /// Who exists in the namespace that this is, when root did not start it.
    pub(super) inside: Option<&'w Inside>,
    /// What will run it.
    pub(super) runtime: &'w Runtime,
}

/// What was made.
pub(super) struct Prepared {
    /// Chain IDs of the layers below.
    pub(super) layers: Vec<String>,
    /// How the root was put together.
    pub(super) way: RootWay,
    /// What the user should know about that.
    pub(super) note: Option<String>,
}

/// Makes the root and the bundle. What keeps the root there is put into `fuse`, so that it is not lost when this fails.
pub(super) fn prepare(
    place: &Place<'_>,
    settings: &Settings,
    size: Option<(u16, u16)>,
    fuse: &mut Option<Fuse>,
) -> Result<Prepared, RunError> {
    let Place { container, inside, .. } = place;
    let image = container.image()?;
    let composer = Composer::new(settings, &image.config, &container.short(), *inside)?;
    if image.layers.len() > overlay::MAX_LAYERS {
        return Err(RunError::TooManyLayers { count: image.layers.len(), limit: overlay::MAX_LAYERS });
    }
    if place.runtime.wants_one_version_of_cgroups() {
        hide_unified()
            .map_err(|source| RunError::Process { action: "hide the controllers of one version of cgroups", source })?;
    }
    let trees: Vec<_> = image.layers.iter().map(|chain| place.layers.tree(chain)).collect();
    let is_for_the_kernel = image.layers.iter().all(|chain| place.layers.is_for_the_kernel(chain));
    let mut stack = Stack::make(&trees, is_for_the_kernel, settings.remove, inside.is_some(), settings.root)?;
    *fuse = stack.fuse.take();
    let rootfs = Rootfs::open(Path::new(overlay::ROOT)).map_err(|error| container.failed(overlay::ROOT, error))?;
    let files = write_files(container, composer.etc_files()).map_err(|error| container.failed(ETC, error))?;
    let cgroup = format!("/shipfs/{}", container.id);
    let config = composer.finish(&rootfs, Surroundings { files, cgroup, size, ..Surroundings::default() })?;
    fs::write("config.json", config).map_err(|error| container.failed("config.json", error))?;
    let note = stack.note().filter(|note| is_news(container, note));
    Ok(Prepared { layers: image.layers, way: stack.way, note })
}

/// Whether this is another text than the last one, in this boot.
fn is_news(container: &Container, note: &str) -> bool {
    let path = container.directory.with_file_name(ROOT_WAY);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let text = format!("{boot}{note}\n");
    let is_news = fs::read_to_string(&path).ok().as_deref() != Some(&text);
    if is_news && let Err(error) = fs::write(&path, text) {
        tracing::debug!(%error, "it will be told again");
    }
    is_news
}

/// Tells a runtime that has limits by one version of cgroups alone, and says so where both could give some, that the second
/// one limits nothing: it is asked to limit nothing by that one. Only seen in this process's mount namespace.
fn hide_unified() -> io::Result<()> {
    if fs::read(UNIFIED).is_ok_and(|controllers| !controllers.is_empty()) {
        rustix::mount::mount_bind("/dev/null", UNIFIED)?;
    }
    Ok(())
}

/// Writes what appears in `/etc`; where it lies, and what it is called there.
fn write_files(container: &Container, files: Vec<EtcFile>) -> io::Result<Vec<(String, &'static str)>> {
    let folder = container.directory.join(ETC);
    fs::DirBuilder::new().mode(0o755).create(&folder)?;
    let mut written = Vec::new();
    for EtcFile { path: target, text } in files {
        let path = folder.join(Path::new(target).file_name().unwrap_or_default());
        fs::write(&path, text)?;
        // Everybody inside reads them.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        let path = path.into_os_string().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        written.push((path, target));
    }
    Ok(written)
}
