//! Envelopes: JSON Web Encryption (RFC 7516) as go-jose writes it.
//!
//! ```text
//! one recipient    {"protected", "encrypted_key", "iv", "ciphertext", "tag"}
//! several          {"protected", "recipients": [{"header", "encrypted_key"}, ...], "iv", "ciphertext", "tag"}
//! ```
//! What is inside is sealed by AES-256-GCM with a key of its own, and that by RSA-OAEP, or by AES key wrap with what ECDH-ES
//! gives. The compact form, SHA-256 for OAEP and shorter keys of AES are read, too. Imports keys. What was sealed is
//! authenticated before it comes out, and nothing says why a key does not open an envelope.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, agree},
    error::Unspecified,
    key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _},
    rand,
    rsa::{OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::key::{Curve, Private, Public, point};

/// Most recipients of one envelope that are looked at.
const MAX_RECIPIENTS: usize = 64;
/// Bytes that AES key wrap adds.
const WRAP_BYTES: usize = 8;
/// Bytes of a tag of GCM.
const TAG_BYTES: usize = 16;
/// Name of what seals the inside of envelopes that are written here.
const CONTENT: &str = "A256GCM";
/// Name of what seals their keys for a key of RSA.
const RSA_OAEP: &str = "RSA-OAEP";
/// Name of what seals their keys for a key on a curve.
const ECDH_A256KW: &str = "ECDH-ES+A256KW";

/// Bytes that are wiped once they are no longer needed.
type Wiped = Zeroizing<Vec<u8>>;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Envelope {
    protected: String,
    #[serde(skip_serializing)]
    unprotected: Header,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<Sealed>,
    #[serde(skip_serializing)]
    header: Header,
    #[serde(skip_serializing)]
    aad: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    encrypted_key: String,
    iv: String,
    ciphertext: String,
    tag: String,
}

/// The key of an envelope, sealed for one recipient.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Sealed {
    header: Header,
    encrypted_key: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epk: Option<Epk>,
    #[serde(skip_serializing)]
    apu: Option<String>,
    #[serde(skip_serializing)]
    apv: Option<String>,
    #[serde(skip_serializing)]
    zip: Option<String>,
    #[serde(skip_serializing)]
    crit: Option<serde_json::Value>,
}

/// The other half of an agreement.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Epk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Header {
    /// This one, with what it does not say from another one.
    fn over(&self, other: &Self) -> Self {
        let either = |own: &Option<String>, other: &Option<String>| own.clone().or_else(|| other.clone());
        Self {
            alg: either(&self.alg, &other.alg),
            enc: either(&self.enc, &other.enc),
            epk: self.epk.clone().or_else(|| other.epk.clone()),
            apu: either(&self.apu, &other.apu),
            apv: either(&self.apv, &other.apv),
            zip: either(&self.zip, &other.zip),
            crit: self.crit.clone().or_else(|| other.crit.clone()),
        }
    }
}

/// Seals `inside` for each of the recipients, of whom there is at least one.
pub(super) fn seal(inside: &[u8], recipients: &[Public]) -> Result<Vec<u8>, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    rand::fill(&mut key[..])?;
    let mut sealed = recipients.iter().map(|one| seal_key(&key[..], one)).collect::<Result<Vec<_>, _>>()?;
    let content = Some(CONTENT.to_owned());
    let (protected, encrypted_key) = match &mut sealed[..] {
        // A single recipient's header needs no place of its own.
        [only] => (Header { enc: content, ..only.header.clone() }, std::mem::take(&mut only.encrypted_key)),
        _ => (Header { enc: content, ..Header::default() }, String::new()),
    };
    if sealed.len() == 1 {
        sealed.clear();
    }
    let protected = encode(&serde_json::to_vec(&protected).map_err(|_| Unspecified)?);
    let mut iv = [0; NONCE_LEN];
    rand::fill(&mut iv)?;
    let mut ciphertext = Zeroizing::new(inside.to_vec());
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..])?);
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(protected.as_bytes()), &mut ciphertext)?;
    let envelope = Envelope {
        protected,
        recipients: sealed,
        encrypted_key,
        iv: encode(&iv),
        ciphertext: encode(&ciphertext),
        tag: encode(tag.as_ref()),
        ..Envelope::default()
    };
    serde_json::to_vec(&envelope).map_err(|_| Unspecified)
}

