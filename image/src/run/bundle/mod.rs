//! The `config.json` of an OCI bundle, out of what an image says and what a user asks.
//!
//! Imports the settings beside it. Pure: it takes values and gives JSON. An image decides what runs and as whom, never
//! what of the host it reaches: mounts, namespaces, capabilities and limits come from the user and from the defaults, and
//! its labels go nowhere.

mod defaults;
mod seccomp;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    settings::{CPU_PERIOD, ContainerNetwork, Limits, Mount, Settings},
    user::User,
};

pub(crate) use defaults::{CapabilityError, capabilities};

/// Everything that a bundle is made of.
#[derive(Debug)]
pub(crate) struct Bundle<'b> {
    pub(crate) settings: &'b Settings,
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<String>,
    /// A directory without links on the way.
    pub(crate) working_directory: String,
    pub(crate) user: User,
    pub(crate) hostname: String,
    /// Names of the capabilities it has.
    pub(crate) capabilities: Vec<String>,
    pub(crate) surroundings: Surroundings,
    /// Whether resources can be limited.
    pub(crate) has_cgroups: bool,
    /// What is different in a namespace whose root is not the host's.
    pub(crate) rootless: Option<Rootless>,
}

/// What a user namespace lacks.
#[derive(Debug)]
pub(crate) struct Rootless {
    /// Whether the group of terminals exists.
    pub(crate) has_tty_group: bool,
    /// Sources of volumes, and the options that their mounts have to keep.
    pub(crate) locked: Vec<(PathBuf, Vec<&'static str>)>,
}

/// What a container finds around it, which neither its image nor its user decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Files of the host that appear in `/etc`: where they lie, what they are called.
    pub(crate) files: Vec<(String, &'static str)>,
    /// Its cgroup, where there are any.
    pub(crate) cgroup: String,
    /// Rows and columns of the user's terminal.
    pub(crate) size: Option<(u16, u16)>,
    /// What other programs want to find written.
    pub(crate) annotations: BTreeMap<&'static str, &'static str>,
}

impl Bundle<'_> {
    /// The bytes of `config.json`.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let settings = self.settings;
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "maskedPaths": defaults::MASKED_PATHS,
            "readonlyPaths": defaults::READ_ONLY_PATHS,
        });
        if self.has_cgroups {
            linux["cgroupsPath"] = json!(self.surroundings.cgroup);
            linux["resources"] = resources(&settings.limits);
        }
        if !settings.any_system_call {
            linux["seccomp"] = seccomp::profile();
        }
        let mut value = json!({
            "ociVersion": "1.0.2",
            "process": self.process(),
            "root": {"path": super::overlay::ROOT, "readonly": settings.read_only},
            "hostname": self.hostname,
            "mounts": self.mounts(),
            "linux": linux,
        });
        if !self.surroundings.annotations.is_empty() {
            value["annotations"] = json!(self.surroundings.annotations);
        }
        value.to_string().into_bytes()
    }

    fn process(&self) -> Value {
        let settings = self.settings;
        let mut process =
            process(&self.words, &self.environment, &self.working_directory, &self.user, settings.terminal);
        process["capabilities"] = capability_sets(&self.capabilities, self.user.uid);
        process["noNewPrivileges"] = json!(settings.no_new_privileges);
        if let Some((rows, columns)) = self.surroundings.size.filter(|_| settings.terminal) {
            process["consoleSize"] = json!({"height": rows, "width": columns});
        }
        process
    }

    fn namespaces(&self) -> Value {
        let mut kinds = vec!["pid", "ipc", "uts", "mount"];
        if self.settings.network == ContainerNetwork::None {
            kinds.push("network");
        }
        if self.has_cgroups {
            kinds.push("cgroup");
        }
        kinds.iter().map(|kind| json!({"type": kind})).collect()
    }

    /// What every container has, then the files in `/etc`, then what the user asked for: the shorter path first, so that
    /// no mount hides one below it.
    fn mounts(&self) -> Value {
        let kept = |source: &Path| {
            let all = self.rootless.iter().flat_map(|rootless| &rootless.locked);
            all.filter(move |(of, _)| of == source).flat_map(|(_, options)| options.iter().copied()).collect::<Vec<_>>()
        };
        let has_tty_group = self.rootless.as_ref().is_none_or(|rootless| rootless.has_tty_group);
        // Only who owns a network namespace may look at it through a sysfs of its own.
        let is_foreign_network = self.rootless.is_some() && self.settings.network == ContainerNetwork::Host;
        let mut mounts = defaults::mounts(self.has_cgroups, has_tty_group, is_foreign_network);
        let is_taken = |path: &str| self.settings.mounts.iter().any(|mount| mount.target() == path);
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(is_taken));
        for (source, target) in &self.surroundings.files {
            mounts.push(json!({
                "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", "rw"],
            }));
        }
        let mut own: Vec<&Mount> = self.settings.mounts.iter().collect();
        own.sort_by_key(|mount| mount.target().split('/').count());
        mounts.extend(own.into_iter().map(|mount| match mount {
            Mount::Bind { source, target, read_only } => {
                let mut options = kept(source);
                if *read_only {
                    options.push("ro");
                } else if !options.contains(&"ro") {
                    options.push("rw");
                }
                options.extend(["rbind", "rprivate"]);
                json!({"destination": target, "type": "bind", "source": source, "options": options})
            }
            Mount::Tmpfs { target, options } => {
                let all = ["nosuid", "nodev", "noexec"].iter().map(|option| (*option).to_owned());
                let all: Vec<_> = all.chain(options.iter().cloned()).collect();
                json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": all})
            }
        }));
        mounts.into()
    }
}

/// What a process of a container is: the first one, or one that `exec` adds.
pub(crate) fn process(words: &[String], environment: &[String], directory: &str, user: &User, terminal: bool) -> Value {
    json!({
        "terminal": terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": words,
        "env": environment,
        "cwd": directory,
    })
}

/// Root has them; others may get them from a file that has them. None is inherited by what has none.
pub(crate) fn capability_sets(names: &[String], uid: u32) -> Value {
    let own: &[String] = if uid == 0 { names } else { &[] };
    json!({"bounding": names, "effective": own, "permitted": own})
}

fn resources(limits: &Limits) -> Value {
    // The runtime adds the devices that every container may use.
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if let Some(bytes) = limits.memory {
        resources["memory"] = json!({"limit": bytes});
    }
    if let Some(quota) = limits.cpu_quota {
        resources["cpu"] = json!({"quota": quota, "period": CPU_PERIOD});
    }
    if let Some(count) = limits.pids {
        resources["pids"] = json!({"limit": count});
    }
    resources
}

#[cfg(test)]
mod tests;
