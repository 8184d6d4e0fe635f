//! What every container has and lacks unless the user says otherwise: the same as with Docker and containerd.
//!
//! Pure. Whatever widens these tables widens what a stranger's image can reach.

use serde_json::{Value, json};

/// Paths that show or change the host, and are hidden.
pub(super) const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that can be read alone.
pub(super) const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Capabilities of root in a container.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// Every capability, by its number.
const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Why capabilities are not what a user asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CapabilityError {
    /// There is none of that name.
    #[error("there is no capability `{}`", .0.escape_debug())]
    Unknown(String),
    /// This process has it not, so it can give it to nobody.
    #[error("capability `{0}` cannot be given: shipfs itself does not have it")]
    Lacking(String),
}

/// The default capabilities, with some more and some less. `held` are those that this process may give, as a bit set.
///
/// # Errors
/// [`CapabilityError`] for a name that is unknown, or a capability that nobody here has.
pub(crate) fn capabilities(add: &[String], drop: &[String], held: u64) -> Result<Vec<String>, CapabilityError> {
    let is_held =
        |name: &str| ALL_CAPABILITIES.iter().position(|known| *known == name).is_some_and(|bit| held >> bit & 1 == 1);
    let read = |text: &String| {
        let upper = text.to_ascii_uppercase();
        let name = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let is_known = name == "ALL" || ALL_CAPABILITIES.contains(&name.as_str());
        if is_known { Ok(name) } else { Err(CapabilityError::Unknown(text.chars().take(60).collect())) }
    };
    let add = add.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let drop = drop.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    if let Some(lacking) = add.iter().find(|name| *name != "ALL" && !is_held(name)) {
        return Err(CapabilityError::Lacking(lacking.clone()));
    }
    let is_wanted = |name: &str| {
        let by_name = has(&add, name);
        let by_default = CAPABILITIES.contains(&name) && !has(&drop, "ALL") || has(&add, "ALL");
        (by_name || by_default) && !has(&drop, name)
    };
    Ok(ALL_CAPABILITIES.iter().filter(|name| is_wanted(name) && is_held(name)).map(|name| (*name).to_owned()).collect())
}

/// What is mounted in every container. With `is_foreign_network`, the host's devices and networks are shown as they are
/// shown on the host, but for its cgroups.
pub(super) fn mounts(has_cgroups: bool, has_tty_group: bool, is_foreign_network: bool) -> Vec<Value> {
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if has_tty_group {
        devpts.push("gid=5");
    }
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    let read_only = ["nosuid", "noexec", "nodev", "ro"];
    if is_foreign_network {
        mounts.push(mount("/sys", "bind", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]));
        mounts.push(mount("/sys/fs/cgroup", "tmpfs", "tmpfs", &read_only));
    } else {
        mounts.push(mount("/sys", "sysfs", "sysfs", &read_only));
    }
    if has_cgroups {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    mounts
}
