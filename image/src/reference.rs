//! What a user types to mean an image: a CID, a name, or a digest.
//!
//! Imports [`oci::Digest`](crate::oci::Digest) and the node's check of CIDs. Pure: nothing is looked up here, and whatever
//! was typed is quoted escaped, since it may have come from a peer.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use shipfs_node::{
    Cid,
    block::{CidError, check_cid},
};

use crate::oci::{Digest, DigestError};

/// Names an image, in one of three ways.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By its root: `ipfs://CID`, `/ipfs/CID` or a bare CID, in any multibase and version.
    Cid(Cid),
    /// By the name it has here: `NAME[:TAG][@DIGEST]`.
    Name(Name),
    /// By the digest of its top document: `sha256:HEX`, or 64 hexadecimal digits.
    Digest(Digest),
}

/// A name as Docker normalises it: `ubuntu` is `docker.io/library/ubuntu:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Host and port of the registry it would come from.
    pub domain: String,
    /// The repository there.
    pub path: String,
    /// The tag; absent only when a digest stands in its place.
    pub tag: Option<String>,
    /// What the top document must hash to.
    pub digest: Option<Digest>,
}

/// The registry that is meant when a name has none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Longest repository with its domain, in bytes: the distribution specification's limit.
const MAX_NAME_BYTES: usize = 255;
/// Longest tag, in bytes: the distribution specification's limit.
const MAX_TAG_BYTES: usize = 128;
/// Longest reference that is looked at, in bytes: a name, a tag, a digest and a scheme fit.
const MAX_REFERENCE_BYTES: usize = 1024;

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refused = |problem| ReferenceError { text: text.chars().take(100).collect(), problem };
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(refused(ReferenceProblem::TooLong));
        }
        if text.starts_with("ipns://") || text.starts_with("/ipns/") {
            return Err(refused(ReferenceProblem::Ipns));
        }
        let stripped = text.strip_prefix("/ipfs/").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let rest = stripped.or_else(|| text.strip_prefix("ipfs://")).unwrap_or(text);
        match rest.split_once('/') {
            None => {
                if let Some(cid) = parse_cid(rest) {
                    check_cid(&cid).map_err(|error| refused(ReferenceProblem::Cid(error)))?;
                    return Ok(Self::Cid(cid));
                }
            }
            Some((first, _)) if parse_cid(first).is_some() => return Err(refused(ReferenceProblem::Path)),
            Some(_) => {}
        }
        if stripped.is_some() {
            return Err(refused(ReferenceProblem::NotACid));
        }
        if rest.len() == 64 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let parsed = format!("sha256:{rest}").parse();
            return parsed.map(Self::Digest).map_err(|error| refused(ReferenceProblem::Digest(error)));
        }
        if let Ok(digest) = rest.parse() {
            return Ok(Self::Digest(digest));
        }
        if let Some(why) = mistyped_cid(rest) {
            return Err(refused(ReferenceProblem::LikeACid(why)));
        }
        rest.parse().map(Self::Name).map_err(|error: ReferenceError| refused(error.problem))
    }
}

/// Reads a CID in any multibase and version; no path, no scheme.
fn parse_cid(text: &str) -> Option<Cid> {
    if text.is_empty() || text.contains('/') { None } else { Cid::try_from(text).ok() }
}

/// Why a text that begins as CIDs do is none; `None` for any other text.
///
/// No name of an image begins like this by accident; one that does has to be written with its registry.
fn mistyped_cid(text: &str) -> Option<String> {
    /// Letters that a CID of the usual hash has in base32.
    const BASE32_LETTERS: usize = 59;
    /// Letters that a CID of version 0 has.
    const BASE58_LETTERS: usize = 46;
    /// So few may well be a name.
    const LEAST: usize = 12;
    let is_word = text.len() >= LEAST && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (is_of, letters, base) = if text.starts_with("bafkrei") || text.starts_with("bafybei") {
        ((|letter| matches!(letter, 'a'..='z' | '2'..='7')) as fn(char) -> bool, BASE32_LETTERS, "base32")
    } else if text.starts_with("Qm") {
        let is_base58 = |letter: char| letter.is_ascii_alphanumeric() && !matches!(letter, '0' | 'O' | 'I' | 'l');
        (is_base58 as fn(char) -> bool, BASE58_LETTERS, "base58")
    } else {
        return None;
    };
    if !is_word {
        return None;
    }
    if let Some(odd) = text.chars().find(|letter| !is_of(*letter)) {
        return Some(format!("`{odd}` is no letter of {base}"));
    }
    let has = text.len();
    Some(if has == letters {
        "its letters name none".to_owned()
    } else {
        format!("has {has} letters instead of {letters}")
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cid(cid) => cid.fmt(formatter),
            Self::Name(name) => name.fmt(formatter),
            Self::Digest(digest) => digest.fmt(formatter),
        }
    }
}

