//! What the environment and the options say: where the repository lies, which daemon does the work, whether to use colour.
//!
//! The only reader of environment variables and of the home directory. Nothing is opened here but a file with credentials.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use shipfs_image::{
    control::{Failure, FailureKind, IpfsAddress, IpfsDaemon},
    programs::Programs,
    registry_client::{Proxies, ProxyAddress, Registries},
    services::Services,
};

use crate::{
    args::{Global, without_scheme},
    settings::Settings,
};

/// Where root's repository lies.
const SYSTEM_REPOSITORY: &str = "/var/lib/shipfs";

/// Longest file with credentials that is read, in bytes: a long token fits.
const MAX_CREDENTIALS_BYTES: u64 = 8 << 10;

/// How this run of the command is set up.
#[derive(Debug)]
pub(crate) struct Config {
    /// The repository, as an absolute path.
    pub(crate) repository: PathBuf,
    /// The IPFS daemon that does the work, if one is to.
    pub(crate) daemon: Option<IpfsDaemon>,
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
    /// Where the services of other programs are.
    pub(crate) services: Services,
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
        let is_terminal = io::stderr().is_terminal();
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        let daemon =
            daemon(global.ipfs_address.as_deref(), global.ipfs_auth.as_deref(), &directory, &|name| set(name))?;
        Ok(Self {
            repository,
            settings,
            daemon,
            directory,
            is_interactive: is_terminal && !is_dumb,
            colour: colour(is_terminal && !is_dumb, &|name| set(name)),
            stdout_is_terminal: io::stdout().is_terminal(),
            private_only: set("LIBP2P_FORCE_PNET").is_some_and(|value| value == "1"),
            notify_socket: set("NOTIFY_SOCKET"),
            services: services(&|name| set(name)),
            log: set("SHIPFS_LOG").and_then(|text| text.into_string().ok()).unwrap_or_else(|| level(global.verbose)),
        })
    }
}

/// A variable of the environment that a user names, whatever it holds.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name)
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

