//! Which users and groups exist in a namespace of one's own.
//!
//! Imports the user of a container, and the error for one that does not exist. The range that an administrator gave a user is in `/etc/subuid` and `/etc/subgid`
//! (subuid(5)); only `newuidmap` and `newgidmap`, which are root's programs, may map it. Without either, one id is mapped:
//! the user's own, as root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    programs::is_program,
    run::{RunError, user::User},
};

/// Where ranges of users are written down.
const SUBUID: &str = "/etc/subuid";
/// Where ranges of groups are.
const SUBGID: &str = "/etc/subgid";
/// Who is called what.
const PASSWD: &str = "/etc/passwd";
/// Where the programs lie that map ranges.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin"];
/// Ranges of one user that are used: the kernel takes 340 lines on one page.
const MAX_RANGES: usize = 64;

/// Ids of the host that exist inside, the first one after root.
pub type Range = (u32, u32);

/// Who exists inside of a user's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    user: u32,
    group: u32,
    ranges: Option<Ranges>,
}

/// What an administrator gave a user, and the programs that map it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges {
    users: Vec<Range>,
    groups: Vec<Range>,
    programs: [PathBuf; 2],
}

impl Mapping {
    /// What is mapped for the user of this process.
    pub fn of_this_user() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let name = name_of(&read(PASSWD), user);
        let users = ranges(&read(SUBUID), user, name.as_deref());
        let groups = ranges(&read(SUBGID), user, name.as_deref());
        let programs = [program("newuidmap"), program("newgidmap")];
        let ranges = match (users.is_empty() || groups.is_empty(), programs) {
            (false, [Some(for_users), Some(for_groups)]) if may_gain_privileges() => {
                Some(Ranges { users, groups, programs: [for_users, for_groups] })
            }
            _ => None,
        };
        Self { user, group, ranges }
    }

    /// Whether only the user itself exists inside, as root.
    pub fn is_single(&self) -> bool {
        self.ranges.is_none()
    }

    /// What tells trees whose owners are those of one mapping from those of another: letters, digits and dashes.
    pub fn label(&self) -> String {
        let mut label = format!("{}-{}", self.user, self.group);
        let ranges = self.ranges.iter().flat_map(|ranges| [('u', &ranges.users), ('g', &ranges.groups)]);
        for (kind, ranges) in ranges {
            label.extend(ranges.iter().map(|(first, count)| format!("-{kind}{first}x{count}")));
        }
        label
    }

    /// The programs that map, and what they are told after the process: empty when no program is needed.
    pub(super) fn commands(&self) -> Vec<(PathBuf, Vec<String>)> {
        let Some(ranges) = &self.ranges else { return Vec::new() };
        let [for_users, for_groups] = &ranges.programs;
        vec![
            (for_users.clone(), arguments(self.user, &ranges.users)),
            (for_groups.clone(), arguments(self.group, &ranges.groups)),
        ]
    }

    /// The lines of `uid_map` and `gid_map` with which one id alone is mapped.
    pub(super) fn single(&self) -> [String; 2] {
        [format!("0 {} 1\n", self.user), format!("0 {} 1\n", self.group)]
    }
}

/// What tells the namespace that this process is root of from others; `None` for root of the host, and for who is not root.
pub(crate) fn label_of_roots_namespace() -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let label = |name: &str| read(name).split_whitespace().collect::<Vec<_>>().join("x");
    let (users, groups) = (label("uid_map"), label("gid_map"));
    // All ids as they are: no namespace, or one that is as good.
    let is_whole = users == format!("0x0x{}", u32::MAX);
    (rustix::process::geteuid().is_root() && !is_whole).then(|| format!("in-{users}-{groups}"))
}

/// What exists in the namespace that this process is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inside {
    users: Vec<Range>,
    groups: Vec<Range>,
    /// Whether a process may have other groups than its main one.
    can_set_groups: bool,
}

impl Inside {
    /// What exists in the namespace that this process is in.
    pub(crate) fn read() -> Self {
        Self::of("self")
    }

    /// What exists in the namespace of another process.
    pub(crate) fn of_process(process: u32) -> Self {
        Self::of(&process.to_string())
    }

    fn of(process: &str) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
        let map = |name: &str| -> Vec<Range> {
            let read = read(name);
            let fields = read.lines().map(|line| line.split_whitespace().map(str::parse::<u32>).collect::<Vec<_>>());
            fields.filter_map(|fields| Some((fields.first()?.clone().ok()?, fields.get(2)?.clone().ok()?))).collect()
        };
        let (users, groups) = (map("uid_map"), map("gid_map"));
        Self { users, groups, can_set_groups: read("setgroups").trim() != "deny" }
    }

    /// Somebody with those of its groups that exist and can be had. The user and its main group have to exist.
    pub(crate) fn admit(&self, user: User) -> Result<User, RunError> {
        if !has(&self.users, user.uid) {
            return Err(RunError::Unmapped { what: "user", id: user.uid });
        }
        if !self.has_group(user.gid) {
            return Err(RunError::Unmapped { what: "group", id: user.gid });
        }
        let can_be_had = |group: &u32| self.can_set_groups && self.has_group(*group);
        Ok(User { groups: user.groups.into_iter().filter(can_be_had).collect(), ..user })
    }

    /// Whether there is such a user.
    #[cfg(test)]
    pub(crate) fn has_user(&self, id: u32) -> bool {
        has(&self.users, id)
    }

    /// Whether there is such a group.
    pub(crate) fn has_group(&self, id: u32) -> bool {
        has(&self.groups, id)
    }
}

