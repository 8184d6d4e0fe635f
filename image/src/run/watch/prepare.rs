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
    layers::Layers,
    overlay,
    rootfs::Rootfs,
    settings::Settings,
    state::Container,
};

/// Where the files lie that appear in the container's `/etc`.
const ETC: &str = "etc";

/// What was made.
pub(super) struct Prepared {
    /// Chain IDs of the layers below.
    pub(super) layers: Vec<String>,
}

/// Makes the root and the bundle.
pub(super) fn prepare(
    container: &Container,
    repository: &Path,
    settings: &Settings,
    size: Option<(u16, u16)>,
) -> Result<Prepared, RunError> {
    let image = container.image()?;
    let composer = Composer::new(settings, &image.config, &container.short())?;
    if image.layers.len() > overlay::MAX_LAYERS {
        return Err(RunError::TooManyLayers { count: image.layers.len(), limit: overlay::MAX_LAYERS });
    }
    overlay::enter_own_namespace().map_err(RunError::Namespace)?;
    let all = Layers::new(repository);
    let trees: Vec<_> = image.layers.iter().map(|chain| all.tree(chain)).collect();
    overlay::mount(&trees, settings.remove, "").map_err(|source| RunError::Mount { layers: trees.len(), source })?;
    let rootfs = Rootfs::open(Path::new(overlay::ROOT)).map_err(|error| container.failed(overlay::ROOT, error))?;
    let files = write_files(container, composer.etc_files()).map_err(|error| container.failed(ETC, error))?;
    let cgroup = format!("/shipfs/{}", container.id);
    let config = composer.finish(&rootfs, Surroundings { files, cgroup, size, ..Surroundings::default() })?;
    fs::write("config.json", config).map_err(|error| container.failed("config.json", error))?;
    Ok(Prepared { layers: image.layers })
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
