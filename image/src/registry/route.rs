//! From a request's path to what is meant.
//!
//! Imports the words for names, digests and CIDs. Pure. The whole path must fit, from its first byte to its last: there is
//! no other way to say the same thing, but that a colon may be written `%3A`. A CID is parsed here, once.

use shipfs_node::{Cid, block::check_cid};

use super::error::{Code, Refusal};
use crate::{oci::Digest, reference::Name};

/// Longest path that is looked at: a name, a digest and the words between fit several times.
const MAX_PATH_BYTES: usize = 1024;
/// The repository whose images are called by their CIDs.
const BY_CID: &str = "ipfs";

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The registry itself.
    Base,
    /// The list of repositories.
    Catalog,
    /// The tags of a repository.
    Tags(Place),
    /// A manifest.
    Manifest(Place, Wanted),
    /// A blob.
    Blob(Place, Digest),
    /// Where uploads begin.
    Uploads(Place),
    /// An upload.
    Upload(Place, String),
    /// What refers to a manifest.
    Referrers(Place, Digest),
}

/// Which images are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The one with this root, as the client wrote it.
    Root(Cid, String),
    /// Those of this name here.
    Named(Repository),
}

/// A repository of images by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Repository {
    /// As the client wrote it.
    pub(super) text: String,
    /// As names are recorded.
    pub(super) domain: String,
    pub(super) path: String,
}

impl Repository {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name: Name = text.parse().ok()?;
        let is_bare = name.digest.is_none() && !text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        is_bare.then(|| Self { text: text.to_owned(), domain: name.domain, path: name.path })
    }

    /// An image of it.
    pub(super) fn name(&self, wanted: &Wanted) -> Name {
        let (tag, digest) = match wanted {
            Wanted::Tag(tag) => (Some(tag.clone()), None),
            Wanted::Digest(digest) => (None, Some(digest.clone())),
        };
        Name { domain: self.domain.clone(), path: self.path.clone(), tag, digest }
    }

    /// Whether an image belongs to it.
    pub(super) fn has(&self, name: &Name) -> bool {
        (&name.domain, &name.path) == (&self.domain, &self.path)
    }
}

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What this tag stands for now.
    Tag(String),
    /// Exactly this.
    Digest(Digest),
}