fn has(ranges: &[Range], id: u32) -> bool {
    ranges.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|offset| offset < *count))
}

/// Root inside is the user, and the others are those of the ranges, one after another.
fn arguments(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut all = vec![(0, own, 1)];
    let mut next: u32 = 1;
    for (first, count) in ranges {
        // The number that means "nobody" is nobody's.
        let count = (*count).min(u32::MAX - next);
        if count > 0 {
            all.push((next, *first, count));
        }
        next += count;
    }
    all.iter().flat_map(|(inside, outside, count)| [inside, outside, count]).map(u32::to_string).collect()
}

/// The ranges of a user, in the order of the file.
fn ranges(text: &str, user: u32, name: Option<&str>) -> Vec<Range> {
    let is_own = |owner: &str| Some(owner) == name || owner.parse() == Ok(user);
    let range = |line: &str| -> Option<Range> {
        let mut fields = line.trim().split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        let is_sound = count > 0 && first > 0 && first.checked_add(count).is_some();
        (is_own(owner) && is_sound).then_some((first, count))
    };
    text.lines().filter_map(range).take(MAX_RANGES).collect()
}

fn name_of(passwd: &str, user: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(user)).map(|fields| fields[0].to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| is_program(path) && has_privileges(path))
}

/// Whether a program has what mapping takes: root's identity, or a capability of its own.
fn has_privileges(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let is_setuid = fs::metadata(path).is_ok_and(|there| there.uid() == 0 && there.mode() & 0o4000 != 0);
    is_setuid || rustix::fs::getxattr(path, "security.capability", &mut [0; 64][..]).is_ok()
}

/// Whether programs that have privileges give them to whoever this process starts.
fn may_gain_privileges() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    !status
        .lines()
        .any(|line| line.split_once(':').is_some_and(|(key, value)| key == "NoNewPrivs" && value.trim() == "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text =
            "other:1:65536\nme:100000:65536\nbroken\nme:x:1\n1000:300000:10\nme:5:0\nme:4294967295:9\n10000:7:7\n";
        assert_eq!(ranges(text, 1000, Some("me")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(ranges(text, 1000, None), [(300_000, 10)]);
        assert!(ranges(text, 4, Some("nobody")).is_empty());
        assert!(ranges("me:0:65536\n", 4, Some("me")).is_empty(), "root of the host is in no range");
        assert_eq!(name_of("root:x:0:0::/:\nme:x:1000:1000::/:\nbad\n", 1000).as_deref(), Some("me"));
    }

    #[test]
    fn root_inside_is_the_user_and_the_rest_follows() {
        assert_eq!(
            arguments(1000, &[(100_000, 65_536), (300_000, 10)]).join(" "),
            "0 1000 1 1 100000 65536 65537 300000 10"
        );
        assert_eq!(arguments(1000, &[(5, u32::MAX - 6), (9, 9)]).last().expect("numbers"), "5");
    }

    #[test]
    fn another_mapping_has_another_label() {
        let programs = ["/a".into(), "/b".into()];
        let ranges = Ranges { users: vec![(5, 6)], groups: vec![(7, 8)], programs };
        let whole = Mapping { user: 1, group: 2, ranges: Some(ranges) };
        let single = Mapping { ranges: None, ..whole.clone() };
        assert_eq!([whole.label(), single.label()], ["1-2-u5x6-g7x8", "1-2"]);
        assert!(single.commands().is_empty() && !whole.is_single());
    }

    #[test]
    fn the_kernel_says_who_exists() {
        let inside = Inside { users: vec![(0, 1), (10, 5)], groups: vec![(0, u32::MAX)], can_set_groups: true };
        assert!(inside.has_user(0) && inside.has_user(14) && !inside.has_user(15) && !inside.has_user(1));
        assert!(inside.has_group(77) && !inside.has_group(u32::MAX));
        let user = |uid, gid| User { uid, gid, groups: vec![0, 77, u32::MAX], home: "/".into() };
        assert_eq!(inside.admit(user(11, 5)).expect("exists").groups, [0, 77]);
        assert!(matches!(inside.admit(user(33, 0)), Err(RunError::Unmapped { what: "user", id: 33 })));
        let alone = Inside { users: vec![(0, 1)], groups: vec![(0, 1)], can_set_groups: false };
        assert!(matches!(alone.admit(user(0, 5)), Err(RunError::Unmapped { what: "group", id: 5 })));
        assert!(alone.admit(user(0, 0)).expect("exists").groups.is_empty());
        assert!(Inside::read().has_user(0), "there is a root in every namespace that tests run in");
    }
}
