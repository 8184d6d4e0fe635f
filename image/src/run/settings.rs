//! What a user asks of a container, as plain data that is kept beside it.
//!
//! Imports nothing of this crate. Nothing in here comes from an image; nothing here looks at a disk.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest name of a container, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Periods of the processor quota, in microseconds: what every runtime uses.
pub(crate) const CPU_PERIOD: u64 = 100_000;

/// What a user asks of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What to call it; a name is made up when absent.
    pub name: Option<String>,
    /// The image, as the user wrote it.
    pub image: String,
    /// What to run instead of the image's command.
    pub command: Vec<String>,
    /// What to run it with instead of the image's entry point; empty means with nothing.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=VALUE` pairs, which win over the image's.
    pub environment: Vec<String>,
    /// Where to run it, as a path inside.
    pub working_directory: Option<String>,
    /// Whom to run it as: `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// What the container calls its host.
    pub hostname: Option<String>,
    /// What to mount besides what every container has.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: ContainerNetwork,
    /// What it may use at most.
    pub limits: Limits,
    /// Whether its root cannot be written to.
    pub read_only: bool,
    /// How to put its root together; the best way that works when absent.
    pub root: Option<RootWay>,
    /// Capabilities beyond the default ones, `NET_ADMIN` for instance, or `ALL`.
    pub add_capabilities: Vec<String>,
    /// Default capabilities that it lacks, or `ALL`.
    pub drop_capabilities: Vec<String>,
    /// Whether no program in it may gain privileges.
    pub no_new_privileges: bool,
    /// Whether it is not held to the list of system calls that containers do without.
    pub any_system_call: bool,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether it gets the user's standard input.
    pub interactive: bool,
    /// Whether it goes on by itself.
    pub detached: bool,
    /// Whether nothing of it stays once it has ended.
    pub remove: bool,
}

/// The network of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerNetwork {
    /// Loopback alone.
    #[default]
    None,
    /// The host's own.
    Host,
}

/// How a container's root is put together out of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootWay {
    /// By the kernel's overlayfs.
    Overlay,
    /// By the program of that name, through FUSE.
    FuseOverlayfs,
    /// All files are copied.
    Copy,
}

impl std::fmt::Display for RootWay {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Overlay => "overlay",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Copy => "copy",
        })
    }
}

/// What a container may use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Microseconds of processor time in each tenth of a second.
    pub cpu_quota: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Where it lies on the host; absolute.
        source: PathBuf,
        /// Where it appears; absolute.
        target: String,
        /// Whether it cannot be written to.
        read_only: bool,
    },
    /// Memory that can be written to as a directory.
    Tmpfs {
        /// Where it appears; absolute.
        target: String,
        /// Options of the mount, `size=64m` for instance.
        options: Vec<String>,
    },
}

/// Why words of a user do not describe a container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{}` is no {what}: {problem}", text.escape_debug())]
pub struct SettingsError {
    /// What was written.
    pub text: String,
    /// What it should be.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

fn refused(text: &str, what: &'static str, problem: &'static str) -> SettingsError {
    SettingsError { text: text.chars().take(200).collect(), what, problem }
}

/// Options of tmpfs that a user may set: none of them reaches beyond the container.
const TMPFS_OPTIONS: [&str; 13] =
    ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "exec", "noexec", "suid", "nosuid", "nodev", "ro", "rw"];

