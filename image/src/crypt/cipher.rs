//! The cipher of a layer: AES-256 in counter mode, authenticated by HMAC-SHA256 over what it gives.
//!
//! ```text
//! secret   32 random bytes: the key of both
//! nonce    16 random bytes: the first block of the counter, which is big-endian and wraps
//! sealed   AES-256-CTR(secret, nonce, plain): as many bytes as before, no frame around them
//! hmac     HMAC-SHA256(secret, sealed)
//! ```
//! Imports digests. Streams, in bounded memory. Nothing sealed may be opened before [`authenticate`] has seen all of it.

use std::{
    io::{self, Read},
    sync::{Arc, OnceLock},
};

use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey},
    error::Unspecified,
    hmac,
    iv::FixedLength,
    rand,
};
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

use crate::oci::Digest;

/// Bytes of a secret.
pub(super) const SECRET_BYTES: usize = 32;
/// Bytes of a nonce: a block of AES.
pub(super) const NONCE_BYTES: usize = 16;
/// Bytes of what authenticates a layer.
pub(super) const HMAC_BYTES: usize = 32;
/// Bytes ciphered at a time: enough that the calls do not show.
const STEP_BYTES: usize = 64 << 10;
/// Room that the cipher wants to see behind what it writes, in bytes.
const SLACK_BYTES: usize = NONCE_BYTES;

/// What a layer is sealed with.
#[derive(Clone)]
pub(super) struct LayerKey {
    pub(super) secret: Zeroizing<[u8; SECRET_BYTES]>,
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl LayerKey {
    /// A new one.
    pub(super) fn random() -> Result<Self, Unspecified> {
        let (mut secret, mut nonce) = (Zeroizing::new([0; SECRET_BYTES]), [0; NONCE_BYTES]);
        rand::fill(&mut secret[..])?;
        rand::fill(&mut nonce)?;
        Ok(Self { secret, nonce })
    }

    fn hmac(&self) -> hmac::Context {
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret[..]))
    }
}

/// Counter mode, which is the same in both directions.
struct Counter {
    key: StreamingEncryptingKey,
    ahead: Zeroizing<Vec<u8>>,
}

impl Counter {
    fn new(key: &LayerKey) -> io::Result<Self> {
        let first = EncryptionContext::Iv128(FixedLength::from(&key.nonce));
        let made = UnboundCipherKey::new(&AES_256, &key.secret[..])
            .and_then(|unbound| StreamingEncryptingKey::less_safe_ctr(unbound, first));
        let ahead = Zeroizing::new(vec![0; STEP_BYTES + SLACK_BYTES]);
        Ok(Self { key: made.map_err(|_| unable())?, ahead })
    }

    /// Ciphers at most [`STEP_BYTES`] in place.
    fn apply(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let update = self.key.update(bytes, &mut self.ahead).map_err(|_| unable())?;
        // A stream cipher keeps nothing back.
        let written = update.written();
        if written.len() != bytes.len() {
            return Err(unable());
        }
        bytes.copy_from_slice(written);
        Ok(())
    }
}

fn unable() -> io::Error {
    io::Error::other("the cipher failed")
}

/// Reads at most [`STEP_BYTES`], however often it is interrupted.
fn read_step(inner: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let limit = buffer.len().min(STEP_BYTES);
    loop {
        match inner.read(&mut buffer[..limit]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Checks that as many bytes came as should, with the digest that they should have.
struct Check {
    sha256: Sha256,
    sha512: Sha512,
    expected: Digest,
    left: u64,
}

impl Check {
    fn new(expected: Digest, size: u64) -> Self {
        Self { sha256: Sha256::new(), sha512: Sha512::new(), expected, left: size }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| self.wrong())?;
        match self.expected {
            Digest::Sha256(_) => self.sha256.update(bytes),
            Digest::Sha512(_) => self.sha512.update(bytes),
        }
        Ok(())
    }

    fn end(&self) -> io::Result<()> {
        let is_right = match &self.expected {
            Digest::Sha256(expected) => self.sha256.clone().finalize()[..] == expected[..],
            Digest::Sha512(expected) => self.sha512.clone().finalize()[..] == expected[..],
        };
        if is_right && self.left == 0 { Ok(()) } else { Err(self.wrong()) }
    }

    fn wrong(&self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("the bytes are not those of `{}`", self.expected))
    }
}

/// What a [`Sealing`] turned out to give, once it was read to its end.
pub(super) type Seal = Arc<OnceLock<[u8; HMAC_BYTES]>>;

/// A reader of the sealed bytes of a plain layer. It fails at its end when that was not the layer that it should be.
pub(super) struct Sealing {
    inner: Box<dyn Read + Send>,
    counter: Counter,
    check: Check,
    hmac: Option<hmac::Context>,
    seal: Seal,
}

impl Sealing {
    pub(super) fn new(
        inner: Box<dyn Read + Send>,
        key: &LayerKey,
        expected: Digest,
        size: u64,
        seal: Seal,
    ) -> io::Result<Self> {
        let (counter, hmac) = (Counter::new(key)?, Some(key.hmac()));
        Ok(Self { inner, counter, check: Check::new(expected, size), hmac, seal })
    }
}

impl Read for Sealing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = read_step(&mut *self.inner, buffer)?;
        let bytes = &mut buffer[..length];
        if bytes.is_empty() {
            self.check.end()?;
            if let Some(hmac) = self.hmac.take()
                && let Ok(tag) = hmac.sign().as_ref().try_into()
            {
                let _ = self.seal.set(tag);
            }
            return Ok(0);
        }
        self.check.take(bytes).and_then(|()| self.counter.apply(bytes)).inspect_err(|_| bytes.zeroize())?;
        if let Some(hmac) = &mut self.hmac {
            hmac.update(bytes);
        }
        Ok(length)
    }
}