/// Seals the key of an envelope for one recipient.
fn seal_key(key: &[u8], recipient: &Public) -> Result<Sealed, Unspecified> {
    let header = |alg: &str, epk| Header { alg: Some(alg.to_owned()), epk, ..Header::default() };
    match recipient {
        Public::Rsa(public) => {
            let mut out = vec![0; public.ciphertext_size()];
            let length = public.encrypt(&OAEP_SHA1_MGF1SHA1, key, &mut out, None)?.len();
            Ok(Sealed { header: header(RSA_OAEP, None), encrypted_key: encode(&out[..length]) })
        }
        Public::Curve(curve, public) => {
            let own = PrivateKey::generate(curve.algorithm())?;
            let wrapping = agree(&own, public.clone(), Unspecified, |secret| {
                Ok(derived(secret, ECDH_A256KW, &[], &[], AES_256_BYTES))
            })?;
            let mut out = vec![0; key.len() + WRAP_BYTES];
            let length = AesKek::new(&AES_256, &wrapping)?.wrap(key, &mut out)?.len();
            let uncompressed = own.compute_public_key()?;
            let (x, y) = uncompressed.as_ref()[1..].split_at(curve.bytes);
            let epk = Epk { kty: "EC".to_owned(), crv: curve.name.to_owned(), x: encode(x), y: encode(y) };
            Ok(Sealed { header: header(ECDH_A256KW, Some(epk)), encrypted_key: encode(&out[..length]) })
        }
    }
}

const AES_128_BYTES: usize = 16;
const AES_256_BYTES: usize = 32;

/// The key that an agreement gives: one round of the KDF of NIST SP 800-56A, as RFC 7518 fills it in.
fn derived(secret: &[u8], algorithm: &str, apu: &[u8], apv: &[u8], bytes: usize) -> Wiped {
    let mut hasher = Sha256::new();
    hasher.update(1_u32.to_be_bytes());
    hasher.update(secret);
    for part in [algorithm.as_bytes(), apu, apv] {
        hasher.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(u32::try_from(bytes * 8).unwrap_or(u32::MAX).to_be_bytes());
    let mut out = Zeroizing::new(hasher.finalize().to_vec());
    out.truncate(bytes);
    out
}

/// An envelope that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Opens an envelope with whichever of the keys it was sealed for; nothing when that is none of them.
pub(super) fn open(envelope: &[u8], keys: &[Private]) -> Result<Option<Wiped>, Malformed> {
    let envelope = parse(envelope)?;
    let protected = decode(&envelope.protected).ok_or(Malformed("an envelope's header is no base64"))?;
    let protected: Header =
        serde_json::from_slice(&protected).map_err(|_| Malformed("an envelope's header is no JSON"))?;
    let own = [Sealed { header: envelope.header.clone(), encrypted_key: envelope.encrypted_key.clone() }];
    // go-jose repeats the first recipient's key outside of the list.
    let recipients = if envelope.recipients.is_empty() { &own[..] } else { &envelope.recipients[..] };
    if recipients.len() > MAX_RECIPIENTS {
        return Err(Malformed("an envelope has more than 64 recipients"));
    }
    let shared = protected.over(&envelope.unprotected);
    for recipient in recipients {
        let header = shared.over(&recipient.header);
        // Whatever changes how the rest is to be read, and is not known here, is not passed over.
        if header.zip.is_some() || header.crit.is_some() || envelope.aad.is_some() {
            continue;
        }
        let Some(cipher) = header.enc.as_deref().and_then(content_cipher) else { continue };
        let Some(sealed) = decode(&recipient.encrypted_key) else { continue };
        for key in keys {
            let Some(key) = open_key(&header, &sealed, key).filter(|key| key.len() == cipher.key_len()) else {
                continue;
            };
            if let Some(inside) = open_content(&envelope, cipher, &key) {
                return Ok(Some(inside));
            }
        }
    }
    Ok(None)
}

/// Reads JSON, or the compact form: header, key, nonce, content and tag with dots between them.
fn parse(bytes: &[u8]) -> Result<Envelope, Malformed> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return serde_json::from_slice(bytes).map_err(|_| Malformed("an envelope is no JSON Web Encryption"));
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match text.trim().split('.').collect::<Vec<_>>()[..] {
        [protected, encrypted_key, iv, ciphertext, tag] => Ok(Envelope {
            protected: protected.to_owned(),
            encrypted_key: encrypted_key.to_owned(),
            iv: iv.to_owned(),
            ciphertext: ciphertext.to_owned(),
            tag: tag.to_owned(),
            ..Envelope::default()
        }),
        _ => Err(Malformed("an envelope is no JSON Web Encryption")),
    }
}

