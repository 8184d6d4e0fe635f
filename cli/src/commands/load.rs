//! `shipfs load`.

use std::path::PathBuf;

use shipfs_image::{
    control::Request,
    location::{Format, Location, Place},
};

use crate::{context::Context, report::Outcome};

/// Take in every image of an archive, under the names they have there
///
/// Takes what `docker save`, `podman save`, `skopeo` and `shipfs save` write, compressed or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  docker save alpine debian | shipfs load\n  shipfs load --input images.tar.gz")]
pub(crate) struct Args {
    /// Read this file [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let place = match args.input {
        Some(path) if path.as_os_str() != "-" => Place::Path(path),
        _ => Place::Standard,
    };
    let from = Location { format: Format::DockerArchive, place, image: None };
    let reply = context.call(Request::Load { from }).await?;
    context.show(&reply)
}
