//! What is written down about a sealed layer: in the open, and inside of the envelopes.
//!
//! ```text
//! org.opencontainers.image.enc.pubopts     base64 of {"cipher", "hmac", "cipheroptions": {}}
//! org.opencontainers.image.enc.keys.jwe    base64 of an envelope; more of them after commas
//!   in each envelope                       {"symkey", "digest", "cipheroptions": {"nonce"}}
//! ```
//! Imports the cipher. `symkey`, `hmac` and `nonce` are in base64; the digest is that of the layer before it was sealed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    CryptError,
    cipher::{HMAC_BYTES, LayerKey, NONCE_BYTES, SECRET_BYTES},
};
use crate::oci::{Descriptor, Digest};

/// What the names begin of all that is written down.
pub(super) const PREFIX: &str = "org.opencontainers.image.enc.";
/// Where the public options are.
pub(super) const PUBLIC: &str = "org.opencontainers.image.enc.pubopts";
/// What the names begin of where envelopes are; the way in which they are sealed follows.
pub(super) const ENVELOPES: &str = "org.opencontainers.image.enc.keys.";
/// The only way in which layers are sealed.
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
/// Most envelopes that are looked at for a layer, over all annotations.
const MAX_ENVELOPES: usize = 64;

/// What everybody may know.
#[derive(Serialize, Deserialize)]
struct Public {
    cipher: String,
    #[serde(default)]
    hmac: String,
    #[serde(default)]
    cipheroptions: CipherOptions,
}

/// What only those may know that the layer is for.
#[derive(Serialize, Deserialize)]
struct Private {
    symkey: String,
    digest: String,
    #[serde(default)]
    cipheroptions: CipherOptions,
}

impl Drop for Private {
    fn drop(&mut self) {
        self.symkey.zeroize();
    }
}

#[derive(Default, Serialize, Deserialize)]
struct CipherOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// The public options of a layer, as its annotation says them.
pub(super) fn public(hmac: &[u8; HMAC_BYTES]) -> String {
    let public =
        Public { cipher: CIPHER.to_owned(), hmac: STANDARD.encode(hmac), cipheroptions: CipherOptions::default() };
    STANDARD.encode(json(&public))
}

/// What goes into the envelopes of a layer that had this digest.
pub(super) fn private(key: &LayerKey, plain: &Digest) -> Zeroizing<Vec<u8>> {
    let nonce = Some(STANDARD.encode(key.nonce));
    let symkey = STANDARD.encode(&key.secret[..]);
    json(&Private { symkey, digest: plain.to_string(), cipheroptions: CipherOptions { nonce } })
}

fn json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    // Structs of strings can always be written.
    Zeroizing::new(serde_json::to_vec(value).unwrap_or_default())
}

/// Everything that opens a layer.
pub(super) struct LayerOptions {
    pub(super) key: LayerKey,
    pub(super) hmac: [u8; HMAC_BYTES],
    /// What it is then.
    pub(super) plain: Digest,
}

/// Reads what an envelope of a sealed layer held, beside what stands in the open.
pub(super) fn read(layer: &Descriptor, envelope: &[u8]) -> Result<LayerOptions, CryptError> {
    let refused = |what| CryptError::Options { digest: layer.digest.clone(), what };
    let bytes = layer.annotations.get(PUBLIC).and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or_else(|| refused("its public options are missing, or no base64"))?;
    let public: Public = serde_json::from_slice(&bytes).map_err(|_| refused("its public options are no JSON"))?;
    if public.cipher != CIPHER {
        let cipher = public.cipher.chars().take(100).collect();
        return Err(CryptError::Cipher { digest: layer.digest.clone(), cipher });
    }
    let hmac = fixed(&public.hmac).ok_or_else(|| refused("no HMAC of 32 bytes is there"))?;
    let private: Private = serde_json::from_slice(envelope).map_err(|_| refused("its envelope holds no JSON"))?;
    let secret = fixed::<SECRET_BYTES>(&private.symkey).ok_or_else(|| refused("its key has not 32 bytes"))?;
    let nonce = public.cipheroptions.nonce.as_deref().or(private.cipheroptions.nonce.as_deref());
    let nonce = nonce.and_then(fixed::<NONCE_BYTES>).ok_or_else(|| refused("its nonce has not 16 bytes"))?;
    let plain = private.digest.parse().map_err(|_| refused("its digest is none"))?;
    Ok(LayerOptions { key: LayerKey { secret: Zeroizing::new(secret), nonce }, hmac, plain })
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    Zeroizing::new(STANDARD.decode(text).ok()?)[..].try_into().ok()
}

