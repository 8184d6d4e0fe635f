//! The key of a private network, as a file in the form that Kubo uses.
//!
//! ```text
//! /key/swarm/psk/1.0.0/
//! /base16/
//! 64 hexadecimal digits
//! ```
//! The second line may also be `/base64/`, or `/bin/` before the 32 bytes themselves; the first two may end in `\r\n`,
//! and what follows the key is not looked at. Such files are read as Kubo reads them; the form above is written.
//! Imports the node's configuration. The key is in no message.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use base64::Engine as _;
use rustix::fs::{CWD, RenameFlags};
use shipfs_node::config::{Network, SWARM_KEY_BYTES};

use super::{Failure, FailureKind};

/// Name of the file in the repository.
pub const SWARM_KEY_FILE: &str = "swarm.key";
/// Longest file that is read, in bytes: three short lines.
const MAX_KEY_BYTES: u64 = 1 << 10;

/// A new key, as the file's text.
///
/// # Errors
/// When the system has no random bytes.
pub fn generate_swarm_key() -> Result<String, Failure> {
    let mut key = [0; SWARM_KEY_BYTES];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).map_err(|error| {
        Failure::from_error(FailureKind::Other, &error).while_doing("cannot get random bytes for a key")
    })?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("/key/swarm/psk/1.0.0/\n/base16/\n{hex}\n"))
}

/// Writes a key where there is none, for the owner alone.
///
/// # Errors
/// When there is a file already, which is never overwritten, or it cannot be written.
pub fn write_swarm_key(path: &Path, key: &str) -> Result<(), Failure> {
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        // Whole or not at all, and never in place of another: written aside first, for the owner alone from the start.
        let aside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let written = file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            rustix::fs::renameat_with(CWD, &aside, CWD, path, RenameFlags::NOREPLACE).map_err(io::Error::from)
        });
        written.inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error: io::Error| {
        let failure = Failure::from_error(FailureKind::Other, &error)
            .while_doing(format!("cannot write the swarm key `{}`", path.display()));
        if error.kind() == io::ErrorKind::AlreadyExists {
            return failure.hint("a network whose key is lost cannot be entered any more: move the file away first");
        }
        failure
    })
}

/// The private network of the key in a file, and what is to be said about the file, if anything.
pub(super) fn private_network(path: &Path) -> Result<(Network, Option<String>), Failure> {
    let shown = path.display();
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut bytes = Vec::new();
        file.take(MAX_KEY_BYTES).read_to_end(&mut bytes)?;
        Ok((mode, bytes))
    };
    let (mode, bytes) = read().map_err(|error: io::Error| {
        Failure::from_error(FailureKind::Network, &error)
            .while_doing(format!("cannot read the swarm key `{shown}`"))
            .hint("`shipfs key gen` makes one; all nodes of a private network need the same")
    })?;
    let key = decode(&bytes).ok_or_else(|| {
        Failure::new(FailureKind::Network, format!("`{shown}` holds no swarm key"))
            .hint("expected three lines: /key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal digits")
    })?;
    let open = mode & 0o077 != 0;
    let warning = open.then(|| format!("others on this host can read the swarm key `{shown}`: chmod 600 it"));
    Ok((Network::private(key), warning))
}

/// The key in the bytes of a file.
fn decode(bytes: &[u8]) -> Option<[u8; SWARM_KEY_BYTES]> {
    let (form, rest) = line(bytes)?;
    let (encoding, rest) = line(rest)?;
    if form != b"/key/swarm/psk/1.0.0/" {
        return None;
    }
    let key = match encoding {
        b"/base16/" => {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            let pairs = rest.get(..2 * SWARM_KEY_BYTES)?.chunks_exact(2);
            pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Option<Vec<_>>>()?
        }
        b"/base64/" => {
            let symbols = rest.iter().copied().filter(|symbol| !matches!(symbol, b'\r' | b'\n'));
            // Groups of four, of which the last may be padded.
            let symbols: Vec<_> = symbols.take(SWARM_KEY_BYTES.div_ceil(3) * 4).collect();
            base64::engine::general_purpose::STANDARD.decode(symbols).ok()?
        }
        b"/bin/" => rest.to_vec(),
        _ => return None,
    };
    key.get(..SWARM_KEY_BYTES)?.try_into().ok()
}

/// The first line, without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_once_and_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new").join(SWARM_KEY_FILE);
        let key = generate_swarm_key().expect("random bytes");
        assert_ne!(key, generate_swarm_key().expect("random bytes"));
        write_swarm_key(&path, &key).expect("writes");
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
        let (network, warning) = private_network(&path).expect("reads");
        assert_eq!((network.name(), warning), ("private", None));
        let secret = key.lines().last().expect("three lines");
        assert!(!format!("{network:?}").contains(secret));
        let refused = write_swarm_key(&path, "other").expect_err("is there already");
        assert!(refused.hint.is_some());
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), key);
    }

    #[test]
    fn c12_a_key_that_others_can_read_is_warned_of_and_a_bad_one_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(SWARM_KEY_FILE);
        assert!(private_network(&path).expect_err("there is none").hint.is_some());
        for bad in ["", "/key/swarm/psk/1.0.0/\n/base16/\nabc\n", "0123"] {
            std::fs::write(&path, bad).expect("writes");
            let failure = private_network(&path).expect_err(bad);
            assert!(failure.message.contains("holds no swarm key"), "{failure}");
        }
        std::fs::write(&path, generate_swarm_key().expect("random bytes")).expect("writes");
        let (_, warning) = private_network(&path).expect("reads");
        assert!(warning.is_some_and(|text| text.contains("chmod 600")));
    }

    #[test]
    fn c12_a_key_is_read_as_kubo_reads_it() {
        let key: [u8; SWARM_KEY_BYTES] = std::array::from_fn(|at| u8::try_from(at * 7 + 3).expect("small"));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(key);
        let longer = base64::engine::general_purpose::STANDARD.encode([&key[..], &[9; 7]].concat());
        let head = "/key/swarm/psk/1.0.0/\n";
        let binary = |head: &str| [head.as_bytes(), &key, b"\nmore"].concat();
        let same: [Vec<u8>; 9] = [
            format!("{head}/base16/\n{hex}").into(),
            format!("{head}/base16/\n{}\n", hex.to_uppercase()).into(),
            format!("{head}/base16/\r\n{hex}00ff and more\n").into(),
            format!("/key/swarm/psk/1.0.0/\r\n/base64/\r\n{base64}\r\n").into(),
            format!("{head}/base64/\n{}\n{}", &base64[..10], &base64[10..]).into(),
            format!("{head}/base64/\n{longer}").into(),
            format!("{head}/base64/\n{base64}\nmore").into(),
            binary(&format!("{head}/bin/\n")),
            binary("/key/swarm/psk/1.0.0/\r\n/bin/\r\n"),
        ];
        for file in same {
            assert_eq!(decode(&file), Some(key), "{}", String::from_utf8_lossy(&file));
        }
        let bad = [
            format!("{head}/base16/\n{}", &hex[1..]),
            format!("{head}/base16/\n {hex}"),
            format!("{head}/base64/\n{}", base64.trim_end_matches('=')),
            format!("{head}/base64/\n{}", &base64[4..]),
            format!("{head}/base32/\n{hex}"),
            format!("{head}/bin/\nshort"),
            format!("/key/swarm/psk/2.0.0/\n/base16/\n{hex}"),
            hex.clone(),
        ];
        for file in bad {
            assert_eq!(decode(file.as_bytes()), None, "{file}");
        }
    }
}
