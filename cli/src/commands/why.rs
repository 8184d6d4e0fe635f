//! `shipfs why`.

use shipfs_image::{control::Request, reference::Reference};

use crate::{context::Context, report::Outcome};

/// Say where something is, or why it did not come
///
/// Tells of the last fetches of a CID through the running node: who was asked, what each peer answered, which dials
/// failed, where else was looked. Where there was none, and it is not here, it is asked for now, for at most 10 s or
/// `--timeout`. What is here is told with the file or pack it lies in and the images that keep it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A CID, of an image or of any block or file of one; or the NAME of an image that is here
    #[arg(value_name = "CID")]
    cid: Reference,

    /// Ask for it once more, though it was asked for before
    #[arg(long)]
    again: bool,
}

const EXAMPLES: &str = "\
Examples:
  shipfs why bafkrei...
  shipfs why bafkrei... --peer /ip4/192.168.1.7/tcp/4001 --timeout 3s
  shipfs --json why bafkrei... | jq .fetches[0].peers";

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let reply = context.call(Request::Why { image: args.cid, again: args.again }).await?;
    context.show(&reply)
}
