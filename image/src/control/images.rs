//! The verbs about images, over the seam to storage.
//!
//! Imports the operations of this crate and nothing of nodes or sockets: turns a request into their arguments and what
//! they give into a reply.

use std::{fs::File, path::Path, sync::Arc};

use shipfs_node::Cid;

use super::{
    Copied, Failure, FailureKind, ImageRow, PlatformChoice, Pull, Pulled, Push, Pushed, Removed, Reply, Request, Saved,
    Source, Tagged, explain::explain, find::find,
};
use crate::{
    blobs::{Blobs, Records},
    bring::blocking,
    copy,
    crypt::{Change, warn_of_open},
    event::{Event, EventSink},
    inspect,
    layer::estargz::CHUNK_RANGE,
    location::{Format, Location},
    names::{self, Image, NamesError, Shape},
    oci::{Platforms, descriptor},
    pull::{self, PullOptions},
    push::{self, Conversion, Naming, PushError, PushFrom, PushOptions},
    reference::{Name, Reference},
    save,
    services::Services,
    sink,
    source::{self, Aside, SourceError},
};

/// What the verbs work with.
pub(super) struct Images<'v> {
    pub(super) blobs: &'v dyn Blobs,
    /// Where images that are to be pushed may be as well.
    pub(super) also: Option<&'v dyn Records>,
    /// Where what can be read only once is kept.
    pub(super) aside: Aside,
    /// A folder for files without names.
    pub(super) spool: &'v Path,
    /// The standard stream of the user's process, if the verb reads or writes it.
    pub(super) stream: Option<File>,
    /// Where the services of other programs are.
    pub(super) services: &'v Services,
    /// Whether no network may be used.
    pub(super) is_offline: bool,
    /// Whether nobody outside a private network may be asked unless its user names them.
    pub(super) is_private: bool,
    pub(super) events: &'v dyn EventSink,
}

