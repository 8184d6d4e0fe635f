//! One layer: its descriptor sealed, opened, and sealed for more people.
//!
//! Imports the cipher, what is written down, and envelopes. Pure but for the readers it makes.

use std::io::{self, Read};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    CryptError,
    cipher::{LayerKey, Opening, Seal, Sealing, authenticate},
    jwe::{self, Malformed},
    key::{JWE, Private, Public, check_scheme},
    options::{self, ENVELOPES, LayerOptions, PREFIX, PUBLIC},
};
use crate::oci::{Descriptor, Digest, media};

/// What the media type of a sealed layer ends in.
const SUFFIX: &str = "+encrypted";

/// Whether a layer is sealed.
pub(crate) fn is_encrypted(layer: &Descriptor) -> bool {
    layer.media_type.ends_with(SUFFIX)
}

/// What becomes of a blob that stands where layers do, when an image is sealed.
pub(super) enum Kind {
    /// It is sealed, under this media type.
    Plain(String),
    /// It is sealed already.
    Sealed,
    /// It stays as it is: a layer that must not be distributed, an attestation.
    Passed,
}

/// What a blob that stands where layers do is.
pub(super) fn kind(layer: &Descriptor) -> Result<Kind, CryptError> {
    let oci = media::to_oci(&layer.media_type);
    match oci {
        _ if is_encrypted(layer) => Ok(Kind::Sealed),
        media::LAYER | media::LAYER_GZIP | media::LAYER_ZSTD => Ok(Kind::Plain(oci.to_owned() + SUFFIX)),
        media::DOCKER_LAYER_ZSTD => Ok(Kind::Plain(media::LAYER_ZSTD.to_owned() + SUFFIX)),
        _ if media::is_layer(oci) && oci.contains("nondistributable") => Ok(Kind::Passed),
        other if other.starts_with("application/vnd.in-toto") => Ok(Kind::Passed),
        other => {
            Err(CryptError::MediaType { digest: layer.digest.clone(), media_type: other.chars().take(200).collect() })
        }
    }
}

/// A plain layer that is being sealed.
pub(super) struct Lock {
    key: LayerKey,
    seal: Seal,
}

impl Lock {
    pub(super) fn new() -> Result<Self, CryptError> {
        Ok(Self { key: LayerKey::random().map_err(CryptError::Library)?, seal: Seal::default() })
    }

    /// The sealed bytes of `plain`, whose own bytes `inner` gives.
    pub(super) fn reader(&self, inner: Box<dyn Read + Send>, plain: &Descriptor) -> io::Result<Sealing> {
        Sealing::new(inner, &self.key, plain.digest.clone(), plain.size, self.seal.clone())
    }

    /// How the sealed layer is referred to, whose bytes have this digest and were all read.
    pub(super) fn descriptor(
        self,
        plain: &Descriptor,
        media_type: &str,
        digest: Digest,
        recipients: &[Public],
    ) -> Result<Descriptor, CryptError> {
        let unread = || CryptError::Options { digest: plain.digest.clone(), what: "it was not read to its end" };
        let hmac = self.seal.get().ok_or_else(unread)?;
        let envelope =
            jwe::seal(&options::private(&self.key, &plain.digest), recipients).map_err(CryptError::Library)?;
        let mut sealed =
            Descriptor { platform: plain.platform.clone(), ..Descriptor::new(media_type, digest, plain.size) };
        sealed.annotations = without_options(plain);
        sealed.annotations.insert(PUBLIC.to_owned(), options::public(hmac));
        sealed.annotations.insert(format!("{ENVELOPES}{JWE}"), STANDARD.encode(envelope));
        Ok(sealed)
    }
}

fn without_options(layer: &Descriptor) -> std::collections::BTreeMap<String, String> {
    let mut kept = layer.annotations.clone();
    kept.retain(|name, _| !name.starts_with(PREFIX));
    kept
}

/// What one of the keys finds in the envelopes of a sealed layer.
fn envelope(layer: &Descriptor, keys: &[Private]) -> Result<zeroize::Zeroizing<Vec<u8>>, CryptError> {
    let digest = || layer.digest.clone();
    if keys.is_empty() {
        return Err(CryptError::NoKey { digest: digest() });
    }
    let mut unknown = None;
    for (scheme, bytes) in options::envelopes(layer)? {
        if let Err(error) = check_scheme(scheme.split('.').next().unwrap_or_default()) {
            unknown = Some(error);
            continue;
        }
        match jwe::open(&bytes, keys) {
            Ok(Some(inside)) => return Ok(inside),
            Ok(None) => {}
            Err(Malformed(what)) => return Err(CryptError::Options { digest: digest(), what }),
        }
    }
    Err(CryptError::WrongKey { digest: digest(), source: unknown })
}

/// Seals the envelope of a sealed layer for more people. Its bytes stay as they are.
pub(super) fn add(layer: &Descriptor, keys: &[Private], recipients: &[Public]) -> Result<Descriptor, CryptError> {
    let inside = envelope(layer, keys)?;
    options::read(layer, &inside)?;
    let more = STANDARD.encode(jwe::seal(&inside, recipients).map_err(CryptError::Library)?);
    let mut layer = Descriptor { urls: Vec::new(), data: Vec::new(), ..layer.clone() };
    let envelopes = layer.annotations.entry(format!("{ENVELOPES}{JWE}")).or_default();
    if !envelopes.is_empty() {
        envelopes.push(',');
    }
    envelopes.push_str(&more);
    Ok(layer)
}

/// A sealed layer that can be opened.
pub(super) struct Unlocked {
    sealed: Descriptor,
    options: LayerOptions,
}

impl Unlocked {
    /// Opens the envelope of a sealed layer; looks at none of its bytes.
    pub(super) fn new(sealed: &Descriptor, keys: &[Private]) -> Result<Self, CryptError> {
        let options = options::read(sealed, &envelope(sealed, keys)?)?;
        Ok(Self { sealed: sealed.clone(), options })
    }

    /// How the sealed layer is referred to.
    pub(super) fn sealed(&self) -> &Descriptor {
        &self.sealed
    }

    /// How the layer is referred to once it is open.
    pub(super) fn plain(&self) -> Descriptor {
        let media_type = self.sealed.media_type.strip_suffix(SUFFIX).unwrap_or(&self.sealed.media_type);
        let media_type = media::to_oci(media_type);
        let annotations = without_options(&self.sealed);
        let platform = self.sealed.platform.clone();
        let plain = Descriptor::new(media_type, self.options.plain.clone(), self.sealed.size);
        Descriptor { annotations, platform, ..plain }
    }

    /// Checks all bytes of the sealed layer. Blocks.
    pub(super) fn authenticate(&self, sealed: &mut dyn Read) -> Result<(), CryptError> {
        let digest = || self.sealed.digest.clone();
        match authenticate(sealed, &self.options.key, &self.options.hmac) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CryptError::Tampered { digest: digest() }),
            Err(source) => Err(CryptError::Read { digest: digest(), source }),
        }
    }

    /// The bytes of the layer out of those of the sealed one, which were authenticated. Blocks.
    pub(super) fn reader(&self, sealed: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let LayerOptions { key, plain, .. } = &self.options;
        Ok(Box::new(Opening::new(sealed, key, plain.clone(), self.sealed.size)?))
    }
}