fn content_cipher(name: &str) -> Option<&'static Algorithm> {
    match name {
        "A128GCM" => Some(&AES_128_GCM),
        "A192GCM" => Some(&AES_192_GCM),
        CONTENT => Some(&AES_256_GCM),
        _ => None,
    }
}

fn open_key(header: &Header, sealed: &[u8], key: &Private) -> Option<Wiped> {
    let algorithm = header.alg.as_deref()?;
    match (algorithm, key) {
        (RSA_OAEP, Private::Rsa(_)) => open_oaep(&OAEP_SHA1_MGF1SHA1, sealed, key),
        ("RSA-OAEP-256", Private::Rsa(_)) => open_oaep(&OAEP_SHA256_MGF1SHA256, sealed, key),
        ("ECDH-ES+A128KW", Private::Curve(..)) => open_agreed(header, algorithm, AES_128_BYTES, sealed, key),
        (ECDH_A256KW, Private::Curve(..)) => open_agreed(header, algorithm, AES_256_BYTES, sealed, key),
        _ => None,
    }
}

fn open_oaep(algorithm: &'static OaepAlgorithm, sealed: &[u8], key: &Private) -> Option<Wiped> {
    let Private::Rsa(private) = key else { return None };
    let mut out = Zeroizing::new(vec![0; private.min_output_size()]);
    let length = private.decrypt(algorithm, sealed, &mut out, None).ok()?.len();
    out.truncate(length);
    Some(out)
}

fn open_agreed(header: &Header, algorithm: &str, bytes: usize, sealed: &[u8], key: &Private) -> Option<Wiped> {
    let Private::Curve(curve, private) = key else { return None };
    let epk = header.epk.as_ref().filter(|epk| epk.kty == "EC" && Curve::named(&epk.crv) == Some(*curve))?;
    let other = UnparsedPublicKey::new(curve.algorithm(), point(*curve, &epk.x, &epk.y)?);
    let party = |text: &Option<String>| decode(text.as_deref().unwrap_or_default());
    let (apu, apv) = (party(&header.apu)?, party(&header.apv)?);
    let wrapping = agree(private, other, (), |secret| Ok(derived(secret, algorithm, &apu, &apv, bytes))).ok()?;
    let mut out = Zeroizing::new(vec![0; sealed.len()]);
    let cipher = if bytes == AES_128_BYTES { &AES_128 } else { &AES_256 };
    let length = AesKek::new(cipher, &wrapping).and_then(|cipher| Ok(cipher.unwrap(sealed, &mut out)?.len())).ok()?;
    out.truncate(length);
    Some(out)
}

