//! All layers of an image: which of them are to be sealed or opened, and what the image is with them changed.
//!
//! Imports the layers beside it and [`plan`](crate::plan). What it hands out of an opened layer was authenticated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CryptError, KeyFile, Recipient,
    key::{Private, Public},
    layer::{self, Kind, Lock, Unlocked, is_encrypted},
};
use crate::{
    blobs::{Body, Content, Made},
    bring::blocking,
    event::{Event, EventSink},
    oci::{Descriptor, Digest},
    plan::{Body as Document, Plan},
};

/// What becomes of the layers of an image on its way into the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Change {
    /// They stay as they are.
    #[default]
    None,
    /// They are sealed.
    Encrypt {
        /// Those who can open them afterwards, besides those who can already.
        recipients: Vec<Recipient>,
        /// What opens those that are sealed already.
        keys: Vec<KeyFile>,
        /// Which layers.
        layers: Selection,
    },
    /// They are opened.
    Decrypt {
        /// What opens them.
        keys: Vec<KeyFile>,
        /// Which layers.
        layers: Selection,
    },
}

/// Layers by number: 0 is the lowest, -1 the topmost. None means all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection(pub Vec<i64>);

impl Selection {
    /// The layers of all manifests that are meant, once each.
    fn of<'p>(&self, plan: &'p Plan) -> Result<Vec<&'p Descriptor>, CryptError> {
        let (mut seen, mut chosen, mut most) = (BTreeSet::new(), Vec::new(), 0);
        let mut left: BTreeSet<i64> = self.0.iter().copied().collect();
        for part in plan.documents() {
            let Some(Document::Manifest { layers, .. }) = part.document.as_ref().map(|document| &document.body) else {
                continue;
            };
            let count = layers.len();
            most = most.max(count);
            for (at, part) in layers.iter().enumerate() {
                let from_below = i64::try_from(at).unwrap_or(i64::MAX);
                let from_above = from_below - i64::try_from(count).unwrap_or(i64::MAX);
                let is_meant = self.0.is_empty() || self.0.contains(&from_below) || self.0.contains(&from_above);
                left.remove(&from_below);
                left.remove(&from_above);
                let layer = &plan.parts[*part].descriptor;
                if is_meant && seen.insert(&layer.digest) {
                    chosen.push(layer);
                }
            }
        }
        match left.first() {
            Some(number) => Err(CryptError::NoSuchLayer { number: *number, count: most }),
            None => Ok(chosen),
        }
    }
}

/// Whether an image has layers that only some can read.
pub(crate) fn any_encrypted(plan: &Plan) -> bool {
    plan.blobs().into_iter().any(is_encrypted)
}

/// How an encrypted layer is referred to once it is decrypted with one of the keys. None of its bytes is looked at.
///
/// # Errors
/// [`CryptError`] when it is for none of them, or what is written down about it makes no sense.
pub fn decrypted_layer(layer: &Descriptor, keys: &[KeyFile]) -> Result<Descriptor, CryptError> {
    Ok(Unlocked::new(layer, &private(keys)?)?.plain())
}

/// Says which keys others can read as well.
pub(crate) fn warn_of_open(keys: &[KeyFile], events: &dyn EventSink) {
    for key in keys.iter().filter(|key| key.is_open) {
        events.emit(Event::Warning(format!("others on this host can read the key `{}`: chmod 600 it", key.name)));
    }
}

fn private(keys: &[KeyFile]) -> Result<Vec<Private>, CryptError> {
    keys.iter().map(|key| key.private().map_err(CryptError::from)).collect()
}

/// An image with some of its layers changed: its documents, and what its layers are made of.
#[derive(Clone)]
pub(crate) struct Changed {
    /// The image.
    pub(crate) plan: Plan,
    documents: BTreeMap<Digest, Bytes>,
    opened: BTreeMap<Digest, Arc<Unlocked>>,
}

impl Changed {
    fn new(plan: &Plan, replaced: &BTreeMap<Digest, Descriptor>, opened: BTreeMap<Digest, Arc<Unlocked>>) -> Self {
        let plan = plan.changed(|descriptor| match replaced.get(&descriptor.digest) {
            Some(other) => other.clone(),
            None => descriptor.clone(),
        });
        let bytes =
            |part: &&crate::plan::Part| Some((part.descriptor.digest.clone(), part.document.as_ref()?.bytes.clone()));
        let documents = plan.documents().iter().filter_map(bytes).collect();
        Self { plan, documents, opened }
    }

    /// An image with the layers opened that are meant and sealed, as far as it takes to open their envelopes.
    ///
    /// # Errors
    /// [`CryptError`] when one of them is not for any of the keys. Nothing was read then but documents.
    pub(crate) async fn decrypted(plan: &Plan, keys: &[KeyFile], layers: &Selection) -> Result<Self, CryptError> {
        let (plan, keys, layers) = (plan.clone(), keys.to_vec(), layers.clone());
        blocking(move || {
            let keys = private(&keys)?;
            let (mut replaced, mut opened) = (BTreeMap::new(), BTreeMap::new());
            for sealed in layers.of(&plan)?.into_iter().filter(|layer| is_encrypted(layer)) {
                let unlocked = Unlocked::new(sealed, &keys)?;
                let plain = unlocked.plain();
                opened.insert(plain.digest.clone(), Arc::new(unlocked));
                replaced.insert(sealed.digest.clone(), plain);
            }
            Ok(Self::new(&plan, &replaced, opened))
        })
        .await
    }