/// The daemon that was named, with the credentials for it.
fn daemon(
    address: Option<&str>,
    credentials: Option<&str>,
    directory: &Path,
    set: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<IpfsDaemon>, Failure> {
    let text = |name: &str| {
        let value = set(name).map(OsString::into_string).transpose();
        value.map_err(|_| Failure::new(FailureKind::Usage, format!("${name} is not text")))
    };
    let address = match address {
        Some(address) => Some(address.to_owned()),
        None => text("SHIPFS_IPFS_ADDRESS")?,
    };
    let address = match address.as_deref().map(str::trim) {
        None | Some("none" | "") if credentials.is_some() => {
            return Err(Failure::new(FailureKind::Usage, "--ipfs-auth is for a daemon, which --ipfs-address names"));
        }
        None | Some("none" | "") => return Ok(None),
        Some("auto") => {
            let folders = [set("IPFS_PATH").map(PathBuf::from), set("HOME").map(|home| Path::new(&home).join(".ipfs"))];
            let files: Vec<_> =
                folders.into_iter().flatten().map(|folder| directory.join(folder).join("api")).collect();
            if files.is_empty() {
                let message = "cannot tell where an IPFS daemon would say its address: there is no home directory";
                return Err(Failure::new(FailureKind::Usage, message).hint("set $IPFS_PATH, or name its address"));
            }
            IpfsAddress::Files(files)
        }
        Some(address) => IpfsAddress::At(address.to_owned()),
    };
    let credentials = match credentials {
        Some(credentials) => Some(credentials.to_owned()),
        None => text("SHIPFS_IPFS_AUTH")?,
    };
    let credentials = match credentials.as_deref().and_then(|text| text.strip_prefix('@')) {
        Some(file) => {
            let path = directory.join(file);
            let read = small_text(&path).map_err(|error| {
                Failure::from_error(FailureKind::Usage, &error)
                    .while_doing(format!("cannot read the credentials in `{}`", path.display()))
            });
            Some(read?.trim().to_owned())
        }
        None => credentials,
    };
    let daemon = IpfsDaemon { address, credentials };
    daemon.check().map(|()| Some(daemon))
}

/// What other programs' credential helpers and commands see of the environment: where things are, no secrets.
const PASSED_ON: [&str; 18] = [
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DOCKER_CONFIG",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "STORAGE_DRIVER",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GNUPGHOME",
    "AWS_PROFILE",
    "AWS_REGION",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Where the services of other programs are, by the variables that those programs read.
fn services(set: &dyn Fn(&str) -> Option<OsString>) -> Services {
    let defaults = Services::default();
    let path = |name: &str| set(name).map(PathBuf::from);
    let text = |name: &str| set(name).and_then(|text| text.into_string().ok()).filter(|text| !text.is_empty());
    let socket = |name: &str| path(name).map(without_scheme).filter(|path| path.is_absolute());
    let home = path("HOME");
    let runtime = path("XDG_RUNTIME_DIR");
    let below = |folder: &Option<PathBuf>, rest: &str| folder.as_ref().map(|folder| folder.join(rest));
    let docker = path("DOCKER_CONFIG").or_else(|| below(&home, ".docker")).map(|folder| folder.join("config.json"));
    let podman = path("REGISTRY_AUTH_FILE").or_else(|| below(&runtime, "containers/auth.json"));
    let kept = path("XDG_CONFIG_HOME").or_else(|| below(&home, ".config"));
    let podman_sockets = match socket("CONTAINER_HOST") {
        Some(socket) => vec![socket],
        None => below(&runtime, "podman/podman.sock").into_iter().chain(defaults.podman).collect(),
    };
    // As curl and Go read them: the small names are the older ones.
    let either = |name: &str| text(&name.to_lowercase()).or_else(|| text(name));
    let proxy = |name: &str| either(name).or_else(|| either("ALL_PROXY")).map(|address| ProxyAddress::new(&address));
    let authorities = path("SSL_CERT_FILE").into_iter();
    let folders = set("SSL_CERT_DIR").map(|folders| env::split_paths(&folders).collect::<Vec<_>>()).unwrap_or_default();
    let certificate_folders = [
        below(&kept, "containers/certs.d"),
        below(&kept, "docker/certs.d"),
        Some(PathBuf::from("/etc/containers/certs.d")),
        Some(PathBuf::from("/etc/docker/certs.d")),
    ];
    let environment = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), set(name)?.into_string().ok()?)));
    Services {
        registries: Registries {
            credential_files: [docker, podman, below(&kept, "containers/auth.json")].into_iter().flatten().collect(),
            authorities: authorities.chain(folders).filter(|path| !path.as_os_str().is_empty()).collect(),
            certificate_folders: certificate_folders.into_iter().flatten().collect(),
            proxies: Proxies {
                http: proxy("HTTP_PROXY"),
                https: proxy("HTTPS_PROXY"),
                except: either("NO_PROXY").unwrap_or_default(),
            },
            ..Registries::default()
        },
        docker: socket("DOCKER_HOST").unwrap_or(defaults.docker),
        podman: podman_sockets,
        containerd: socket("CONTAINERD_ADDRESS").unwrap_or(defaults.containerd),
        containerd_namespace: text("CONTAINERD_NAMESPACE").unwrap_or(defaults.containerd_namespace),
        containerd_snapshotter: text("CONTAINERD_SNAPSHOTTER").unwrap_or(defaults.containerd_snapshotter),
        programs: Programs {
            path: set("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            environment: environment.collect(),
        },
    }
}

