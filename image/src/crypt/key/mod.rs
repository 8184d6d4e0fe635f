//! Keys that layers are sealed for and opened with: RSA of 2048 bits or more, and the curves P-256, P-384 and P-521.
//!
//! Reading order: [`file`](self::file) (what a user names), [`jwk`] and [`der`] (the forms of keys), then what is here: a
//! key that can be used. Imports nothing of this crate. A private key is in no message and in no `Debug`.

mod der;
mod file;
mod jwk;

use std::fmt;

use aws_lc_rs::{
    agreement::{Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, ParsedPublicKey, PrivateKey, UnparsedPublicKey},
    rsa::{OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey},
};

pub use self::file::{KeyError, KeyFile, Recipient};
pub(super) use self::{
    file::{JWE, check_scheme},
    jwk::point,
};

/// A curve by the name that JWK gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Curve {
    pub(super) name: &'static str,
    /// Bytes of one coordinate.
    pub(super) bytes: usize,
}

impl Curve {
    const ALL: [Self; 3] =
        [Self { name: "P-256", bytes: 32 }, Self { name: "P-384", bytes: 48 }, Self { name: "P-521", bytes: 66 }];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.name == name)
    }

    pub(super) fn algorithm(self) -> &'static Algorithm {
        match self.bytes {
            32 => &ECDH_P256,
            48 => &ECDH_P384,
            _ => &ECDH_P521,
        }
    }
}

/// A key that layers are sealed for.
pub(super) enum Public {
    Rsa(OaepPublicEncryptingKey),
    Curve(Curve, ParsedPublicKey),
}

/// A key that opens layers.
pub(super) enum Private {
    Rsa(OaepPrivateDecryptingKey),
    Curve(Curve, PrivateKey),
}

impl fmt::Debug for Private {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Private(..)")
    }
}

impl Public {
    /// From DER: what X.509 calls the info of a subject's public key, or PKCS #1.
    fn from_der(der: &[u8]) -> Option<Self> {
        let rsa = |der: &[u8]| OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(der).ok()?).ok();
        if let Some(key) = rsa(der).or_else(|| rsa(&der::public_rsa(der))) {
            return Some(Self::Rsa(key));
        }
        Curve::ALL.into_iter().find_map(|curve| Self::on_curve(curve, der))
    }

    /// A key on a curve: as X.509 holds it, or the point itself.
    fn on_curve(curve: Curve, bytes: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::try_from(UnparsedPublicKey::new(curve.algorithm(), bytes)).ok()?;
        Some(Self::Curve(curve, key))
    }
}

impl Private {
    /// From DER: PKCS #8, PKCS #1 or SEC 1.
    fn from_der(der: &[u8]) -> Option<Self> {
        let rsa = |der: &[u8]| OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(der).ok()?).ok();
        if let Some(key) = rsa(der).or_else(|| rsa(&der::private_rsa(der))) {
            return Some(Self::Rsa(key));
        }
        Curve::ALL.into_iter().find_map(|curve| {
            let key = PrivateKey::from_private_key_der(curve.algorithm(), der).ok()?;
            Some(Self::Curve(curve, key))
        })
    }
}
