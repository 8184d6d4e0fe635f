//! Keys in JSON, as JOSE writes them: `{"kty": "RSA" | "EC", ...}`.
//!
//! Imports the keys beside it. The key's own wishes (`alg`, `use`, `kid`) are not looked at.

use aws_lc_rs::agreement::PrivateKey;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Curve, Private, Public, der};

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    d: String,
    #[serde(default)]
    p: String,
    #[serde(default)]
    q: String,
    #[serde(default)]
    dp: String,
    #[serde(default)]
    dq: String,
    #[serde(default)]
    qi: String,
}

impl Drop for Jwk {
    fn drop(&mut self) {
        [&mut self.d, &mut self.p, &mut self.q, &mut self.dp, &mut self.dq, &mut self.qi]
            .into_iter()
            .for_each(String::zeroize);
    }
}

fn bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    URL_SAFE_NO_PAD.decode(text).ok().map(Zeroizing::new).filter(|bytes| !bytes.is_empty())
}

/// The uncompressed point with these coordinates, in base64.
pub(in crate::crypt) fn point(curve: Curve, x: &str, y: &str) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        point.extend_from_slice(&bytes(coordinate).filter(|bytes| bytes.len() == curve.bytes)?);
    }
    Some(point)
}

fn parse(json: &[u8]) -> Option<Jwk> {
    serde_json::from_slice(json).ok()
}

/// Reads a public key; that of a pair is no public key.
pub(super) fn public(json: &[u8]) -> Option<Public> {
    let jwk = parse(json).filter(|jwk| jwk.d.is_empty())?;
    match jwk.kty.as_str() {
        "RSA" => Public::from_der(&der::public_rsa(&der::integers(&[&bytes(&jwk.n)?, &bytes(&jwk.e)?]))),
        "EC" => {
            let curve = Curve::named(&jwk.crv)?;
            Public::on_curve(curve, &point(curve, &jwk.x, &jwk.y)?)
        }
        _ => None,
    }
}

/// Reads a private key. Of RSA all numbers are needed.
pub(super) fn private(json: &[u8]) -> Option<Private> {
    let jwk = parse(json)?;
    match jwk.kty.as_str() {
        "RSA" => {
            let named = [&jwk.n, &jwk.e, &jwk.d, &jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi];
            let numbers = named.into_iter().map(|text| bytes(text)).collect::<Option<Vec<_>>>()?;
            let mut all: Vec<&[u8]> = vec![&[0]];
            all.extend(numbers.iter().map(|number| &number[..]));
            Private::from_der(&der::private_rsa(&der::integers(&all)))
        }
        "EC" => {
            let curve = Curve::named(&jwk.crv)?;
            let key = PrivateKey::from_private_key(curve.algorithm(), &bytes(&jwk.d)?).ok()?;
            Some(Private::Curve(curve, key))
        }
        _ => None,
    }
}
