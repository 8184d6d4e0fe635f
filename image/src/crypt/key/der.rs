//! As much of DER as it takes to put keys into the one form that the library of ciphers reads.
//!
//! Imports nothing of this crate. Only writes; what it is handed is read by that library, or by nobody.

use zeroize::Zeroizing;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `rsaEncryption` with its absent parameters, as an algorithm identifier.
const RSA: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Bytes that may be secret.
pub(super) type Der = Zeroizing<Vec<u8>>;

fn tagged(tag: u8, parts: &[&[u8]]) -> Der {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Der::new(Vec::with_capacity(length + 10));
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let leading = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - leading) as u8);
        out.extend_from_slice(&bytes[leading..]);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A positive number, whose bytes are big-endian.
fn integer(bytes: &[u8]) -> Der {
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[leading.min(bytes.len().saturating_sub(1))..];
    let is_padded = bytes.first().is_none_or(|first| *first >= 0x80);
    tagged(INTEGER, &[if is_padded { &[0] } else { &[] }, bytes])
}

/// Numbers, one after another: what PKCS #1 calls a key.
pub(super) fn integers(all: &[&[u8]]) -> Der {
    let all: Vec<Der> = all.iter().map(|bytes| integer(bytes)).collect();
    tagged(SEQUENCE, &all.iter().map(|one| &one[..]).collect::<Vec<_>>())
}

/// A public key of PKCS #1 as X.509 holds it.
pub(super) fn public_rsa(pkcs1: &[u8]) -> Der {
    tagged(SEQUENCE, &[&RSA, &tagged(BIT_STRING, &[&[0], pkcs1])])
}

/// A private key of PKCS #1 as PKCS #8 holds it.
pub(super) fn private_rsa(pkcs1: &[u8]) -> Der {
    tagged(SEQUENCE, &[&integer(&[0]), &RSA, &tagged(OCTET_STRING, &[pkcs1])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_signs_are_written_as_they_should_be() {
        assert_eq!(integer(&[0])[..], [2, 1, 0]);
        assert_eq!(integer(&[])[..], [2, 1, 0]);
        assert_eq!(integer(&[0, 0, 0x7f])[..], [2, 1, 0x7f]);
        assert_eq!(integer(&[0x80])[..], [2, 2, 0, 0x80]);
        assert_eq!(tagged(SEQUENCE, &[&[1; 200]])[..3], [0x30, 0x81, 200]);
        assert_eq!(tagged(SEQUENCE, &[&[1; 300]])[..4], [0x30, 0x82, 1, 44]);
        assert_eq!(integers(&[&[1], &[2]])[..], [0x30, 6, 2, 1, 1, 2, 1, 2]);
    }
}
