//! `shipfs image`.

use clap::Subcommand;
use shipfs_image::{
    control::{Push, Request, Source},
    crypt::{Change, KeyFile, Selection},
    names::Shape,
};

use super::parse;
use crate::{
    args::{Keys, Platforms, ServiceArgs, recipients},
    context::Context,
    report::Outcome,
};

/// Encrypt and decrypt the layers of images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an image whose layers only some can read, and print its CID
    ///
    /// The layers are encrypted as containerd, nerdctl, skopeo and buildah do it (OCIcrypt). The manifest and the
    /// configuration are not: command, environment and history can be read by everybody. With `--key`, layers that are
    /// encrypted already are opened to more recipients. Platforms that are not named are left out.
    #[command(after_help = ENCRYPT_EXAMPLES)]
    Encrypt(Encrypt),

    /// Make an image of one whose layers are encrypted, and print its CID
    ///
    /// Every byte is authenticated before any is used. In the repository the image is one like any other then, which this
    /// node gives to whoever knows its CID while it serves. `shipfs pull --key FILE IMAGE --to SINK` and `shipfs run --key
    /// FILE IMAGE` keep nothing that is decrypted in what is served.
    #[command(after_help = DECRYPT_EXAMPLES)]
    Decrypt(Decrypt),
}

#[derive(Debug, clap::Args)]
struct Encrypt {
    #[command(flatten)]
    image: Image,

    /// Who can decrypt it: `jwe:FILE`, with a public key of RSA or on a curve; may be repeated
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Decrypt {
    #[command(flatten)]
    image: Image,
}

/// What both need.
#[derive(Debug, clap::Args)]
struct Image {
    /// The image: a NAME or CID, or a place as `shipfs push` knows them
    #[arg(value_parser = parse::source)]
    source: Source,

    /// What to call the other image in the repository
    #[arg(value_name = "NAME[:TAG]", value_parser = parse::name)]
    name: String,

    /// Make the CID name a directory that is a whole OCI layout, as skopeo and buildah want to have it
    #[arg(long)]
    layout: bool,

    #[command(flatten)]
    keys: Keys,

    /// For keys of other kinds than are known here
    #[arg(long, hide = true, value_name = "RECIPIENT")]
    dec_recipient: Vec<String>,

    /// Take this layer alone, 0 is the lowest, -1 the topmost; may be repeated [default: all]
    #[arg(long = "layer", value_name = "NUMBER", allow_negative_numbers = true)]
    layers: Vec<i64>,

    #[command(flatten)]
    platforms: Platforms,

    #[command(flatten)]
    services: ServiceArgs,
}

const ENCRYPT_EXAMPLES: &str = "\
Examples:
  openssl genrsa -out key.pem 3072 && openssl rsa -in key.pem -pubout -out pub.pem
  shipfs image encrypt --recipient jwe:pub.pem tools:2 tools:2-encrypted
  shipfs push docker-daemon:tools:2 --encrypt jwe:pub.pem --name tools:2-encrypted";

const DECRYPT_EXAMPLES: &str = "\
Examples:
  shipfs image decrypt --key key.pem bafkrei... tools:2
  shipfs pull --key key.pem bafkrei... --to docker-daemon:tools:2";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    match args.verb {
        Verb::Encrypt(Encrypt { image, recipient }) => {
            let recipients = recipients(&recipient)?;
            change(image, context, |keys, layers| Change::Encrypt { recipients, keys, layers }).await
        }
        Verb::Decrypt(Decrypt { image }) => {
            change(image, context, |keys, layers| Change::Decrypt { keys, layers }).await
        }
    }
}

async fn change(
    image: Image,
    context: &mut Context,
    change: impl FnOnce(Vec<KeyFile>, Selection) -> Change,
) -> Outcome {
    // None of those there are is known here, but each is told by its name.
    recipients(&image.dec_recipient)?;
    let change = change(image.keys.read()?, Selection(image.layers));
    context.use_services(image.services);
    let shape = if image.layout { Shape::Layout } else { Shape::Descriptor };
    let platforms = image.platforms.into();
    let push = Push { source: image.source, name: Some(image.name), shape, platforms, estargz: None, change };
    let reply = context.call(Request::Push(push)).await?;
    context.show(&reply)
}
