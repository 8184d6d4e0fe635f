//! The verbs about images, over the seam to storage.
//!
//! Imports the operations of this crate and nothing of nodes or sockets: turns a request into their arguments and what
//! they give into a reply.

use std::{fs::File, path::Path, sync::Arc};

use cid::Cid;

use super::{
    Failure, FailureKind, ImageRow, PlatformChoice, Pull, Pulled, Push, Pushed, Removed, Reply, Saved, Source, Tagged,
    explain::explain,
};
use crate::{
    blobs::Blobs,
    bring::blocking,
    event::{Event, EventSink},
    inspect,
    location::Location,
    names::{self, Image, NamesError},
    oci::{Platforms, descriptor},
    pull::{self, PullOptions},
    push::{self, Naming, PushError, PushFrom, PushOptions},
    reference::{Name, Reference},
    save, sink,
    source::{self, SourceError},
};

/// What the verbs work with.
pub(super) struct Images<'v> {
    pub(super) blobs: &'v dyn Blobs,
    /// Where archives that cannot be read at random are unpacked, into files without names.
    pub(super) spool: &'v Path,
    /// The standard stream of the user's process, if the verb reads or writes it.
    pub(super) stream: Option<File>,
    pub(super) events: &'v dyn EventSink,
}

impl Images<'_> {
    /// Takes an image in. Gives it back too, for whoever announces it.
    pub(super) async fn push(mut self, push: Push) -> Result<(Reply, Image), Failure> {
        let from = match push.source {
            Source::Place(place) => PushFrom::Source(self.open(place.clone()).await?, place.image),
            Source::Stored(reference) => {
                let found = names::resolve(self.blobs.records(), &reference).await;
                PushFrom::Stored(found.map_err(|error| not_stored(&error, &reference))?.root)
            }
        };
        let naming = match push.name {
            Some(name) => Naming::As(parse_name(&name)?),
            None => Naming::Source,
        };
        let options = PushOptions { platforms: platforms(&push.platforms)?, shape: push.shape, naming };
        let image = push::push(self.blobs, &from, &options, self.events).await.map_err(|error| explain(&error))?;
        Ok((Reply::Pushed(pushed(&image)), image))
    }

    /// Takes every image of an archive in.
    pub(super) async fn load(mut self, from: Location) -> Result<(Reply, Vec<Image>), Failure> {
        let source = self.open(from).await?;
        let mut images = Vec::new();
        let listed = source.images().len();
        for wanted in source.images() {
            let annotations = &wanted.descriptor.annotations;
            let label = annotations.get(descriptor::IMAGE_NAME).or_else(|| annotations.get(descriptor::REF_NAME));
            if label.is_none() && listed > 1 {
                let digest = &wanted.descriptor.digest;
                self.events
                    .emit(Event::Warning(format!("image `{digest}` has no name in the archive, it is left out")));
                continue;
            }
            let from = PushFrom::Source(source.clone(), label.cloned());
            images.push(self.load_one(&from).await?);
        }
        Ok((Reply::Loaded(images.iter().map(pushed).collect()), images))
    }

    /// Takes an image in with every platform, or with this host's if the archive has not all that its index lists.
    async fn load_one(&self, from: &PushFrom) -> Result<Image, Failure> {
        let options = |platforms| PushOptions { platforms, naming: Naming::Source, ..PushOptions::default() };
        let all = push::push(self.blobs, from, &options(Platforms::All), self.events).await;
        let result = match all {
            Err(error) if is_missing(&error) => {
                push::push(self.blobs, from, &options(Platforms::Host), self.events).await
            }
            all => all,
        };
        result.map_err(|error| explain(&error))
    }

    /// Makes an image local, and writes it elsewhere if asked to.
    pub(super) async fn pull(mut self, pull: Pull) -> Result<(Reply, Image), Failure> {
        let (cid, record) = match &pull.image {
            Reference::Cid(cid) => (*cid, None),
            other => {
                let found = names::resolve(self.blobs.records(), other).await;
                let hint = "only a CID can be pulled from others; ask whoever pushed it";
                let found = found.map_err(|error| Failure { hint: Some(hint.to_owned()), ..explain(&error) })?;
                (found.root, Some(found.name))
            }
        };
        let name = pull.name.as_deref().map(parse_name).transpose()?;
        let options = PullOptions { platforms: platforms(&pull.platforms)?, name, record };
        let to = pull.to.as_ref().map(Location::to_string);
        let sink = match pull.to {
            Some(to) => Some(self.sink(to).await?),
            None => None,
        };
        let image = pull::pull(self.blobs, &cid, &options, sink, self.events).await.map_err(|error| explain(&error))?;
        let Pushed { cid, name, digest, size } = pushed(&image);
        let name = options.name.map(|name| name.familiar()).or(name);
        Ok((Reply::Pulled(Pulled { cid, name, digest, size, to }), image))
    }

    /// Writes an image that is here to a place.
    pub(super) async fn save(
        mut self,
        image: Reference,
        to: Location,
        wanted: PlatformChoice,
    ) -> Result<Reply, Failure> {
        let image = self.resolve(&image).await?;
        let platforms = match wanted {
            PlatformChoice::Host => image.platforms(),
            wanted => platforms(&wanted)?,
        };
        let shown = to.to_string();
        let sink = self.sink(to).await?;
        let name = image.own_name();
        let saved = save::save(self.blobs, &image.root, &platforms, name.as_ref(), sink, self.events).await;
        saved.map_err(|error| explain(&error))?;
        let size = image.note.as_ref().map_or(0, |note| note.size);
        Ok(Reply::Saved(Saved { cid: text(&image.root), to: shown, size }))
    }

    /// Lists what is here.
    pub(super) async fn list(self) -> Result<Reply, Failure> {
        let images = names::list(self.blobs.records()).await.map_err(|error| explain(&error))?;
        let mut rows = Vec::new();
        for image in &images {
            let mut row = row(image);
            if row.platforms.is_empty() {
                row.platforms = self.configured_platforms(image).await;
            }
            rows.push(row);
        }
        Ok(Reply::Images(rows))
    }

    /// The platforms that the configurations of an image name, for one whose documents do not: a single manifest. Of an
    /// image that cannot be read, none.
    async fn configured_platforms(&self, image: &Image) -> Vec<String> {
        let seen = inspect::inspect(self.blobs, &image.root, &Platforms::All).await;
        let configs = seen.map(|seen| seen.configs).unwrap_or_default();
        let mut platforms: Vec<_> = configs.iter().map(|config| config.parsed.platform.to_string()).collect();
        platforms.dedup();
        platforms
    }

    /// Gives an image one more name.
    pub(super) async fn tag(self, image: Reference, name: &str) -> Result<Reply, Failure> {
        let name = parse_name(name)?;
        let image = names::tag(self.blobs.records(), &image, &name).await.map_err(|error| explain(&error))?;
        Ok(Reply::Tagged(Tagged { cid: text(&image.root), name: name.without_digest().familiar() }))
    }

    /// Lets go of names: all, or none when one of them is not here.
    pub(super) async fn remove(self, references: Vec<Reference>) -> Result<Reply, Failure> {
        for reference in &references {
            self.resolve(reference).await?;
        }
        let mut removed: Vec<String> = Vec::new();
        for reference in &references {
            loop {
                match names::remove(self.blobs.records(), reference).await {
                    Ok(image) => removed.push(image.own_name().map_or(image.name, |name| name.familiar())),
                    // Two references may have meant the same image.
                    Err(NamesError::Unknown { .. }) => break,
                    Err(error) => return Err(explain(&error)),
                }
                // A name is one name; a CID or a digest means every name of that image.
                if matches!(reference, Reference::Name(_)) {
                    break;
                }
            }
        }
        Ok(Reply::Removed(Removed { removed }))
    }

    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Image, Failure> {
        names::resolve(self.blobs.records(), reference).await.map_err(|error| explain(&error))
    }

    async fn open(&mut self, place: Location) -> Result<Arc<dyn source::Source>, Failure> {
        let (spool, stream) = (self.spool.to_owned(), self.stream.take());
        let opened = blocking(move || {
            let stream = stream.map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>);
            source::open(&place, stream, &spool)
        });
        opened.await.map(Arc::from).map_err(|error| explain(&error))
    }

    async fn sink(&mut self, to: Location) -> Result<Box<dyn sink::Sink>, Failure> {
        let stream = self.stream.take();
        let opened = blocking(move || {
            let stream = stream.map(|stream| Box::new(stream) as Box<dyn std::io::Write + Send>);
            sink::open(&to, stream)
        });
        opened.await.map_err(|error| explain(&error))
    }
}

