//! Layers as containerd unpacks them: one snapshot a layer, by chain ID, shared by all that is run.
//!
//! Imports its parent. A layer is unpacked by containerd itself, into a snapshot that has its name only once it is whole; one
//! that broke off goes with the lease.

use tonic::Code;

use super::{
    Containerd, ContainerdError, failed, message,
    messages::{Applied, Apply, CommitSnapshot, Mount, Mounts, Nothing, PrepareSnapshot, SnapshotKey},
    unless_gone,
};
use crate::oci::{Descriptor, Digest};

/// Tells containerd's collector what snapshot a configuration needs; the name of the snapshotter follows.
const KEEPS_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// Tells whoever looks at a layer what it unpacks to.
const UNPACKS_TO: &str = "containerd.io/uncompressed";

impl Containerd {
    /// Whether there is a snapshot of this name.
    ///
    /// # Errors
    /// [`ContainerdError`] when containerd does not say.
    pub(crate) async fn has_snapshot(&self, snapshotter: &str, name: &str) -> Result<bool, ContainerdError> {
        let asking = self.ask("/containerd.services.snapshots.v1.Snapshots/Stat", key(snapshotter, name));
        Ok(unless_gone("find a snapshot", asking.await.map(|Nothing {}| ()))?.is_some())
    }

    /// Unpacks the layer `blob` on top of the snapshot `below`, which is empty for the lowest, and calls the whole `chain`.
    /// Needs a lease. Dropped half-way, what was unpacked goes with the lease.
    ///
    /// # Errors
    /// [`ContainerdError::Layer`] when it does not unpack to `diff`, or what containerd says.
    pub(crate) async fn unpack(
        &self,
        snapshotter: &str,
        blob: &Descriptor,
        diff: &Digest,
        below: &str,
        chain: &str,
    ) -> Result<(), ContainerdError> {
        // As containerd's own client calls them.
        let temporary = format!("extract-{} {chain}", self.lease_id().unwrap_or_default());
        let mounts = self.prepare_snapshot(snapshotter, &temporary, below).await?;
        let unpacked = self.fill(snapshotter, blob, diff, mounts, &temporary, chain).await;
        if !matches!(unpacked, Ok(true)) {
            self.remove_snapshot(snapshotter, &temporary).await?;
        }
        unpacked?;
        self.label(&blob.digest, [(UNPACKS_TO.to_owned(), diff.to_string())].into()).await
    }

    /// Whether the snapshot got its name; it does not when somebody else was faster.
    async fn fill(
        &self,
        snapshotter: &str,
        blob: &Descriptor,
        diff: &Digest,
        mounts: Vec<Mount>,
        temporary: &str,
        chain: &str,
    ) -> Result<bool, ContainerdError> {
        let apply = Apply { diff: Some(message(blob)), mounts };
        let applying = self.ask("/containerd.services.diff.v1.Diff/Apply", apply);
        let applied: Applied = applying.await.map_err(|status| failed("unpack a layer", &status))?;
        let got = applied.applied.map(|applied| applied.digest).unwrap_or_default();
        if got != diff.to_string() {
            return Err(ContainerdError::Layer { digest: blob.digest.clone(), expected: diff.clone(), got });
        }
        let (name, key) = (chain.to_owned(), temporary.to_owned());
        let commit = CommitSnapshot { snapshotter: snapshotter.to_owned(), name, key };
        match self.ask("/containerd.services.snapshots.v1.Snapshots/Commit", commit).await {
            Ok(Nothing {}) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(failed("name a snapshot", &status)),
        }
    }

    /// Says that whoever keeps the configuration of an image keeps its layers unpacked.
    ///
    /// # Errors
    /// [`ContainerdError`] when the configuration is not there.
    pub(crate) async fn keep_snapshot(
        &self,
        snapshotter: &str,
        config: &Digest,
        chain: &str,
    ) -> Result<(), ContainerdError> {
        self.label(config, [(format!("{KEEPS_SNAPSHOT}{snapshotter}"), chain.to_owned())].into()).await
    }

    /// Makes a snapshot that can be written to, on top of another one or, if that is empty, of nothing.
    ///
    /// # Errors
    /// [`ContainerdError::ContainerThere`] when there is one of that name.
    pub(crate) async fn prepare_snapshot(
        &self,
        snapshotter: &str,
        name: &str,
        below: &str,
    ) -> Result<Vec<Mount>, ContainerdError> {
        let (snapshotter, key, parent) = (snapshotter.to_owned(), name.to_owned(), below.to_owned());
        let prepare = PrepareSnapshot { snapshotter, key, parent };
        match self.ask("/containerd.services.snapshots.v1.Snapshots/Prepare", prepare).await {
            Ok(Mounts { mounts }) => Ok(mounts),
            Err(status) if status.code() == Code::AlreadyExists => {
                Err(ContainerdError::ContainerThere { id: name.to_owned() })
            }
            Err(status) => Err(failed("make a snapshot", &status)),
        }
    }

    /// Removes a snapshot. It may be gone already.
    ///
    /// # Errors
    /// [`ContainerdError`] when it stays.
    pub(crate) async fn remove_snapshot(&self, snapshotter: &str, name: &str) -> Result<(), ContainerdError> {
        let removing = self.ask("/containerd.services.snapshots.v1.Snapshots/Remove", key(snapshotter, name));
        unless_gone("remove a snapshot", removing.await.map(|Nothing {}| ())).map(drop)
    }
}

fn key(snapshotter: &str, name: &str) -> SnapshotKey {
    SnapshotKey { snapshotter: snapshotter.to_owned(), key: name.to_owned() }
}
