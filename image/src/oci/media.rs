//! Media types: what a blob is, and what Docker's types are called in OCI.
//!
//! Imports nothing of this crate. Matching follows containerd, whose converter decides what an image's CID covers.

use crate::event::BlobKind;

/// An OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is a plain tar.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// Whether `media_type` names a manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Whether `media_type` names an index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Whether `media_type` names an image configuration.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | DOCKER_CONFIG)
}

/// Whether `media_type` names a filesystem layer, in whatever compression or encryption.
pub fn is_layer(media_type: &str) -> bool {
    let base = media_type.split_once('+').map_or(media_type, |(base, _)| base);
    media_type.starts_with("application/vnd.oci.image.layer.")
        || matches!(base, DOCKER_LAYER | DOCKER_LAYER_GZIP | DOCKER_LAYER_ZSTD | DOCKER_FOREIGN | DOCKER_FOREIGN_GZIP)
}

/// The role of a blob of this type.
pub fn kind(media_type: &str) -> BlobKind {
    match media_type {
        _ if is_index(media_type) => BlobKind::Index,
        _ if is_manifest(media_type) => BlobKind::Manifest,
        _ if is_config(media_type) => BlobKind::Config,
        _ if is_layer(media_type) => BlobKind::Layer,
        _ => BlobKind::Other,
    }
}

/// What OCI calls a Docker type; every other type is returned as it is.
pub fn to_oci(media_type: &str) -> &str {
    match media_type {
        DOCKER_INDEX => INDEX,
        DOCKER_MANIFEST => MANIFEST,
        DOCKER_CONFIG => CONFIG,
        DOCKER_LAYER_GZIP => LAYER_GZIP,
        DOCKER_LAYER => LAYER,
        DOCKER_FOREIGN_GZIP => "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        DOCKER_FOREIGN => "application/vnd.oci.image.layer.nondistributable.v1.tar",
        other => other,
    }
}

/// A type of OCI's layers in the words of an image whose manifest has this type.
pub fn like(layer: &'static str, manifest: &str) -> &'static str {
    match (layer, manifest) {
        (LAYER, DOCKER_MANIFEST) => DOCKER_LAYER,
        (LAYER_GZIP, DOCKER_MANIFEST) => DOCKER_LAYER_GZIP,
        (LAYER_ZSTD, DOCKER_MANIFEST) => DOCKER_LAYER_ZSTD,
        (other, _) => other,
    }
}

/// What OCI calls a layer of this type once it is compressed with gzip.
pub fn to_gzip(media_type: &str) -> String {
    let oci = if media_type == DOCKER_LAYER_ZSTD { LAYER_ZSTD } else { to_oci(media_type) };
    let base = oci.strip_suffix("+zstd").or_else(|| oci.strip_suffix("+gzip")).unwrap_or(oci);
    format!("{base}+gzip")
}

/// How a stream is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, or in a way that is not known.
    None,
    /// gzip.
    Gzip,
    /// Zstandard, also when it begins with a skippable frame.
    Zstd,
}

impl Compression {
    /// Bytes that [`Self::sniff`] wants to see.
    pub const SNIFF_BYTES: usize = 4;

    /// Recognises the compression of what begins with `start`.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The type of a layer compressed like this.
    pub fn layer_type(self) -> &'static str {
        match self {
            Self::None => LAYER,
            Self::Gzip => LAYER_GZIP,
            Self::Zstd => LAYER_ZSTD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_types_become_oci_types() {
        for (docker, oci) in [
            (DOCKER_INDEX, INDEX),
            (DOCKER_MANIFEST, MANIFEST),
            (DOCKER_CONFIG, CONFIG),
            (DOCKER_LAYER_GZIP, LAYER_GZIP),
            (DOCKER_LAYER, LAYER),
            (DOCKER_FOREIGN, "application/vnd.oci.image.layer.nondistributable.v1.tar"),
            (DOCKER_FOREIGN_GZIP, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            (DOCKER_LAYER_ZSTD, DOCKER_LAYER_ZSTD),
            ("application/vnd.in-toto+json", "application/vnd.in-toto+json"),
        ] {
            assert_eq!(to_oci(docker), oci);
            assert_eq!(kind(docker), kind(oci), "{docker}");
        }
    }

    #[test]
    fn a_layer_speaks_as_its_manifest_does() {
        for layer in [LAYER, LAYER_GZIP] {
            assert_eq!(like(layer, MANIFEST), layer);
            assert_eq!(to_oci(like(layer, DOCKER_MANIFEST)), layer);
        }
        assert_eq!(like(LAYER_ZSTD, DOCKER_MANIFEST), DOCKER_LAYER_ZSTD);
    }

    #[test]
    fn layers_of_every_compression_have_a_name_with_gzip() {
        for plain in [LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD] {
            assert_eq!(to_gzip(plain), LAYER_GZIP);
        }
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        assert_eq!((to_gzip(DOCKER_FOREIGN), to_gzip(DOCKER_FOREIGN_GZIP)), (foreign.into(), foreign.into()));
    }

    #[test]
    fn layers_are_told_from_the_rest() {
        for layer in [LAYER, LAYER_ZSTD, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", DOCKER_LAYER_ZSTD] {
            assert_eq!(kind(layer), BlobKind::Layer);
        }
        assert_eq!(kind("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted"), BlobKind::Layer);
        assert_eq!(kind("application/vnd.docker.image.rootfs.diff.tar.xz"), BlobKind::Other);
        assert_eq!(kind(""), BlobKind::Other);
    }

    #[test]
    fn compression_shows_in_the_first_bytes() {
        assert_eq!(Compression::sniff(b"\x1f\x8b\x08\x00"), Compression::Gzip);
        assert_eq!(Compression::sniff(b"\x28\xb5\x2f\xfd"), Compression::Zstd);
        assert_eq!(Compression::sniff(b"\x50\x2a\x4d\x18"), Compression::Zstd);
        assert_eq!(Compression::sniff(b"etc/"), Compression::None);
        assert_eq!(Compression::sniff(b""), Compression::None);
    }
}