impl Images<'_> {
    /// Takes an image in. Gives it back too, for whoever announces it.
    pub(super) async fn push(mut self, push: Push) -> Result<(Reply, Image), Failure> {
        match (&mut self.aside, &push.change) {
            // What is sealed on its way in is not stored as it was.
            (aside, Change::Encrypt { .. }) => *aside = Aside::Folder(self.spool.to_owned()),
            (Aside::Store(store), _) => store.wants_layouts = push.shape == Shape::Layout,
            (Aside::Folder(_), _) => {}
        }
        let (from, _) = self.origin(push.source).await?;
        let naming = match push.name {
            Some(name) => Naming::As(parse_name(&name)?),
            None => Naming::Source,
        };
        let estargz = push.estargz.map(|chunk_bytes| self.conversion(chunk_bytes)).transpose()?;
        match &push.change {
            Change::None => {}
            Change::Encrypt { keys, .. } => warn_of_open(keys, self.events),
            Change::Decrypt { keys, .. } => {
                warn_of_open(keys, self.events);
                let told = "the image is one like any other now: while this node serves, whoever knows its CID gets it";
                self.events.emit(Event::Warning(told.to_owned()));
            }
        }
        let platforms = platforms(&push.platforms)?;
        let options = PushOptions { platforms, shape: push.shape, naming, estargz, change: push.change };
        let image = push::push(self.blobs, &from, &options, self.events).await.map_err(|error| explain(&error))?;
        Ok((Reply::Pushed(pushed(&image)), image))
    }

    /// How layers become eStargz.
    fn conversion(&self, chunk_bytes: u64) -> Result<Conversion, Failure> {
        if CHUNK_RANGE.contains(&chunk_bytes) {
            return Ok(Conversion { chunk_bytes, ..Conversion::new(self.spool.to_owned()) });
        }
        let (least, most) = CHUNK_RANGE.into_inner();
        let message = format!("chunks of {chunk_bytes} bytes: expected {least} to {most}");
        Err(Failure::new(FailureKind::Usage, message))
    }

    /// Where an image is, and what it is called in the store: in the store, or in the place that was named; an image that is
    /// called by its name alone may be with other programs, too.
    async fn origin(&mut self, source: Source) -> Result<(PushFrom, Option<Name>), Failure> {
        let reference = match source {
            Source::Place(place) => {
                let wanted = place.wanted().map(str::to_owned);
                return Ok((PushFrom::Source(self.open(place).await?, wanted), None));
            }
            Source::Stored(reference) => reference,
        };
        let mut found = names::resolve(self.blobs.records(), &reference).await;
        if let (Err(NamesError::Unknown { .. }), Some(also)) = (&found, self.also) {
            found = names::resolve(also, &reference).await;
        }
        match (found, &reference) {
            (Ok(image), _) => Ok((PushFrom::Stored(image.root), image.own_name())),
            (Err(error @ NamesError::Unknown { .. }), Reference::Name(name)) => {
                let found =
                    find(name, self.services, &self.aside, self.is_offline || self.is_private, self.events).await;
                let found = found.ok_or_else(|| not_stored(&error, &reference))?;
                Ok((PushFrom::Source(found, None), Some(name.clone())))
            }
            (Err(error), _) => Err(not_stored(&error, &reference)),
        }
    }

    /// Copies an image from one place to another.
    pub(super) async fn copy(mut self, from: Source, to: Location, wanted: &PlatformChoice) -> Result<Reply, Failure> {
        let is_stored = matches!(from, Source::Stored(_));
        let mut known: Vec<Name> = match &from {
            Source::Place(Location { format: Format::Docker, image: Some(image), .. }) => {
                image.parse().into_iter().collect()
            }
            _ => Vec::new(),
        };
        let (from, name) = self.origin(from).await?;
        let platforms = match (wanted, is_stored, &from) {
            // What is here of an image is what was chosen when it came.
            (PlatformChoice::Host, true, PushFrom::Stored(_)) => Platforms::All,
            (wanted, ..) => platforms(wanted)?,
        };
        known.extend(self.known_names().await?);
        let shown = to.to_string();
        let sink = self.sink(to, known).await?;
        let copied = copy::copy(self.blobs, &from, &platforms, name.as_ref(), sink, self.events).await;
        let copied = copied.map_err(|error| explain(&error))?;
        Ok(Reply::Copied(Copied { digest: copied.digest.to_string(), to: shown, size: copied.size }))
    }

    /// The names of what is here: a registry that gave an image knows its blobs.
    async fn known_names(&self) -> Result<Vec<Name>, Failure> {
        let images = names::list(self.blobs.records()).await.map_err(|error| explain(&error))?;
        Ok(images.iter().filter_map(Image::own_name).collect())
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
        let options = PullOptions { platforms: platforms(&pull.platforms)?, name, record, keys: pull.keys };
        let to = pull.to.as_ref().map(Location::to_string);
        let sink = match pull.to {
            Some(to) => {
                let known = self.known_names().await?;
                Some(self.sink(to, known).await?)
            }
            None => None,
        };
        let image = pull::pull(self.blobs, &cid, &options, sink, self.events).await.map_err(|error| explain(&error))?;
        let Pushed { cid, name, digest, size } = pushed(&image);
        let name = options.name.map(|name| name.familiar()).or(name);
        Ok((Reply::Pulled(Pulled { cid, name, digest, size, to }), image))
    }

    /// Writes an image to a place, and keeps nothing of it.
    pub(super) async fn pull_through(mut self, pull: Pull) -> Result<Reply, Failure> {
        let (Reference::Cid(cid), Some(to)) = (&pull.image, pull.to) else {
            let hint = "only a CID can be pulled from others; ask whoever pushed it";
            let reference = pull.image.to_string();
            return Err(explain(&NamesError::Unknown { reference }).hint(hint));
        };
        let name = pull.name.as_deref().map(parse_name).transpose()?;
        let options = PullOptions { platforms: platforms(&pull.platforms)?, name, record: None, keys: pull.keys };
        let shown = to.to_string();
        let known = self.known_names().await?;
        let sink = self.sink(to, known).await?;
        let pulled = pull::through(self.blobs, cid, &options, sink, self.events).await;
        let Pushed { cid, digest, size, .. } = pushed(&pulled.map_err(|error| explain(&error))?);
        Ok(Reply::Pulled(Pulled { cid, name: None, digest, size, to: Some(shown) }))
    }

    /// Answers what is the same whoever keeps the images.
    pub(super) async fn answer(self, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Save { image, to, platforms } => self.save(image, to, platforms).await,
            Request::Images => self.list().await,
            Request::Tag { image, name } => self.tag(image, &name).await,
            Request::Remove { images } => self.remove(images).await,
            Request::Inspect { image } => {
                let image = self.resolve(&image).await?;
                super::inspect::inspect(self.blobs, &image).await
            }
            other => Err(Failure::new(FailureKind::Other, format!("{other:?} is not about images"))),
        }
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
        let known = self.known_names().await?;
        let sink = self.sink(to, known).await?;
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
        self.check_network(&place)?;
        let (aside, stream, services) = (self.aside.clone(), self.stream.take(), self.services.clone());
        let opened = blocking(move || {
            let stream = stream.map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>);
            source::open_with(&place, stream, &aside, &services)
        });
        opened.await.map(Arc::from).map_err(|error| explain(&error))
    }

    /// A registry is reached over the network, which its user may have ruled out.
    fn check_network(&self, place: &Location) -> Result<(), Failure> {
        if !(self.is_offline && place.format == Format::Docker) {
            return Ok(());
        }
        let message = format!("`{place}` is reached over the network, and none may be used");
        Err(Failure::new(FailureKind::Network, message).hint("leave --offline out"))
    }

    async fn sink(&mut self, to: Location, known: Vec<Name>) -> Result<Box<dyn sink::Sink>, Failure> {
        self.check_network(&to)?;
        let (stream, services) = (self.stream.take(), self.services.clone());
        let opened = blocking(move || {
            let stream = stream.map(|stream| Box::new(stream) as Box<dyn std::io::Write + Send>);
            sink::open_with(&to, stream, &services, &known)
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

pub(super) fn parse_name(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: crate::reference::ReferenceError| Failure::from_error(FailureKind::Usage, &error))
}

pub(super) fn platforms(choice: &PlatformChoice) -> Result<Platforms, Failure> {
    choice.parse().map_err(|error| Failure::from_error(FailureKind::Usage, &error))
}

/// A CID as everybody writes it: version 1 in base32, version 0 as it is.
fn text(cid: &Cid) -> String {
    cid.to_string()
}

pub(super) fn pushed(image: &Image) -> Pushed {
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
