//! What the runtime is told, out of what an image says, what a user asks, and what lies in the root.
//!
//! Imports its siblings. Everything that needs no root is checked before there is one. What an image says is looked at
//! inside of its own root alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    RunError,
    bundle::{Bundle, Rootless, Surroundings, capabilities},
    image_config::ImageProcess,
    overlay,
    rootfs::Rootfs,
    rootless::ids::Inside,
    settings::{ContainerNetwork, Mount, Settings, cleaned},
    user,
};

/// Longest name of a host, in bytes: the kernel's limit.
const MAX_HOSTNAME_BYTES: usize = 64;
/// The group that terminals belong to, on every Linux.
const TTY: u32 = 5;
/// The capability to make devices, in a bit set.
const MKNOD: u64 = 1 << 27;

/// A container whose root is not there yet.
pub(crate) struct Composer<'c> {
    settings: &'c Settings,
    process: ImageProcess,
    words: Vec<String>,
    hostname: String,
    capabilities: Vec<String>,
    has_cgroups: bool,
    inside: Option<&'c Inside>,
}

/// What a container has of its own in `/etc`.
pub(crate) struct EtcFile {
    /// Its path inside.
    pub(crate) path: &'static str,
    /// What is in it.
    pub(crate) text: String,
}

impl<'c> Composer<'c> {
    /// Checks all that needs no root. `config` is the image's configuration, `name` what the container calls its host unless
    /// the user says; `inside` tells who exists where this is a namespace whose root is not the host's.
    ///
    /// # Errors
    /// [`RunError`] says what cannot be.
    pub(crate) fn new(
        settings: &'c Settings,
        config: &str,
        name: &str,
        inside: Option<&'c Inside>,
    ) -> Result<Self, RunError> {
        let process = ImageProcess::parse(config.as_bytes())?;
        let words = process.words(settings)?;
        let has_cgroups = check_limits(settings, inside.is_some())?;
        check_volumes(settings)?;
        let hostname = hostname(settings, name)?;
        let mut held = held_capabilities();
        if !has_cgroups && inside.is_none() {
            // Nothing but a cgroup keeps the host's root from opening a device once it has made it.
            held &= !MKNOD;
        }
        let capabilities = capabilities(&settings.add_capabilities, &settings.drop_capabilities, held)?;
        Ok(Self { settings, process, words, hostname, capabilities, has_cgroups, inside })
    }

    /// What appears in `/etc`, but for what the user mounts there: with the host's network the host's own words, otherwise
    /// none that lead anywhere.
    pub(crate) fn etc_files(&self) -> Vec<EtcFile> {
        let loopback = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
        let of_the_host = |path: &str| match self.settings.network {
            ContainerNetwork::Host => fs::read_to_string(path).ok(),
            ContainerNetwork::None => None,
        };
        let hostname = &self.hostname;
        let hosts = of_the_host("/etc/hosts").unwrap_or_else(|| format!("{loopback}127.0.1.1\t{hostname}\n"));
        let resolver = of_the_host("/etc/resolv.conf").unwrap_or_default();
        let files = [("/etc/hosts", hosts), ("/etc/hostname", format!("{hostname}\n")), ("/etc/resolv.conf", resolver)];
        let is_taken = |path: &str| self.settings.mounts.iter().any(|mount| mount.target() == path);
        let files = files.into_iter().filter(|(path, _)| !is_taken(path));
        files.map(|(path, text)| EtcFile { path, text }).collect()
    }

    /// Looks into the root, and gives the bytes of `config.json`.
    ///
    /// # Errors
    /// [`RunError`] when the user is not known, the working directory leads out of the image, or the root cannot be read.
    pub(crate) fn finish(self, rootfs: &Rootfs, surroundings: Surroundings) -> Result<Vec<u8>, RunError> {
        let failed = |source: io::Error| RunError::State { path: PathBuf::from(overlay::ROOT), source };
        let (settings, process) = (self.settings, self.process);
        let wanted = settings.user.as_deref().unwrap_or(&process.user);
        let (passwd, group) = (rootfs.read("/etc/passwd").map_err(failed)?, rootfs.read("/etc/group").map_err(failed)?);
        let user = user::look_up(wanted, &passwd, &group)?;
        let user = self.inside.map_or(Ok(user.clone()), |inside| inside.admit(user))?;
        let directory = settings.working_directory.as_ref().unwrap_or(&process.working_directory);
        // A user may name any directory, one of a volume for instance; an image only one of its own.
        let is_in_a_mount =
            |path: &str| settings.mounts.iter().any(|mount| Path::new(path).starts_with(mount.target()));
        let working_directory = if is_in_a_mount(&cleaned(directory)) {
            cleaned(directory)
        } else {
            let real = rootfs.working_directory(directory).map_err(failed)?;
            real.ok_or_else(|| RunError::WorkingDirectory { path: directory.clone() })?
        };
        let bundle = Bundle {
            settings,
            words: self.words,
            environment: process.environment(settings, &self.hostname, &user.home),
            working_directory,
            user,
            hostname: self.hostname,
            capabilities: self.capabilities,
            surroundings,
            has_cgroups: self.has_cgroups,
            rootless: self
                .inside
                .map(|inside| Rootless { has_tty_group: inside.has_group(TTY), locked: locked(settings) }),
        };
        Ok(bundle.to_json())
    }
}

/// Whether there are cgroups, and those that the user's limits need.
fn check_limits(settings: &Settings, is_rootless: bool) -> Result<bool, RunError> {
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
        if is_rootless {
            return Err(RunError::UsersLimit { what });
        }
        if !has(controller) {
            return Err(RunError::Limit { what, controller });
        }
    }
    Ok(!is_rootless && (unified.is_some() || root.join("devices/tasks").exists()))
}

/// What the host's mounts forbid where the sources of volumes lie: a namespace cannot allow it again.
fn locked(settings: &Settings) -> Vec<(PathBuf, Vec<&'static str>)> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let names = [(Flags::NOSUID, "nosuid"), (Flags::NODEV, "nodev"), (Flags::NOEXEC, "noexec"), (Flags::RDONLY, "ro")];
    let of = |source: &PathBuf| {
        let flags = rustix::fs::statvfs(source).map_or(Flags::empty(), |seen| seen.f_flag);
        (source.clone(), names.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name).collect())
    };
    let sources = settings.mounts.iter().filter_map(|mount| match mount {
        Mount::Bind { source, .. } => Some(source),
        Mount::Tmpfs { .. } => None,
    });
    sources.map(of).collect()
}

fn check_volumes(settings: &Settings) -> Result<(), RunError> {
    for mount in &settings.mounts {
        if let Mount::Bind { source, .. } = mount {
            fs::metadata(source).map_err(|error| RunError::Volume { path: source.clone(), source: error })?;
        }
    }
    Ok(())
}

/// What the container calls its host: what the user says, the host's own name with the host's own network, or `short`.
fn hostname(settings: &Settings, short: &str) -> Result<String, RunError> {
    let own = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned();
    let name = match (&settings.hostname, settings.network) {
        (Some(name), _) => name.clone(),
        (None, ContainerNetwork::Host) => own(),
        (None, ContainerNetwork::None) => short.to_owned(),
    };
    let is_fine = !name.is_empty()
        && name.len() <= MAX_HOSTNAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_fine { Ok(name) } else { Err(RunError::Hostname { name }) }
}

/// The capabilities that this process can give, as a bit set.
pub(crate) fn held_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}
