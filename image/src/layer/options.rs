//! What an unpack may do and how much it may take.
//!
//! Imports nothing. Every limit has a default, and a reason beside it.

/// How much one layer may take; whoever exceeds it is refused with [`ApplyError::Limit`](super::ApplyError::Limit).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Entries. The largest public layers have some 300,000.
    pub entries: u64,
    /// Bytes of the decompressed stream, and of all files together (holes of sparse files count).
    pub bytes: u64,
    /// Decompressed bytes for each compressed byte, once more than [`Self::ratio_free_bytes`] came out. Text compresses
    /// to a twentieth, and gzip cannot go past 1032.
    pub ratio: u64,
    /// Decompressed bytes that no ratio is asked of: a small file of zeros is no bomb.
    pub ratio_free_bytes: u64,
    /// Components of a path. The kernel takes no path with more than 2048.
    pub path_depth: usize,
    /// Bytes of a path, as the kernel's `PATH_MAX`.
    pub path_bytes: usize,
    /// Largest zstd window, as a power of two: 128 MiB, what the zstd command takes without being asked.
    pub zstd_window_log: u32,
    /// Bytes of the headers that describe one entry: long names and extended attributes.
    pub header_bytes: u64,
    /// Bytes of the names of directories that are remembered until their times can be set.
    pub directory_name_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 20 << 30,
            ratio: 200,
            ratio_free_bytes: 256 << 20,
            path_depth: 1024,
            path_bytes: 4096,
            zstd_window_log: 27,
            header_bytes: 1 << 20,
            directory_name_bytes: 64 << 20,
        }
    }
}

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Whiteouts {
    /// The target becomes a layer of an overlay: devices 0:0, and `trusted.overlay.opaque` on opaque directories.
    Overlay,
    /// The same for an overlay mounted with `userxattr`: `user.overlay.opaque`. Where no devices 0:0 can be made, files as
    /// in the archive, which fuse-overlayfs knows and the kernel does not.
    OverlayUser,
    /// What they name is removed from the target itself, which holds the lower layers.
    Apply,
}

/// Whom files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ownership {
    /// Whom the archive says. Needs root, or a user namespace that has all the ids.
    Keep,
    /// Whom the archive says, as far as a user namespace has the ids; the namespace's root otherwise. A setuid or setgid
    /// bit goes with its owner, and what only the host's root may set (some extended attributes) becomes a warning.
    Mapped,
    /// Whoever unpacks. What only root may set besides (some extended attributes) becomes a warning.
    Squash,
}

/// What becomes of device nodes. None is ever opened, and 0:0, which is a whiteout, is never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Devices {
    /// An empty file stands in for it, with a warning. Runtimes bring devices of their own.
    Empty,
    /// It is left out, with a warning.
    Skip,
    /// It is made. Needs root.
    Create,
}

/// How to unpack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How much it may take.
    pub limits: Limits,
    /// What becomes of whiteouts.
    pub whiteouts: Whiteouts,
    /// Whom files belong to.
    pub ownership: Ownership,
    /// What becomes of device nodes.
    pub devices: Devices,
    /// Whether [`unpack_layer`](super::unpack_layer) waits until the layer is on the disk before it gets its name (one
    /// `syncfs`). Without, a power cut may leave a layer with empty files.
    pub sync: bool,
    /// Resolve paths a component at a time, as on kernels before 5.6, which lack `openat2`. Found out by itself.
    pub component_wise: bool,
}

impl Options {
    /// A layer of an overlay, owners as the archive says: what root wants.
    pub fn root() -> Self {
        Self {
            limits: Limits::default(),
            whiteouts: Whiteouts::Overlay,
            ownership: Ownership::Keep,
            devices: Devices::Empty,
            sync: true,
            component_wise: false,
        }
    }

    /// A layer of an overlay mounted with `userxattr`, owners as far as there are ids for them: for root of a user
    /// namespace.
    pub fn namespaced() -> Self {
        Self { whiteouts: Whiteouts::OverlayUser, ownership: Ownership::Mapped, ..Self::root() }
    }

    /// A layer of an overlay mounted with `userxattr`, all files the caller's: what works without root or a namespace.
    pub fn rootless() -> Self {
        Self { whiteouts: Whiteouts::OverlayUser, ownership: Ownership::Squash, ..Self::root() }
    }
}
