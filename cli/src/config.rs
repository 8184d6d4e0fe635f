//! What the environment and the options say: where the repository lies, whether to use colour.
//!
//! The only reader of environment variables and of the home directory. Nothing is opened here.

use std::{
    env,
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use shipfs_image::control::{Failure, FailureKind};

use crate::{args::Global, settings::Settings};

/// Where root's repository lies.
const SYSTEM_REPOSITORY: &str = "/var/lib/shipfs";

/// How this run of the command is set up.
#[derive(Debug)]
pub(crate) struct Config {
    /// The repository, as an absolute path.
    pub(crate) repository: PathBuf,
    /// The directory that relative paths start from.
    pub(crate) directory: PathBuf,
    /// Whether stderr shows a person what happens, and may be redrawn.
    pub(crate) is_interactive: bool,
    /// Whether stderr takes colour.
    pub(crate) colour: bool,
    /// Whether stdout is a terminal, which is no place for an archive.
    pub(crate) stdout_is_terminal: bool,
    /// Whether no network may be entered but a private one: `LIBP2P_FORCE_PNET=1`, which every libp2p node heeds.
    pub(crate) private_only: bool,
    /// Where to tell systemd that the daemon is ready.
    pub(crate) notify_socket: Option<OsString>,
    /// What counts of all that is said about the network.
    pub(crate) settings: Settings,
    /// Which parts of the program say how much, in tracing's words.
    pub(crate) log: String,
}

impl Config {
    /// Reads the environment.
    /// `needs_settings`: the verb works with a repository, whose `config.toml` must then be well-formed.
    pub(crate) fn read(global: &Global, needs_settings: bool) -> Result<Self, Failure> {
        let directory = env::current_dir().map_err(|error| {
            Failure::from_error(FailureKind::Other, &error).while_doing("cannot tell the current directory")
        })?;
        let is_root = rustix::process::geteuid().is_root();
        let repository = repository(global.repo.as_deref(), is_root, &|name| set(name))?;
        let repository = directory.join(repository);
        let settings = match needs_settings {
            true => Settings::read(global, &repository, &|name| set(name))?,
            false => Settings::default(),
        };
        let is_terminal = std::io::stderr().is_terminal();
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        Ok(Self {
            repository,
            settings,
            directory,
            is_interactive: is_terminal && !is_dumb,
            colour: colour(is_terminal && !is_dumb, &|name| set(name)),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            private_only: set("LIBP2P_FORCE_PNET").is_some_and(|value| value == "1"),
            notify_socket: set("NOTIFY_SOCKET"),
            log: set("SHIPFS_LOG").and_then(|text| text.into_string().ok()).unwrap_or_else(|| level(global.verbose)),
        })
    }
}

/// A variable that is set to something.
fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn repository(
    option: Option<&Path>,
    is_root: bool,
    set: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Failure> {
    if let Some(path) = option.map(Path::to_owned).or_else(|| set("SHIPFS_PATH").map(PathBuf::from)) {
        return Ok(path);
    }
    if is_root {
        return Ok(PathBuf::from(SYSTEM_REPOSITORY));
    }
    // A relative one is to be ignored, says the specification.
    let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share")));
    data.map(|data| data.join("shipfs")).ok_or_else(|| {
        Failure::new(FailureKind::Usage, "cannot tell where the repository lies: there is no home directory")
            .hint("name it with --repo DIRECTORY or $SHIPFS_PATH")
    })
}

/// `NO_COLOR` wins, then `CLICOLOR_FORCE`, then `CLICOLOR=0`, then what stderr is.
fn colour(is_terminal: bool, set: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let is_off = |name| set(name).is_some_and(|value| value == "0");
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some() && !is_off("CLICOLOR_FORCE") {
        return true;
    }
    is_terminal && !is_off("CLICOLOR")
}

fn level(verbose: u8) -> String {
    match verbose {
        0 => "error",
        1 => "warn,shipfs=info,shipfs_node=info,shipfs_image=info",
        2 => "info,shipfs=debug,shipfs_node=debug,shipfs_image=debug",
        _ => "debug,shipfs=trace,shipfs_node=trace,shipfs_image=trace",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    #[test]
    fn the_repository_is_where_the_nearest_word_says() {
        let everything = with(&[("SHIPFS_PATH", "/path"), ("XDG_DATA_HOME", "/data"), ("HOME", "/home/a")]);
        let option = Some(Path::new("option"));
        assert_eq!(repository(option, true, &everything).expect("found"), Path::new("option"));
        assert_eq!(repository(None, true, &everything).expect("found"), Path::new("/path"));
        let data = with(&[("XDG_DATA_HOME", "/data"), ("HOME", "/home/a")]);
        assert_eq!(repository(None, true, &data).expect("found"), Path::new("/var/lib/shipfs"));
        assert_eq!(repository(None, false, &data).expect("found"), Path::new("/data/shipfs"));
        let relative = with(&[("XDG_DATA_HOME", "data"), ("HOME", "/home/a")]);
        assert_eq!(repository(None, false, &relative).expect("found"), Path::new("/home/a/.local/share/shipfs"));
        assert_eq!(repository(None, false, &with(&[])).expect_err("nowhere").exit_code(), 2);
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert!(colour(true, &with(&[])) && !colour(false, &with(&[])));
        assert!(!colour(true, &with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
        assert!(!colour(true, &with(&[("CLICOLOR", "0")])));
        assert!(colour(false, &with(&[("CLICOLOR_FORCE", "1")])));
    }
}
