//! `shipfs run`.

use std::path::{Path, PathBuf};

use clap::{ArgAction, ValueEnum as _};
use shipfs_image::{
    control::{Failure, FailureKind, Prepare, PullPolicy, Request},
    reference::Reference,
    run::{
        attach::Made,
        runtime::Runtime,
        settings::{self, ContainerNetwork, Limits, Mount, RootWay, Settings, SettingsError},
    },
};

use super::{
    container,
    run_containerd::{self, Wanted},
    watch,
};
use crate::{
    args::{self, ContainerdArgs, Keys, Network, Platforms},
    config,
    context::Context,
    report::Outcome,
    signals::WINDOW_CHANGED,
};

/// Run a command in a container of an image
///
/// What is missing of the image is pulled, each layer is unpacked once and shared by all containers, and runc or crun runs
/// the command. Exits with what the command exits with (128 and the number of the signal that ended it), with 125 when
/// shipfs or the runtime fails, 126 when the command is no program, 127 when it is not there.
///
/// With --containerd, containerd runs it, of 1.6 or later: the image is handed over unless it is there, unpacked there once
/// (by $CONTAINERD_SNAPSHOTTER, else overlayfs), and kept. A container in the background is containerd's own then: `ctr` and
/// `nerdctl` see and end it, `shipfs ps`, `stop` and `logs` do not, and what it prints is kept nowhere.
///
/// A container reaches no network unless it is told to: `--network none` is the default, `host` is the host's own. There
/// is no bridge, so no ports are published.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Remove the container once it has ended
    #[arg(long)]
    rm: bool,

    /// Give it what comes in on stdin
    #[arg(short, long)]
    interactive: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// Let it go on by itself and print its identifier
    #[arg(short, long)]
    detach: bool,

    /// Mount a file or directory of the host: `SOURCE:TARGET[:ro]`; may be repeated
    #[arg(short, long = "volume", value_name = "VOLUME")]
    volumes: Vec<String>,

    /// Mount: `type=bind,source=PATH,target=PATH[,readonly]` or `type=tmpfs,target=PATH`; may be repeated
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,

    /// Mount memory as a directory: `TARGET[:size=64m,...]`; may be repeated
    #[arg(long, value_name = "TARGET")]
    tmpfs: Vec<String>,

    /// Set a variable: `NAME=VALUE`, or `NAME` to take it from here; may be repeated
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,

    /// Set the variables that are listed in a file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Run it in this directory of the container
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,

    /// Run it as this user: `USER[:GROUP]`, names of the image or numbers
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// Call the container this
    #[arg(long, value_parser = name)]
    name: Option<String>,

    /// What the container calls its host
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,

    /// Run this with the command as its arguments, instead of what the image says
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,

    /// The container's network, `none` (the default) or `host`; or what peers an image is pulled from: `lan`, `private`,
    /// `offline`
    #[arg(long, id = "network", value_name = "NETWORK", value_parser = network)]
    network: Option<Network>,

    /// Let it use so much memory: `512m`, `2g`
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,

    /// Let it use so many processors: `1.5`
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,

    /// Let it have so many processes and threads
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,

    /// Let it write to no file of its root
    #[arg(long)]
    read_only: bool,

    /// Give it a capability, `NET_ADMIN` for instance, or `ALL`; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,

    /// Take a capability from it, or `ALL`; may be repeated
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,

    /// `no-new-privileges`, or `seccomp=unconfined` to allow every system call; may be repeated
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,

    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: When,

    /// Run this platform of the image [default: this host's]
    #[arg(long, value_name = "PLATFORM", value_parser = args::platform)]
    platform: Option<String>,

    #[command(flatten)]
    keys: Keys,

    /// The runtime, by name or path [default: runc, else crun]
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<String>,

    /// Put its root together in this way alone, instead of the best that works
    #[arg(long, value_enum, value_name = "WAY", hide = true)]
    root: Option<Way>,

    /// Have containerd run it
    #[arg(long)]
    containerd: bool,

    #[command(flatten)]
    place: ContainerdArgs,

    /// Say more on stderr (the short form means --volume here)
    #[arg(long = "verbose", id = "verbose", action = ArgAction::Count)]
    _verbose: u8,

    /// The image: a CID, `ipfs://CID`, or a NAME that is in the repository
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// What to run, instead of what the image says
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// How to put a root together.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    Overlay,
    FuseOverlayfs,
    Copy,
}

/// When to pull an image.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum When {
    /// When it is not here
    Missing,
    /// Always; what is here is not fetched again
    Always,
    /// Never
    Never,
}

const EXAMPLES: &str = "\
Examples:
  shipfs run --rm ipfs://bafkrei... echo hello
  shipfs run --rm -it -v .:/work -w /work bafkrei... sh
  shipfs run -d --name web --network host bafkrei...
  shipfs run --containerd --namespace k8s.io --rm bafkrei... env";

