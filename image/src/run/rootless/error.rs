//! Why a user gets no namespace, and what to do about it.
//!
//! Imports nothing of this crate. The kernel answers with a number that has many causes; which one it is, is looked up
//! among the switches that distributions and administrators have.

use std::{io, path::PathBuf};

/// Why a user gets no namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel says no.
    #[error("the kernel gives this user no namespace of its own: {doing}")]
    Forbidden {
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A program of the system's does not map what the user was given.
    #[error("`{}` does not map the ids that `{MAPS}` give this user: {}", program.display(), said.escape_debug())]
    Unmapped {
        /// The program.
        program: PathBuf,
        /// What it says.
        said: String,
    },
    /// The process that works in a namespace cannot be started or reached.
    #[error("cannot {action} the process that works in a user namespace")]
    Process {
        /// What was being done.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Whoever uses this library did not say how to start such a process.
    #[error("only root does this here: no program was named that works in a user namespace")]
    NoHelper,
}

/// The files that give ranges.
const MAPS: &str = "/etc/subuid and /etc/subgid";

/// A switch of the kernel's, the value with which it gives users no namespaces, and what helps.
const SWITCHES: [(&str, &str, &str); 4] = [
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "`sysctl kernel.unprivileged_userns_clone=1`, as root, lets users have namespaces; or run it as root",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "`sysctl user.max_user_namespaces=15000`, as root, lets users have namespaces; or run it as root",
    ),
    (
        "/proc/sys/user/max_mnt_namespaces",
        "0",
        "`sysctl user.max_mnt_namespaces=15000`, as root, lets users have namespaces; or run it as root",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor withholds them: a profile for shipfs with `userns,` in it allows them, and so does \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, as root; or run it as root",
    ),
];

impl NamespaceError {
    /// What may help.
    pub fn hint(&self) -> String {
        match self {
            Self::Forbidden { .. } => hint(|path| std::fs::read_to_string(path).ok()),
            Self::Unmapped { .. } => {
                "the ranges must be this user's alone; without any, only the user itself exists inside".to_owned()
            }
            Self::Process { .. } | Self::NoHelper => "run it as root".to_owned(),
        }
    }
}

fn hint(read: impl Fn(&str) -> Option<String>) -> String {
    let is_off = |(path, off, _): &&(&str, &str, &str)| read(path).is_some_and(|value| value.trim() == *off);
    let found = SWITCHES.iter().find(is_off).map(|(.., hint)| (*hint).to_owned());
    found.unwrap_or_else(|| {
        "no switch of the kernel forbids it, so a filter of system calls, a chroot or a container around this process \
         does; run it outside, or as root"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_is_off_is_named() {
        for (path, off, _) in SWITCHES {
            let said = hint(|asked| (asked == path).then(|| format!("{off}\n")));
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            assert!(said.contains(&name), "{said}");
        }
        let said = hint(|path| (!path.contains("apparmor")).then(|| "96365\n".to_owned()));
        assert!(said.contains("a filter of system calls"), "{said}");
    }
}
