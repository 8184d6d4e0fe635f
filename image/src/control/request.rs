//! What a user asks for, as plain data that survives a socket.
//!
//! A [`Request`] is one verb with its arguments, an [`Options`] what every verb takes. Imports the words for places and
//! references. Paths in here are absolute, since the process that carries a request out has a directory of its own;
//! nothing here touches a disk.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::IpfsDaemon;
use crate::{
    crypt::{Change, KeyFile},
    location::{Location, Place},
    names::Shape,
    oci::{PlatformError, Platforms},
    reference::Reference,
    services::Services,
};

/// One verb with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "arguments", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Takes an image in and gives it a CID.
    Push(Push),
    /// Makes an image local, and writes it elsewhere if asked to.
    Pull(Pull),
    /// Makes an image ready to be run, for a container that is being made.
    Prepare(Prepare),
    /// Makes an image of a container.
    Commit(Commit),
    /// Lists the images that are here.
    Images,
    /// Describes one image that is here.
    Inspect {
        /// The image.
        image: Reference,
    },
    /// Gives an image one more name.
    Tag {
        /// The image.
        image: Reference,
        /// The new name, as the user wrote it.
        name: String,
    },
    /// Lets go of names, or of everything that is kept under a root.
    Remove {
        /// The images.
        images: Vec<Reference>,
    },
    /// Copies an image to a place, as it is.
    Copy {
        /// Where it comes from.
        from: Source,
        /// Where to.
        to: Location,
        /// What to copy of an image for several platforms.
        platforms: PlatformChoice,
    },
    /// Writes an image that is here to a place.
    Save {
        /// The image.
        image: Reference,
        /// Where to.
        to: Location,
        /// What to write of an image for several platforms; what is here, when no word is said.
        platforms: PlatformChoice,
    },
    /// Takes every image of an archive in under the name it has there.
    Load {
        /// The archive.
        from: Location,
    },
    /// Frees what nothing keeps.
    Gc,
    /// Checks every byte of the repository.
    Verify {
        /// Whether damaged files are moved away, to be fetched anew.
        repair: bool,
    },
    /// Says who this node is.
    Id,
    /// Lists the peers that are connected.
    Peers,
    /// Tells where something lies, or who was asked for it and what they said.
    Why {
        /// What is asked about: the block or file of a CID, the root of an image.
        image: Reference,
        /// Whether it is asked for once more, though it was before.
        again: bool,
    },
    /// Checks whether this node can do its work.
    Doctor,
    /// Serves what the repository holds until it is cancelled; its reply never comes.
    Serve {
        /// What the user wants to be found.
        root: Reference,
    },
    /// Answers the clients of registries until it is cancelled; its reply never comes.
    Registry(Registry),
}

/// Arguments of [`Request::Registry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Host and port to listen on.
    pub listen: String,
    /// How long to wait while nothing arrives from peers; as long as the node does, if absent.
    pub read_timeout: Option<Duration>,
    /// How often a read that failed for want of an answer is tried again.
    pub read_retries: u32,
    /// File with the token that pushing needs.
    pub token_file: Option<PathBuf>,
}

/// Arguments of [`Request::Push`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Where the image comes from.
    pub source: Source,
    /// What to call it here; the name it has there, if absent.
    pub name: Option<String>,
    /// What its root is.
    pub shape: Shape,
    /// What to take of an image for several platforms.
    pub platforms: PlatformChoice,
    /// Bytes of a chunk, when its layers are to become eStargz.
    #[serde(default)]
    pub estargz: Option<u64>,
    /// What becomes of its layers.
    #[serde(default)]
    pub change: Change,
}

/// Arguments of [`Request::Pull`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The image.
    pub image: Reference,
    /// What to call it here, besides its CID.
    pub name: Option<String>,
    /// Where to write it once it is here.
    pub to: Option<Location>,
    /// What to take of an image for several platforms.
    pub platforms: PlatformChoice,
    /// What opens its layers, for where it is written.
    #[serde(default)]
    pub keys: Vec<KeyFile>,
}

/// Arguments of [`Request::Prepare`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The image.
    pub image: Reference,
    /// When to fetch it.
    pub pull: PullPolicy,
    /// Which platform of it, if not this host's.
    pub platforms: PlatformChoice,
    /// Identifier of the container, which lies in the repository already.
    pub container: String,
    /// What opens its layers.
    #[serde(default)]
    pub keys: Vec<KeyFile>,
}

