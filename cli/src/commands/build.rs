//! `shipfs build`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use shipfs_image::{
    build::{
        builder::{Builder, LOOKED_FOR, Plan, insecure_registry},
        dockerfile,
    },
    control::{Failure, FailureKind, PlatformChoice, Push, Reply, Request, Source},
    crypt::Change,
    location::{Location, Place},
    names::Shape,
    reference::Reference,
};

use super::{
    folder::{Folder, place},
    registry_process::RegistryProcess,
};
use crate::{args, config, context::Context, report::Outcome};

/// Build an image from a Dockerfile, with `ipfs://CID` in it, by whatever builder is here
///
/// `FROM ipfs://CID`, `COPY --from=ipfs://CID` and the like are read from a registry on this host, which is started for as
/// long as the build takes unless one runs. The builder is Docker's buildx, BuildKit, nerdctl, buildah or podman. What
/// stands after `--` is passed on to it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The Dockerfile [default: Dockerfile in the directory]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// What to call the image; may be repeated
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,

    /// Set a variable of the Dockerfile: `NAME=VALUE`; may be repeated
    #[arg(long = "build-arg", value_name = "VARIABLE")]
    arguments: Vec<String>,

    /// Build for this platform
    #[arg(long, value_name = "PLATFORM", value_parser = args::platform)]
    platform: Option<String>,

    /// Build this stage of the Dockerfile
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Build everything anew
    #[arg(long)]
    no_cache: bool,

    /// Take the result into the repository and print its CID: `ipfs://`, or `ipfs://NAME` to call it something
    #[arg(long, value_name = "ipfs://[NAME]", value_parser = push_to)]
    push: Option<String>,

    /// The builder: docker, buildctl, nerdctl, buildah, podman, or the path of one [default: the first that answers]
    #[arg(long, value_name = "BUILDER")]
    with: Option<String>,

    /// The registry that runs already, if it is not at its usual place
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:5050")]
    registry: String,

    /// The directory that the Dockerfile takes files from
    #[arg(value_name = "DIRECTORY", default_value = ".")]
    context: PathBuf,

    /// What the builder is told besides
    #[arg(value_name = "OPTION", last = true)]
    rest: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  shipfs build -t app .
  shipfs build --push ipfs:// --with buildah . -- --isolation chroot";

/// Where buildah and podman look for the user's own registries.
const REGISTRIES_FILES: [&str; 2] = [".config/containers/registries.conf", "/etc/containers/registries.conf"];
/// The variables by which they are told another place; which one counts depends on their age.
const REGISTRIES_VARIABLES: [&str; 2] = ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"];

