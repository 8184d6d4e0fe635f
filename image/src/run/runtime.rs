//! The program that makes a bundle run: `runc`, `crun`, or whatever takes the same words.
//!
//! Imports what tells programs from other files. It is found on a search path that is handed in; what it is told comes from the bundle
//! alone. It never sees the user's environment.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use super::rootless::Helper;
use crate::programs::is_program;

/// The runtimes that are looked for, the first that is there is taken.
const KNOWN: [&str; 2] = ["runc", "crun"];
/// Where runtimes find the programs they need themselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the runtime notes what went wrong, below the container's directory.
pub(crate) const LOG: &str = "runtime.log";
/// Where it keeps what it knows about the container.
const ROOT: &str = "runtime";
/// What runc says before it says why.
const BEFORE_THE_REASON: [&str; 4] =
    ["runc run failed: ", "runc create failed: ", "exec failed: ", "unable to start container process: "];
/// Longest log that is read back, in bytes: a few lines.
const MAX_LOG_BYTES: u64 = 64 << 10;

/// An OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    program: PathBuf,
}

impl Runtime {
    /// Finds a runtime: the one that is named, by name or path, or the first one known.
    pub fn find(named: Option<&str>, path: &OsStr) -> Option<Self> {
        let program = match named {
            Some(named) if named.contains('/') => Some(PathBuf::from(named)).filter(|program| is_program(program)),
            Some(named) => on_path(named, path),
            None => KNOWN.iter().find_map(|name| on_path(name, path)),
        };
        program.map(|program| Self { program })
    }

    /// The one at a path.
    pub(crate) fn at(program: PathBuf) -> Self {
        Self { program }
    }

    /// Where it lies.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it refuses to work where both versions of cgroups are mounted and the second one has controllers, as crun
    /// does.
    pub(crate) fn wants_one_version_of_cgroups(&self) -> bool {
        self.program.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"crun"))
    }

    /// A command of it about a container that lies in `directory`, without standard streams.
    pub(crate) fn command(&self, directory: &Path) -> Command {
        self.command_with_log(directory, &directory.join(LOG))
    }

    /// As [`Runtime::command`], with complaints noted elsewhere.
    pub(crate) fn command_with_log(&self, directory: &Path, log: &Path) -> Command {
        self.prepared(Command::new(&self.program), directory, log)
    }

    /// As [`Runtime::command_with_log`], in the user namespace of a process.
    pub(crate) fn command_inside(&self, helper: &Helper, process: u32, directory: &Path, log: &Path) -> Command {
        self.prepared(helper.joining(process, &self.program), directory, log)
    }

    #[expect(clippy::unused_self, reason = "what every command of a runtime gets")]
    fn prepared(&self, mut command: Command, directory: &Path, log: &Path) -> Command {
        command.env_clear().env("PATH", PATH).current_dir(directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.arg("--root").arg(directory.join(ROOT));
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }

    /// Stops all processes of a container where they are.
    pub(crate) fn pause(&self, directory: &Path, id: &str) -> io::Result<Output> {
        self.command(directory).args(["pause", id]).stderr(Stdio::piped()).output()
    }

    /// Lets them go on.
    pub(crate) fn resume(&self, directory: &Path, id: &str) -> io::Result<Output> {
        self.command(directory).args(["resume", id]).output()
    }

    /// Sends a signal to the first process of a container.
    pub(crate) fn kill(&self, directory: &Path, id: &str, signal: i32) -> io::Result<Output> {
        self.command(directory).args(["kill", id, &signal.to_string()]).stderr(Stdio::piped()).output()
    }

    /// Ends whatever runs of a container, and forgets it. It may be gone already.
    pub(crate) fn delete(&self, directory: &Path, id: &str) -> io::Result<()> {
        self.command(directory).args(["delete", "--force", id]).output().map(drop)
    }
}

/// The program of that name, on a search path or where the system has its own.
pub(super) fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    let all = std::env::split_paths(path).chain(std::env::split_paths(PATH));
    all.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|candidate| is_program(candidate))
}

/// What the runtime noted last as an error, in its own words.
pub(crate) fn complaint(directory: &Path) -> Option<String> {
    use io::Read as _;
    let mut text = String::new();
    std::fs::File::open(directory.join(LOG)).ok()?.take(MAX_LOG_BYTES).read_to_string(&mut text).ok()?;
    last_error(&text)
}

fn last_error(log: &str) -> Option<String> {
    let message = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = matches!(value["level"].as_str(), Some("error" | "fatal"));
        let text = reason(value["msg"].as_str()?.trim());
        (is_error && !text.is_empty()).then(|| text.to_owned())
    };
    log.lines().rev().find_map(message)
}

/// What a runtime says, without what it says before it says why.
pub(crate) fn reason(text: &str) -> &str {
    BEFORE_THE_REASON.iter().fold(text, |text, before| text.strip_prefix(before).unwrap_or(text))
}

/// What a shell would exit with where a command cannot be run for the reason that a runtime gives: 127 when it is not
/// there, 126 when it is no program, 125 when it is another matter.
pub(crate) fn exit_code(complaint: &str) -> u8 {
    let text = complaint.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // Both speak of the command in one of these ways, and of mounts, namespaces and cgroups in others.
    let is_about_the_command = has(&["exec: ", "executable", "exec /", "find `", "stat "]) || text.starts_with("exec");
    if !is_about_the_command {
        return 125;
    }
    if has(&["not found", "no such file or directory"]) {
        127
    } else if has(&["permission denied", "is a directory", "exec format error"]) {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_found_on_the_path() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a directory");
        let program = folder.path().join("myrun");
        std::fs::write(&program, "").expect("written");
        let find = |name: &str| Runtime::find(Some(name), folder.path().as_os_str()).map(|found| found.program);
        assert_eq!(find("myrun"), None, "not a program yet");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(find("myrun"), Some(program.clone()));
        assert_eq!(find(program.to_str().expect("text")), Some(program));
        assert_eq!(find("/nowhere/runc"), None);
        assert_eq!(find("no-such-runtime"), None);
    }

    /// The words are those of runc 1.1 and crun 1.8.
    #[test]
    fn what_a_runtime_says_decides_the_exit_code() {
        let runc =
            "runc run failed: unable to start container process: exec: \"nope\": executable file not found in $PATH";
        let denied = "runc run failed: unable to start container process: exec: \"/etc/passwd\": permission denied";
        let missing = "unable to start container process: exec: \"/nope\": stat /nope: no such file or directory";
        let crun = "executable file `nope` not found in $PATH: No such file or directory";
        let directory = "runc run failed: unable to start container process: exec: \"/\": is a directory";
        let mount = "runc run failed: error mounting \"/x\" to rootfs at \"/y\": no such file or directory";
        for (text, code) in [(runc, 127), (denied, 126), (missing, 127), (crun, 127), (directory, 126), (mount, 125)] {
            assert_eq!(exit_code(text), code, "{text}");
        }
    }

    #[test]
    fn the_last_error_is_told() {
        let log = "{\"level\":\"warning\",\"msg\":\"w\"}\n{\"level\":\"error\",\"msg\":\"first\"}\nnoise\n\
            {\"level\":\"error\",\"msg\":\"last\",\"time\":\"t\"}\n{\"level\":\"info\",\"msg\":\"i\"}\n";
        assert_eq!(last_error(log).as_deref(), Some("last"));
        assert_eq!(last_error(""), None);
    }
}
