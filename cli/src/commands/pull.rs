//! `shipfs pull`.

use shipfs_image::{
    control::{Pull, Request},
    location::Location,
    reference::Reference,
};

use super::parse;
use crate::{
    args::{Keys, Platforms, ServiceArgs},
    context::Context,
    report::Outcome,
};

/// Make an image local, by its CID
///
/// Every byte is checked against the CID and against the image's digests. A pull that was interrupted goes on where it
/// was. What is here already is not fetched again, and no peer is asked when nothing is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image: a CID, `ipfs://CID`, or a NAME that is in the repository
    #[arg(value_name = "CID")]
    image: Reference,

    /// Also write it to `oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]` (an archive goes to
    /// stdout when FILE is `-`), or hand it to `docker-daemon:NAME`, `containers-storage:NAME`, `containerd:NAME` or
    /// `docker://REGISTRY/NAME`
    #[arg(long, value_name = "SINK")]
    to: Option<Location>,

    /// Also call it this in the repository
    #[arg(long, value_name = "NAME[:TAG]", value_parser = parse::name)]
    name: Option<String>,

    #[command(flatten)]
    keys: Keys,

    /// An encrypted image stays as it is in the repository, as with nerdctl's `false`; layers are unpacked by `shipfs run`
    #[arg(long, hide = true, value_name = "WHETHER", value_parser = ["auto", "false"])]
    unpack: Option<String>,

    #[command(flatten)]
    platforms: Platforms,

    #[command(flatten)]
    services: ServiceArgs,
}

const EXAMPLES: &str = "\
Examples:
  shipfs pull bafkrei...
  shipfs pull bafkrei... --to docker-archive:- | docker load
  shipfs pull bafkrei... --to docker-daemon:tools:2
  shipfs pull bafkrei... --peer /ip4/192.168.1.7/tcp/4001 --to oci:./image";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    context.use_services(args.services);
    let keys = args.keys.read()?;
    let pull = Pull { image: args.image, name: args.name, to: args.to, platforms: args.platforms.into(), keys };
    let reply = context.call(Request::Pull(pull)).await?;
    context.show(&reply)
}
