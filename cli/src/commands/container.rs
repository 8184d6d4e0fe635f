//! What the verbs about containers share: finding them, and doing slow things to them off the async threads.

use shipfs_image::{
    control::{Failure, FailureKind},
    run::{
        RunError,
        attach::Streams,
        lifecycle,
        rootless::Helper,
        state::{Container, Containers},
    },
};

use crate::{config, context::Context};

/// The containers of the repository, after whatever nobody watches any more was cleared away.
pub(super) fn containers(context: &Context) -> Result<Containers, Failure> {
    let containers = Containers::new(context.repository()).helped_by(Helper::this_program());
    lifecycle::clear(&containers).map_err(|error| error.failure())?;
    Ok(containers)
}

/// The containers that a user names.
pub(super) fn named(context: &Context, names: &[String]) -> Result<Vec<Container>, Failure> {
    let containers = containers(context)?;
    names.iter().map(|name| containers.find(name).map_err(|error| error.failure())).collect()
}

/// Does something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let lost = |error: tokio::task::JoinError| RunError::Process {
        action: "finish work that was begun",
        source: std::io::Error::other(error),
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(error)))
}

/// This process's own standard streams.
pub(super) fn streams() -> Result<Streams, Failure> {
    use std::os::fd::AsFd as _;
    let open = || -> std::io::Result<Streams> {
        Ok(Streams {
            input: std::io::stdin().as_fd().try_clone_to_owned()?,
            output: std::io::stdout().as_fd().try_clone_to_owned()?,
            error: std::io::stderr().as_fd().try_clone_to_owned()?,
        })
    };
    open().map_err(|error| Failure::from_error(FailureKind::Other, &error))
}

/// Refuses a terminal that cannot be one.
pub(super) fn check_terminal(terminal: bool, interactive: bool, detached: bool) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if terminal && interactive && !detached && !std::io::stdin().is_terminal() {
        return Err(Failure::new(FailureKind::Usage, "-t wants a terminal, and stdin is none").hint("leave -t out"));
    }
    Ok(())
}

/// `NAME=VALUE` pairs; a NAME alone takes its value from this process's environment, and is left out where that has none.
pub(super) fn environment(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut pairs = Vec::new();
    for word in words {
        let name = word.split('=').next().unwrap_or_default();
        if name.is_empty() || word.contains('\0') {
            let message = format!("`{}` is no variable of an environment", word.escape_debug());
            return Err(Failure::new(FailureKind::Usage, message));
        }
        if word.contains('=') {
            pairs.push(word.clone());
        } else if let Some(value) = config::variable(name) {
            let text = value.into_string();
            let text =
                text.map_err(|_| Failure::new(FailureKind::Usage, format!("`{name}` holds what is not text")))?;
            pairs.push(format!("{name}={text}"));
        }
    }
    Ok(pairs)
}

/// The lines of a file of variables: `NAME=VALUE`, `NAME`, empty lines and comments.
pub(super) fn environment_file(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::from_error(FailureKind::Usage, &error).while_doing(format!("cannot read `{}`", path.display()))
    })?;
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    environment(&lines.map(str::to_owned).collect::<Vec<_>>())
}
