//! `shipfs registry`, and nerdctl's words for it: `shipfs ipfs registry`.

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use clap::Subcommand;
use shipfs_image::{control::Registry, registry::DEFAULT_LISTEN};

use crate::{context::Context, report::Outcome};

/// Let the clients of registries pull by CID, and push
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer docker, containerd, podman, BuildKit and the like until Ctrl-C
    ///
    /// `localhost:5050/ipfs/CID` is the image with this CID, whoever has it; `localhost:5050/NAME:TAG` is what the
    /// repository has under this name. What is pushed there becomes an image here, with all digests as they were; its CID
    /// is in the answer (`X-Ipfs-Path`) and in `shipfs images`. `shipfs daemon --listen-registry` does the same while it
    /// serves the images to other nodes.
    #[command(after_help = EXAMPLES)]
    Serve(Serve),
}

const EXAMPLES: &str = "\
Examples:
  shipfs registry serve
  docker pull localhost:5050/ipfs/bafkrei...
  docker tag alpine localhost:5050/alpine:3 && docker push localhost:5050/alpine:3
  echo 'FROM localhost:5050/ipfs/bafkrei...' | docker build -";

#[derive(Debug, clap::Args)]
struct Serve {
    /// Listen here; a host that is not loopback opens the registry to others
    #[arg(
        long, value_name = "HOST:PORT", default_value = DEFAULT_LISTEN, env = "IPFS_REGISTRY_SERVE_LISTEN_REGISTRY",
        hide_env_values = true
    )]
    listen_registry: String,

    #[command(flatten)]
    reading: Reading,
}

/// How a registry reads, and who may write.
#[derive(Debug, clap::Args)]
pub(super) struct Reading {
    /// Give a read up when nothing arrives for this long; `0` waits as long as --timeout says
    #[arg(
        long, value_name = "DURATION", default_value = "0", value_parser = go_duration,
        env = "IPFS_REGISTRY_SERVE_READ_TIMEOUT", hide_env_values = true
    )]
    read_timeout: Duration,

    /// Try a read again that failed for want of an answer, this often
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true,
        env = "IPFS_REGISTRY_SERVE_READ_RETRY_NUM",
        hide_env_values = true
    )]
    read_retry_num: i64,

    /// Let those push who send the text in this file as a password or bearer token; nobody else may then
    #[arg(long, value_name = "FILE", env = "SHIPFS_REGISTRY_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
}

impl Reading {
    /// What the registry is told.
    pub(super) fn into_request(self, listen: String) -> Registry {
        Registry {
            listen,
            read_timeout: Some(self.read_timeout).filter(|timeout| !timeout.is_zero()),
            // Below one is none, as upstream has it.
            read_retries: u32::try_from(self.read_retry_num.max(0)).unwrap_or(u32::MAX),
            token_file: self.token_file,
        }
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Outcome {
    let Verb::Serve(Serve { listen_registry, reading }) = args.verb;
    context.registry(reading.into_request(listen_registry)).await
}

/// nerdctl's words for what is done here in other words
#[derive(Debug, clap::Args)]
pub(crate) struct IpfsArgs {
    #[command(subcommand)]
    verb: IpfsVerb,
}

#[derive(Debug, Subcommand)]
enum IpfsVerb {
    Registry(Args),
}

pub(crate) async fn run_ipfs(args: IpfsArgs, context: &mut Context) -> Outcome {
    let IpfsVerb::Registry(args) = args.verb;
    run(args, context).await
}

/// Reads a duration as Go writes them: `1m30s`, `500ms`, `0`.
fn go_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration, `1m30s` for instance".to_owned();
    let mut rest = text;
    let mut seconds = 0.0;
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(expected)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(expected()),
        };
        seconds += f64::from_str(number).map_err(|_| expected())? * factor;
        rest = after;
    }
    if text.is_empty() { Err(expected()) } else { Duration::try_from_secs_f64(seconds).map_err(|_| expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in
            [("0", 0), ("0s", 0), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500), ("2h", 7_200_000), ("1000us", 1)]
        {
            assert_eq!(go_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "1d", "-1s", "1s2", "1e99h", "..s"] {
            assert!(go_duration(text).is_err(), "{text}");
        }
    }
}
