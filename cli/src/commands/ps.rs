//! `shipfs ps`.

use shipfs_image::{
    rfc3339,
    run::{lifecycle, state::Status},
};

use super::container;
use crate::{context::Context, output::Mode, report::Outcome, tables};

/// List the containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those that have ended, too
    #[arg(short, long)]
    all: bool,
}

pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    let rows = lifecycle::list(&container::containers(context)?).map_err(|error| error.failure())?;
    let rows: Vec<_> = rows.into_iter().filter(|row| args.all || row.state.status == Status::Running).collect();
    match context.output().mode {
        Mode::Text => context.show_bytes(tables::containers(&rows).as_bytes()),
        Mode::Quiet => {
            context.show_bytes(rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>().as_bytes())
        }
        Mode::Json => {
            let time =
                |seconds: u64| rfc3339::nanoseconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
            let rows = rows.iter().map(|row| {
                serde_json::json!({
                    "id": row.id, "name": row.name, "image": row.image, "cid": row.cid, "command": row.command,
                    "status": row.state.status, "pid": row.state.pid, "exit_code": row.state.exit_code,
                    "root": row.state.root,
                    "created": time(row.state.created), "started": row.state.started.map(time),
                    "finished": row.state.finished.map(time),
                })
            });
            context.output().json(&rows.collect(), false)
        }
    }
}
