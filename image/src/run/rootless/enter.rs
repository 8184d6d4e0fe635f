//! Makes this process root of a new user namespace, with mounts of its own.
//!
//! Imports its siblings. Works in a process with one thread alone. Ranges of ids are mapped by programs of the system's from
//! outside of the namespace, so a child of this process is started before, stays behind and has them do it.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::mount::MountPropagationFlags;

use super::{
    NamespaceError,
    ids::Mapping,
    process::{MAP, SELF, VERB},
};

/// Longest complaint of a program that is told, in bytes.
const MAX_SAID_BYTES: u64 = 1000;

/// Enters a new user namespace, in which this process is root, and a new mount namespace, in which it mounts what it likes.
///
/// # Errors
/// [`NamespaceError`] says what the kernel, or the program that maps ids, does not allow. The process may be in a half-made
/// namespace then, and should end.
#[expect(
    deprecated,
    reason = "these flags leave file descriptors alone, which is what the safe function is unsafe for"
)]
pub(crate) fn enter(mapping: &Mapping) -> Result<(), NamespaceError> {
    use rustix::thread::UnshareFlags;
    let forbidden = |doing| move |source: io::Error| NamespaceError::Forbidden { doing, source };
    let mapper = if mapping.is_single() { None } else { Some(Mapper::start()?) };
    rustix::thread::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
        .map_err(|error| forbidden("making one")(error.into()))?;
    match mapper {
        Some(mapper) => mapper.map()?,
        None => map_one(mapping).map_err(forbidden("mapping this user to its root"))?,
    }
    // What is unmounted outside is unmounted here, too, so that no disk stays busy because of a container.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(|error| forbidden("having mounts of one's own in it")(error.into()))
}

fn map_one(mapping: &Mapping) -> io::Result<()> {
    let [users, groups] = mapping.single();
    fs::write("/proc/self/uid_map", users)?;
    // Who could drop a group could reach what the group is kept from.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", groups)
}

/// The child that stays outside.
struct Mapper {
    child: Child,
    go: ChildStdin,
}

impl Mapper {
    fn start() -> Result<Self, NamespaceError> {
        let failed = |source| NamespaceError::Process { action: "start", source };
        let mut command = Command::new(SELF);
        command.args([VERB, MAP, &std::process::id().to_string()]).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let go = child.stdin.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { child, go })
    }

    fn map(mut self) -> Result<(), NamespaceError> {
        let failed = |source| NamespaceError::Process { action: "hear from", source };
        self.go.write_all(b"go").map_err(failed)?;
        drop(self.go);
        let output = self.child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (program, said) = text.split_once('\n').unwrap_or(("newuidmap", &text));
        Err(NamespaceError::Unmapped { program: program.into(), said: said.trim().to_owned() })
    }
}

/// The life of the child that stays outside: waits for `parent` to be in its namespace, and has its ids mapped. Says on
/// its standard output who failed, and what they say.
pub(super) fn map_for(parent: &str) -> io::Result<()> {
    let mut go = Vec::new();
    io::stdin().read_to_end(&mut go)?;
    if go.is_empty() {
        // It failed before.
        return Ok(());
    }
    for (program, arguments) in Mapping::of_this_user().commands() {
        let mut command = Command::new(&program);
        command
            .arg(parent)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let output = command.output().map_err(|error| io::Error::other(format!("{}\n{error}", program.display())))?;
        if !output.status.success() {
            let mut said = String::new();
            output.stderr.take(MAX_SAID_BYTES).read_to_string(&mut said)?;
            return Err(io::Error::other(format!("{}\n{said}", program.display())));
        }
    }
    Ok(())
}
