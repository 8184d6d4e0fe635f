//! The repository, its room, its keys, and the clock.
//!
//! Imports the node and the swarm key. No socket is opened.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use shipfs_node::{
    config::{Network, NetworkConfig},
    node::Node,
};

use super::{
    super::{Options, Role, swarm_key},
    Check,
};
use crate::bring::blocking;

/// Below this, in bytes, nothing more is taken in: what the store itself keeps free, and one block.
const LEAST_BYTES: u64 = 5 << 20;
/// Below this, in bytes, the next image may not fit.
const SCARCE_BYTES: u64 = 1 << 30;
/// A clock that is so far behind the repository's own files was set wrong.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// The repository, its room, what is in it, the clock.
pub(super) async fn checks(node: &Node, role: Role) -> Vec<Check> {
    let directory = node.config().repository.clone();
    let holder = match role {
        Role::Daemon => "a daemon holds it",
        Role::Command => "no daemon runs",
    };
    let mut checks = vec![Check::ok("repository", format!("`{}` is open; {holder}", directory.display()))];
    checks.push(room(&directory));
    checks.push(content(node).await);
    checks.push(clock(&directory));
    checks
}

fn room(directory: &Path) -> Check {
    const NAME: &str = "space";
    let space = match rustix::fs::statvfs(directory) {
        Ok(space) => space,
        Err(error) => return Check::fail(NAME, format!("cannot tell: {error}"), "is the disk still there?"),
    };
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Check::fail(NAME, "the repository lies on a read-only disk", "use another one with --repo DIRECTORY");
    }
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} MiB free", free >> 20);
    match free {
        ..LEAST_BYTES => Check::fail(NAME, found, "`shipfs rmi` and `shipfs gc` make room"),
        LEAST_BYTES..SCARCE_BYTES => {
            Check::warn(NAME, found, "the next image may not fit; `shipfs gc` frees what nothing needs")
        }
        _ => Check::ok(NAME, found),
    }
}

/// Whether the index finds what the journal says is here.
async fn content(node: &Node) -> Check {
    const NAME: &str = "index";
    let store = node.store().clone();
    let (kept, usage) = blocking(move || (store.kept(), store.usage())).await;
    let usage = match usage {
        Ok(usage) => usage,
        Err(error) => return Check::fail(NAME, error.to_string(), "`shipfs verify` tells what is damaged"),
    };
    let mut lost = 0;
    for image in &kept {
        lost += usize::from(!node.has(&image.root).await);
    }
    let found = format!("{} images, {} files, {} packs", kept.len(), usage.files, usage.packs);
    match lost {
        0 => Check::ok(NAME, found),
        lost => Check::fail(
            NAME,
            format!("{found}; the roots of {lost} images are not found"),
            "`shipfs verify` tells what is damaged, `shipfs pull` fetches it anew",
        ),
    }
}

/// A clock that goes wrong makes changed files look unchanged.
fn clock(directory: &Path) -> Check {
    const NAME: &str = "clock";
    let latest = ["version", "identity", "journal", "packs"].iter().filter_map(|name| {
        let metadata = fs::metadata(directory.join(name)).ok()?;
        metadata.modified().ok()
    });
    let now = SystemTime::now();
    match latest.max().and_then(|latest| latest.duration_since(now).ok()).filter(|ahead| *ahead > CLOCK_SLACK) {
        Some(ahead) => Check::warn(
            NAME,
            format!("the repository was written {} s in the future", ahead.as_secs()),
            "set the clock: changed files are told by their times",
        ),
        None => Check::ok(NAME, "not behind the repository's files"),
    }
}

/// The identity and the swarm key.
pub(super) fn keys(node: &Node, network: Option<&NetworkConfig>, options: &Options) -> Vec<Check> {
    vec![identity(node), private(node, network, options)]
}

fn identity(node: &Node) -> Check {
    const NAME: &str = "identity";
    let peer = match node.identity() {
        Ok(identity) => identity.public().to_peer_id(),
        Err(error) => {
            let reason = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            let advice = "make the repository writable, or move a damaged key away to get a new identity";
            return Check::fail(NAME, format!("{error}{reason}"), advice);
        }
    };
    let path = node.config().repository.join("identity");
    match fs::metadata(&path).map(|metadata| metadata.mode() & 0o077) {
        Ok(0) => Check::ok(NAME, peer.to_string()),
        Ok(_) => Check::warn(
            NAME,
            format!("{peer}, but others can read its key"),
            format!("chmod 600 '{}': whoever has the key can pretend to be this node", path.display()),
        ),
        Err(error) => Check::warn(NAME, format!("{peer}; cannot look at the key: {error}"), "who owns the repository?"),
    }
}

fn private(node: &Node, network: Option<&NetworkConfig>, options: &Options) -> Check {
    const NAME: &str = "swarm-key";
    let own = || node.config().repository.join(swarm_key::SWARM_KEY_FILE);
    let key = options.swarm_key.clone().unwrap_or_else(own);
    let is_private = network.is_some_and(|config| matches!(config.network, Network::Private(_)));
    if options.swarm_key.is_none() && !key.exists() {
        return Check::ok(NAME, if is_private { "from elsewhere" } else { "none, and none is needed" });
    }
    match swarm_key::private_network(&key) {
        Ok((_, None)) if is_private => Check::ok(NAME, "for its owner alone"),
        Ok((_, None)) => Check::ok(NAME, "for its owner alone; `--network private` uses it"),
        Ok((_, Some(warning))) => Check::warn(NAME, warning, "make it readable by its owner alone"),
        Err(failure) => Check::failed(NAME, &failure),
    }
}