/// Whether all the sealed bytes are what was sealed with this key.
pub(super) fn authenticate(sealed: &mut dyn Read, key: &LayerKey, hmac: &[u8]) -> io::Result<bool> {
    let mut context = key.hmac();
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        match read_step(sealed, &mut buffer)? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    Ok(aws_lc_rs::constant_time::verify_slices_are_equal(context.sign().as_ref(), hmac).is_ok())
}

/// A reader of the plain bytes of a sealed layer, which was authenticated. It fails at its end when they are not those of
/// the layer that it should be.
pub(super) struct Opening {
    inner: Box<dyn Read + Send>,
    counter: Counter,
    check: Check,
}

impl Opening {
    pub(super) fn new(inner: Box<dyn Read + Send>, key: &LayerKey, expected: Digest, size: u64) -> io::Result<Self> {
        Ok(Self { inner, counter: Counter::new(key)?, check: Check::new(expected, size) })
    }
}

impl Read for Opening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = read_step(&mut *self.inner, buffer)?;
        if length == 0 {
            return self.check.end().map(|()| 0);
        }
        let bytes = &mut buffer[..length];
        self.counter.apply(bytes).and_then(|()| self.check.take(bytes)).inspect_err(|_| bytes.zeroize())?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LayerKey {
        let secret = Zeroizing::new(std::array::from_fn(|at| u8::try_from(at).expect("small")));
        let nonce = std::array::from_fn(|at| if at == 15 { 0xfe } else { 0xff });
        LayerKey { secret, nonce }
    }

    fn sealed(key: &LayerKey, plain: &'static [u8]) -> (Vec<u8>, [u8; HMAC_BYTES]) {
        let seal = Seal::default();
        let reader = Box::new(plain);
        let sealing = Sealing::new(reader, key, Digest::of(plain), plain.len() as u64, seal.clone());
        let mut out = Vec::new();
        sealing.expect("a cipher").read_to_end(&mut out).expect("seals");
        (out, *seal.get().expect("it was read to its end"))
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn the_counter_wraps_over_all_its_bytes_as_it_does_elsewhere() {
        static PLAIN: [u8; 64] = {
            let mut plain = [0; 64];
            let mut at = 0;
            while at < 64 {
                plain[at] = at as u8;
                at += 1;
            }
            plain
        };
        let (out, hmac) = sealed(&key(), &PLAIN);
        let expected = "63e4b601b11b4edaf2e4f3d595c1294bf988f60e58b266cd4b9e0b60419249f1d2b122950e6cb9f781dab041f1035\
                        9afc06c449d7e8ca9d29ecfa10a74ff0802";
        assert_eq!(out, unhex(expected));
        assert_eq!(hmac.to_vec(), unhex("28837a5ef5b2326b4c19b5a60c2864db2165aa5ac7baa7cbf2e4605e5d62a8ff"));
        assert!(authenticate(&mut &out[..], &key(), &hmac).expect("reads"));
    }

    /// A reader that gives as many bytes as it likes.
    struct Uneven(Vec<u8>, usize);

    impl Read for Uneven {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = (self.1 * 7 + 1) % 4097;
            let length = self.0.len().min(buffer.len()).min(self.1 + 1);
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    #[test]
    fn what_was_sealed_is_opened_however_it_is_read() {
        for size in [0_usize, 1, 15, 16, 17, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 200_000] {
            let plain: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let (key, seal) = (LayerKey::random().expect("random"), Seal::default());
            let (digest, length) = (Digest::of(&plain), size as u64);
            let reader = Box::new(Uneven(plain.clone(), 3));
            let mut sealing = Sealing::new(reader, &key, digest.clone(), length, seal.clone()).expect("a cipher");
            let mut sealed = Vec::new();
            sealing.read_to_end(&mut sealed).expect("seals");
            assert_eq!(sealed.len(), size);
            let hmac = seal.get().expect("read to its end");
            assert!(authenticate(&mut &sealed[..], &key, hmac).expect("reads"), "{size}");
            let mut opened = Vec::new();
            let opening = Opening::new(Box::new(Uneven(sealed, 11)), &key, digest, length);
            opening.expect("a cipher").read_to_end(&mut opened).expect("opens");
            assert!(opened == plain, "{size}");
        }
    }

    #[test]
    fn b12_no_flipped_bit_passes() {
        let (out, hmac) = sealed(&key(), b"a layer of not many bytes");
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!authenticate(&mut &flipped[..], &key(), &hmac).expect("reads"), "{bit}");
        }
        for bit in 0..HMAC_BYTES * 8 {
            let mut flipped = hmac;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!authenticate(&mut &out[..], &key(), &flipped).expect("reads"), "{bit}");
        }
        assert!(!authenticate(&mut &out[..], &key(), &[]).expect("reads"), "none at all");
        assert!(!authenticate(&mut &out[1..], &key(), &hmac).expect("reads"), "cut");
    }

    #[test]
    fn a_layer_that_is_another_than_it_should_be_is_not_sealed() {
        for (digest, size) in [(Digest::of(b"other"), 5), (Digest::of(b"layer"), 4), (Digest::of(b"layer"), 6)] {
            let seal = Seal::default();
            let mut sealing = Sealing::new(Box::new(&b"layer"[..]), &key(), digest, size, seal.clone()).expect("new");
            assert!(sealing.read_to_end(&mut Vec::new()).is_err());
            assert!(seal.get().is_none());
        }
    }
}
