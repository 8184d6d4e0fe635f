//! `shipfs cp`.

use shipfs_image::{
    control::{Request, Source},
    location::Location,
};

use super::parse;
use crate::{
    args::{Platforms, ServiceArgs},
    context::Context,
    report::Outcome,
};

/// Copy an image from one place to another, as it is
///
/// Prints the digest of what was copied. What the other place has is neither read nor sent; what goes through the repository
/// on its way is freed by the next `shipfs gc`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where from: a NAME or CID, or a place as `shipfs push` knows them
    #[arg(value_parser = parse::source)]
    source: Source,

    /// Where to: `docker://REGISTRY/NAME`, `docker-daemon:NAME`, `containers-storage:NAME`, `containerd:NAME`,
    /// `oci:DIRECTORY[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]`
    #[arg(value_name = "SINK")]
    to: Location,

    #[command(flatten)]
    platforms: Platforms,

    #[command(flatten)]
    services: ServiceArgs,
}

const EXAMPLES: &str = "\
Examples:
  shipfs cp docker-daemon:tools:2 containerd:tools:2
  shipfs cp --all-platforms docker://registry.example/tools:2 oci:./tools";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    context.use_services(args.services);
    let copy = Request::Copy { from: args.source, to: args.to, platforms: args.platforms.into() };
    let reply = context.call(copy).await?;
    context.show(&reply)
}