/// The envelopes of a layer with the way each is sealed, and whether they could all be listed.
pub(super) fn envelopes(layer: &Descriptor) -> Result<Vec<(&str, Vec<u8>)>, CryptError> {
    let mut all = Vec::new();
    for (name, value) in &layer.annotations {
        let Some(scheme) = name.strip_prefix(ENVELOPES) else { continue };
        for text in value.split(',') {
            let refused = |what| CryptError::Options { digest: layer.digest.clone(), what };
            if all.len() == MAX_ENVELOPES {
                return Err(refused("there are more than 64 envelopes"));
            }
            all.push((scheme, STANDARD.decode(text).map_err(|_| refused("an envelope is no base64"))?));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_bytes_that_others_write() {
        let hmac = "KIN6XvWyMmtMGbWmDChk2yFlqlrHuqfL8uRgXl1iqP8=";
        let written = public(&fixed(hmac).expect("32 bytes"));
        let expected = "eyJjaXBoZXIiOiJBRVNfMjU2X0NUUl9ITUFDX1NIQTI1NiIsImhtYWMiOiJLSU42WHZXeU1tdE1HYldtRENoazJ5RmxxbHJI\
                        dXFmTDh1UmdYbDFpcVA4PSIsImNpcGhlcm9wdGlvbnMiOnt9fQ==";
        assert_eq!(written, expected);
        let key = LayerKey { secret: Zeroizing::new([1; 32]), nonce: [2; 16] };
        let inside = private(&key, &Digest::of(b""));
        assert_eq!(inside.len(), 193);
        assert!(inside.starts_with(br#"{"symkey":"AQEB"#));
    }

    #[test]
    fn b12_options_that_are_not_whole_are_refused() {
        let key = LayerKey { secret: Zeroizing::new([1; 32]), nonce: [2; 16] };
        let inside = private(&key, &Digest::of(b"plain"));
        let with = |public: &str| {
            let mut layer = Descriptor::new("", Digest::of(b"sealed"), 6);
            layer.annotations.insert(PUBLIC.to_owned(), STANDARD.encode(public));
            layer
        };
        let hmac = STANDARD.encode([3; 32]);
        let right = with(&format!(r#"{{"cipher":"{CIPHER}","hmac":"{hmac}","cipheroptions":{{}}}}"#));
        let read_right = read(&right, &inside).expect("reads");
        assert_eq!((read_right.key.nonce, read_right.plain), ([2; 16], Digest::of(b"plain")));
        for public in [
            "",
            "{}",
            &format!(r#"{{"cipher":"AES_128","hmac":"{hmac}"}}"#),
            &format!(r#"{{"cipher":"{CIPHER}","hmac":""}}"#),
            &format!(r#"{{"cipher":"{CIPHER}"}}"#),
            &format!(r#"{{"cipher":"{CIPHER}","hmac":"AAAA"}}"#),
        ] {
            assert!(read(&with(public), &inside).is_err(), "{public}");
        }
        assert!(read(&Descriptor::new("", Digest::of(b""), 0), &inside).is_err(), "none at all");
        for inside in [
            "",
            "{}",
            r#"{"symkey":"","digest":"sha256:00","cipheroptions":{}}"#,
            &String::from_utf8_lossy(&inside).replace("nonce", "once"),
            &String::from_utf8_lossy(&inside).replace("sha256", "sha1"),
        ] {
            assert!(read(&right, inside.as_bytes()).is_err(), "{inside}");
        }
    }
}
