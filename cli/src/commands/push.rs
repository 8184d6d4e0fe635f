//! `shipfs push`.

use shipfs_image::{
    control::{Push, Reply, Request, Source},
    crypt::{Change, Selection},
    layer::estargz::CHUNK_BYTES,
    location::Location,
    names::Shape,
};

use super::parse;
use crate::{
    args::{Platforms, ServiceArgs, recipients},
    context::Context,
    report::Outcome,
};

/// Take an image in and print its CID
///
/// The CID is the last and only line on stdout. The same image has the same CID wherever it is pushed, and whoever pushes
/// it, nerdctl with Kubo included. Nobody is served once the command ends, unless a daemon runs or `--serve` is given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where the image is: a NAME or CID, or a place, see below; `-` reads an archive from stdin
    #[arg(value_parser = parse::source)]
    source: Source,

    /// Write it there instead, `docker://REGISTRY/NAME` for instance, and print its digest
    #[arg(value_name = "SINK", conflicts_with_all = ["name", "layout", "serve", "estargz"])]
    to: Option<Location>,

    /// Call it this in the repository [default: the name it has in its archive]
    #[arg(long, value_name = "NAME[:TAG]", value_parser = parse::name)]
    name: Option<String>,

    /// Make the CID name a directory that is a whole OCI layout, which keeps all digests (and signatures) as they are
    #[arg(long)]
    layout: bool,

    /// Convert its layers to eStargz, so that stargz-snapshotter can mount them before they are there; digests change
    #[arg(long)]
    estargz: bool,

    /// Bytes of a file that can be had without the rest of it
    #[arg(long, value_name = "BYTES", requires = "estargz", default_value_t = CHUNK_BYTES)]
    estargz_chunk_size: u64,

    /// Encrypt its layers for whoever has the other half of a key: `jwe:FILE`; may be repeated, and does not go with --estargz
    #[arg(long, value_name = "RECIPIENT", conflicts_with_all = ["to", "estargz"])]
    encrypt: Vec<String>,

    /// Let others have it until Ctrl-C
    #[arg(long)]
    serve: bool,

    #[command(flatten)]
    platforms: Platforms,

    #[command(flatten)]
    services: ServiceArgs,
}

const EXAMPLES: &str = "\
A NAME (or ipfs://NAME) is looked for in the repository, then in containerd, Docker and podman; what is missing there of
its layers comes from the registry of its name. Places:
  docker://REGISTRY/NAME[:TAG|@DIGEST]   docker-daemon:NAME   containers-storage:NAME   containerd:NAME
  oci:DIRECTORY[:TAG]   oci-archive:FILE[:TAG]   docker-archive:FILE[:NAME]

Examples:
  shipfs push alpine
  shipfs push docker://registry.example/tools:2
  shipfs push tools:2 docker://registry.example/tools:2
  docker save alpine | shipfs push -
  shipfs push --serve oci:./build/image:latest
  shipfs push --estargz alpine
  shipfs push --all-platforms --name tools:2 oci-archive:tools.tar";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    if args.serve {
        context.check_own_node("--serve serves with this node", "the IPFS daemon serves what it holds by itself")?;
    }
    context.use_services(args.services);
    if let Some(to) = args.to {
        let copy = Request::Copy { from: args.source, to, platforms: args.platforms.into() };
        let reply = context.call(copy).await?;
        return context.show(&reply);
    }
    let shape = if args.layout { Shape::Layout } else { Shape::Descriptor };
    let change = match recipients(&args.encrypt)? {
        none if none.is_empty() => Change::None,
        recipients => Change::Encrypt { recipients, keys: Vec::new(), layers: Selection::default() },
    };
    let estargz = args.estargz.then_some(args.estargz_chunk_size);
    let (source, platforms) = (args.source, args.platforms.into());
    let push = Push { source, name: args.name, shape, platforms, estargz, change };
    let reply = context.call(Request::Push(push)).await?;
    context.show(&reply)?;
    let Reply::Pushed(pushed) = &reply else { return Ok(()) };
    if !args.serve {
        return context.tell_how_to_get(&pushed.cid).await;
    }
    context.serve(parse::reference(&pushed.cid)?).await
}