impl FromStr for Name {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refused = |problem| ReferenceError { text: text.chars().take(100).collect(), problem };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|error| refused(ReferenceProblem::Digest(error)))?))
            }
            None => (text, None),
        };
        let (domain, remainder) = match rest.split_once('/') {
            Some((first, remainder)) if is_domain_like(first) => (first, remainder.to_owned()),
            _ => (DEFAULT_DOMAIN, rest.to_owned()),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (remainder.as_str(), None),
        };
        let library = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if library { format!("library/{path}") } else { path.to_owned() };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused(ReferenceProblem::UpperCase));
        }
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES || tag.as_ref().is_some_and(|tag| tag.len() > MAX_TAG_BYTES) {
            return Err(refused(ReferenceProblem::TooLong));
        }
        if !is_domain(domain) || !path.split('/').all(is_component) || !tag.as_deref().is_none_or(is_tag) {
            return Err(refused(ReferenceProblem::Form));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl Name {
    /// The name without its digest, as names are recorded.
    pub fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// The name as Docker shows it: without the default registry and its `library/`, where it means the same without.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        let shortest = short.strip_prefix("library/").unwrap_or(short);
        let is_same = |text: &&str| text.parse().is_ok_and(|name: Self| name == *self);
        [shortest, short].into_iter().find(is_same).unwrap_or(&full).to_owned()
    }
}

/// Whether what stands before the first slash is a registry rather than a part of the path.
fn is_domain_like(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (text, "0"),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'));
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && (is_ipv6 || host.split('.').all(is_label))
}

/// `[a-z0-9]+` joined by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_well
        && bytes
            .split(|byte| is_word(*byte))
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(is_word) && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a reference to an image: {problem}", text.escape_debug())]
pub struct ReferenceError {
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub problem: ReferenceProblem,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceProblem {
    /// A path follows a CID, which names a whole image.
    #[error("a CID takes no path")]
    Path,
    /// `/ipfs/` promises a CID.
    #[error("expected a CID")]
    NotACid,
    /// It has the beginning of a CID, and is none: copied in part, or mistyped.
    #[error("it looks like a CID, but {0}")]
    LikeACid(String),
    /// The CID uses a hash that cannot be checked.
    #[error(transparent)]
    Cid(CidError),
    /// Mutable names are not resolved.
    #[error("only ipfs is supported, not ipns")]
    Ipns,
    /// Its digest is malformed.
    #[error(transparent)]
    Digest(DigestError),
    /// It breaks the grammar of names.
    #[error("expected a CID, or NAME[:TAG]")]
    Form,
    /// Repositories are lower-case.
    #[error("a repository name must be lower-case")]
    UpperCase,
    /// It is longer than a reference may be.
    #[error("it is too long")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4";

    fn shown(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|error| panic!("{error}")).to_string()
    }

    fn problem(text: &str) -> ReferenceProblem {
        text.parse::<Reference>().expect_err(text).problem
    }

    #[test]
    fn a_cid_is_a_cid_however_it_is_written() {
        let cid: Cid = ROOT.parse().expect("CID");
        let base58 = multibase::encode(multibase::Base::Base58Btc, cid.to_bytes());
        let base36 = multibase::encode(multibase::Base::Base36Lower, cid.to_bytes());
        let upper = multibase::encode(multibase::Base::Base32Upper, cid.to_bytes());
        for text in [
            ROOT,
            &base58,
            &base36,
            &upper,
            &format!("ipfs://{ROOT}"),
            &format!("/ipfs/{ROOT}"),
            &format!("/ipfs/{base58}/"),
        ] {
            assert_eq!(text.parse(), Ok(Reference::Cid(cid)), "{text}");
            assert_eq!(shown(text), ROOT);
        }
        let v0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n";
        assert_eq!(shown(&format!("ipfs://{v0}")), v0);
    }

    #[test]
    fn cids_that_name_no_image_are_refused() {
        assert_eq!(problem(&format!("ipfs://{ROOT}/x")), ReferenceProblem::Path);
        assert_eq!(problem(&format!("/ipfs/{ROOT}/x")), ReferenceProblem::Path);
        assert_eq!(problem("/ipfs/ubuntu"), ReferenceProblem::NotACid);
        assert_eq!(problem(&format!("/ipns/{ROOT}")), ReferenceProblem::Ipns);
        assert_eq!(problem("ipns://example.com"), ReferenceProblem::Ipns);
        let unknown = Cid::new_v1(0x55, shipfs_node::block::Multihash::wrap(0x1e, &[1; 32]).expect("fits"));
        assert!(matches!(problem(&unknown.to_string()), ReferenceProblem::Cid(_)));
    }

