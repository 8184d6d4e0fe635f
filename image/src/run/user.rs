//! Whom a container runs as: `USER[:GROUP]` looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Imports nothing of this crate. Pure: takes the two files as bytes. Names are never looked up on the host; numbers are
//! read strictly, so that nothing wraps around to root.

/// Whom a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub uid: u32,
    /// Number of the user's main group.
    pub gid: u32,
    /// Other groups the user belongs to.
    pub groups: Vec<u32>,
    /// The user's home.
    pub home: String,
}

/// Most groups that a process may have, on every Linux.
const MAX_GROUPS: usize = 65_536;
/// The number that means "no change" to the kernel.
const NOBODY: u32 = u32::MAX;

/// Why nobody is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// The image knows no such user.
    #[error("user `{}` is not in the image's /etc/passwd", .0.escape_debug())]
    UnknownUser(String),
    /// The image knows no such group.
    #[error("group `{}` is not in the image's /etc/group", .0.escape_debug())]
    UnknownGroup(String),
    /// A number is out of range.
    #[error("`{}` is no number of a user or a group: they go up to 4294967294", .0.escape_debug())]
    Range(String),
}

/// Finds out whom `text` means. An empty text means root.
///
/// # Errors
/// [`UserError`] when a name is unknown or a number out of range.
pub fn look_up(text: &str, passwd: &[u8], group: &[u8]) -> Result<User, UserError> {
    let (user, named_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let entry =
        lines(passwd, 7).find(|fields| fields[0] == user || number.is_some_and(|uid| uid_of(fields) == Some(uid)));
    let known = entry.as_ref().and_then(|fields| {
        let gid = fields[3].parse().ok().filter(|gid| *gid != NOBODY)?;
        Some((fields[0].to_owned(), uid_of(fields)?, gid, fields[5].to_owned()))
    });
    let (name, uid, gid, home) = match (known, number) {
        (Some(known), _) => known,
        (None, Some(uid)) => (String::new(), uid, 0, String::new()),
        (None, None) => return Err(UserError::UnknownUser(short(user))),
    };
    let home = if home.starts_with('/') { home } else { "/".to_owned() };
    if let Some(named_group) = named_group.filter(|group| !group.is_empty()) {
        return Ok(User { uid, gid: group_number(named_group, group)?, groups: Vec::new(), home });
    }
    let is_member = |fields: &Vec<&str>| !name.is_empty() && fields[3].split(',').any(|member| member == name);
    let groups = lines(group, 4).filter(is_member).filter_map(|fields| fields[2].parse().ok());
    let mut groups: Vec<u32> = groups.filter(|gid| *gid != NOBODY).take(MAX_GROUPS).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups, home })
}

fn group_number(text: &str, group: &[u8]) -> Result<u32, UserError> {
    let number = number(text)?;
    let found = lines(group, 4).find(|fields| fields[0] == text);
    let found = found.and_then(|fields| fields[2].parse().ok().filter(|gid| *gid != NOBODY));
    found.or(number).ok_or_else(|| UserError::UnknownGroup(short(text)))
}

/// The number that a text is; `None` when it is a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What begins like a number is none of a name that systems allow: it would be read by some as a number.
        let is_odd = text.starts_with(['-', '+']);
        return if is_odd { Err(UserError::Range(short(text))) } else { Ok(None) };
    }
    let number = text.parse().ok().filter(|number| *number != NOBODY);
    number.map(Some).ok_or_else(|| UserError::Range(short(text)))
}

fn uid_of(fields: &[&str]) -> Option<u32> {
    fields[2].parse().ok().filter(|uid| *uid != NOBODY)
}

/// The well-formed lines of such a file, cut at their colons.
fn lines(bytes: &[u8], fields: usize) -> impl Iterator<Item = Vec<&str>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(move |line| {
        let cut: Vec<&str> = line.trim_end_matches('\r').split(':').collect();
        (cut.len() >= fields && !cut[0].is_empty()).then_some(cut)
    })
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\n\xff\xfe:x:1:1:::\nweb:x:33:34:web:/srv:/bin/sh\n\
        77:x:5:6::/named:/bin/sh\nhuge:x:99999999999:1::/:/bin/sh\nminus:x:4294967295:1::/:/bin/sh\nhomeless:x:8:8:::\n";
    const GROUP: &[u8] =
        b"root:x:0:\nweb:x:34:\nlog:x:50:other,web\nlog2:x:50:web\nbad:x:nope:web\nwheel:x:10:web,root\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = look_up(text, PASSWD, GROUP).expect(text);
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(found(""), (0, 0, vec![10], "/root".into()));
        assert_eq!(found("web"), (33, 34, vec![10, 50], "/srv".into()));
        assert_eq!(found("33"), (33, 34, vec![10, 50], "/srv".into()));
        assert_eq!(found("web:log"), (33, 50, vec![], "/srv".into()));
        assert_eq!(found("web:7"), (33, 7, vec![], "/srv".into()));
        assert_eq!(found("1234"), (1234, 0, vec![], "/".into()));
        assert_eq!(found("1234:5678"), (1234, 5678, vec![], "/".into()));
        assert_eq!(found(":5"), (0, 5, vec![], "/root".into()));
        assert_eq!(found("77"), (5, 6, vec![], "/named".into()));
        assert_eq!(found("homeless"), (8, 8, vec![], "/".into()));
        assert_eq!(look_up("0", b"", b"").expect("root needs no files").uid, 0);
    }

    #[test]
    fn a14_numbers_never_wrap_and_unknown_names_are_nobody() {
        for text in ["4294967295", "4294967296", "99999999999999999999", "-1", "+1", "1:4294967295", "1:-1"] {
            assert!(matches!(look_up(text, PASSWD, GROUP), Err(UserError::Range(_))), "{text}");
        }
        for text in ["nobody", "huge", "minus", "broken", "0x0", "root ", "1e3"] {
            assert!(matches!(look_up(text, PASSWD, GROUP), Err(UserError::UnknownUser(_))), "{text}");
        }
        assert!(matches!(look_up("web:nope", PASSWD, GROUP), Err(UserError::UnknownGroup(_))));
        assert!(matches!(look_up("web:bad", PASSWD, GROUP), Err(UserError::UnknownGroup(_))));
    }
}
