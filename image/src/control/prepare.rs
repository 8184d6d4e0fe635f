//! Makes an image ready to be run: pulled if need be, its layers unpacked, its configuration told.
//!
//! Imports [`run::layers`](crate::run::layers), which says where layers lie, and what brings blobs. A layer is unpacked once,
//! by the holder, whatever asks for it; a container that is being made is told which layers it uses before anybody could
//! remove them.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use shipfs_node::node::Node;
use tokio::sync::OwnedMutexGuard;

use super::{Failure, FailureKind, PlatformChoice, explain::explain, images::platforms, local::LocalBlobs};
use crate::{
    blobs::{Blobs, Expected, embedded::EmbeddedBlobs},
    bring::{Bringer, blocking},
    crypt::{Changed, KeyFile, Selection, any_encrypted, warn_of_open},
    event::{Event, EventSink},
    inspect,
    layer::ApplyError,
    names::{self, Image},
    oci::Platforms,
    plan::Plan,
    reference::Reference,
    root::Root,
    run::{
        RunError, RunnableError,
        keeper::{Keeper, Nameless, cannot_unpack},
        layers,
        layers::Removed,
        lifecycle::used_layers,
        runnable::{Layer, Parts, Runnable},
        state::{Container, ContainerImage},
    },
};

/// Held by whoever changes the directories of layers. Work that is cut off goes on in its thread, and holds it until then.
pub(super) type Unpacking = Arc<OwnedMutexGuard<()>>;

/// What is to be made ready.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub(super) reference: &'w Reference,
    pub(super) choice: &'w PlatformChoice,
    /// What opens its layers.
    pub(super) keys: &'w [KeyFile],
}

/// One platform's image, found in the store.
struct Found {
    image: Image,
    plan: Plan,
    runnable: Runnable,
}

/// Unpacks the layers of an image that is here, and writes down what the container `id` is made of. Whoever calls sees to
/// it that nothing is collected meanwhile.
pub(super) async fn prepare(
    node: &Node,
    wanted: Wanted<'_>,
    id: &str,
    (keeper, held): (&Keeper, &Unpacking),
    events: &dyn EventSink,
) -> Result<ContainerImage, Failure> {
    let blobs = LocalBlobs(EmbeddedBlobs::new(node.clone()));
    let repository = node.config().repository.clone();
    let container = Container::by_id(&repository, id)
        .ok_or_else(|| Failure::new(FailureKind::Usage, "a container has a malformed identifier"))?;
    let found = find(&blobs, wanted.reference, wanted.choice).await?;
    // Also where the layers are unpacked already: that somebody could read them once gives nobody else the right to.
    let changed = decrypted(&found, wanted.keys, events).await?;
    let found = match &changed {
        Some(changed) => found.opened(changed, wanted.choice)?,
        None => found,
    };
    unpack_missing(&blobs, &found, changed.as_ref(), (keeper, held), events).await?;
    let image = ContainerImage {
        cid: found.image.root.to_string(),
        name: found.image.own_name().map(|name| name.familiar()),
        layers: found.runnable.layers.into_iter().map(|layer| layer.chain).collect(),
        config: found.runnable.config,
    };
    let written = image.clone();
    let written = blocking(move || container.write("image.json", &written)).await;
    written.map_err(|error| error.failure())?;
    Ok(image)
}

/// Whether all of an image is here that running it needs.
pub(super) async fn is_here(
    node: &Node,
    reference: &Reference,
    choice: &PlatformChoice,
    keeper: &Keeper,
) -> Result<(), Failure> {
    let blobs = LocalBlobs(EmbeddedBlobs::new(node.clone()));
    let found = find(&blobs, reference, choice).await?;
    for Layer { chain, blob, .. } in found.runnable.layers {
        let Some(digest) = blob.digest.sha256() else { continue };
        let expected = Expected { digest, size: blob.size };
        let is_here = keeper.layers().has(&chain) || blob.inlined().is_some() || {
            blobs.find(&expected.digest, Some(expected.size)).await.map_err(|error| explain(&error))?.is_some()
        };
        if !is_here {
            let text = format!("layer `{}` of the image is not here", blob.digest);
            return Err(Failure::new(FailureKind::NotFound, text));
        }
    }
    Ok(())
}

/// Removes the layers that no image and no container uses.
pub(super) async fn collect(node: &Node, keeper: &Keeper, held: &Unpacking) -> Result<Removed, Failure> {
    let blobs = LocalBlobs(EmbeddedBlobs::new(node.clone()));
    let repository = node.config().repository.clone();
    let mut kept = BTreeSet::new();
    for image in names::list(blobs.records()).await.map_err(|error| explain(&error))? {
        // An image that cannot be looked at may need any of them.
        let Ok(seen) = inspect::inspect(&blobs, &image.root, &image.platforms()).await else {
            return Ok(Removed::default());
        };
        for config in seen.configs {
            kept.extend(config.parsed.diff_ids().map(|ids| layers::chain_ids(&ids)).unwrap_or_default());
        }
    }
    let (keeper, held) = (keeper.clone(), held.clone());
    let removed = blocking(move || {
        let _held = held;
        kept.extend(used_layers(&repository).map_err(|error| error.failure())?);
        keeper.collect(&kept)
    });
    removed.await
}

