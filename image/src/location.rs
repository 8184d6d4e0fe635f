//! Where an image comes from or goes to, outside the store: the words for sources and sinks.
//!
//! Imports [`mod@reference`](crate::reference). Pure: no path is looked at here.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::reference::Reference;

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
    /// `docker`: a repository of a registry.
    Docker,
    /// `docker-daemon`: the images of a Docker daemon.
    DockerDaemon,
    /// `containers-storage`: the images of podman and buildah.
    ContainersStorage,
    /// `containerd`: the images of containerd.
    Containerd,
}

/// A path, or the standard stream of the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A file or directory.
    Path(PathBuf),
    /// `-`: standard input of a source, standard output of a sink. Archives only.
    Standard,
    /// A service of another program, which knows images by name.
    Service,
}

impl Format {
    /// What stands before the first colon.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::Docker => "docker",
            Self::DockerDaemon => "docker-daemon",
            Self::ContainersStorage => "containers-storage",
            Self::Containerd => "containerd",
        }
    }

    /// Whether images are asked of a service rather than read from a path.
    pub fn is_service(self) -> bool {
        matches!(self, Self::Docker | Self::DockerDaemon | Self::ContainersStorage | Self::Containerd)
    }

    fn mark(self) -> &'static str {
        if self == Self::Docker { "://" } else { ":" }
    }
}

impl Location {
    /// Whether `text` begins like a location, so that a reference can be told from one.
    pub fn is_like(text: &str) -> bool {
        format_of(text).is_some()
    }

    /// An image that a service knows by name.
    pub fn of_service(format: Format, image: impl Into<String>) -> Self {
        Self { format, place: Place::Service, image: Some(image.into()) }
    }

    /// Which of several images of a file or directory is meant. A service is asked for one.
    pub fn wanted(&self) -> Option<&str> {
        self.image.as_deref().filter(|_| self.place != Place::Service)
    }
}

fn format_of(text: &str) -> Option<(Format, &str)> {
    let all = [
        Format::Oci,
        Format::OciArchive,
        Format::DockerArchive,
        Format::Docker,
        Format::DockerDaemon,
        Format::ContainersStorage,
        Format::Containerd,
    ];
    all.into_iter()
        .find_map(|format| text.strip_prefix(format.scheme())?.strip_prefix(format.mark()).map(|rest| (format, rest)))
}

/// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME[:TAG]]`, whose paths hold no colon; and
/// `docker://NAME`, `docker-daemon:NAME`, `containers-storage:NAME` or `containerd:NAME`, where an ID of Docker's or
/// podman's and a CID for containerd stand for a name as well.
impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let refused = |problem| LocationError { text: text.chars().take(200).collect(), problem };
        let (format, rest) = format_of(text).ok_or(refused(LocationProblem::Scheme))?;
        if format.is_service() {
            let may_be_id = matches!(format, Format::DockerDaemon | Format::ContainersStorage);
            return match rest.parse::<Reference>() {
                _ if rest.is_empty() => Err(refused(LocationProblem::NoName)),
                Ok(Reference::Name(_)) if !rest.starts_with("ipfs://") => Ok(Self::of_service(format, rest)),
                Ok(Reference::Digest(_)) if may_be_id => Ok(Self::of_service(format, rest)),
                // That is what nerdctl calls images that it pulled.
                Ok(Reference::Cid(_)) if format == Format::Containerd && !rest.contains("//") => {
                    Ok(Self::of_service(format, rest))
                }
                Ok(_) => Err(refused(LocationProblem::NotAName)),
                Err(_) => Err(refused(LocationProblem::NotAName)),
            };
        }
        if rest.starts_with("//") {
            return Err(refused(LocationProblem::Slashes));
        }
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
        if self.place == Place::Service {
            let image = self.image.as_deref().unwrap_or_default();
            return write!(formatter, "{}{}{image}", self.format.scheme(), self.format.mark());
        }
        write!(formatter, "{}:{}", self.format.scheme(), self.place)?;
        self.image.as_ref().map_or(Ok(()), |image| write!(formatter, ":{image}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(formatter),
            Self::Standard => formatter.write_str("-"),
            Self::Service => Ok(()),
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
    #[error(
        "expected `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`, `docker://NAME`, \
         `docker-daemon:NAME`, `containers-storage:NAME` or `containerd:NAME`"
    )]
    Scheme,
    /// A path looks like a URL.
    #[error("a path follows the colon at once, without `//`")]
    Slashes,
    /// There is nothing after the scheme.
    #[error("the name of an image is missing")]
    NoName,
    /// A service knows images by name.
    #[error("expected the name of an image")]
    NotAName,
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
            "docker://localhost:5000/a/b:c",
            "docker-daemon:a:b",
            "containers-storage:localhost/a:b",
            "containerd:a",
            "containerd:bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4",
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
            ("oci-archive:///x.tar", LocationProblem::Slashes),
            ("oci-archive://x.tar", LocationProblem::Slashes),
            ("docker:a", LocationProblem::Scheme),
            ("docker://", LocationProblem::NoName),
            ("docker://A", LocationProblem::NotAName),
            ("docker://a/../b", LocationProblem::NotAName),
            ("containerd:ipfs://a", LocationProblem::NotAName),
            ("docker-daemon:bafkreiam6s2ylngzhei67q7v4t55xnb2x5lkcy4efemuu7gzk5zwfhv4p4", LocationProblem::NotAName),
        ] {
            assert_eq!(text.parse::<Location>().expect_err(text).problem, problem, "{text}");
        }
        assert!(!Location::is_like("ipfs://x") && !Location::is_like("docker.io/x:y"));
    }
}