impl Mount {
    /// Reads `SOURCE:TARGET[:ro|rw]`; a relative source lies below `directory`.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong.
    pub fn parse_volume(text: &str, directory: &Path) -> Result<Self, SettingsError> {
        let refused = |problem| refused(text, "volume", problem);
        let (source, rest) = text.split_once(':').ok_or(refused("expected `SOURCE:TARGET`"))?;
        let (target, options) = rest.split_once(':').unwrap_or((rest, ""));
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                // Propagation is private; labels are for SELinux, which knows no more of such files than of any other.
                "rw" | "z" | "Z" | "private" | "rprivate" => {}
                _ => return Err(refused("the only options are `ro` and `rw`")),
            }
        }
        let is_path = source.starts_with('/') || source.starts_with("./") || source.starts_with("../") || source == ".";
        if !is_path {
            return Err(refused("the source must be a path that begins with `/` or `./`; there are no named volumes"));
        }
        let target = target_path(target).ok_or(refused("the target must be an absolute path, and not `/`"))?;
        Ok(Self::Bind { source: directory.join(source), target, read_only })
    }

    /// Reads `TARGET[:OPTION,...]`.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong.
    pub fn parse_tmpfs(text: &str) -> Result<Self, SettingsError> {
        let refused = |problem| refused(text, "tmpfs", problem);
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let target = target_path(target).ok_or(refused("the target must be an absolute path, and not `/`"))?;
        let options: Vec<_> = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        let is_known = |option: &String| TMPFS_OPTIONS.contains(&option.split('=').next().unwrap_or_default());
        if !options.iter().all(is_known) {
            return Err(refused("the options are `size=`, `mode=`, `exec` and the like"));
        }
        Ok(Self::Tmpfs { target, options })
    }

    /// Reads `type=bind,source=PATH,target=PATH[,readonly]` or `type=tmpfs,target=PATH[,tmpfs-size=N]`.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, SettingsError> {
        let refused = |problem| refused(text, "mount", problem);
        let (mut kind, mut source, mut target, mut read_only, mut options) = ("bind", None, None, false, Vec::new());
        for field in text.split(',') {
            match field.split_once('=').unwrap_or((field, "")) {
                ("type", value) => kind = value,
                ("source" | "src", value) => source = Some(value),
                ("target" | "destination" | "dst", value) => target = Some(value),
                ("readonly" | "ro", "" | "true" | "1") => read_only = true,
                ("readonly" | "ro", "false" | "0") => read_only = false,
                ("tmpfs-size", value) => options.push(format!("size={value}")),
                ("tmpfs-mode", value) => options.push(format!("mode={value}")),
                _ => return Err(refused("a field is not known")),
            }
        }
        let target = target.and_then(target_path).ok_or(refused("it needs `target=` with an absolute path"))?;
        match (kind, source) {
            ("bind", Some(source)) if !source.is_empty() => {
                Ok(Self::Bind { source: directory.join(source), target, read_only })
            }
            ("tmpfs", None) => {
                if read_only {
                    options.push("ro".to_owned());
                }
                Ok(Self::Tmpfs { target, options })
            }
            ("bind", _) => Err(refused("a bind mount needs `source=`")),
            _ => Err(refused("the types are `bind` and `tmpfs`")),
        }
    }

    /// Where it appears.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// A path inside a container, in its shortest form; the root itself is none.
fn target_path(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.contains('\0') {
        return None;
    }
    let cleaned = cleaned(text);
    (cleaned != "/").then_some(cleaned)
}

/// An absolute path without `.`, `..` and double slashes, as a string says it: no link is looked at.
pub(crate) fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What is said about a `--security-opt` that is not known.
pub fn unknown_security_option(text: &str) -> SettingsError {
    refused(text, "security option", "there are `no-new-privileges` and `seccomp=unconfined`")
}

/// Checks the name of a container: letters, digits, `_`, `.` and `-`.
///
/// # Errors
/// [`SettingsError`] says what is wrong.
pub fn check_name(text: &str) -> Result<(), SettingsError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric();
    let is_fine = text.len() > 1
        && text.len() <= MAX_NAME_BYTES
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'_' | b'.' | b'-'));
    if is_fine { Ok(()) } else { Err(refused(text, "name of a container", "letters, digits, `_`, `.` and `-` are")) }
}

/// Reads a number of bytes: `64m`, `1g`, `1073741824`.
///
/// # Errors
/// [`SettingsError`] says what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, SettingsError> {
    let refused = |problem| refused(text, "number of bytes", problem);
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(refused("the units are `k`, `m`, `g` and `t`")),
    };
    let number: u64 = digits.parse().map_err(|_| refused("expected a number and a unit"))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or(refused("it is out of range"))
}

