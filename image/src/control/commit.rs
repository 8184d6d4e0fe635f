//! A container as an image, for the holder.
//!
//! Imports the operation and what explains its errors.

use shipfs_node::node::Node;

use super::{Commit, Failure, explain::explain, images::parse_name, local::LocalBlobs};
use crate::{
    blobs::embedded::EmbeddedBlobs,
    commit::{CommitError, CommitOptions, commit as make},
    event::EventSink,
    layer::{Limit, WriteError},
    names::{Image, NamesError},
    oci::media::Compression,
};

/// Makes an image of a container of this repository.
pub(super) async fn commit(node: &Node, wanted: Commit, events: &dyn EventSink) -> Result<Image, Failure> {
    let blobs = LocalBlobs(EmbeddedBlobs::new(node.clone()));
    let options = CommitOptions {
        name: wanted.name.as_deref().map(parse_name).transpose()?,
        author: wanted.author,
        message: wanted.message,
        changes: wanted.changes,
        compression: if wanted.uncompressed { Compression::None } else { Compression::Gzip },
        pause: !wanted.unpaused,
    };
    let made = make(&blobs, &node.config().repository, &wanted.container, &options, events).await;
    made.map_err(|error| explained(&error))
}

fn explained(error: &CommitError) -> Failure {
    match error {
        CommitError::Run(error) => error.failure(),
        CommitError::Names(NamesError::Unknown { .. }) => {
            explain(error).hint("pull the image once more, by the CID that `shipfs ps -a` shows")
        }
        CommitError::Write(WriteError::Limit { what: Limit::Ratio, .. }) => {
            explain(error).hint("--compression none writes the layer as it is")
        }
        error => explain(error),
    }
}