/// The text of a file, or the beginning of a long one.
fn small_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_CREDENTIALS_BYTES).read_to_string(&mut text)?;
    Ok(text)
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
    fn the_daemon_is_the_one_that_the_nearest_word_names() {
        let directory = tempfile::tempdir().expect("a directory");
        let found =
            |address, auth, set: &dyn Fn(&str) -> Option<OsString>| daemon(address, auth, directory.path(), set);
        let at = |text: &str| Some(IpfsAddress::At(text.to_owned()));
        let environment = with(&[
            ("SHIPFS_IPFS_ADDRESS", "/ip4/127.0.0.1/tcp/1"),
            ("SHIPFS_IPFS_AUTH", "bearer:a"),
            ("IPFS_PATH", "relative"),
            ("HOME", "/home/a"),
        ]);
        let address = |address| found(address, None, &environment).expect("found").map(|daemon| daemon.address);
        assert_eq!(address(None), at("/ip4/127.0.0.1/tcp/1"));
        assert_eq!(address(Some("/ip4/127.0.0.1/tcp/2")), at("/ip4/127.0.0.1/tcp/2"));
        assert_eq!(address(Some("none")), None);
        let files = vec![directory.path().join("relative/api"), PathBuf::from("/home/a/.ipfs/api")];
        assert_eq!(address(Some("auto")), Some(IpfsAddress::Files(files)));
        assert_eq!(found(None, None, &with(&[])).expect("found"), None);
        assert!(found(Some("auto"), None, &with(&[])).is_err());

        fs::write(directory.path().join("auth"), "basic:a:b\n").expect("writes");
        let credentials = |auth| {
            let daemon = found(Some("/ip4/127.0.0.1/tcp/1"), auth, &environment).expect("found").expect("a daemon");
            daemon.credentials
        };
        assert_eq!(credentials(None).as_deref(), Some("bearer:a"));
        assert_eq!(credentials(Some("@auth")).as_deref(), Some("basic:a:b"));
        for (address, auth) in
            [("none", "bearer:a"), ("http://a:secret@", ""), ("auto", "secret"), ("auto", "@nonexistent")]
        {
            let auth = Some(auth).filter(|auth| !auth.is_empty());
            let failure = found(Some(address), auth, &environment).expect_err(address);
            assert_eq!(failure.exit_code(), 2);
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }

    #[test]
    fn services_are_where_their_own_variables_say() {
        let found = services(&with(&[
            ("HOME", "/home/a"),
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("DOCKER_HOST", "unix:///d.sock"),
            ("CONTAINERD_NAMESPACE", "k8s.io"),
            ("PATH", "/a:/b"),
            ("SECRET", "x"),
            ("SSL_CERT_FILE", "/ca.pem"),
            ("SSL_CERT_DIR", "/c:/d"),
            ("https_proxy", "me:secret@proxy.example:3128"),
            ("HTTPS_PROXY", "http://other.example"),
            ("NO_PROXY", "in.example"),
        ]));
        let files =
            ["/home/a/.docker/config.json", "/run/user/7/containers/auth.json", "/home/a/.config/containers/auth.json"];
        assert_eq!(found.registries.credential_files, files.map(PathBuf::from));
        assert_eq!((found.docker, found.containerd_namespace), (PathBuf::from("/d.sock"), "k8s.io".to_owned()));
        assert_eq!(found.podman[0], Path::new("/run/user/7/podman/podman.sock"));
        assert_eq!(found.programs.path, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(!found.programs.environment.contains_key("SECRET"));
        assert_eq!(found.registries.authorities, ["/ca.pem", "/c", "/d"].map(PathBuf::from));
        assert_eq!(found.registries.certificate_folders[0], Path::new("/home/a/.config/containers/certs.d"));
        let proxies = found.registries.proxies;
        assert_eq!(proxies.https, Some(ProxyAddress::new("http://me:secret@proxy.example:3128")));
        assert_eq!((proxies.http, proxies.except.as_str()), (None, "in.example"));
        // A daemon that is reached over a network is another program's matter.
        assert_eq!(services(&with(&[("DOCKER_HOST", "tcp://10.0.0.1:2375")])).docker, Services::default().docker);
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert!(colour(true, &with(&[])) && !colour(false, &with(&[])));
        assert!(!colour(true, &with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
        assert!(!colour(true, &with(&[("CLICOLOR", "0")])));
        assert!(colour(false, &with(&[("CLICOLOR_FORCE", "1")])));
    }
}