    #[test]
    fn a_mistyped_cid_is_not_taken_for_a_name() {
        let v0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n";
        for (text, why) in [
            (ROOT[..40].to_owned(), "has 40 letters instead of 59"),
            (format!("{ROOT}a"), "has 60 letters instead of 59"),
            (ROOT.replacen('s', "1", 1), "`1` is no letter of base32"),
            (v0[..40].to_owned(), "has 40 letters instead of 46"),
            (v0.replace('7', "0"), "`0` is no letter of base58"),
        ] {
            assert_eq!(problem(&text), ReferenceProblem::LikeACid(why.to_owned()));
            assert!(matches!(problem(&format!("ipfs://{text}")), ReferenceProblem::LikeACid(_)));
        }
        // What only begins like one.
        for name in
            ["bafkrei", "bafkreiam/s2ylngzhei", "bafkreiam6s2ylngzhei:v1", "docker.io/library/bafkreiam6s2ylngzhei"]
        {
            assert!(matches!(name.parse(), Ok(Reference::Name(_))), "{name}");
        }
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, full, familiar) in [
            ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
            ("ipfs://ubuntu:20.04", "docker.io/library/ubuntu:20.04", "ubuntu:20.04"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
            ("index.docker.io/ubuntu:x", "docker.io/library/ubuntu:x", "ubuntu:x"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("localhost/esz:plain", "localhost/esz:plain", "localhost/esz:plain"),
            ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"),
            (
                "registry.example/a/b__c/d--e.f:V_1.2-x",
                "registry.example/a/b__c/d--e.f:V_1.2-x",
                "registry.example/a/b__c/d--e.f:V_1.2-x",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest", "Host/a:latest"),
        ] {
            let Ok(Reference::Name(name)) = text.parse() else { panic!("{text}") };
            assert_eq!((name.to_string(), name.familiar()), (full.to_owned(), familiar.to_owned()));
            assert_eq!(full.parse(), Ok(name), "normal forms stay");
        }
        let digest = Digest::of(b"x");
        assert_eq!(shown(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
        assert_eq!(shown(&format!("a:b@{digest}")), format!("docker.io/library/a:b@{digest}"));
    }

    /// What nerdctl makes of the same words, but for mutable names, which it takes for Docker's.
    #[test]
    fn references_mean_what_they_mean_to_nerdctl() {
        for (text, meant) in [
            (ROOT, ROOT),
            (&format!("ipfs://{ROOT}"), ROOT),
            ("ipfs://ubuntu", "docker.io/library/ubuntu:latest"),
            ("ipfs://ubuntu:20.04", "docker.io/library/ubuntu:20.04"),
            ("ipfs://registry.example/a/b:c", "registry.example/a/b:c"),
            ("ipfs://localhost:5000/a", "localhost:5000/a:latest"),
            ("registry.example/a/b", "registry.example/a/b:latest"),
        ] {
            assert_eq!(shown(text), meant, "{text}");
        }
        // Upper-case base32 and base58 are the same CID, and are written as everybody writes them.
        assert_eq!(shown(&ROOT.to_ascii_uppercase()), ROOT);
        // A CID is not a name below a registry, and a tag makes it none.
        assert_eq!(problem(&format!("{ROOT}/a")), ReferenceProblem::Path);
        assert_eq!(shown(&format!("{ROOT}:tag")), format!("docker.io/library/{ROOT}:tag"));
        assert_eq!(
            problem("ipns://k51qzi5uqu5dh9ihj4p2v5sl3hxvv27ryx2w0xrsv6jmmqi91t9xp8p9kaipc2"),
            ReferenceProblem::Ipns
        );
    }

    #[test]
    fn digests_are_references_too() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest.clone())));
        assert_eq!(digest.hex().parse(), Ok(Reference::Digest(digest)));
        assert!(matches!(problem(&"A".repeat(64)), ReferenceProblem::Digest(_)));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            " ",
            ":",
            "a:",
            ":a",
            "a b",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:b:c",
            "a:.b",
            "a@b",
            "a:é",
            "../x",
            "a.b:x/c",
            "http://a/b",
            "a\n",
            "a:\u{1b}",
            "localhost:/a",
            "[]/a",
            "a@sha256:00",
        ] {
            assert!(matches!(problem(text), ReferenceProblem::Form | ReferenceProblem::Digest(_)), "{text:?}");
        }
        assert_eq!(problem("Ubuntu"), ReferenceProblem::UpperCase);
        assert_eq!(problem(&"a".repeat(300)), ReferenceProblem::TooLong);
        assert_eq!(problem(&format!("a:{}", "b".repeat(129))), ReferenceProblem::TooLong);
        assert_eq!(problem(&"a/".repeat(5000)), ReferenceProblem::TooLong);
    }

    #[test]
    fn d12_a_reference_cannot_speak_to_the_terminal() {
        let error = "\u{1b}[2Jx".parse::<Reference>().expect_err("refused").to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}|[a-z0-9:@/._-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