fn push_to(text: &str) -> Result<String, String> {
    let name = text.strip_prefix(dockerfile::SCHEME).ok_or("expected `ipfs://` or `ipfs://NAME`")?;
    if name.is_empty() { Ok(String::new()) } else { super::parse::name(name) }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let path = config::variable("PATH").unwrap_or_default();
    let builder = Builder::find(args.with.as_deref(), &path).ok_or_else(|| {
        let looked_for = args.with.as_deref().unwrap_or(LOOKED_FOR);
        Failure::new(FailureKind::NotFound, format!("no builder was found that answers: looked for {looked_for}"))
            .hint("install buildah, or name another one with --with")
    })?;
    let builder = builder.settled(&args.rest);
    if builder.keeps_nothing() && args.push.is_none() {
        let message = "buildctl keeps no images: what it builds would be lost";
        return Err(Failure::new(FailureKind::Usage, message).hint("--push ipfs:// takes it into the repository"));
    }
    let directory = context.directory().join(&args.context);
    let given = args.file.as_ref().map_or_else(|| directory.join("Dockerfile"), |file| context.directory().join(file));
    let text = fs::read_to_string(&given).map_err(|error| place(&error, "cannot read", &given))?;
    let folder = Folder::new(context.repository(), "build")?;
    let mut plan = Plan {
        dockerfile: given.clone(),
        context: directory,
        tags: args.tags.clone(),
        arguments: args.arguments.clone(),
        platform: args.platform,
        target: args.target,
        no_cache: args.no_cache,
        archive: args.push.is_some().then(|| folder.path().join("image.tar")),
        identifier: folder.path().join("id"),
        rest: args.rest,
    };
    let mut names = dockerfile::names(&text);
    names.extend(args.arguments.iter().filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.to_owned()));
    names.retain(|name| name.starts_with(dockerfile::SCHEME));
    let mut registry = None;
    if !names.is_empty() {
        let mut cids = HashMap::new();
        for name in names {
            cids.insert(name.clone(), cid(&name, context).await?);
        }
        context.let_go().await;
        let running = RegistryProcess::find_or_start(&args.registry, cids.values().next(), context).await?;
        let mut replace = |name: &str| match cids.get(name) {
            Some(cid) => format!("{}/ipfs/{cid}", running.address()),
            None => name.to_owned(),
        };
        plan.dockerfile = folder.path().join("Dockerfile");
        write(&plan.dockerfile, &dockerfile::rewrite(&text, &mut replace))?;
        plan.arguments = plan.arguments.iter().map(|pair| dockerfile::rewrite_argument(pair, &mut replace)).collect();
        // A file of this name beside the Dockerfile says what is left out.
        let ignored =
            given.with_file_name(format!("{}.dockerignore", given.file_name().unwrap_or_default().to_string_lossy()));
        if let Ok(text) = fs::read_to_string(ignored) {
            write(&folder.path().join("Dockerfile.dockerignore"), &text)?;
        }
        registry = Some(running);
    }
    build(&builder, &plan, registry.as_ref(), folder.path()).await?;
    drop(registry);
    let Some(name) = args.push else { return Ok(()) };
    let name = if name.is_empty() { args.tags.into_iter().next() } else { Some(name) };
    let archive =
        Location { format: builder.archive_format(), place: Place::Path(folder.path().join("image.tar")), image: None };
    let (source, platforms) = (Source::Place(archive), PlatformChoice::All);
    let push = Push { source, name, shape: Shape::Descriptor, platforms, estargz: None, change: Change::None };
    let reply = context.call(Request::Push(push)).await?;
    context.show(&reply)?;
    match reply {
        Reply::Pushed(pushed) => context.tell_how_to_get(&pushed.cid).await,
        _ => Ok(()),
    }
}

/// Has the builder do its work. What it prints goes to stderr, so that stdout has the CID alone.
async fn build(builder: &Builder, plan: &Plan, registry: Option<&RegistryProcess>, folder: &Path) -> Outcome {
    let mut variables = Vec::new();
    if let (Some(registry), true) = (registry, builder.wants_registries_file()) {
        let home = config::variable("HOME").map(PathBuf::from).unwrap_or_default();
        let own = REGISTRIES_FILES.iter().find_map(|file| fs::read_to_string(home.join(file)).ok()).unwrap_or_default();
        let path = folder.join("registries.conf");
        write(&path, &(own + &insecure_registry(registry.address())))?;
        variables.extend(REGISTRIES_VARIABLES.map(|name| (name, path.clone())));
    }
    let run = |mut command: std::process::Command| {
        command.envs(variables.clone());
        let name = builder.name();
        async move {
            use std::os::fd::AsFd as _;
            let failed = |error: std::io::Error| {
                Failure::from_error(FailureKind::Other, &error).while_doing(format!("cannot run `{name}`"))
            };
            command.stdout(std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?);
            let status = tokio::task::spawn_blocking(move || command.status()).await.map_err(std::io::Error::other);
            let status = status.and_then(|status| status).map_err(failed)?;
            if status.success() {
                Ok(())
            } else {
                Err(Failure::new(FailureKind::Other, format!("`{name}` failed: {status}")))
            }
        }
    };
    run(builder.build(plan)).await?;
    let identifier = fs::read_to_string(&plan.identifier).unwrap_or_default();
    match builder.write(plan, identifier.trim()) {
        Some(command) => run(command).await,
        None => Ok(()),
    }
}

/// The CID that a name stands for, as a registry takes it: in lower case.
async fn cid(name: &str, context: &mut Context) -> Result<String, Failure> {
    let text = super::parse::cid(&super::parse::reference(name)?, context).await?;
    match super::parse::reference(&text)? {
        Reference::Cid(cid) => Ok(cid.into_v1().map_or(text, |cid| cid.to_string())),
        _ => Err(Failure::new(FailureKind::Other, format!("`{}` has no CID", name.escape_debug()))),
    }
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| place(&error, "cannot write", path))
}
