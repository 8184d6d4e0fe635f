//! The process that works in a user namespace: does as it is told until its other end is gone.
//!
//! Imports its siblings and what unpacks layers. It is root of its namespace, and on disk it has the ids of that namespace:
//! so it can give files to those who exist there, and remove what is theirs.

use std::io;

use super::{
    enter,
    helper::{Answer, Unpacked, Work, failure},
    ids::Mapping,
};
use crate::{
    control::{Failure, FailureKind},
    layer::{ApplyError, Options, Staged, remove::remove_all, stage_layer},
    run::{keeper::cannot_unpack, layers::Layers, wire::Link},
};

/// The whole life of that process.
pub(super) fn work() -> io::Result<()> {
    let link = Link::inherited()?;
    let entered = enter(&Mapping::of_this_user());
    let mut staged = None;
    while let Some((work, mut beside)) = link.receive::<Work>()? {
        let done = match &entered {
            Err(error) => Err(failure(error)),
            Ok(()) => match work {
                Work::Unpack { folder, media_type, diff } if !beside.is_empty() => {
                    let blob = std::fs::File::from(beside.remove(0));
                    // It is settled while the container runs.
                    let options = Options { sync: false, ..Options::namespaced() };
                    let unpacked = stage_layer(blob, &media_type, Some(&diff), &folder, &options);
                    unpacked.map_err(|error| cannot_unpack(&error)).map(|layer| {
                        staged = Some((Layers::at(folder), layer));
                        Answer::Unpacked
                    })
                }
                work => simple(work, &mut staged),
            },
        };
        link.send(&done.unwrap_or_else(Answer::Failed), &[])?;
    }
    Ok(())
}

fn simple(work: Work, staged: &mut Option<(Layers, Staged)>) -> Result<Answer, Failure> {
    let refused = || Failure::new(FailureKind::Usage, "this work makes no sense here");
    let removed = |done: io::Result<u64>| {
        let failed = |source| Failure::from_error(FailureKind::Repository, &source);
        done.map(|bytes| Answer::Removed { bytes }).map_err(|source: io::Error| failed(source))
    };
    match work {
        Work::Name { chain, below } => {
            let (layers, layer) = staged.take().ok_or_else(refused)?;
            let named: Result<_, ApplyError> = layers.publish(layer, &chain, &below);
            named.map(|applied| Answer::Named(Unpacked::from(applied))).map_err(|error| cannot_unpack(&error))
        }
        Work::RemoveLayer { folder, chain } => removed(Layers::at(folder).remove(&chain)),
        Work::Tidy { folder } => {
            let tidied = Layers::at(folder).tidy().map_err(|error| cannot_unpack(&error));
            tidied.map(|()| Answer::Removed { bytes: 0 })
        }
        Work::RemoveTree { path } => removed(remove_all(&path).map(|()| 0)),
        Work::Unpack { .. } => Err(refused()),
    }
}
