//! Where an image comes from or goes to, outside the store: the words for sources and sinks.
//!
//! Imports nothing of this crate. Pure: no path is looked at here.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// A place outside the store that holds images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// How the images lie there.
    pub format: Format,
    /// Where they lie.
    pub place: Place,
    /// Which of them is meant; the only one when absent.
    pub image: Option<String>,
}

/// How images lie in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `oci`: a directory that is an OCI layout.
    Oci,
    /// `oci-archive`: a tar of an OCI layout.
    OciArchive,
    /// `docker-archive`: what `docker save` writes.
    DockerArchive,
}

/// A path, or the standard stream of the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A file or directory.
    Path(PathBuf),
    /// `-`: standard input of a source, standard output of a sink. Archives only.
    Standard,
}

impl Format {
    /// What stands before the first colon.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

impl Location {
    /// Whether `text` begins like a location, so that a reference can be told from one.
    pub fn is_like(text: &str) -> bool {
        format_of(text).is_some()
    }
}

fn format_of(text: &str) -> Option<(Format, &str)> {
    [Format::Oci, Format::OciArchive, Format::DockerArchive]
        .into_iter()
        .find_map(|format| text.strip_prefix(format.scheme())?.strip_prefix(':').map(|rest| (format, rest)))
}

/// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME[:TAG]]`; paths hold no colon.
impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let refused = |problem| LocationError { text: text.chars().take(200).collect(), problem };
        let (format, rest) = format_of(text).ok_or(refused(LocationProblem::Scheme))?;
        let (path, image) = match rest.split_once(':') {
            Some((_, "")) => return Err(refused(LocationProblem::NoTag)),
            Some((path, image)) => (path, Some(image.to_owned())),
            None => (rest, None),
        };
        let place = match (path, format) {
            ("", _) => return Err(refused(LocationProblem::NoPath)),
            ("-", Format::Oci) => return Err(refused(LocationProblem::Stream)),
            ("-", _) => Place::Standard,
            _ => Place::Path(PathBuf::from(path)),
        };
        Ok(Self { format, place, image })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.format.scheme(), self.place)?;
        self.image.as_ref().map_or(Ok(()), |image| write!(formatter, ":{image}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(formatter),
            Self::Standard => formatter.write_str("-"),
        }
    }
}

/// Text that is no location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a place for images: {problem}", text.escape_debug())]
pub struct LocationError {
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub problem: LocationProblem,
}

/// What is wrong with a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationProblem {
    /// It begins with no known word.
    #[error("expected `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME:TAG]`")]
    Scheme,
    /// There is nothing after the scheme.
    #[error("a path is missing")]
    NoPath,
    /// There is nothing after the second colon.
    #[error("a tag is missing after the last colon")]
    NoTag,
    /// A directory cannot be streamed.
    #[error("only archives can be streamed")]
    Stream,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_keep_their_text() {
        for text in [
            "oci:/a/b",
            "oci:a:latest",
            "oci-archive:-",
            "oci-archive:x.tar:1.0",
            "docker-archive:x.tar.gz:a/b:c",
            "docker-archive:-:a:b",
        ] {
            assert_eq!(text.parse::<Location>().expect(text).to_string(), text);
            assert!(Location::is_like(text));
        }
        let parsed: Location = "docker-archive:x.tar:localhost:5000/a:b".parse().expect("parses");
        assert_eq!(parsed.image.as_deref(), Some("localhost:5000/a:b"));
    }

    #[test]
    fn other_text_is_refused() {
        for (text, problem) in [
            ("", LocationProblem::Scheme),
            ("ubuntu", LocationProblem::Scheme),
            ("dir:/x", LocationProblem::Scheme),
            ("oci:", LocationProblem::NoPath),
            ("oci::x", LocationProblem::NoPath),
            ("oci:x:", LocationProblem::NoTag),
            ("oci:-", LocationProblem::Stream),
        ] {
            assert_eq!(text.parse::<Location>().expect_err(text).problem, problem, "{text}");
        }
        assert!(!Location::is_like("ipfs://x") && !Location::is_like("docker.io/x:y"));
    }
}