/// Arguments of [`Request::Commit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Identifier of the container, which lies in the repository.
    pub container: String,
    /// What to call the image here, besides its CID.
    pub name: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// Instructions of a Dockerfile that change its configuration.
    pub changes: Vec<String>,
    /// Whether its layer is left uncompressed.
    pub uncompressed: bool,
    /// Whether a container that runs goes on while its files are read.
    pub unpaused: bool,
}

/// When to fetch an image that is to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When it is not here.
    #[default]
    Missing,
    /// In any case; what is here is not fetched again.
    Always,
    /// Never.
    Never,
}

/// Where a pushed image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A place outside the store.
    Place(Location),
    /// An image that is here.
    Stored(Reference),
}

/// Which platforms of an image are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformChoice {
    /// This host's; no word was said.
    #[default]
    Host,
    /// Every one.
    All,
    /// These, as the user wrote them; each may be a comma list.
    Only(Vec<String>),
}

impl PlatformChoice {
    /// The same, understood.
    ///
    /// # Errors
    /// [`PlatformError`] when one of them is no platform.
    pub(crate) fn parse(&self) -> Result<Platforms, PlatformError> {
        match self {
            Self::Host => Ok(Platforms::Host),
            Self::All => Ok(Platforms::All),
            Self::Only(list) => Platforms::parse(list),
        }
    }
}

/// What every verb takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The network to use; when absent, the one the holder is part of, else the local one.
    pub network: Option<NetworkChoice>,
    /// Addresses of peers to connect to, as multiaddresses.
    pub peers: Vec<String>,
    /// Addresses to listen on, as multiaddresses.
    pub listen: Vec<String>,
    /// Whether to search the local network by mDNS and be found by it; when absent, as the network does: `lan` does,
    /// `private` does not.
    #[serde(default)]
    pub mdns: Option<bool>,
    /// How long to wait for a peer while nothing arrives.
    pub patience: Option<Duration>,
    /// Where the services of other programs are.
    #[serde(default)]
    pub services: Services,
    /// The file of the private network's key, absolute; when absent, the repository's.
    #[serde(default)]
    pub swarm_key: Option<PathBuf>,
    /// Whether no network may be entered but a private one.
    #[serde(default)]
    pub private_only: bool,
    /// The daemon of somebody else's that does the work; this node does, when absent.
    #[serde(default)]
    pub daemon: Option<IpfsDaemon>,
    /// What the repository's own configuration says. It counts where the user said nothing, for a process that enters a
    /// network by itself: never for one that works through a holder that did.
    #[serde(default)]
    pub configured: Option<Box<Options>>,
}

impl Options {
    /// Makes every path absolute, as seen from `directory`.
    pub fn anchor(&mut self, directory: &Path) {
        if let Some(path) = &mut self.swarm_key {
            *path = anchored(directory, path);
        }
    }

    /// What counts for a process that enters a network by itself. Peers, addresses to listen on and mDNS were configured
    /// for the network that was: where the user names another one, they are left out.
    pub fn settled(&self) -> Self {
        let Some(configured) = self.configured.as_deref() else { return self.clone() };
        let mut settled = Self { configured: None, ..self.clone() };
        settled.patience = self.patience.or(configured.patience);
        // A key that is named names its network.
        let said = self.network.or(self.swarm_key.is_some().then_some(NetworkChoice::Private));
        match (said, configured.network) {
            (Some(NetworkChoice::Offline), _) => return settled,
            (Some(said), Some(configured)) if said != configured => return settled,
            _ => {}
        }
        settled.network = said.or(configured.network);
        settled.mdns = self.mdns.or(configured.mdns);
        if settled.peers.is_empty() {
            settled.peers = configured.peers.clone();
        }
        if settled.listen.is_empty() {
            settled.listen = configured.listen.clone();
        }
        settled
    }
}

/// A network by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChoice {
    /// Peers on this host's own links.
    Lan,
    /// Those who hold the repository's swarm key.
    Private,
    /// Nobody: no network socket is opened.
    Offline,
}

impl Request {
    /// Which standard stream of the user's process the verb reads or writes.
    pub fn stream(&self) -> Option<Stream> {
        let is_standard = |location: &Location| location.place == Place::Standard;
        match self {
            Self::Push(Push { source: Source::Place(from), .. }) | Self::Load { from } if is_standard(from) => {
                Some(Stream::Input)
            }
            // One stream comes along: an archive from stdin to stdout is copied by nobody.
            Self::Copy { from: Source::Place(from), .. } if is_standard(from) => Some(Stream::Input),
            Self::Pull(Pull { to: Some(to), .. }) | Self::Save { to, .. } | Self::Copy { to, .. }
                if is_standard(to) =>
            {
                Some(Stream::Output)
            }
            _ => None,
        }
    }