/// Finds the one platform of an image that is to be run.
async fn find(blobs: &dyn Blobs, reference: &Reference, choice: &PlatformChoice) -> Result<Found, Failure> {
    let image = names::resolve(blobs.records(), reference).await.map_err(|error| explain(&error))?;
    let root = Root::open(blobs, &image.root).await.map_err(|error| explain(&error))?;
    let bringer = Bringer::new(blobs, &root, &());
    let wanted: Platforms = platforms(choice)?;
    let plan = inspect::plan(&bringer, &root, &wanted.for_pull()).await.map_err(|error| explain(&error))?;
    let parts = Parts::of(&plan).map_err(|error| RunError::from(error).failure())?;
    let bytes = bringer.document(parts.config).await.map_err(|error| explain(&error))?;
    let runnable = Runnable::new(&bytes, &parts, &wanted).map_err(|error| RunError::from(error).failure())?;
    Ok(Found { image, plan, runnable })
}

/// The image with its layers open, if it has any that need it. Without a key it cannot be run.
async fn decrypted(found: &Found, keys: &[KeyFile], events: &dyn EventSink) -> Result<Option<Changed>, Failure> {
    if !any_encrypted(&found.plan) {
        return Ok(None);
    }
    warn_of_open(keys, events);
    let changed = Changed::decrypted(&found.plan, keys, &Selection::default()).await;
    changed.map(Some).map_err(|error| explain(&error))
}

impl Found {
    /// The same image with its layers open.
    fn opened(self, changed: &Changed, choice: &PlatformChoice) -> Result<Self, Failure> {
        let refused = |error: RunnableError| RunError::from(error).failure();
        let parts = Parts::of(&changed.plan).map_err(refused)?;
        let config = self.runnable.config.into();
        let runnable = Runnable::new(&config, &parts, &platforms(choice)?).map_err(refused)?;
        Ok(Self { runnable, ..self })
    }
}

/// Unpacks the layers that are not there yet, several at a time, and names them from the lowest up.
async fn unpack_missing(
    blobs: &dyn Blobs,
    found: &Found,
    changed: Option<&Changed>,
    (keeper, held): (&Keeper, &Unpacking),
    events: &dyn EventSink,
) -> Result<(), Failure> {
    let chains: Vec<String> = found.runnable.layers.iter().map(|layer| layer.chain.clone()).collect();
    let (looking, all) = (keeper.clone(), chains.clone());
    let missing = blocking(move || {
        looking.tidy()?;
        let is_missing = |(at, chain): (usize, &String)| (!looking.layers().has(chain)).then_some(at);
        Ok(all.iter().enumerate().filter_map(is_missing).collect::<Vec<_>>())
    });
    let missing = missing.await?;
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(note) = keeper.note() {
        events.emit(Event::Warning(note.to_owned()));
    }
    let root = Root::open(blobs, &found.image.root).await.map_err(|error| explain(&error))?;
    let bringer = Bringer::new(blobs, &root, &());
    let unpacking: Vec<_> =
        missing.iter().map(|at| stage(&bringer, changed, keeper, &found.runnable.layers[*at], held)).collect();
    let at_a_time = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let staged: Vec<Nameless> = stream::iter(unpacking).buffered(at_a_time).try_collect().await?;
    let (naming, held) = (keeper.clone(), held.clone());
    let named = blocking(move || {
        let _held = held;
        let name = |(at, staged): (usize, Nameless)| naming.name(staged, &chains[at], &chains[..at]);
        missing.into_iter().zip(staged).map(name).collect::<Result<Vec<_>, _>>()
    });
    for layer in named.await? {
        layer.warnings.into_iter().for_each(|warning| events.emit(Event::Warning(warning)));
        if layer.more > 0 {
            events.emit(Event::Warning(format!("{} more files of this layer are not quite as they were", layer.more)));
        }
    }
    Ok(())
}

/// Unpacks one layer beside its place.
async fn stage(
    bringer: &Bringer<'_>,
    changed: Option<&Changed>,
    keeper: &Keeper,
    Layer { diff, blob, .. }: &Layer,
    held: &Unpacking,
) -> Result<Nameless, Failure> {
    let body = bringer.body(blob, changed).await.map_err(|error| explain(&error))?;
    let (keeper, diff, media_type, held) = (keeper.clone(), diff.clone(), blob.media_type.clone(), held.clone());
    let unpacked = blocking(move || {
        let _held = held;
        let reader = body.open().map_err(|error| cannot_unpack(&ApplyError::Read(error)))?;
        keeper.unpack(reader, &media_type, &diff)
    });
    unpacked.await.map_err(|failure| failure.while_doing(format!("cannot unpack layer `{}`", blob.digest)))
}
