//! `shipfs save`.

use std::path::PathBuf;

use clap::ValueEnum;
use shipfs_image::{
    control::Request,
    location::{Format, Location, Place},
    reference::Reference,
};

use crate::{args::Platforms, context::Context, report::Outcome};

/// Write an image of the repository to an archive or a directory
///
/// All of it that is here is written, unless platforms are named. A docker-archive holds one platform.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The image: a NAME, a CID or a digest
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Write to this file or directory [default: stdout]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,

    /// What to write
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: SaveFormat,

    #[command(flatten)]
    platforms: Platforms,
}

/// The forms an image can be written in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SaveFormat {
    /// A tar that `docker load`, `podman load` and `nerdctl load` take
    DockerArchive,
    /// A tar of an OCI layout
    OciArchive,
    /// A directory that is an OCI layout; needs `--output`
    Oci,
}

const EXAMPLES: &str = "\
Examples:
  shipfs save alpine | docker load
  shipfs save --format oci-archive --output alpine.tar alpine";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let format = match args.format {
        SaveFormat::DockerArchive => Format::DockerArchive,
        SaveFormat::OciArchive => Format::OciArchive,
        SaveFormat::Oci => Format::Oci,
    };
    let place = match args.output {
        Some(path) if path.as_os_str() != "-" => Place::Path(path),
        _ => Place::Standard,
    };
    let to = Location { format, place, image: None };
    let reply = context.call(Request::Save { image: args.image, to, platforms: args.platforms.into() }).await?;
    context.show(&reply)
}