/// Reads a path.
///
/// # Errors
/// The answer to give: 404 for what is no path of a registry, 400 for a malformed name or digest in one.
pub(super) fn route(path: &str) -> Result<Route, Refusal> {
    if path.len() > MAX_PATH_BYTES {
        return Err(Refusal::new(Code::NameInvalid, format!("a path of {} bytes is too long", path.len())));
    }
    let nothing = || Refusal::new(Code::NameUnknown, "no registry has this path").status(hyper::StatusCode::NOT_FOUND);
    if matches!(path, "/v2" | "/v2/") {
        return Ok(Route::Base);
    }
    let rest = path.strip_prefix("/v2/").ok_or_else(nothing)?;
    let rest = rest.replace("%3A", ":").replace("%3a", ":");
    if rest == "_catalog" {
        return Ok(Route::Catalog);
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let name = |count: usize| place(&parts[..count]);
    match parts[..] {
        [.., _, "blobs", "uploads"] => Ok(Route::Uploads(name(parts.len() - 2)?)),
        [.., _, "blobs", "uploads", ""] => Ok(Route::Uploads(name(parts.len() - 3)?)),
        [.., _, "blobs", "uploads", id] => {
            let is_known = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            let place = name(parts.len() - 3)?;
            if is_known {
                return Ok(Route::Upload(place, id.to_owned()));
            }
            Err(Refusal::new(Code::BlobUploadUnknown, "there is no such upload"))
        }
        [.., _, "blobs", text] => Ok(Route::Blob(name(parts.len() - 2)?, digest(text)?)),
        [.., _, "manifests", text] => Ok(Route::Manifest(name(parts.len() - 2)?, wanted(text)?)),
        [.., _, "referrers", text] => Ok(Route::Referrers(name(parts.len() - 2)?, digest(text)?)),
        [.., _, "tags", "list"] => Ok(Route::Tags(name(parts.len() - 2)?)),
        _ => Err(nothing()),
    }
}

fn place(parts: &[&str]) -> Result<Place, Refusal> {
    let text = parts.join("/");
    if let [BY_CID, rest @ ..] = parts {
        let cid = match rest {
            [one] => Cid::try_from(*one).ok().filter(|cid| check_cid(cid).is_ok()),
            _ => None,
        };
        let cid = cid.ok_or_else(|| {
            let quoted: String = text.chars().take(100).collect();
            Refusal::new(Code::NameInvalid, format!("`{}` is not `ipfs/CID`", quoted.escape_debug()))
        })?;
        return Ok(Place::Root(cid, text));
    }
    Repository::parse(&text).map(Place::Named).ok_or_else(|| {
        let quoted: String = text.chars().take(100).collect();
        Refusal::new(Code::NameInvalid, format!("`{}` is not the name of a repository", quoted.escape_debug()))
    })
}

fn wanted(text: &str) -> Result<Wanted, Refusal> {
    if text.contains(':') { digest(text).map(Wanted::Digest) } else { tag(text).map(Wanted::Tag) }
}

/// Reads a tag.
pub(super) fn tag(text: &str) -> Result<String, Refusal> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_tag = (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    let quoted = || text.chars().take(100).collect::<String>();
    if is_tag {
        return Ok(text.to_owned());
    }
    Err(Refusal::new(Code::ManifestInvalid, format!("`{}` is not a tag", quoted().escape_debug())))
}

/// Reads a digest.
pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: crate::oci::DigestError| Refusal::new(Code::DigestInvalid, error.to_string()))
}

/// The values of a query, decoded, in order.
pub(super) fn query(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect()
}