    /// Whether the verb goes on until it is cancelled.
    pub fn is_endless(&self) -> bool {
        matches!(self, Self::Serve { .. } | Self::Registry(_))
    }

    /// Makes every path absolute, as seen from `directory`.
    pub fn anchor(&mut self, directory: &Path) {
        if let Self::Registry(registry) = self {
            registry.anchor(directory);
        }
        let places = match self {
            Self::Push(Push { source: Source::Place(place), .. }) | Self::Load { from: place } => vec![place],
            Self::Pull(Pull { to: Some(place), .. }) | Self::Save { to: place, .. } => vec![place],
            Self::Copy { from: Source::Place(from), to, .. } => vec![from, to],
            Self::Copy { to, .. } => vec![to],
            _ => return,
        };
        for place in places {
            if let Place::Path(path) = &mut place.place {
                *path = anchored(directory, path);
            }
        }
    }
}

impl Registry {
    /// Makes every path absolute, as seen from `directory`.
    pub fn anchor(&mut self, directory: &Path) {
        if let Some(path) = &mut self.token_file {
            *path = anchored(directory, path);
        }
    }
}

/// A path as seen from `directory`. Symbolic links and `..` are left to whoever opens it.
fn anchored(directory: &Path, path: &Path) -> PathBuf {
    directory.join(path)
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::Selection;

    fn save(to: &str) -> Request {
        Request::Save {
            image: "alpine".parse().expect("a name"),
            to: to.parse().expect("a location"),
            platforms: PlatformChoice::Host,
        }
    }

    #[test]
    fn requests_survive_json() {
        let push = Request::Push(Push {
            source: Source::Place("oci:/a:tag".parse().expect("a location")),
            name: Some("x".into()),
            shape: Shape::Layout,
            estargz: Some(4096),
            platforms: PlatformChoice::Only(vec!["linux/amd64".into()]),
            change: Change::None,
        });
        let stored = Request::Push(Push {
            source: Source::Stored("alpine:3".parse().expect("a name")),
            name: None,
            shape: Shape::Descriptor,
            estargz: None,
            platforms: PlatformChoice::All,
            change: Change::Decrypt { keys: Vec::new(), layers: Selection(vec![0, -1]) },
        });
        for request in [push, stored, save("oci-archive:-"), Request::Images, Request::Verify { repair: true }] {
            let text = serde_json::to_string(&request).expect("serialises");
            assert_eq!(serde_json::from_str::<Request>(&text).expect("parses"), request, "{text}");
        }
    }

    #[test]
    fn what_is_configured_counts_where_nothing_was_said() {
        let configured = Options {
            network: Some(NetworkChoice::Private),
            peers: vec!["/ip4/192.0.2.1/tcp/1".into()],
            listen: vec!["/ip4/0.0.0.0/tcp/2".into()],
            mdns: Some(true),
            patience: Some(Duration::from_secs(5)),
            ..Options::default()
        };
        let with = |said: Options| Options { configured: Some(Box::new(configured.clone())), ..said }.settled();
        assert_eq!(with(Options::default()), configured);
        let peers = vec!["/ip4/192.0.2.9/tcp/9".to_owned()];
        let said = with(Options { peers: peers.clone(), mdns: Some(false), ..Options::default() });
        assert_eq!(said, Options { peers, mdns: Some(false), ..configured.clone() });
        // Another network has nothing to do with them.
        let lan = Options { network: Some(NetworkChoice::Lan), ..Options::default() };
        assert_eq!(with(lan.clone()), Options { patience: configured.patience, ..lan.clone() });
        let key = Options { swarm_key: Some("/key".into()), ..Options::default() };
        assert_eq!(with(key), Options { swarm_key: Some("/key".into()), ..configured.clone() });
        assert_eq!(lan.settled(), lan);
    }

    #[test]
    fn paths_become_absolute_and_streams_are_left_alone() {
        let anchor = |text: &str| {
            let mut request = save(text);
            request.anchor(Path::new("/home/somebody"));
            request
        };
        assert_eq!(anchor("oci:x"), save("oci:/home/somebody/x"));
        assert_eq!(anchor("oci:/x:tag"), save("oci:/x:tag"));
        assert_eq!(anchor("oci-archive:-"), save("oci-archive:-"));
        assert_eq!(save("oci-archive:-").stream(), Some(Stream::Output));
        assert_eq!(save("oci-archive:x").stream(), None);
        let load = Request::Load { from: "docker-archive:-".parse().expect("a location") };
        assert_eq!(load.stream(), Some(Stream::Input));
    }
}