/// Letters of a CID in a name that is made up.
const CID_LETTERS: usize = 5;
/// What is exited with when no command of the user's was run.
const NOT_RUN: u8 = 125;

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    // Until the command runs, whatever fails is no matter of the command's.
    context.exit_with(NOT_RUN);
    let settings = read(&args, context.directory()).map_err(usage)?;
    container::check_terminal(settings.terminal, settings.interactive, settings.detached)?;
    let settings = Settings { environment: environment(&args)?, ..settings };
    let pull = match args.pull {
        When::Missing => PullPolicy::Missing,
        When::Always => PullPolicy::Always,
        When::Never => PullPolicy::Never,
    };
    if !args.containerd && args.place.are_given() {
        let message = "--address and --namespace are containerd's, which is not asked";
        return Err(Failure::new(FailureKind::Usage, message).hint("--containerd has containerd run it"));
    }
    if args.containerd && args.keys.are_given() {
        let message = "containerd decrypts with keys of its own, and is given none";
        return Err(
            Failure::new(FailureKind::Usage, message).hint("leave --containerd out, or put them where it looks")
        );
    }
    // containerd finds one by itself.
    let runtime = if args.containerd && args.runtime.is_none() {
        None
    } else {
        let path = config::variable("PATH").unwrap_or_default();
        Some(Runtime::find(args.runtime.as_deref(), &path).ok_or_else(|| {
            let looked_for = args.runtime.clone().unwrap_or_else(|| "runc, crun".to_owned());
            shipfs_image::run::RunError::NoRuntime { looked_for }.failure()
        })?)
    };
    let platforms = Platforms::one(args.platform).into();
    let Some(runtime) = runtime.clone().filter(|_| !args.containerd) else {
        context.use_containerd(args.place);
        let wanted =
            Wanted { suggested: suggested(&args.image), image: args.image, pull, platforms, settings, runtime };
        return run_containerd::run(wanted, context).await;
    };
    let containers = container::containers(context)?;
    let keys = args.keys.read()?;
    let is_detached = settings.detached;
    let made = Made::new(&containers, settings, &suggested(&args.image)).map_err(|error| error.failure())?;
    let request = Prepare { image: args.image, pull, platforms, container: made.id().to_owned(), keys };
    context.call(Request::Prepare(request)).await?;
    let letting_go = tokio::spawn(context.let_go());
    let mut signals = context.stop().pass_on().map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
    let id = made.id().to_owned();
    let streams = container::streams()?;
    let program = std::env::current_exe().map_err(|error| Failure::from_error(FailureKind::Other, &error))?;
    let mut attached = made.start(&program, watch::NAME, runtime, streams).map_err(|error| error.failure())?;
    let output = context.output().clone();
    attached.on_note(move |text| output.say(text));
    let to = attached.signals();
    let passing_on = tokio::spawn(async move {
        while let Some(number) = signals.recv().await {
            if number == WINDOW_CHANGED { to.resize() } else { to.send(number) }
        }
    });
    let ended = container::blocking(move || if is_detached { attached.started().map(|()| 0) } else { attached.wait() });
    let ended = ended.await;
    passing_on.abort();
    // Others may work through this process still; they lose nothing when it fails.
    let _ = letting_go.await;
    match ended {
        Ok(code) => {
            context.exit_with(code);
            if is_detached { context.show_bytes(format!("{id}\n").as_bytes()) } else { Ok(()) }
        }
        Err(error) => {
            context.exit_with(error.exit_code());
            Err(error.failure())
        }
    }
}

/// What the user asks, but for the environment.
fn read(args: &Args, directory: &Path) -> Result<Settings, SettingsError> {
    let mut mounts = Vec::new();
    for text in &args.volumes {
        mounts.push(Mount::parse_volume(text, directory)?);
    }
    for text in &args.mounts {
        mounts.push(Mount::parse(text, directory)?);
    }
    for text in &args.tmpfs {
        mounts.push(Mount::parse_tmpfs(text)?);
    }
    let limits = Limits {
        memory: args.memory.as_deref().map(settings::parse_bytes).transpose()?,
        cpu_quota: args.cpus.as_deref().map(settings::parse_cpus).transpose()?,
        pids: args.pids_limit,
    };
    let (mut no_new_privileges, mut any_system_call) = (false, false);
    for option in &args.security_opt {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => no_new_privileges = true,
            "seccomp=unconfined" | "seccomp:unconfined" => any_system_call = true,
            other => return Err(settings::unknown_security_option(other)),
        }
    }
    Ok(Settings {
        name: args.name.clone(),
        image: args.image.to_string(),
        command: args.command.clone(),
        entrypoint: args
            .entrypoint
            .as_ref()
            .map(|word| Some(word.clone()).filter(|word| !word.is_empty()).into_iter().collect()),
        environment: Vec::new(),
        working_directory: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        mounts,
        network: if args.network == Some(Network::Host) { ContainerNetwork::Host } else { ContainerNetwork::None },
        limits,
        read_only: args.read_only,
        root: args.root.map(|way| match way {
            Way::Overlay => RootWay::Overlay,
            Way::FuseOverlayfs => RootWay::FuseOverlayfs,
            Way::Copy => RootWay::Copy,
        }),
        add_capabilities: args.cap_add.clone(),
        drop_capabilities: args.cap_drop.clone(),
        no_new_privileges,
        any_system_call,
        terminal: args.tty,
        interactive: args.interactive,
        detached: args.detach,
        remove: args.rm,
    })
}

fn environment(args: &Args) -> Result<Vec<String>, Failure> {
    let mut pairs = Vec::new();
    for file in &args.env_file {
        pairs.extend(container::environment_file(file)?);
    }
    pairs.extend(container::environment(&args.env)?);
    Ok(pairs)
}

/// The beginning of a name for a container of an image.
fn suggested(image: &Reference) -> String {
    match image {
        Reference::Cid(cid) => format!("ipfs-{}", cid.to_string().chars().take(CID_LETTERS).collect::<String>()),
        Reference::Name(name) => name.path.rsplit('/').next().unwrap_or_default().to_owned(),
        Reference::Digest(_) => "image".to_owned(),
    }
}

fn usage(error: SettingsError) -> Failure {
    Failure::from_error(FailureKind::Usage, &error)
}

fn name(text: &str) -> Result<String, String> {
    settings::check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => Network::from_str(other, false)
            .map_err(|_| "a container has `none` or `host`; there is no bridge".to_owned()),
    }
}