fn open_content(envelope: &Envelope, cipher: &'static Algorithm, key: &[u8]) -> Option<Wiped> {
    let iv: [u8; NONCE_LEN] = decode(&envelope.iv)?.try_into().ok()?;
    let (mut inside, tag) = (Zeroizing::new(decode(&envelope.ciphertext)?), decode(&envelope.tag)?);
    if tag.len() != TAG_BYTES {
        return None;
    }
    inside.extend_from_slice(&tag);
    let key = LessSafeKey::new(UnboundKey::new(cipher, key).ok()?);
    let (nonce, aad) = (Nonce::assume_unique_for_key(iv), Aad::from(envelope.protected.as_bytes()));
    let length = key.open_in_place(nonce, aad, &mut inside).ok()?.len();
    inside.truncate(length);
    Some(inside)
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::{KeyFile, Recipient};

    fn data(name: &str) -> String {
        format!("{}/../tests/data/ocicrypt/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn public(name: &str) -> Public {
        let recipient = Recipient::read(&format!("jwe:{}", data(&format!("{name}.pub.pem")))).expect("reads");
        recipient.public().expect("a key")
    }

    fn private(name: &str) -> Private {
        KeyFile::read(&data(&format!("{name}.priv.pem"))).expect("reads").private().expect("a key")
    }

    #[test]
    fn what_is_sealed_for_some_is_opened_by_each_of_them_and_by_nobody_else() {
        let all = ["rsa2048", "other", "ec256"];
        for who in [&all[..1], &all[2..], &all[..2], &all[1..], &all[..]] {
            let sealed = seal(b"inside", &who.iter().map(|name| public(name)).collect::<Vec<_>>()).expect("seals");
            for name in all {
                let opened = open(&sealed, &[private(name)]).expect("well-formed");
                assert_eq!(opened.as_deref().map(Vec::as_slice), who.contains(&name).then_some(&b"inside"[..]));
            }
        }
    }

    #[test]
    fn envelopes_have_the_form_that_go_jose_writes() {
        let text = |who: &[&str]| {
            let sealed = seal(b"inside", &who.iter().map(|name| public(name)).collect::<Vec<_>>()).expect("seals");
            String::from_utf8(sealed).expect("JSON")
        };
        let one = text(&["rsa2048"]);
        let header = encode(br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
        assert!(one.starts_with(&format!(r#"{{"protected":"{header}","encrypted_key":""#)), "{one}");
        let two = text(&["rsa2048", "ec256"]);
        let header = encode(br#"{"enc":"A256GCM"}"#);
        let begin =
            format!(r#"{{"protected":"{header}","recipients":[{{"header":{{"alg":"RSA-OAEP"}},"encrypted_key":"#);
        assert!(two.starts_with(&begin), "{two}");
        assert!(two.contains(r#"{"header":{"alg":"ECDH-ES+A256KW","epk":{"kty":"EC","crv":"P-256","x":""#), "{two}");
    }

    #[test]
    fn b12_no_flipped_bit_of_an_envelope_passes() {
        for name in ["rsa2048", "ec256"] {
            let (sealed, keys) = (seal(b"inside", &[public(name)]).expect("seals"), [private(name)]);
            let mut refused = 0;
            // Each bit of each character of base64 and JSON: what is not refused must be the same envelope.
            for at in 0..sealed.len() {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                match open(&flipped, &keys) {
                    Ok(Some(inside)) => panic!("{name}, {at}: {inside:?}"),
                    Ok(None) | Err(_) => refused += 1,
                }
            }
            assert_eq!(refused, sealed.len());
        }
    }

    #[test]
    fn the_compact_form_is_read() {
        let sealed = seal(b"inside", &[public("rsa2048")]).expect("seals");
        let parts: Envelope = serde_json::from_slice(&sealed).expect("JSON");
        let all = [parts.protected, parts.encrypted_key, parts.iv, parts.ciphertext, parts.tag];
        let opened = open(all.join(".").as_bytes(), &[private("rsa2048")]).expect("well-formed");
        assert_eq!(opened.as_deref().map(Vec::as_slice), Some(&b"inside"[..]));
        for bad in ["", "a.b.c", "{", "{}", "[]"] {
            assert!(open(bad.as_bytes(), &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_agreement_gives_the_key_that_the_standard_gives() {
        // RFC 7518, appendix C.
        let secret = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128,
            106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        assert_eq!(encode(&derived(&secret, "A128GCM", b"Alice", b"Bob", 16)), "VqqN6vgjbSBcIijNcacQGg");
    }
}