/// The value of a key in a query.
pub(super) fn value<'q>(query: &'q [(String, String)], key: &str) -> Option<&'q str> {
    query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, used) = match (first, after) {
            (b'+', _) => (b' ', 1),
            (b'%', [high, low, ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                match (digit(*high), digit(*low)) {
                    // Two digits of four bits each fit into eight.
                    (Some(high), Some(low)) => ((high << 4 | low) as u8, 3),
                    _ => (b'%', 1),
                }
            }
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    const CID: &str = "bafkreie7754qk7fl56ebauawdgfuqqa3kdd7sotvuhsm6wbz3qin6ssw3a";

    fn named(text: &str) -> Place {
        Place::Named(Repository::parse(text).expect("a repository"))
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let digest = Digest::of(b"x");
        let id = "0123456789abcdef0123456789abcdef";
        for (path, expected) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".into(), Route::Base),
            ("/v2/_catalog".into(), Route::Catalog),
            ("/v2/a/b/tags/list".into(), Route::Tags(named("a/b"))),
            ("/v2/a/manifests/x_Y.1".into(), Route::Manifest(named("a"), Wanted::Tag("x_Y.1".into()))),
            (
                format!("/v2/a/b/c/d/manifests/{digest}"),
                Route::Manifest(named("a/b/c/d"), Wanted::Digest(digest.clone())),
            ),
            (
                format!("/v2/registry.example/a/blobs/{}", digest.to_string().replace(':', "%3A")),
                Route::Blob(named("registry.example/a"), digest.clone()),
            ),
            // Words of the protocol are parts of names, too.
            (format!("/v2/manifests/blobs/blobs/{digest}"), Route::Blob(named("manifests/blobs"), digest.clone())),
            ("/v2/a/blobs/uploads/".into(), Route::Uploads(named("a"))),
            ("/v2/a/blobs/uploads".into(), Route::Uploads(named("a"))),
            (format!("/v2/a/blobs/uploads/{id}"), Route::Upload(named("a"), id.into())),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(named("a"), digest)),
        ] {
            assert_eq!(route(&path).expect(&path), expected, "{path}");
        }
    }

    #[test]
    fn a_cid_may_be_written_in_any_base_and_version() {
        let cid = Cid::try_from(CID).expect("a CID");
        let base58 = multibase::encode(multibase::Base::Base58Btc, cid.to_bytes());
        let base36 = multibase::encode(multibase::Base::Base36Upper, cid.to_bytes());
        for text in [CID, &CID.to_uppercase(), &base58, &base36] {
            let place = Place::Root(cid, format!("ipfs/{text}"));
            let path = format!("/v2/ipfs/{text}/manifests/latest");
            assert_eq!(route(&path).expect(&path), Route::Manifest(place, Wanted::Tag("latest".into())));
        }
        let v0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n";
        let path = format!("/v2/ipfs/{v0}/tags/list");
        assert!(matches!(route(&path), Ok(Route::Tags(Place::Root(cid, _))) if cid.to_string() == v0));
    }

    #[test]
    fn b9_nothing_but_a_whole_path_is_one() {
        let digest = Digest::of(b"x");
        for path in [
            format!("/x/v2/ipfs/{CID}/manifests/latest"),
            format!("/v2/ipfs/{CID}/manifests/latest/x"),
            format!("/v2/ipfs/{CID}/x/manifests/latest"),
            format!("/v2/ipfs/../ipfs/{CID}/manifests/latest"),
            format!("/v2/ipfs/{CID}/manifests/"),
            format!("/v2/ipfs/{CID}%2Fmanifests%2Flatest"),
            format!("/v2/ipfs/{CID}/../../manifests/latest"),
            format!("/v2//ipfs/{CID}/manifests/latest"),
            "/v2/ipfs/x/manifests/latest".into(),
            "/v2/../etc/passwd".into(),
            "/v2/a/%2e%2e/manifests/x".into(),
            "/v2/a/../b/manifests/x".into(),
            "/v2/A/manifests/x".into(),
            "/v2/a:b/manifests/x".into(),
            "/v2/a@b/manifests/x".into(),
            "/v2/a/manifests/%00".into(),
            "/v2/a/manifests/..".into(),
            "/v2/a/manifests/-x".into(),
            format!("/v2/a/manifests/{}", "x".repeat(129)),
            "/v2/a/manifests/sha256:x".into(),
            format!("/v2/a/blobs/{}", digest.to_string().to_uppercase()),
            "/v2/a/blobs/sha256:../x".into(),
            "/v2/a/blobs/uploads/../x".into(),
            "/v2/a/blobs/uploads/..".into(),
            format!("/v2/{}/manifests/x", "a".repeat(300)),
            format!("/v2/{}manifests/x", "a/".repeat(1000)),
            "/v2/manifests/x".into(),
            "/v2x/".into(),
            "/".into(),
            String::new(),
        ] {
            let refused = route(&path).expect_err(&path);
            assert!(matches!(refused.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND), "{path}: {refused:?}");
        }
    }

    #[test]
    fn queries_are_decoded_once() {
        let read = query(Some("mount=sha256%3Aab&from=a%2Fb&x&y=1+2&z=%zz&%6c=%2541"));
        let read: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = [("mount", "sha256:ab"), ("from", "a/b"), ("x", ""), ("y", "1 2"), ("z", "%zz"), ("l", "%41")];
        assert_eq!(read, expected);
        assert!(query(None).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn b9_no_path_upsets_the_router(path in "(/v2)?(/[a-zA-Z0-9%:._@-]{0,12}|/ipfs|/manifests|/blobs|/uploads|/){0,8}|\\PC{0,60}") {
            // Whatever is understood has been checked by the types that it is made of.
            if let Err(refusal) = route(&path) {
                proptest::prop_assert!(refusal.status.is_client_error());
            }
        }
    }
}
