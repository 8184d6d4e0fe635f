//! The name of an OCI blob: an algorithm and the hash it gives.
//!
//! Imports nothing of this crate. A [`Digest`] is always well-formed, so it may be used as a file name; text that is not
//! exactly the canonical form never becomes one.

use std::{fmt, io, io::Read, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256, Sha512};

/// Digest of a blob. SHA-256 is what is written; SHA-512 is recognised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// `sha256:` and 64 hexadecimal digits.
    Sha256([u8; 32]),
    /// `sha512:` and 128 hexadecimal digits.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// Hashes `bytes` with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(bytes).into())
    }

    /// The algorithm's registered name, which is also the name of its directory in a layout.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        let bytes: &[u8] = match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => &bytes[..],
        };
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
            text
        })
    }

    /// The 32 bytes when this is SHA-256, which the store knows blobs by.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Sha256(bytes) => Some(*bytes),
            Self::Sha512(_) => None,
        }
    }

    /// Whether `bytes` hash to this.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Sha256(expected) => Sha256::digest(bytes)[..] == expected[..],
            Self::Sha512(expected) => Sha512::digest(bytes)[..] == expected[..],
        }
    }

    /// Whether the bytes of `reader` hash to this. Blocks.
    ///
    /// # Errors
    /// What the reader says.
    pub fn matches_reader(&self, reader: &mut dyn Read) -> io::Result<bool> {
        let mut sha256 = Sha256::new();
        let mut sha512 = Sha512::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => match self {
                    Self::Sha256(_) => sha256.update(&buffer[..length]),
                    Self::Sha512(_) => sha512.update(&buffer[..length]),
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match self {
            Self::Sha256(expected) => sha256.finalize()[..] == expected[..],
            Self::Sha512(expected) => sha512.finalize()[..] == expected[..],
        })
    }
}

/// Bytes hashed at a time: large enough that the calls do not show, small enough for the second-level cache.
const READ_BYTES: usize = 256 << 10;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let refused = |problem| DigestError { text: shorten(text), problem };
        let (algorithm, hex) = text.split_once(':').ok_or(refused(DigestProblem::Form))?;
        match algorithm {
            "sha256" => unhex(hex).map(Self::Sha256).ok_or(refused(DigestProblem::Hash { digits: 64 })),
            "sha512" => unhex(hex)
                .map(|bytes| Self::Sha512(Box::new(bytes)))
                .ok_or(refused(DigestProblem::Hash { digits: 128 })),
            _ => Err(refused(DigestProblem::Algorithm)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Exactly `2 * N` lower-case hexadecimal digits.
fn unhex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if hex.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// What is quoted of a malformed digest: enough to find it, safe on a terminal.
fn shorten(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Why text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: {problem}")]
pub struct DigestError {
    /// The text, shortened and escaped.
    pub text: String,
    /// What is wrong with it.
    pub problem: DigestProblem,
}

/// What is wrong with a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestProblem {
    /// There is no colon in it.
    #[error("expected an algorithm, a colon and a hash")]
    Form,
    /// The algorithm is unknown.
    #[error("only sha256 and sha512 are known")]
    Algorithm,
    /// The hash has another length, or other characters.
    #[error("expected {digits} lower-case hexadecimal digits")]
    Hash {
        /// Digits expected.
        digits: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_keep_their_text() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let long = format!("sha512:{}", "0f".repeat(64));
        for text in [EMPTY, &long] {
            assert_eq!(text.parse::<Digest>().expect("parses").to_string(), text);
        }
        assert!(Digest::of(b"abc").matches(b"abc"));
        assert!(!Digest::of(b"abc").matches_reader(&mut &b"abd"[..]).expect("reads"));
    }

    #[test]
    fn b2_malformed_digests_are_refused() {
        let hex = &EMPTY[7..];
        for (text, problem) in [
            (String::new(), DigestProblem::Form),
            (hex.to_owned(), DigestProblem::Form),
            (EMPTY.to_uppercase(), DigestProblem::Algorithm),
            (format!("sha256:{}", hex.to_uppercase()), DigestProblem::Hash { digits: 64 }),
            (format!("sha256:{}", &hex[1..]), DigestProblem::Hash { digits: 64 }),
            (format!("{EMPTY}0"), DigestProblem::Hash { digits: 64 }),
            (format!("sha256:../{}", &hex[3..]), DigestProblem::Hash { digits: 64 }),
            ("sha256:".to_owned(), DigestProblem::Hash { digits: 64 }),
            (format!("sha512:{hex}"), DigestProblem::Hash { digits: 128 }),
            (format!("md5:{}", &hex[..32]), DigestProblem::Algorithm),
            (format!("sha256 :{hex}"), DigestProblem::Algorithm),
            (format!("sha256:{hex}\n"), DigestProblem::Hash { digits: 64 }),
            (format!("sha256:é{}", &hex[2..]), DigestProblem::Hash { digits: 64 }),
        ] {
            assert_eq!(text.parse::<Digest>().expect_err(&text).problem, problem, "{text}");
        }
    }
}
