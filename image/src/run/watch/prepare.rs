//! Everything between what was asked and what the runtime is told: mounts the root, looks up the user, writes the bundle.
//!
//! Imports its siblings. Runs in the watcher, in the container's directory. What an image says is looked at inside of its
//! own root alone.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use crate::run::{
    RunError,
    bundle::{Bundle, capabilities},
    image_config::ImageProcess,
    layers::Layers,
    overlay,
    rootfs::Rootfs,
    settings::{ContainerNetwork, Mount, Settings, cleaned},
    state::{Container, SHORT_ID},
    user,
};

/// Longest name of a host, in bytes: the kernel's limit.
const MAX_HOSTNAME_BYTES: usize = 64;
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
    let process = ImageProcess::parse(image.config.as_bytes())?;
    let words = process.words(settings)?;
    let has_cgroups = check_limits(settings)?;
    check_volumes(settings)?;
    let hostname = hostname(container, settings)?;
    let held = held_capabilities();
    let capabilities = capabilities(&settings.add_capabilities, &settings.drop_capabilities, held)?;
    if image.layers.len() > overlay::MAX_LAYERS {
        return Err(RunError::TooManyLayers { count: image.layers.len(), limit: overlay::MAX_LAYERS });
    }
    overlay::enter_own_namespace().map_err(RunError::Namespace)?;
    let all = Layers::new(repository);
    let trees: Vec<_> = image.layers.iter().map(|chain| all.tree(chain)).collect();
    overlay::mount(&trees, settings.remove, "").map_err(|source| RunError::Mount { layers: trees.len(), source })?;
    let failed = |error| container.failed(overlay::ROOT, error);
    let rootfs = Rootfs::open(Path::new(overlay::ROOT)).map_err(failed)?;
    let wanted = settings.user.as_deref().unwrap_or(&process.user);
    let (passwd, group) = (rootfs.read("/etc/passwd").map_err(failed)?, rootfs.read("/etc/group").map_err(failed)?);
    let user = user::look_up(wanted, &passwd, &group)?;
    let directory = settings.working_directory.as_ref().unwrap_or(&process.working_directory);
    // A user may name any directory, one of a volume for instance; an image only one of its own.
    let is_in_a_mount = |path: &str| settings.mounts.iter().any(|mount| Path::new(path).starts_with(mount.target()));
    let working_directory = if is_in_a_mount(&cleaned(directory)) {
        cleaned(directory)
    } else {
        let real = rootfs.working_directory(directory).map_err(failed)?;
        real.ok_or_else(|| RunError::WorkingDirectory { path: directory.clone() })?
    };
    let files = write_files(container, settings.network, &hostname).map_err(|error| container.failed(ETC, error))?;
    let bundle = Bundle {
        id: &container.id,
        settings,
        words,
        environment: process.environment(settings, &hostname, &user.home),
        working_directory,
        user,
        hostname,
        capabilities,
        files,
        size,
        has_cgroups,
        rootless: None,
    };
    fs::write("config.json", bundle.to_json()).map_err(|error| container.failed("config.json", error))?;
    Ok(Prepared { layers: image.layers })
}

/// Whether there are cgroups, and those that the user's limits need.
fn check_limits(settings: &Settings) -> Result<bool, RunError> {
    let root = Path::new("/sys/fs/cgroup");
    let unified = fs::read_to_string(root.join("cgroup.controllers")).ok();
    let has = |controller: &str| match &unified {
        Some(all) => all.split_whitespace().any(|one| one == controller),
        None => root.join(controller).join("tasks").exists(),
    };
    let limits = settings.limits;
    let wanted = [
        (limits.memory.is_some(), "memory", "memory"),
        (limits.cpu_quota.is_some(), "processors", "cpu"),
        (limits.pids.is_some(), "processes", "pids"),
    ];
    for (_, what, controller) in wanted.into_iter().filter(|(is_wanted, ..)| *is_wanted) {
        if !has(controller) {
            return Err(RunError::Limit { what, controller });
        }
    }
    Ok(unified.is_some() || root.join("devices/tasks").exists())
}

fn check_volumes(settings: &Settings) -> Result<(), RunError> {
    for mount in &settings.mounts {
        if let Mount::Bind { source, .. } = mount {
            fs::metadata(source).map_err(|error| RunError::Volume { path: source.clone(), source: error })?;
        }
    }
    Ok(())
}

/// What the container calls its host: what the user says, the host's own name with the host's own network, or the
/// beginning of its identifier.
fn hostname(container: &Container, settings: &Settings) -> Result<String, RunError> {
    let own = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned();
    let name = match (&settings.hostname, settings.network) {
        (Some(name), _) => name.clone(),
        (None, ContainerNetwork::Host) => own(),
        (None, ContainerNetwork::None) => container.id[..SHORT_ID].to_owned(),
    };
    let is_fine = !name.is_empty()
        && name.len() <= MAX_HOSTNAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_fine { Ok(name) } else { Err(RunError::Hostname { name }) }
}

/// Writes what appears in `/etc`: with the host's network the host's own words, otherwise none that lead anywhere.
fn write_files(
    container: &Container,
    network: ContainerNetwork,
    hostname: &str,
) -> io::Result<Vec<(String, &'static str)>> {
    let loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    let of_the_host = |path: &str| match network {
        ContainerNetwork::Host => fs::read_to_string(path).ok(),
        ContainerNetwork::None => None,
    };
    let hosts = of_the_host("/etc/hosts").unwrap_or_else(|| format!("{loopback}127.0.1.1\t{hostname}\n"));
    let resolver = of_the_host("/etc/resolv.conf").unwrap_or_default();
    fs::DirBuilder::new().mode(0o755).create(ETC)?;
    let files = [
        ("hosts", hosts, "/etc/hosts"),
        ("hostname", format!("{hostname}\n"), "/etc/hostname"),
        ("resolv.conf", resolver, "/etc/resolv.conf"),
    ];
    let mut written = Vec::new();
    for (name, text, target) in files {
        let path = container.directory.join(ETC).join(name);
        fs::write(&path, text)?;
        // Everybody inside reads them.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        let path = path.into_os_string().into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        written.push((path, target));
    }
    Ok(written)
}

/// The capabilities that this process can give, as a bit set.
pub(crate) fn held_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}
