//! Words on the command line that more than one verb reads.

use shipfs_image::{
    control::{Failure, FailureKind, Reply, Request, Source},
    location::{Format, Location, Place},
    reference::{Name, Reference},
};

use crate::context::Context;

/// A place, an image that is here, or `-` for an archive on stdin.
pub(super) fn source(text: &str) -> Result<Source, String> {
    if text == "-" {
        let format = Format::DockerArchive;
        return Ok(Source::Place(Location { format, place: Place::Standard, image: None }));
    }
    if Location::is_like(text) {
        return text
            .parse()
            .map(Source::Place)
            .map_err(|error: shipfs_image::location::LocationError| error.to_string());
    }
    text.parse().map(Source::Stored).map_err(|error: shipfs_image::reference::ReferenceError| error.to_string())
}

/// A name that an image can have.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text.parse::<Name>() {
        Ok(Name { digest: None, .. }) => Ok(text.to_owned()),
        Ok(_) => Err("a name that is given takes no digest".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The domain of a registry, as it stands in names; people also write it as a URL.
pub(super) fn registry(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    // A domain without a dot or a port is one only if a name says so.
    match format!("{bare}/x").parse::<Name>() {
        Ok(name) if name.domain == bare || bare == "index.docker.io" => Ok(name.domain),
        _ => Err("expected the host of a registry, `registry.example:5000` for instance".to_owned()),
    }
}

/// What a verb said is an image.
pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse::<Reference>().map_err(|error| Failure::from_error(FailureKind::Other, &error))
}

/// The CID of an image: as it is, or of what is in the repository.
pub(super) async fn cid(image: &Reference, context: &mut Context) -> Result<String, Failure> {
    if let Reference::Cid(cid) = image {
        return Ok(cid.to_string());
    }
    match context.call(Request::Inspect { image: image.clone() }).await? {
        Reply::Inspected(value) => Ok(value["cid"].as_str().unwrap_or_default().to_owned()),
        _ => Err(Failure::new(FailureKind::Other, format!("`{image}` has no CID"))),
    }
}