/// Reads a number of processors, `1.5` for instance, and gives the quota in microseconds.
///
/// # Errors
/// [`SettingsError`] says what is wrong.
pub fn parse_cpus(text: &str) -> Result<u64, SettingsError> {
    let refused = |problem| refused(text, "number of processors", problem);
    let number: f64 = text.parse().map_err(|_| refused("expected a number"))?;
    let quota = (number * CPU_PERIOD as f64).round();
    // Less than this, and the kernel refuses it.
    if (1000.0..1e12).contains(&quota) { Ok(quota as u64) } else { Err(refused("it must be at least 0.01")) }
}

/// Signals by name, as every Linux this runs on numbers them.
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// First and last signal that has a number alone.
const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Reads a signal: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
///
/// # Errors
/// [`SettingsError`] says what is wrong.
pub fn parse_signal(text: &str) -> Result<i32, SettingsError> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let beyond = |prefix: &str, sign: i32, base: i32| -> Option<i32> {
        let rest = name.strip_prefix(prefix)?;
        if rest.is_empty() {
            return Some(base);
        }
        let digits = rest.strip_prefix(if sign > 0 { '+' } else { '-' })?;
        Some(base + sign * digits.parse::<u8>().ok().map(i32::from)?)
    };
    let number = named
        .or_else(|| name.parse().ok())
        .or_else(|| beyond("RTMIN", 1, *REALTIME.start()))
        .or_else(|| beyond("RTMAX", -1, *REALTIME.end()));
    let is_known = |number: &i32| (1..=31).contains(number) || REALTIME.contains(number);
    number.filter(is_known).ok_or_else(|| refused(text, "signal", "expected a name or a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read() {
        let parse = |text| Mount::parse_volume(text, Path::new("/home/a"));
        let bind = |source: &str, target: &str, read_only| Mount::Bind {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        assert_eq!(parse("/a:/b").expect("a volume"), bind("/a", "/b", false));
        assert_eq!(parse("./a:/b/../c:ro").expect("a volume"), bind("/home/a/./a", "/c", true));
        for wrong in ["/a", "name:/b", "/a:b", "/a:/", "/a:/b/..", "/a:/b:shared", ":/b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_are_read() {
        let parse = |text| Mount::parse(text, Path::new("/home/a"));
        let bind = Mount::Bind { source: "/home/a/x".into(), target: "/b".into(), read_only: true };
        assert_eq!(parse("type=bind,src=x,dst=/b,readonly").expect("a mount"), bind);
        let tmpfs = Mount::Tmpfs { target: "/t".into(), options: vec!["size=1m".into()] };
        assert_eq!(parse("type=tmpfs,target=/t,tmpfs-size=1m").expect("a mount"), tmpfs);
        assert_eq!(Mount::parse_tmpfs("/t:size=1m").expect("a mount"), tmpfs);
        for wrong in ["type=volume,src=a,dst=/b", "type=bind,dst=/b", "src=/a", "type=bind,src=/a,dst=/b,x=y"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(Mount::parse_tmpfs("/t:context=x").is_err());
    }

    #[test]
    fn limits_and_signals_are_read() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert!(["", "m", "0", "5x", "99999999999t", "-1"].iter().all(|text| parse_bytes(text).is_err()));
        assert_eq!(parse_cpus("1.5"), Ok(150_000));
        assert!(["0", "-1", "nan", "inf", "x"].iter().all(|text| parse_cpus(text).is_err()));
        for (text, number) in [("SIGTERM", 15), ("kill", 9), ("2", 2), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        assert!(["", "0", "32", "65", "SIGNOPE", "RTMIN+99", "-9"].iter().all(|text| parse_signal(text).is_err()));
    }

    #[test]
    fn names_are_words() {
        assert!(["web", "a1", "a_b.c-d"].iter().all(|name| check_name(name).is_ok()));
        assert!(["", "a", "-a", ".a", "a/b", "a b", "ä1", "a\n"].iter().all(|name| check_name(name).is_err()));
    }
}