/// Whether a push failed since its source lacks a blob.
fn is_missing(error: &PushError) -> bool {
    match error {
        PushError::Source(SourceError::Missing { .. }) => true,
        PushError::Plan(plan) => matches!(&**plan, crate::plan::PlanError::Read(inner) if is_missing(inner)),
        _ => false,
    }
}

/// A source that is no image here may be a file whose form was not said.
fn not_stored(error: &NamesError, reference: &Reference) -> Failure {
    let failure = explain(error);
    match (error, reference) {
        (NamesError::Unknown { .. }, Reference::Name(_)) => {
            failure.hint("name a file as `docker-archive:FILE` or `oci-archive:FILE`, a directory as `oci:DIRECTORY`")
        }
        _ => failure,
    }
}

fn parse_name(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: crate::reference::ReferenceError| Failure::from_error(FailureKind::Usage, &error))
}

fn platforms(choice: &PlatformChoice) -> Result<Platforms, Failure> {
    match choice {
        PlatformChoice::Host => Ok(Platforms::Host),
        PlatformChoice::All => Ok(Platforms::All),
        PlatformChoice::Only(list) => {
            Platforms::parse(list).map_err(|error| Failure::from_error(FailureKind::Usage, &error))
        }
    }
}

/// A CID as everybody writes it: version 1 in base32, version 0 as it is.
fn text(cid: &Cid) -> String {
    cid.to_string()
}

fn pushed(image: &Image) -> Pushed {
    let note = image.note.as_ref();
    Pushed {
        cid: text(&image.root),
        name: image.own_name().map(|name| name.familiar()),
        digest: note.map(|note| note.digest.to_string()).unwrap_or_default(),
        size: note.map_or(0, |note| note.size),
    }
}

fn row(image: &Image) -> ImageRow {
    let Pushed { cid, name, digest, size } = pushed(image);
    let shape = image.note.as_ref().map(|note| note.shape);
    let platforms = image.note.as_ref().map(|note| note.platforms.clone()).unwrap_or_default();
    ImageRow { name, cid, digest, shape, platforms, size, incomplete: image.incomplete }
}