    /// The bytes of a document, if that is what a blob is.
    pub(crate) fn document(&self, blob: &Digest) -> Option<Bytes> {
        self.documents.get(blob).cloned()
    }

    /// The sealed layer that an open one is made of.
    pub(crate) fn sealed(&self, blob: &Digest) -> Option<&Descriptor> {
        self.opened.get(blob).map(|unlocked| unlocked.sealed())
    }

    /// An open layer, whose sealed bytes were authenticated just now.
    ///
    /// # Errors
    /// [`CryptError::Tampered`]; [`CryptError::Read`].
    pub(crate) async fn opened(&self, blob: &Digest, sealed: Body) -> Result<Body, CryptError> {
        let Some(unlocked) = self.opened.get(blob).cloned() else { return Ok(sealed) };
        blocking(move || {
            let failed = |source| CryptError::Read { digest: unlocked.sealed().digest.clone(), source };
            unlocked.authenticate(&mut *sealed.open().map_err(failed)?)?;
            Ok(Body::Made(Made::new(move || unlocked.reader(sealed.open()?))))
        })
        .await
    }
}

/// What it takes to seal the layers of an image.
pub(crate) struct Sealer {
    recipients: Vec<Recipient>,
    keys: Vec<KeyFile>,
}

/// A layer that is to be sealed.
pub(crate) struct Sealing {
    plain: Descriptor,
    media_type: String,
    lock: Lock,
}

/// What becomes of a layer.
pub(crate) enum Step {
    /// Its bytes are to be read.
    Seal(Box<Sealing>),
    /// It is referred to in another way, and has the same bytes.
    Refer(Box<Descriptor>),
    /// Nothing, since it is of this type.
    Pass(String),
}

impl Sealer {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`CryptError::NoRecipients`].
    pub(crate) fn new(recipients: &[Recipient], keys: &[KeyFile]) -> Result<Self, CryptError> {
        if recipients.is_empty() {
            return Err(CryptError::NoRecipients);
        }
        Ok(Self { recipients: recipients.to_vec(), keys: keys.to_vec() })
    }

    fn public(recipients: &[Recipient]) -> Result<Vec<Public>, CryptError> {
        recipients.iter().map(|one| one.public().map_err(CryptError::from)).collect()
    }

    /// What becomes of each of the layers that are meant, before any byte of one is read.
    ///
    /// # Errors
    /// [`CryptError`] when one of them cannot be sealed, or is sealed for others.
    pub(crate) async fn steps(&self, plan: &Plan, layers: &Selection) -> Result<Vec<(Digest, Step)>, CryptError> {
        let (plan, layers) = (plan.clone(), layers.clone());
        let (recipients, keys) = (self.recipients.clone(), self.keys.clone());
        blocking(move || {
            let (recipients, keys) = (Self::public(&recipients)?, private(&keys)?);
            let step = |layer: &Descriptor| {
                let step = match layer::kind(layer)? {
                    Kind::Plain(media_type) => {
                        Step::Seal(Box::new(Sealing { plain: layer.clone(), media_type, lock: Lock::new()? }))
                    }
                    Kind::Sealed => Step::Refer(Box::new(layer::add(layer, &keys, &recipients)?)),
                    Kind::Passed => Step::Pass(layer.media_type.clone()),
                };
                Ok((layer.digest.clone(), step))
            };
            layers.of(&plan)?.into_iter().map(step).collect()
        })
        .await
    }

    /// How a layer is referred to that was sealed and has this digest.
    ///
    /// # Errors
    /// [`CryptError`] when it was not read to its end.
    pub(crate) async fn finish(&self, sealing: Sealing, digest: Digest) -> Result<Descriptor, CryptError> {
        let recipients = self.recipients.clone();
        blocking(move || {
            let Sealing { plain, media_type, lock } = sealing;
            lock.descriptor(&plain, &media_type, digest, &Self::public(&recipients)?)
        })
        .await
    }
}

impl Sealing {
    /// The layer as it was.
    pub(crate) fn plain(&self) -> &Descriptor {
        &self.plain
    }

    /// The sealed bytes of the layer. Blocks.
    ///
    /// # Errors
    /// What opening says.
    pub(crate) fn content(&self, plain: Content) -> std::io::Result<Content> {
        Ok(Content::Reader(Box::new(self.lock.reader(plain.into_reader()?, &self.plain)?)))
    }
}

/// An image with layers replaced by sealed ones, which lie in the store.
pub(crate) fn sealed(plan: &Plan, replaced: &BTreeMap<Digest, Descriptor>) -> Changed {
    Changed::new(plan, replaced, BTreeMap::new())
}
